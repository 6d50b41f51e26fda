"""benchmarks/when_it_matters.py: gains and what an axis adds, against differences taken by hand and scipy."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from scipy import stats

from analysis.load import load
from benchmarks.when_it_matters import gains, main, table
from tests.analysis.synthetic import Study, write_study

PLACES = {
    "opd_origin": ("opd", 6, 0),
    "sage_origin": ("sage_opd", 6, 0),
    "opd_long": ("opd", 18, 0),
    "sage_long": ("sage_opd", 18, 0),
    "opd_else": ("opd", 6, 4),
}


def axes(folder: Path, **other: int) -> Path:
    """Three paired seeds; long training adds a gain that is not there at the origin."""
    levels = {"opd_origin": 0.0, "sage_origin": 0.1, "opd_long": 0.5, "sage_long": 1.5, "opd_else": 0.0}
    write_study(folder, Study(levels, seeds=(0, 1, 2), games=40))
    for path in folder.glob("*/attempt_1/config.yaml"):
        config = yaml.safe_load(path.read_text())
        method, steps, perturb = PLACES[config["method"]]
        if config["method"] in other:
            perturb = other[config["method"]]
        config |= {"method": method, "teacher": {"path": "sage://tiny-teacher/alfworld"}}
        config["trainer"] = {"steps": steps}
        config["rollout"] = {"perturb": perturb}
        path.write_text(yaml.safe_dump(config))
    return folder


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
    assert "is not the only one of opd with seed" in capsys.readouterr().err
    folder = axes(tmp_path / "two")
    for path in folder.glob("*/attempt_1/config.yaml"):
        config = yaml.safe_load(path.read_text())
        if config["method"] == "opd" and config["trainer"]["steps"] == 18 and config["seed"] == 1:
            config["rollout"]["perturb"] = 4
            config["trainer"]["steps"] = 6
            config["seed"] = 9
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
