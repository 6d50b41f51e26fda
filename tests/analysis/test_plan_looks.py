"""Plans that look before their end: what they declare, what a look decides and writes, and how it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.__main__ import main
from analysis.errors import Refusal
from analysis.evalue import e_value
from analysis.group_sequential import Looks
from analysis.load import load
from analysis.plan import foreseen, freeze, frozen_record, read_plan
from analysis.plan_check import check, confirmatory
from analysis.plan_look import look
from analysis.render import render
from sage.records import run_ledger
from tests.analysis.planned import GAMES, PLAN, write_plan, write_run

SEQUENTIAL: dict[str, Any] = {
    "design": "paired",
    "seeds": [4, 0, 1, 2, 3, 5],
    "looks": {"after": [3, 4, 6], "futility": 0.05},
    "assumptions": PLAN["assumptions"] | {"correlation": 0.8},
}


def played(won: int) -> pd.DataFrame:
    """One run's evaluation with this many wins."""
    games = [f"game-{g:02d}" for g in range(GAMES)]
    return pd.DataFrame({"task": games, "status": np.where(np.arange(GAMES) < won, "won", "lost")})


class Study:
    """A frozen sequential plan, and runs that are added seed by seed."""

    def __init__(self, root: Path, **changes: Any) -> None:
        self.path, self.runs = write_plan(root, **(SEQUENTIAL | changes)), root / "runs"
        freeze(self.path, self.runs)
        self.plan = read_plan(self.path)

    def add(self, seed: int, gap: int, base: int = 6) -> None:
        for method, won in (("opd", base + seed), ("sage_opd", base + seed + gap)):
            write_run(self.runs, method, seed, self.plan.sha256, played=played(won))

    def look(self) -> tuple[pd.DataFrame, str]:
        return look(self.plan, load([self.runs]), self.runs)

    def conditions(self) -> pd.DataFrame:
        return check(self.plan, load([self.runs])).set_index("condition")

    def lines(self) -> list[dict[str, Any]]:
        return run_ledger.read(self.runs).of("look")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"looks": {"after": [3, 6]}}, "looks has the fields after and futility"),
        ({"looks": {"after": [3, 5], "futility": None}}, "whose last is all 6 of the plan, not"),
        ({"looks": {"after": [4, 3, 6], "futility": None}}, "a growing list of numbers of seeds"),
        ({"looks": {"after": [1, 6], "futility": None}}, "from 2 on"),
        ({"looks": {"after": [3, 6], "futility": 5}}, "looks.futility is a level such as 0.05, or null"),
        ({"estimand": "recipe on new games"}, "looks hold for the estimand 'recipe on this benchmark'"),
    ],
)
def test_looks_that_mean_nothing_are_refused(tmp_path: Path, changes: dict[str, Any], sentence: str):
    with pytest.raises(Refusal) as refused:
        read_plan(write_plan(tmp_path, **(SEQUENTIAL | changes)))
    assert sentence in str(refused.value)
    assert len(str(refused.value)) < 400


def test_freezing_writes_the_levels_and_says_what_the_looks_do(tmp_path: Path):
    study = Study(tmp_path)
    looks = Looks((3, 4, 6))
    record = frozen_record(study.path)
    assert record is not None
    assert record["levels"] == pytest.approx(looks.levels(0.05), abs=1e-6)
    assert record["futility_levels"] == pytest.approx(looks.futility_levels(0.05), abs=1e-6)
    tables = foreseen(study.plan)
    assert list(tables["looks"]["seeds"]) == [3, 4, 6]
    expected = tables["expected"].set_index("true_difference")
    assert expected.loc[0.0, "shown"] < 0.06
    assert expected.loc[0.0, "mean_seeds"] < 6
    assert expected.loc[0.1, "shown"] < expected.loc[0.1, "shown_without_looks"] + 0.01


def test_a_study_stops_at_the_look_that_shows_its_effect_and_its_plan_checks(tmp_path: Path):
    study = Study(tmp_path)
    gaps = {4: 10, 0: 7, 1: 11, 2: 9}
    for seed in (4, 0, 1):
        study.add(seed, gaps[seed])
    seen, sentence = study.look()
    assert list(seen["decision"]) == ["open"]
    assert sentence == ("Look 1 of 3, after 3 of 6 seeds: 1 open. The study goes on to 4 seeds.")
    study.add(2, gaps[2])
    seen, sentence = study.look()
    assert sentence.startswith("Look 2 of 3, after 4 of 6 seeds: 1 shown. Decided: the study stops here")
    differences = np.array(list(gaps.values())) / GAMES
    row, looks = seen.iloc[0], Looks((3, 4, 6))
    p = [stats.ttest_1samp(differences[:n], 0).pvalue for n in (3, 4)]
    assert row["p_tested"] == pytest.approx(looks.p_value(p))
    test = stats.ttest_1samp(differences, 0)
    assert row["e_value"] == pytest.approx(e_value(test.statistic, 4))
    ends = test.confidence_interval(1 - looks.levels(0.05)[1])
    assert (row["low"], row["high"]) == pytest.approx((ends.low, ends.high))
    assert "interval, 95 %, this benchmark, at all looks together" in render(seen, "text")
    assert 0 < row["estimate"] <= row["difference"]
    conditions = study.conditions()
    assert conditions["met"].all(), conditions[~conditions["met"]][["verdict", "detail"]]
    assert conditions.loc["stopped by its rule", "detail"].startswith("stopped after 4 of 6 seeds")
    assert conditions.loc["set complete", "detail"] == "8 of 8 runs done"
    result = confirmatory(study.plan, load([study.runs]), draws=200).iloc[0]
    assert (result["verdict"], result["status"]) == ("supported", "confirmatory")
    assert result["look"] == "2 of 3"


def test_a_study_stops_where_its_margin_is_excluded(tmp_path: Path):
    study = Study(tmp_path, hypotheses=[PLAN["hypotheses"][0] | {"margin": 0.4}])
    for seed, gap in ((4, 0), (0, 1), (1, -1), (2, 0)):
        study.add(seed, gap)
    seen, sentence = study.look()
    assert list(seen["decision"]) == ["its margin is excluded"]
    assert "Decided: the study stops here, 0 of 1 hypotheses shown." in sentence
    assert seen.iloc[0]["p_margin"] < 0.05
    # The look after three seeds was not taken in its time.
    assert (
        study.conditions().loc["looked at as planned", "detail"] == "no look after 3 seeds is in the ledger"
    )


def test_the_last_look_ends_a_study_that_shows_nothing(tmp_path: Path):
    study = Study(tmp_path, looks={"after": [2, 6], "futility": None})
    for seed, gap in zip((4, 0, 1, 2, 3, 5), (3, -2, 2, -3, 1, -1), strict=True):
        study.add(seed, gap)
        if seed == 0:
            study.look()
    seen, sentence = study.look()
    assert list(seen["decision"]) == ["not shown at the last look"]
    assert "the study is over, 0 of 1 hypotheses shown" in sentence
    assert study.conditions()["met"].all()


def test_a_look_is_written_once_and_at_its_time(tmp_path: Path):
    study = Study(tmp_path)
    for seed in (4, 0, 1):
        study.add(seed, 2 * (seed % 2))
    study.look()
    study.look()
    (line,) = study.lines()
    assert (line["seeds"], line["planned"], line["decided"]) == (3, True, False)
    assert line["seen"][0]["hypothesis"] == "better"
    assert not run_ledger.read(study.runs).problems
    assert study.conditions().loc["stopped by its rule", "verdict"] == "not met"


def test_a_look_that_was_not_planned_makes_the_result_exploratory(tmp_path: Path):
    study = Study(tmp_path, looks={"after": [4, 6], "futility": None})
    for seed in (4, 0, 1):
        study.add(seed, 9 + seed % 2)
    seen, sentence = study.look()
    assert "where plan.yaml has no look" in sentence
    assert "e_value" in seen
    assert "p_tested" not in seen  # no p that anybody could stop by
    study.add(2, 9)
    study.look()
    conditions = study.conditions()
    detail = conditions.loc["looked at as planned", "detail"]
    assert detail.startswith("looked at after 3 seeds on ")
    result = confirmatory(study.plan, load([study.runs]), draws=200).iloc[0]
    assert result["status"] == "exploratory: looked at as planned is not met"


def test_a_later_seed_that_begins_before_the_look_is_found(tmp_path: Path):
    study = Study(tmp_path)
    for seed in (4, 0, 1):
        study.add(seed, 9 + seed % 2)
    write_run(study.runs, "opd", 2, study.plan.sha256, finish=False)
    study.look()
    found = study.conditions().loc["looked at as planned"]
    assert (found["verdict"], found["detail"]) == (
        "not met",
        "a run of a later seed began before the look after 3 seeds",
    )


def test_a_plan_without_looks_that_was_looked_at_says_so(tmp_path: Path):
    path, runs = write_plan(tmp_path, seeds=[0, 1, 2]), tmp_path / "runs"
    freeze(path, runs)
    plan = read_plan(path)
    for seed in (0, 1):
        for method, won in (("opd", 6), ("sage_opd", 14 + seed)):
            write_run(runs, method, seed, plan.sha256, played=played(won))
    look(plan, load([runs]), runs)
    conditions = check(plan, load([runs])).set_index("condition")
    assert "looked at after 2 seeds" in conditions.loc["looked at as planned", "detail"]


def test_a_plan_that_is_not_frozen_here_or_has_nothing_to_show_is_not_looked_at(tmp_path: Path):
    plan, runs = read_plan(write_plan(tmp_path, **SEQUENTIAL)), tmp_path / "runs"
    with pytest.raises(Refusal, match=r"has no freeze of plan\.yaml; freeze it before its first run"):
        look(plan, load([_one_run(runs)]), runs)
    study = Study(tmp_path, title="another")
    with pytest.raises(Refusal, match="There is nothing to look at yet: 0 of the plan's 6 seeds"):
        study.look()


def _one_run(runs: Path) -> Path:
    write_run(runs, "opd", 4, None)
    return runs


def test_the_command_looks_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    study = Study(tmp_path)
    for seed in (4, 0, 1):
        study.add(seed, 5 + seed)
    assert main(["plan", "look", str(study.path), "--runs", str(study.runs)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Look 1 of 3, after 3 of 6 seeds: 1 open.")
    assert "e_value" in out
    assert main(["plan", "check", str(study.path), "--records", str(study.runs)]) == 0
    out = capsys.readouterr().out
    assert "looked at as planned" in out
    assert "futility_level" in out
