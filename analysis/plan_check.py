"""Is a result confirmatory? Every condition of a frozen plan, for each hypothesis, and the hypotheses tested
as planned.
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from analysis.errors import Refusal
from analysis.load import Records
from analysis.plan import Plan
from analysis.plan_conditions import ANY, MET, NOT_MET, OF_ARMS, OF_PLAN, UNKNOWN, Arms, frozen
from analysis.plan_decision import COLUMNS, at_its_look, reached_looks
from analysis.plan_look import EVENT, as_planned, stopped_by_rule
from analysis.plan_looks import FIELD
from analysis.plan_test import tested, worst_case

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
