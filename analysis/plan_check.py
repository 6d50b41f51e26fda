"""Is a result confirmatory? The conditions of a frozen plan, one by one, for each hypothesis, and the
hypotheses tested as planned.

Every condition is a rule about the records of the two arms of a hypothesis, and ends as `met`, `not met` or
`cannot be known` (a plan frozen in format 1 says less than is asked here, and records without a ledger or
digests show less). A result is confirmatory where all of them are met. Each row has the way out.

None of this is a lock: who can write the records, the ledger and the plan can write all three anew. It makes
honest work provable, and slips visible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from analysis.errors import Refusal
from analysis.plan import Plan
from analysis.plan_decision import COLUMNS, at_its_look, reached_looks
from analysis.plan_findings import ANY, MET, NOT_MET, UNKNOWN, Arms, Finding
from analysis.plan_history import (
    after_the_freeze,
    carry_the_hash,
    complete,
    frozen,
    frozen_in_ledger,
    once,
    other_plans,
    planned_seeds_only,
    retries,
    start_times,
    unbroken,
)
from analysis.plan_look import EVENT, as_planned, stopped_by_rule
from analysis.plan_looks import FIELD
from analysis.plan_records import (
    are_pairs,
    as_written,
    configs,
    each_game_once,
    few_gaps,
    manifests,
    one_source,
)
from analysis.plan_test import tested, worst_case
from analysis.records import Records

OF_PLAN: tuple[tuple[str, Callable[[Plan, Records], Finding]], ...] = (
    ("freeze in the ledger", frozen_in_ledger),
    ("ledger unbroken", unbroken),
    ("other plans owned up to", other_plans),
)
OF_ARMS: tuple[tuple[str, Callable[[Arms], Finding]], ...] = (
    ("set complete", complete),
    ("one finished attempt per run", once),
    ("retries within the rule", retries),
    ("runs carry the plan's hash", carry_the_hash),
    ("runs started after the freeze", after_the_freeze),
    ("start times as in the ledger", start_times),
    ("records as they were written", as_written),
    ("one version of the code", one_source),
    ("settings equal but for the declared", configs),
    ("planned game manifests", manifests),
    ("each planned game once in every run", each_game_once),
    ("runs of one seed are pairs", are_pairs),
    ("not ok below the ceiling", few_gaps),
    ("no run beyond the planned seeds", planned_seeds_only),
)
KEEP = (
    "hypothesis",
    "env",
    "split",
    "method",
    "baseline",
    "direction",
    "runs",
    "runs_baseline",
    "difference",
    "low",
    "high",
    "interval_level",
    "interval_of",
    "bounds_low",
    "bounds_high",
    "test",
    "p_tested",
    "p_holm",
    "detectable",
    "verdict",
    "status",
)


def check(plan: Plan, records: Records) -> pd.DataFrame:
    """One row per condition, for the plan (`hypothesis` = all) and for each hypothesis: `condition`, `met`,
    `verdict`, `detail` and `way_out`. Whether the result holds in the worst case of episodes that are not ok
    is the last condition of each hypothesis."""
    found = [(ANY, "plan frozen and unchanged", frozen(plan))]
    found += [(ANY, name, condition(plan, records)) for name, condition in OF_PLAN]
    if FIELD in plan.content:
        found.append((ANY, "stopped by its rule", stopped_by_rule(plan, records)))
    if FIELD in plan.content or any(e["digest"] == plan.sha256 for e in records.ledger.of(EVENT)):
        found.append((ANY, "looked at as planned", as_planned(plan, records)))
    results: pd.DataFrame | Refusal
    try:
        results = tested(plan, records)
    except Refusal as refusal:
        results = refusal
    now = at_its_look(plan, records) if reached_looks(plan, records) else plan
    for hypothesis in plan.content["hypotheses"]:
        arms = Arms(now, records, tuple(sorted({hypothesis["method"], hypothesis["baseline"]})))
        found += [(hypothesis["name"], name, condition(arms)) for name, condition in OF_ARMS]
        found.append(
            (hypothesis["name"], "verdict the same in the worst case", worst_case(results, hypothesis, plan))
        )
    return pd.DataFrame(
        [
            {
                "hypothesis": hypothesis,
                "condition": name,
                "met": finding.verdict == MET,
                "verdict": finding.verdict,
                "detail": finding.detail,
                "way_out": finding.way_out,
            }
            for hypothesis, name, finding in found
        ]
    )


def confirmatory(plan: Plan, records: Records, draws: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """The plan's hypotheses, tested as planned, each with its verdict and its status.

    Only the planned seeds, methods, splits and source are used. `status` is `confirmatory` where every
    condition of the plan and of the hypothesis (`analysis.plan_check`) is met, else `exploratory: …` with the
    first that is not. `draws` and `seed` are those of the intervals, which decide nothing.
    """
    plan = replace(plan, draws=draws, seed=seed)
    conditions, result = check(plan, records), tested(plan, records)
    statuses = {}
    for name in result["hypothesis"].unique():
        mine = conditions[conditions["hypothesis"].isin((ANY, name)) & ~conditions["met"]]
        statuses[name] = "confirmatory"
        if len(mine):
            first, verb = mine.iloc[0], {NOT_MET: "is not met", UNKNOWN: "cannot be known"}
            statuses[name] = f"exploratory: {first['condition']} {verb[first['verdict']]}"
    result["status"] = result["hypothesis"].map(statuses)
    return result[[*KEEP, *(column for column in COLUMNS if column in result)]]
