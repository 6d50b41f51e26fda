"""A package of somebody else's, installed: its parts are there without `plugins=` (docs/examples)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sage.records.tables import read

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "examples" / "own_parts"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as pip installs it, in a folder of its own."""
    pytest.importorskip("setuptools", reason="the example is built with setuptools")
    made = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(EXAMPLE, made / "source")
    alone = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    pip = ["-m", "pip", "install", "--quiet", *alone, "--target", str(made / "site"), str(source)]
    done = python(pip, made)
    assert done.returncode == 0, done.stderr
    return made / "site"


def python(words: list[str], folder: Path, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    paths = [str(path) for path in (ROOT, ROOT / "sweeps", site) if path]
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_rule_a_confidence_and_an_environment_of_an_installed_package_run(
    site: Path, tmp_path: Path
) -> None:
    line = [
        *("-m", "sage", "env=drawers", "intervention=opening", "confidence=cautious"),
        *("trainer.steps=2", "trainer.tasks_per_step=4", "speed.threads=1", "tracking=none"),
    ]
    ended = python(line, tmp_path, site)
    assert ended.returncode == 0, ended.stderr
    assert "intervention=opening+confidence=cautious on drawers, seed 0" in ended.stdout
    (folder,) = tmp_path.glob("runs/*/attempt_1")
    episodes = read(folder, "episodes").to_pylist()
    assert sorted(e["task"] for e in episodes if e["phase"] == "eval") == sorted(
        [f"test/{n:04d}" for n in range(8)] * 2
    )
    assert {e["env"] for e in episodes} == {"drawers"}
    assert all(e["ok"] for e in episodes)
    assert all(e["expert_distance_start"] is None for e in episodes)
    assert "the columns oracle and expert_distance_* stay empty" in (folder / "log.txt").read_text()
    trained = [turn for turn in read(folder, "turns").to_pylist() if turn["phase"] == "train"]
    assert {turn["split"] for turn in trained} == {"train"}
    assert all((turn["label"] == "ALWAYS") == (turn["turn"] < 2) for turn in trained)
    assert all(turn["oracle"] is None for turn in trained)
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    assert json.loads((folder / "run.json").read_text())["fields"]["plugins"] == ["own_parts"]


def test_what_is_installed_is_no_part_of_a_run_that_takes_nothing_of_it(site: Path, tmp_path: Path) -> None:
    code = (
        "from sage.config.load import load; from sage.launch.usage import help_text; "
        "print(load([]).plugins, load(['confidence=cautious']).plugins); "
        "print(load(['confidence=cautious']) == load(['confidence=cautious', 'plugins=[own_parts]'])); "
        "print('intervention=opening' in help_text())"
    )
    said = python(["-c", code], tmp_path, site)
    assert said.stdout.splitlines() == ["[] ['own_parts']", "True", "True"], said.stderr


def test_what_needs_an_expert_is_refused_where_there_is_none(site: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from sage.config.load import load; from sage.check.preflight import preflight\n"
        "for words in sys.argv[1:]:\n"
        "    try: config = load(['env=drawers', *words.split()]); preflight(config, config.env.tasks)\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
        "    else: print('fine')"
    )
    lines = (
        "intervention=oracle",
        "intervention=inverted intervention@intervention.rule=oracle",
        "method=sft_expert",
        "method=stable_opd",
        "method=stable_opd rollout.demonstration.weight=0",
        "method=sft_expert trainer.steps=0",
    )
    done = python(["-c", code, *lines], tmp_path, site)
    oracle, inverted, sft, stable, *fine = done.stdout.splitlines()
    assert fine == ["fine", "fine"], done.stderr
    assert oracle.startswith("ConfigError intervention=oracle labels turns by the expert's distance")
    assert inverted.startswith("ConfigError intervention=inverted labels turns by the expert's distance")
    assert "env=drawers" in oracle
    assert sft.startswith("ConfigError rollout.player=expert learns from the environment's expert")
    assert stable.startswith("ConfigError rollout.demonstration.player=expert learns from")
    assert "no move in 8 of 8 training games" in sft
    assert max(map(len, (oracle, inverted, sft, stable))) < 400


def test_the_examples_own_tests_pass(site: Path, tmp_path: Path) -> None:
    tests = shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    done = python(["-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)], tmp_path, site)
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_a_package_whose_parts_cannot_be_imported_is_named_in_one_sentence(tmp_path: Path) -> None:
    about = tmp_path / "site" / "lost_parts-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lost-parts\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[sage_opd.parts]\nlost = lost_parts.rules\n")
    ended = python(["-m", "sage", "tracking=none"], tmp_path, tmp_path / "site")
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "'lost-parts'" in line
    assert "No module named 'lost_parts'" in line
    assert "pip uninstall lost-parts" in line
    assert len(line) < 400
    assert not (tmp_path / "runs").exists()
