"""The hypotheses of a plan, tested as planned: the estimand decides the test, Holm over all of them.

`recipe on this benchmark` is tested by the test of the plan's design (`analysis.designs`); `recipe on new
games` by the t test whose variance has runs, or pairs of runs, and games in it (`analysis.bootstrap`).
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.errors import Refusal
from analysis.plan import Plan
from analysis.plan_decision import decided, rows_at_looks
from analysis.plan_findings import MET, NOT_MET, Finding
from analysis.plan_looks import looks_of
from analysis.plan_rows import planned_rows
from analysis.records import Records
from analysis.significance import holm

CANNOT_TELL = "cannot tell (one run has no spread)"
WANTED = {"greater": 1, "less": -1, "equivalent": 0}


def tested(plan: Plan, records: Records) -> pd.DataFrame:
    """One row per hypothesis, environment and split, with the p of the planned test, Holm over all rows, and
    the verdict; and those at the bounds of the episodes that are not ok (`verdict_if_lost`, `_won`).
    Of a plan with looks all of it is at the last complete one (`analysis.plan_decision`)."""
    content = plan.content
    looks = looks_of(content)
    rows = planned_rows(plan, records) if looks is None else rows_at_looks(plan, records)
    result = pd.DataFrame(rows)
    if not len(result):
        raise Refusal("No hypothesis of the plan has episodes on its splits.")
    ends = (("", "difference"), ("_if_lost", "bounds_low"), ("_if_won", "bounds_high"))
    for end, difference in ends:
        if difference not in result:
            result[difference] = float("nan")
        result[f"p_holm{end}"] = holm(result[f"p_tested{end}"])
        gap = result[difference].fillna(result["difference"])
        result[f"verdict{end}"] = [
            _verdict(d, p, direction, content["alpha"])
            for d, p, direction in zip(gap, result[f"p_holm{end}"], result["direction"], strict=True)
        ]
    return result if looks is None else result.assign(decision=decided(result, content["alpha"]))


def _verdict(difference: float, p: float, direction: str, alpha: float) -> str:
    if p != p:
        return CANNOT_TELL
    if not p < alpha:
        return "not shown"
    return "supported" if direction == "equivalent" or difference * WANTED[direction] > 0 else "contradicted"


def worst_case(results: pd.DataFrame | Refusal, hypothesis: dict[str, Any], plan: Plan) -> Finding:
    """The verdict of a hypothesis is the same whether its episodes that are not ok are lost or won."""
    if isinstance(results, Refusal):
        return Finding(NOT_MET, f"cannot be tested: {results}"[:380], "mend what the sentence names")
    mine = results[results["hypothesis"] == hypothesis["name"]]
    for row in mine.to_dict("records"):
        for end, word in (("_if_lost", "against it"), ("_if_won", "for it")):
            if row[f"verdict{end}"] != row["verdict"]:
                return Finding(
                    NOT_MET,
                    f"on {row['split']} it is {row['verdict']}, and {row[f'verdict{end}']} where the "
                    f"{row['episodes_not_ok']} episodes that are not ok count {word}",
                    "mend what broke and run those runs again, as the rule for retries allows",
                )
    return Finding(MET, f"{', '.join(mine['verdict'].unique())} on every split")
