"""benchmarks/when_it_matters.py: gains and what an axis adds, against differences taken by hand and scipy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure
from scipy import stats

from analysis.errors import Refusal
from analysis.load import load
from benchmarks.when_it_matters import AXES, ORIGIN, draw_axis, gains, main, table
from tests.analysis.synthetic import Study, write_study

PLACES = {
    "opd_origin": ("opd", 6, 0),
    "sage_origin": ("sage_opd", 6, 0),
    "opd_long": ("opd", 18, 0),
    "sage_long": ("sage_opd", 18, 0),
    "opd_else": ("opd", 6, 4),
}


LEVELS = {"opd_origin": 0.0, "sage_origin": 0.1, "opd_long": 0.5, "sage_long": 1.5, "opd_else": 0.0}


def axes(folder: Path, arms: Sequence[str] = tuple(LEVELS), games: int = 40, **other: int) -> Path:
    """Three paired seeds; long training adds a gain that is not there at the origin."""
    write_study(folder, Study({arm: LEVELS[arm] for arm in arms}, seeds=(0, 1, 2), games=games))
    for path in folder.glob("*/attempt_1/config.yaml"):
        config = yaml.safe_load(path.read_text())
        name = config["method"]
        method, steps, perturb = PLACES[name]
        perturb = other.get(name, perturb)
        config |= {"name": name, "method": method, "teacher": {"path": "sage://tiny-teacher/alfworld"}}
        config["trainer"] = {"steps": steps}
        config["rollout"] = {"perturb": perturb}
        path.write_text(yaml.safe_dump(config))
    return folder


def of_arm(folder: Path, arm: str, seed: int, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The attempt of one run, its settings changed."""
    for path in folder.glob("*/attempt_1/config.yaml"):
        config = yaml.safe_load(path.read_text())
        if (config["name"], config["seed"]) == (arm, seed):
            change(config)
            path.write_text(yaml.safe_dump(config))
            return path.parent
    raise AssertionError(f"no {arm} with seed {seed}")


def spoil_games(attempt: Path, count: int) -> set[str]:
    """The first `count` games of its last evaluation are not ok; returns their tasks."""
    path = attempt / "episodes.parquet"
    episodes = pd.read_parquet(path)
    last = (episodes["split"] == "valid_unseen") & (episodes["phase"] == "eval")
    last &= episodes["step"] == episodes.loc[last, "step"].max()
    rows = episodes.index[last][:count]
    episodes["won"] = episodes["won"].astype(object)
    episodes.loc[rows, ["ok", "won", "status"]] = [False, None, "env_error"]
    episodes.to_parquet(path, index=False)
    return set(episodes.loc[rows, "task"])


def nothing(config: dict[str, Any]) -> None:
    """Settings stay as they are."""


SHORT_AND_LONG = ("opd_origin", "sage_origin", "opd_long", "sage_long")


def test_a_gain_is_a_mean_over_seeds_and_more_is_a_difference_of_gains(
    tmp_path: Path,
) -> None:
    folder = axes(tmp_path)
    records = load([str(folder)])
    episodes = records.episodes
    ends = episodes["step"] == episodes.groupby("run")["step"].transform("max")
    last = episodes[ends & (episodes["split"] == "valid_unseen")]
    rate = {
        (flat["method"], flat["trainer.steps"], flat.get("rollout.perturb") or 0, flat["seed"]): float(
            last.loc[last["run"] == run, "won"].mean()
        )
        for run, flat in records.configs.items()
    }
    by_hand = {
        steps: [rate["sage_opd", steps, 0, seed] - rate["opd", steps, 0, seed] for seed in range(3)]
        for steps in (6, 18)
    }
    found = table(gains([str(folder)], "valid_unseen")).set_index("axis")
    assert set(found.index) == {"origin", "training steps"}  # the place with no partner is no gain
    for axis, steps in (("origin", 6), ("training steps", 18)):
        assert found.loc[axis, "gain"] == pytest.approx(sum(by_hand[steps]) / 3)
    more = [long - short for long, short in zip(by_hand[18], by_hand[6], strict=True)]
    assert found.loc["training steps", "more"] == pytest.approx(sum(more) / 3)
    least = 2 / (40 * 41)  # half a game each way, of four runs
    spread = max(stats.tvar(more), least)
    low, high = stats.t.interval(0.95, 2, sum(more) / 3, (spread / 3) ** 0.5)
    assert found.loc["training steps", ["more_low", "more_high"]].tolist() == pytest.approx([low, high])


def test_a_picture_is_made_and_a_run_off_two_axes_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "axes.png"
    assert main([str(axes(tmp_path / "one")), "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main([str(axes(tmp_path / "two", opd_long=4))]) == 2
    assert "off the origin in rollout.perturb and trainer.steps" in capsys.readouterr().err
    assert main([str(axes(tmp_path / "three")), "--split", "no_such"]) == 2
    assert "partner opd" in capsys.readouterr().err


def test_two_runs_in_one_place_are_refused_and_one_without_a_partner_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(axes(tmp_path / "one", opd_else=0))]) == 2
    assert "are both opd at the origin with seed" in capsys.readouterr().err
    folder = axes(tmp_path / "two")
    for path in folder.glob("*/attempt_1/config.yaml"):
        config = yaml.safe_load(path.read_text())
        if config["method"] == "opd" and config["trainer"]["steps"] == 18 and config["seed"] == 1:
            config["rollout"]["perturb"] = 4
            config["trainer"]["steps"] = 6
            config |= {"seed": 9, "name": "opd_else"}
            path.write_text(yaml.safe_dump(config))
    assert main([str(folder)]) == 0
    assert "Left out, for want of a partner opd: sage_opd with seed 1." in capsys.readouterr().err


def test_a_picture_that_cannot_be_made_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {"none/p.png": "there is no folder", "p.xyz": "ends in one of"}
    for where, said in cases.items():
        assert main([str(tmp_path / "nothing"), "--plot", str(tmp_path / where)]) == 2
        assert said in capsys.readouterr().err


def test_the_origin_is_where_the_study_has_it_and_not_what_sorts_first(tmp_path: Path) -> None:
    found = table(gains([str(axes(tmp_path, SHORT_AND_LONG))], "valid_unseen")).set_index("axis")
    assert found.loc["training steps", ["origin", "value"]].tolist() == ["6", "18"]
    assert found.loc["training steps", "more"] == pytest.approx(
        found.loc["training steps", "gain"] - found.loc["origin", "gain"]
    )
    assert found.loc["training steps", "more"] > 0  # by the levels: long training adds


def test_the_study_names_an_origin_for_each_method_where_no_axis_is_set() -> None:
    conf = Path(__file__).parents[1] / "conf" / "study" / "when_it_matters.yaml"
    cells = yaml.safe_load(conf.read_text())["hydra"]["sweeper"]["matrices"]
    there = [cell for cell in cells if cell["name"][0].endswith(ORIGIN)]
    assert {cell["method"][0] for cell in there} == {cell["method"][0] for cell in cells}
    axes = {"teacher"} | set(AXES)
    assert all(axes & set(cell) for cell in cells if cell not in there)
    assert not any(axes & set(cell) for cell in there)


def test_runs_without_an_origin_and_an_origin_in_two_places_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(axes(tmp_path / "one", ("opd_long", "sage_long")))]) == 2
    assert "no name ends in _origin" in capsys.readouterr().err
    assert main([str(axes(tmp_path / "two", sage_origin=4))]) == 2
    assert "both named _origin and differ in rollout.perturb" in capsys.readouterr().err


def test_a_method_without_its_origin_is_drawn_above_its_own_value(tmp_path: Path) -> None:
    folder = axes(tmp_path, ("opd_origin", "opd_long", "sage_long"))
    found = table(gains([str(folder)], "valid_unseen"))
    assert found["axis"].tolist() == ["training steps"]
    panel = Figure().subplots()
    draw_axis(panel, found, "training steps", labelled=True)
    assert [text.get_text() for text in panel.get_xticklabels()] == ["origin: 6", "18"]
    (line,) = panel.containers
    assert list(line[0].get_xdata()) == [1.0]  # the tick of 18


def test_values_of_an_axis_are_shown_by_their_last_part_and_numbers_by_size(tmp_path: Path) -> None:
    folder = axes(tmp_path / "runs", SHORT_AND_LONG)
    for arm in ("opd_long", "sage_long"):
        for seed in range(3):

            def other(config: dict[str, Any]) -> None:
                config["trainer"]["steps"] = 6
                config["teacher"] = {"path": "/models/here/tiny_strong"}

            of_arm(folder, arm, seed, other)
    found = table(gains([str(folder)], "valid_unseen")).set_index("axis")
    assert found.loc["teacher", ["origin", "value"]].tolist() == ["tiny-teacher/alfworld", "tiny_strong"]
    rows = [("", "", ""), *((key, value, "6") for key in ("trainer.steps",) for value in ("18", "100", "9"))]
    made = [
        {"axis": a, "value": v, "origin": o, "method": "sage_opd", "seed": seed, "task": task, "gain": 0.5}
        for a, v, o in rows
        for seed in range(2)
        for task in ("a", "b")
    ]
    assert table(pd.DataFrame(made))["value"].tolist() == ["", "9", "18", "100"]


def test_a_last_evaluation_that_broke_is_refused_and_no_earlier_one_stands_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = axes(tmp_path, SHORT_AND_LONG)
    attempt = of_arm(folder, "sage_long", 1, nothing)
    spoil_games(attempt, 40)
    assert main([str(folder)]) == 2
    said = capsys.readouterr().err
    assert "sage_opd with seed 1 at training steps 18, against opd, is without 40 of 40 games" in said
    assert f"run {attempt.parent.name} lacks 40" in said
    assert len(said.splitlines()[-1]) < 400


def test_a_game_that_a_pair_lacks_is_said_and_more_than_two_percent_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = axes(tmp_path, SHORT_AND_LONG, games=60)
    whole = gains([str(folder)], "valid_unseen")
    assert capsys.readouterr().err == ""
    (gone,) = spoil_games(of_arm(folder, "opd_long", 2, nothing), 1)
    fewer = gains([str(folder)], "valid_unseen")
    said = capsys.readouterr().err
    assert "is without 1 of 60 games" in said
    assert gone in said
    lost = (whole["task"] == gone) & (whole["axis"] == "trainer.steps") & (whole["seed"] == 2)
    pd.testing.assert_frame_equal(fewer, whole[~lost].reset_index(drop=True))
    spoil_games(of_arm(folder, "sage_long", 2, nothing), 2)
    with pytest.raises(Refusal, match="is without 2 of 60 games"):  # the first is the other's too
        gains([str(folder)], "valid_unseen")


def test_more_pairs_counts_the_seeds_that_are_at_both_places(tmp_path: Path) -> None:
    folder = axes(tmp_path, SHORT_AND_LONG)
    for arm in ("opd_origin", "sage_origin"):
        of_arm(folder, arm, 0, lambda config: config.update(seed=7))
    found = table(gains([str(folder)], "valid_unseen")).set_index("axis")
    assert found.loc["training steps", ["pairs", "more_pairs"]].tolist() == [3, 2]
    for seed in (1, 2):
        for arm in ("opd_origin", "sage_origin"):
            of_arm(folder, arm, seed, lambda config: config.update(seed=config["seed"] + 7))
    found = table(gains([str(folder)], "valid_unseen")).set_index("axis")
    assert found.loc["training steps", "more_pairs"] == 0
    assert "more" not in found


def test_seeds_that_ran_otherwise_are_refused_by_the_setting_and_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = axes(tmp_path, SHORT_AND_LONG)
    attempt = of_arm(folder, "sage_origin", 1, lambda config: config["rollout"].update(temperature=0.9))
    assert main([str(folder)]) == 2
    said = capsys.readouterr().err
    assert "differ in rollout.temperature (0.9, None)" in said
    assert len(said) < 400
    assert f"run {attempt.parent.name} has 0.9" in said


def test_the_output_says_which_intervals_these_are_and_where_the_verdicts_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(axes(tmp_path, SHORT_AND_LONG))]) == 0
    out = capsys.readouterr().out
    assert "95 %, uncorrected, paired t over seeds" in out
    assert "analysis plan check conf/plan/when_it_matters.yaml" in out
    assert "nan" not in out.lower()
    assert "<NA>" not in out
