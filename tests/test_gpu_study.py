"""benchmarks/gpu_study.py keeps to its time, goes on where it stopped, and drives the product throughout."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from sage.config.load import load
from tests.tiny_models import save_llama

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "benchmarks/gpu_study.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_study", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_study"] = module  # its dataclasses look for it
    spec.loader.exec_module(module)
    return module


def asked(script: ModuleType, folder: Path, *words: str) -> object:
    given, _ = script._asked(["--small", "--model", "sage://tiny-student", "--out", str(folder), *words])
    return given


def test_every_line_of_the_study_is_one_that_the_product_takes(script: ModuleType, tmp_path: Path) -> None:
    save_llama(tmp_path / "student")
    for sizes, dtype in ((script.CARD, "bfloat16"), (script.SMALL, "float32")):
        study = script.Study("sage://tiny-student", None, tmp_path, sizes, 2e-5, 2e-4, dtype, 2048)
        names = [name for name, _ in study.parts()]
        assert names[:4] == ["student", "teacher", "how the teacher plays", "how the student plays"]
        assert len(names) == 4 + sizes.seeds
        for name, line in list(study.parts())[:5]:  # the lines of further seeds differ in the seed
            command, *words = line
            assert command == "sage"
            methods = next((w for w in words if w.startswith("method=")), "method=sage_opd")
            others = [w for w in words if w != "-m" and not w.startswith("method=")]
            for method in methods.removeprefix("method=").split(","):
                config = load([*others, f"method={method}"])
                assert config.prompt.style == "short"
                assert config.student.dtype == dtype
                if config.task == "pretrain":
                    assert config.pretrain.start == "student"
                    continue
                # The study's own words count, whatever student=hub brings.
                assert config.trainer.steps == sizes.steps
                assert config.evaluation.limit in (None, 3)
                player = "teacher" if "the teacher" in name else "student"
                assert config.student.path == str(tmp_path / player)


def test_a_line_is_stopped_when_its_time_is_up(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sleeper.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(600)\n")
    (tmp_path / "quick.py").write_text("raise SystemExit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    began = time.monotonic()
    ended = script.run(["sleeper"], began + 2)
    assert ended.stopped
    assert time.monotonic() - began < 2 + script.STOPPING
    ended = script.run(["quick"], time.monotonic() + 60, tmp_path / "lines.txt")
    assert (ended.code, ended.stopped) == (3, False)
    assert (tmp_path / "lines.txt").read_text() == "python -m quick\n"


def test_a_part_that_is_done_is_not_run_again_and_one_that_failed_is(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    codes = iter([0, 0, 7, 0, 0, 0, 0])

    def run(line: list[str], until: float, log: Path | None = None) -> object:
        ran.append(next(w for w in line if w.startswith(("pretrain.output", "launch.runs_dir"))))
        return script.Ended(next(codes), stopped=False)

    monkeypatch.setattr(script, "run", run)
    study = asked(script, tmp_path)
    assert script.study(study, 300) == script.FAILED
    assert script.study(study, 300) == script.DONE
    out = tmp_path.resolve()
    assert ran[:2] == [f"pretrain.output={out}/student", f"pretrain.output={out}/teacher"]
    assert ran[2:4] == [f"launch.runs_dir={out}/teacher_plays"] * 2
    assert ran[4:] == [f"launch.runs_dir={out}/student_plays", *[f"launch.runs_dir={out}/runs"] * 2]


def test_other_words_for_the_same_folder_are_refused(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script.other_words(asked(script, tmp_path)) == ""
    assert script.other_words(asked(script, tmp_path, "--seeds", "7")) == ""  # more of the same
    assert script.study(asked(script, tmp_path, "--rate", "1e-3"), 300) == script.UNUSABLE
    assert "was begun with another rate" in capsys.readouterr().err


def test_without_a_card_it_says_how_to_run_in_small(tmp_path: Path) -> None:
    blind = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    line = [sys.executable, str(SCRIPT)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, check=False, env=blind)
    assert done.returncode == 2
    assert "--small runs every part in small" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_in_small_it_goes_from_a_model_to_a_report_in_two_calls(tmp_path: Path) -> None:
    model = save_llama(tmp_path / "model")
    out = tmp_path / "study"
    line = [sys.executable, str(SCRIPT), "--small", "--model", str(model), "--out", str(out)]
    env = {**os.environ, "SAGE_CACHE": str(tmp_path / "games")}

    def call(seconds: int) -> subprocess.CompletedProcess[str]:
        words = [*line, "--seconds", str(seconds)]
        return subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False, env=env)

    # Too short for all of it, wherever it is then; the second call goes on from there.
    first = call(80)
    assert first.returncode == 75, first.stderr
    assert "the same line goes on" in first.stdout
    taught = out / "student/config.json"
    done = out / "done.txt"
    began = done.read_text().splitlines() if done.exists() else []
    whole = taught.stat().st_mtime_ns if "student" in began else None
    second = call(3000)
    assert second.returncode == 0, second.stderr
    assert whole in (None, taught.stat().st_mtime_ns)
    assert (out / "report/report.html").is_file()
    runs = [json.loads(path.read_text()) for path in sorted(out.glob("runs/*/attempt_*/summary.json"))]
    assert len(runs) == 6  # three methods, two seeds
    compared = out / "report/tables/compare.csv"
    assert compared.is_file(), (out / "report/report.md").read_text()[:2000]
    assert {"sage_opd", "random_intervention"} <= set(re.findall(r"\w+", compared.read_text()))
