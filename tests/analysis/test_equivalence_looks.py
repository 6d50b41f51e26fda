"""The simulation of equivalence under looks tests as the plan check does, and finds no more than it may."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from analysis import plan_test
from analysis.load import load
from analysis.plan import read_plan
from analysis.significance import holm
from benchmarks.equivalence_looks import PLAN, RAISED, Planned, Spread, cell, draw, p_at_looks, p_of_study

ALIKE = Spread((0.97, 0.97))


def smaller():
    """The plan of the simulation with four methods, three hypotheses, five seeds and two looks."""
    plan = read_plan(PLAN)
    hypotheses = [plan.content["hypotheses"][i] for i in (0, 1, 7)]
    arms = {"sage_opd", "opd", "random_intervention", "sft"}
    content = plan.content | {
        "hypotheses": hypotheses,
        "arms": {name: differs for name, differs in plan.content["arms"].items() if name in arms},
        "seeds": plan.content["seeds"][:5],
        "looks": {"after": [3, 5], "futility": None},
        "games": {"valid_unseen": 30, "official_valid_unseen": 20},
    }
    return replace(plan, content=content, draws=20)


def episodes(content, drawn: list[np.ndarray]) -> pd.DataFrame:
    """A plain table of one study's [arms, seeds, games] on each of the plan's sets of games."""
    frames = []
    for split, source, values in zip(content["splits"], content["source"], drawn, strict=True):
        arm, seed, game = (index.ravel() for index in np.indices(values.shape))
        columns = {
            "method": np.array(list(content["arms"]), object)[arm],
            "env": content["environments"][0],
            "split": split,
            "source": source,
            "seed": np.array(content["seeds"])[seed],
            "task": [f"{split}-{g:03d}" for g in game],
            "task_type": "pick",
            "step": 16,
            "rollout": 0,
            "won": values.ravel().astype(int),
            "turns": 9,
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def test_a_simulated_study_has_the_p_values_that_the_plan_check_gives_its_records(tmp_path: Path):
    plan = smaller()
    planned = Planned.of(plan.content)
    drawn = draw(planned, (), ALIKE, 1, np.random.default_rng(3))
    ours = np.concatenate([p_of_study(p_at_looks(won, planned, margin), planned) for won, margin in drawn], 1)
    episodes(plan.content, [won[0] for won, _ in drawn]).to_parquet(tmp_path / "episodes.parquet")
    rows = plan_test.tested(plan, load([tmp_path / "episodes.parquet"])).set_index(["split", "hypothesis"])
    names = [hypothesis["name"] for hypothesis in plan.content["hypotheses"]]
    rows = rows.loc[[(split, name) for split in plan.content["splits"] for name in names]]
    np.testing.assert_allclose(rows["p_tested"], ours[0], rtol=1e-6)
    np.testing.assert_allclose(rows["p_holm"], holm(ours[0]), rtol=1e-6)
    assert set(rows["look"]) == {"2 of 2"}
    assert ours.min() < 0.5  # not all of them at 1


def test_equivalence_is_shown_at_its_margin_no_more_often_than_planned_and_often_between_alike_methods():
    """The table of docs/evidence/coverage.md in small: `benchmarks/equivalence_looks.py`."""
    apart = cell(RAISED["all 14 at the margin"], ALIKE, 250, [1])
    assert apart["at the margin: shown at any look"] <= 0.05
    assert apart["at the margin: any shown after Holm"] <= 0.05
    alike = cell((), ALIKE, 50, [2])
    assert alike["0: shown at any look"] > 0.8
    assert alike["0: ten seeds, no looks"] >= alike["0: shown at any look"] > alike["0: shown after Holm"]
