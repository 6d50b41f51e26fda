"""A study of 12 runs gives equal results on this machine's scheduler, as jobs of submitit and on Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.launch.test_elsewhere import has
from tests.slow.test_kills import SMALL, in_mlflow, results, start

STUDY = ["-m", "study=table4", "seed=0,1,2", "budget=smoke", *SMALL, "trainer.steps=1", "launch.workers=2"]


def undisturbed(folder: Path, *words: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    folder.mkdir()
    process = start(folder, [*STUDY, *words])
    assert process.wait(timeout=3000) == 0, (folder / "out.log").read_text()[-3000:]
    return results(folder), in_mlflow(folder)


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return undisturbed(tmp_path_factory.mktemp("basic") / "study")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["submitit_local", "ray"])
def test_every_launcher_gives_the_same_results(basic: Any, tmp_path: Path, launcher: str) -> None:
    has(launcher.partition("_")[0])
    found, exported = undisturbed(tmp_path / "study", f"hydra/launcher={launcher}")
    assert len(found) == len(exported) == 12
    assert found == basic[0]
    assert exported == basic[1]
