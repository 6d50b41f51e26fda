"""benchmarks/dose_response.py: means and intervals over runs against scipy; two studies are refused."""

from __future__ import annotations

from pathlib import Path

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


def test_a_game_that_was_not_played_leaves_no_hole_in_a_mean(tmp_path: Path) -> None:
    episodes = ends([str(spoilt_runs(tmp_path))], "valid_unseen")
    fewer = episodes.drop(episodes.index[0])
    first = episodes.iloc[0]
    found = table(pd.DataFrame(fewer)).set_index("dose").loc[first["dose"], "mean"]
    means = fewer[fewer["dose"] == first["dose"]].groupby("run")["won"].mean()
    assert found == pytest.approx(means.mean())
