"""A plan with looks, at its last complete one: p values that know of the looks, and what is decided.

Every number here is a function of the plan and of the records of its first seeds; nothing depends on why a
study was looked at or stopped (`analysis.group_sequential`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.cells import cells, each_place
from analysis.check import select
from analysis.designs import design_of
from analysis.errors import Refusal
from analysis.evalue import e_value, reach
from analysis.group_sequential import Looks
from analysis.plan import Plan
from analysis.plan_looks import futility_of, looks_of
from analysis.plan_rows import P_COLUMNS, complete_seeds, only_planned, planned_rows
from analysis.question import Question
from analysis.records import Records

PLACE = ("hypothesis", "env", "source", "split")
COLUMNS = (
    "look",
    "seeds_seen",
    "level_now",
    "estimate",
    "p_margin",
    "e_value",
    "e_low",
    "e_high",
    "decision",
)
SHOWN, FUTILE, OPEN, LAST = "shown", "its margin is excluded", "open", "not shown at the last look"
REPEATED = "this benchmark, at all looks together"
"""What the interval of a plan with looks is of: its level is kept by the intervals of all looks at once."""
E_VALUE_LEVEL = 0.05
"""Of the interval beside an e-value, which 1/0.05 = 20 excludes."""


def reached_looks(plan: Plan, records: Records) -> int:
    """How many of the plan's looks have all their runs; 0 for a plan without looks."""
    looks = looks_of(plan.content)
    if looks is None:
        return 0
    complete = complete_seeds(plan, records)
    return sum(n <= complete for n in looks.after)


def at_its_look(plan: Plan, records: Records) -> Plan:
    """The plan with the seeds of its last complete look alone. Raises Refusal before the first."""
    looks, reached = looks_of(plan.content), reached_looks(plan, records)
    if looks is None:
        return plan
    if not reached:
        raise Refusal(
            f"{plan.path.name} is first looked at after {looks.after[0]} seeds, and "
            f"{complete_seeds(plan, records)} of them have all their runs."
        )
    return replace(plan, upto=looks.after[reached - 1])


def rows_at_looks(plan: Plan, records: Records) -> list[dict[str, Any]]:
    """`planned_rows` at the last complete look, with the p of the study in place of the look's own, repeated
    confidence intervals, the estimate without the bias of stopping, and an e-value. Raises Refusal before
    the first look."""
    looks = looks_of(plan.content)
    assert looks is not None
    now = at_its_look(plan, records)
    seen = [n for n in looks.after if n <= len(now.seeds)]
    every = [planned_rows(replace(plan, upto=n), records) for n in seen]
    past = [{tuple(row[key] for key in PLACE): row for row in rows} for rows in every]
    evidence = e_values(now, records)
    return [
        _at_look(plan, looks, [at[key] for at in past if key in at]) | evidence.get(key, {})
        for key in past[-1]
    ]


def _at_look(plan: Plan, looks: Looks, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The last of a comparison's rows, one for each look so far, as what the looks make of it."""
    row, equivalent = rows[-1], rows[-1]["direction"] == "equivalent"
    seeds = looks.after[len(rows) - 1]
    of_looks = looks.one_sided_p_value if equivalent else looks.p_value
    level = float(looks.levels(plan.content["alpha"])[len(rows) - 1])
    half = float(stats.t.isf(level / 2, row["df"])) * row["se"]
    p_margin = looks.one_sided_p_value([_margin_excluded(one) for one in rows])
    gamma = futility_of(plan.content)
    return (
        row
        | {column: of_looks([one[column] for one in rows]) for column in P_COLUMNS}
        | {
            "look": f"{len(rows)} of {len(looks.after)}",
            "seeds_seen": seeds,
            "level_now": level,
            "interval_of": REPEATED,
            "low": row["difference"] - half,
            "high": row["difference"] + half,
            "estimate": looks.estimate(row["difference"], row["se"] * np.sqrt(seeds)),
            "p_margin": p_margin,
            "futile": gamma is not None and p_margin <= gamma,
            "last": len(rows) == len(looks.after),
        }
    )


def _margin_excluded(row: dict[str, Any]) -> float:
    """One-sided p of "the difference is as large as the margin, either way"; nan where no margin is named, or
    where the margin is that of an equivalence."""
    if row["direction"] == "equivalent" or not row["planned_margin"] > 0:
        return float("nan")
    return float(stats.t.cdf((abs(row["difference"]) - row["planned_margin"]) / row["se"], row["df"]))


def e_values(plan: Plan, records: Records) -> dict[tuple[str, ...], dict[str, float]]:
    """By hypothesis, environment, source and split: the e-value of the seed differences and the interval that
    it leaves, both valid at any number of seeds. Also of independent runs: any pairing will do there."""
    planned, design = only_planned(plan, records), design_of("paired")
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for hypothesis in plan.content["hypotheses"]:
        method, baseline = hypothesis["method"], hypothesis["baseline"]
        episodes = select(planned, Question(methods=(method, baseline)))
        average = plan.content.get("average", "micro")
        for group in each_place(episodes, average):
            table = cells(group, plan.content["metric"], average)
            test = design.test(table, method, baseline).test
            n = len(design.rows(table, method, baseline)[0])
            half = reach(n, 1 / E_VALUE_LEVEL) * test.se
            equivalent = hypothesis["direction"] == "equivalent"
            found[hypothesis["name"], table.env, table.source, table.split] = {
                "e_value": float("nan") if equivalent or test.t != test.t else e_value(test.t, n),
                "e_low": test.difference - half,
                "e_high": test.difference + half,
            }
    return found


def decided(frame: pd.DataFrame, alpha: float) -> list[str]:
    """What each row of a tested plan with looks has come to. An effect is shown where it is at both bounds of
    the episodes that are not ok."""
    words = []
    for row in frame.to_dict("records"):
        verdicts = {row["verdict"], row["verdict_if_lost"], row["verdict_if_won"]}
        if len(verdicts) == 1 and row["p_holm"] < alpha:
            words.append(SHOWN)
        else:
            words.append(FUTILE if row["futile"] else LAST if row["last"] else OPEN)
    return words
