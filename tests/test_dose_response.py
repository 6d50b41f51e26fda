"""benchmarks/dose_response.py: means and intervals over runs against scipy; two studies are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from benchmarks.dose_response import ends, main, table
from tests.analysis.synthetic import Study, write_study

DOSES = {"calm": 0.0, "spoilt": 1.0}


def spoilt_runs(folder: Path, divergence: str = "forward_kl") -> Path:
    write_study(folder, Study({"calm": 1.0, "spoilt": -1.0}, seeds=(0, 1, 2), games=40))
    for path in folder.glob("*/attempt_1/config.yaml"):
        config = yaml.safe_load(path.read_text())
        config["teacher"] = {"spoil": DOSES[config["method"]], "spoil_turns": "after_mistake"}
        config["divergence"] = {"name": divergence if config["method"] == "spoilt" else "forward_kl"}
        config["method"] = "opd"
        path.write_text(yaml.safe_dump(config))
    return folder


def test_a_point_is_the_mean_over_runs_with_students_interval(tmp_path: Path) -> None:
    episodes = ends([str(spoilt_runs(tmp_path))], "valid_unseen")
    found = table(episodes).set_index("dose")
    assert list(found["line"].unique()) == ["opd, untrained"]
    for dose in DOSES.values():
        of_dose = episodes[episodes["dose"] == dose]
        means = of_dose.groupby("run")["won"].mean().to_numpy(float)
        spread = max(means.var(ddof=1), of_dose.groupby("task")["won"].var(ddof=1).mean() / 40)
        low, high = stats.t.interval(0.95, 2, means.mean(), np.sqrt(spread / 3))
        assert found.loc[dose, "mean"] == pytest.approx(means.mean())
        assert found.loc[dose, ["low", "high"]].tolist() == pytest.approx([low, high])


def test_the_picture_is_made_and_two_studies_are_not_pooled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "dose.png"
    assert main([str(spoilt_runs(tmp_path / "one")), "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main([str(spoilt_runs(tmp_path / "two", "reverse_kl"))]) == 2
    assert "differ in divergence.name (forward_kl, reverse_kl)" in capsys.readouterr().err
    assert main([str(write_study(tmp_path / "three", Study({"opd": 0.0})))]) == 2
    assert "No finished run with teacher.spoil" in capsys.readouterr().err


def changed(folder: Path, method: str, seed: int, change: Callable[[dict[str, Any]], Any]) -> Path:
    """The attempt of the run that was written as `method`, its settings changed."""
    for path in folder.glob("*/attempt_1/config.yaml"):
        config = yaml.safe_load(path.read_text())
        if (config["teacher"]["spoil"], config["seed"]) == (DOSES[method], seed):
            change(config)
            path.write_text(yaml.safe_dump(config))
            return path.parent
    raise AssertionError(f"no {method} with seed {seed}")


def test_two_runs_of_a_point_with_one_seed_and_a_pilot_beside_a_study_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = spoilt_runs(tmp_path)
    again = changed(folder, "calm", 1, lambda config: config.update(seed=2)).parent.name
    assert main([str(folder)]) == 2
    said = capsys.readouterr().err
    assert "are both opd, untrained at dose 0 with seed 2" in said
    assert again in said
    (folder / again / "attempt_1" / "config.yaml").unlink()
    assert main([str(folder)]) == 2
    assert f"Run {again} has no settings" in capsys.readouterr().err

    other = spoilt_runs(tmp_path / "pilot")
    pilot = changed(other, "calm", 1, lambda config: config.update(name="pilot", seed=100)).parent.name
    assert main([str(other)]) == 2
    said = capsys.readouterr().err
    assert "have different names" in said
    assert f"{pilot} (pilot)" in said
    assert len(said) < 400


def test_two_recipes_of_one_method_are_refused_by_the_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = spoilt_runs(tmp_path)
    changed(folder, "spoilt", 0, lambda config: config["confidence"].update(threshold=0.9))
    assert main([str(folder)]) == 2
    said = capsys.readouterr().err
    assert "differ in confidence.threshold (0.5, 0.9)" in said
    assert len(said) < 400


def test_what_a_mean_lacks_is_said_and_a_run_that_lacks_too_much_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = spoilt_runs(tmp_path)
    path = changed(folder, "calm", 0, lambda config: None) / "episodes.parquet"
    episodes = pd.read_parquet(path)
    last = (episodes["split"] == "valid_unseen") & (episodes["phase"] == "eval")
    last &= episodes["step"] == episodes.loc[last, "step"].max()
    episodes["won"] = episodes["won"].astype(object)
    episodes.loc[episodes.index[last][0], ["ok", "won", "status"]] = [False, None, "env_error"]
    episodes.to_parquet(path, index=False)
    assert main([str(folder)]) == 2
    said = capsys.readouterr().err
    assert "opd, untrained with seed 0 is without 1 of 40 games" in said
    assert f"run {path.parent.parent.name} lacks 1" in said

    other = spoilt_runs(tmp_path / "undosed")
    run = changed(other, "calm", 0, lambda config: config["teacher"].pop("spoil")).parent.name
    assert main([str(other)]) == 0
    shown = capsys.readouterr()
    assert f"Left out, for want of teacher.spoil: {run}." in shown.err
    assert "95 %, uncorrected, Student's t over the runs of a point" in shown.out


def test_a_game_that_was_not_played_leaves_no_hole_in_a_mean(tmp_path: Path) -> None:
    episodes = ends([str(spoilt_runs(tmp_path))], "valid_unseen")
    fewer = episodes.drop(episodes.index[0])
    first = episodes.iloc[0]
    found = table(pd.DataFrame(fewer)).set_index("dose").loc[first["dose"], "mean"]
    means = fewer[fewer["dose"] == first["dose"]].groupby("run")["won"].mean()
    assert found == pytest.approx(means.mean())
