"""The hypotheses of a plan, tested as planned: the estimand decides the test, Holm over all of them.

`recipe on this benchmark` is tested by the test of the plan's design (`analysis.designs`); `recipe on new
games` by the t test whose variance has runs, or pairs of runs, and games in it (`analysis.bootstrap`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.errors import Refusal
from analysis.load import Records
from analysis.plan import NEW_GAMES, Plan
from analysis.plan_conditions import MET, NOT_MET, Finding
from analysis.question import Question
from analysis.significance import holm

CANNOT_TELL = "cannot tell (one run has no spread)"
WANTED = {"greater": 1, "less": -1, "equivalent": 0}
TESTS = {
    "recipe on this benchmark": ("", "p", "p_equivalent", "p_if_{}", "p_equivalent_worst"),
    NEW_GAMES: (
        "t, runs and games",
        "p_new_games",
        "p_equivalent_new_games",
        "p_new_games_if_{}",
        "p_equivalent_new_games_worst",
    ),
}
"""Of each estimand: the test ("": that of the design), and its columns of a comparison: p, that of
equivalence, and both at the bounds of the episodes that are not ok."""


def tested(plan: Plan, records: Records) -> pd.DataFrame:
    """One row per hypothesis, environment and split, with the p of the planned test, Holm over all rows, and
    the verdict; and those at the bounds of the episodes that are not ok (`verdict_if_lost`, `_won`)."""
    from analysis.compare import RECIPE, compare

    content = plan.content
    planned = only_planned(plan, records)
    design = content.get("design", "independent")
    rows: list[dict[str, Any]] = []
    for hypothesis in content["hypotheses"]:
        equivalent = hypothesis["direction"] == "equivalent"
        arms = (hypothesis["method"], hypothesis["baseline"])
        question = Question(
            baseline=hypothesis["baseline"],
            metric=content["metric"],
            average=content.get("average", "micro"),
            margin=float(hypothesis["margin"]) if equivalent else None,
            draws=plan.draws,
            seed=plan.seed,
            level=1 - content["alpha"],
            design=design,
            # Blocks take the seeds' luck from all of the plan's methods.
            methods=tuple(plan.methods) if design == "blocked" else arms,
        )
        frame = compare(planned, question)
        frame = frame[frame["method"] == hypothesis["method"]]
        names = {"hypothesis": hypothesis["name"], "direction": hypothesis["direction"]}
        rows += [
            names | _chosen(row, plan, equivalent, row["estimand"] == RECIPE)
            for row in frame.to_dict("records")
        ]
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
    return result


def _chosen(row: dict[str, Any], plan: Plan, equivalent: bool, recipe: bool) -> dict[str, Any]:
    """The row with the p of the planned test; where all episodes are ok that is also the p at the bounds."""
    test, p, p_equivalent, at_bounds, worst = TESTS[plan.content["estimand"]]
    if not recipe:  # one run on a side: `compare` tests on the games, which says nothing about a recipe
        nan = float("nan")
        return (
            row
            | {"test": test or row["test"], "low": nan, "high": nan}
            | dict.fromkeys(("p_tested", "p_tested_if_lost", "p_tested_if_won"), nan)
        )
    found = {"test": test or row["test"], "p_tested": row[p_equivalent if equivalent else p]}
    for end in ("lost", "won"):
        value = row.get(worst if equivalent else at_bounds.format(end), float("nan"))
        found[f"p_tested_if_{end}"] = found["p_tested"] if value != value else value
    return row | found


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


def only_planned(plan: Plan, records: Records) -> Records:
    """The records of the planned seeds, methods, environments, splits and source alone."""
    content = plan.content
    runs = records.runs[
        records.runs["seed"].isin(content["seeds"])
        & records.runs["method"].isin(plan.methods)
        & records.runs["env"].isin(content["environments"])
    ]
    sources = content["source"] if isinstance(content["source"], list) else [content["source"]]
    episodes = records.episodes
    if len(episodes):
        episodes = episodes[
            episodes["run"].isin(set(runs["run"]))
            & episodes["split"].isin(content["splits"])
            & episodes["source"].isin(sources)
        ]
    return replace(records, runs=runs, episodes=episodes)
