"""The comparisons that a plan asks for, on the runs that it names: one row per hypothesis, environment and
split, with the p of the planned test."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.compare import RECIPE, compare
from analysis.plan import NEW_GAMES, Plan
from analysis.question import Question
from analysis.records import Records

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
NEW_GAMES_INTERVAL = "new games"
"""What the interval of a comparison is of, whatever the test is of: runs and games both random."""
P_COLUMNS = ("p_tested", "p_tested_if_lost", "p_tested_if_won")


def planned_rows(plan: Plan, records: Records) -> list[dict[str, Any]]:
    """A row of `compare` for each hypothesis, environment and split, with `P_COLUMNS`, and what its `low` and
    `high` are: `interval_level`, 1 − alpha without any correction, and `interval_of`."""
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
        names = {
            "hypothesis": hypothesis["name"],
            "direction": hypothesis["direction"],
            "planned_margin": float(hypothesis["margin"]),
            "interval_level": question.level,
            "interval_of": NEW_GAMES_INTERVAL,
        }
        rows += [
            names | _chosen(row, plan, equivalent, row["estimand"] == RECIPE)
            for row in frame.to_dict("records")
        ]
    return rows


def _chosen(row: dict[str, Any], plan: Plan, equivalent: bool, recipe: bool) -> dict[str, Any]:
    """The row with the p of the planned test; where all episodes are ok that is also the p at the bounds."""
    test, p, p_equivalent, at_bounds, worst = TESTS[plan.content["estimand"]]
    if not recipe:  # one run on a side: `compare` tests on the games, which says nothing about a recipe
        nan = float("nan")
        return row | {"test": test or row["test"], "low": nan, "high": nan} | dict.fromkeys(P_COLUMNS, nan)
    found = {"test": test or row["test"], "p_tested": row[p_equivalent if equivalent else p]}
    for end in ("lost", "won"):
        value = row.get(worst if equivalent else at_bounds.format(end), float("nan"))
        found[f"p_tested_if_{end}"] = found["p_tested"] if value != value else value
    return row | found


def only_planned(plan: Plan, records: Records) -> Records:
    """The records of the planned seeds, methods, environments, splits and source alone."""
    content = plan.content
    runs = records.runs[
        records.runs["seed"].isin(plan.seeds)
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


def runs_by_name(records: Records) -> pd.DataFrame:
    """The run list under the names that the runs gave themselves. Recipes that share a name were told apart
    (`analysis.recipes`); in a plan they are runs of one arm, and that they differ is what a condition
    says."""
    runs = records.runs
    named = runs["run"].map(lambda run: records.configs.get(run, {}).get("name"))
    return runs.assign(method=named.where(named.notna(), runs["method"]))


def complete_seeds(plan: Plan, records: Records) -> int:
    """How many of the seeds that the plan looks at, from the first on, have a finished run of every method on
    every environment."""
    runs = runs_by_name(records)
    used = runs[runs["used"].astype(bool)]
    done = set(zip(used["method"], used["env"], used["seed"], strict=True))
    for number, seed in enumerate(plan.seeds):
        for env in plan.content["environments"]:
            if any((method, env, seed) not in done for method in plan.methods):
                return number
    return len(plan.seeds)
