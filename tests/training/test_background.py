"""Checkpoints that are written while the training goes on: what is in them, and how a write can end."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sage.records.recorder import StepReport
from sage.signals import Stopped, stop_on_signals
from sage.training import checkpoint
from sage.training.background import Background
from tests.distill_run import SPEED, TRAINER, plain, train

EVERY_STEP = SPEED.model_copy(update={"checkpoint_every": 1})
FOREGROUND = EVERY_STEP.model_copy(update={"checkpoint_background": False})
WEIGHTS = TRAINER.model_copy(update={"checkpoint": "weights"})


def held(path: Path) -> dict[str, Any]:
    """All numbers of a checkpoint, flat."""
    found: dict[str, Any] = dict(load_file(path / "student" / "model.safetensors"))

    def walk(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, one in value.items():
                walk(f"{name}.{key}", one)
        elif isinstance(value, list | tuple):
            for i, one in enumerate(value):
                walk(f"{name}.{i}", one)
        else:
            found[name] = value

    walk("trainer", torch.load(path / "trainer.pt", weights_only=True))
    return found


def assert_same(a: Path, b: Path, *, but: str = "") -> None:
    one, other = held(a), held(b)
    assert one.keys() == other.keys()
    for name, value in one.items():
        if but and but in name:
            continue
        same = torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        assert same, name


def newest(folder: Path) -> str:
    path = checkpoint.latest(folder / "checkpoints")
    return path.name if path else ""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


class Killed(Exception):
    pass


def test_a_write_that_takes_as_long_as_the_next_step_holds_the_step_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped = {step: threading.Event() for step in range(1, 6)}
    write, writers = checkpoint.write, []

    def slow(folder: Path, content: Any, kind: Any, *, finished: bool) -> Path:
        writers.append(threading.current_thread())
        assert finished or stepped[content.step + 1].wait(60)  # the next step has changed every weight
        return write(folder, content, kind, finished=finished)

    monkeypatch.setattr(checkpoint, "write", slow)
    train(tmp_path / "a", speed=EVERY_STEP, on_step=lambda report: stepped[report.step].set())
    assert threading.main_thread() not in writers
    monkeypatch.setattr(checkpoint, "write", write)
    train(tmp_path / "b", speed=FOREGROUND)
    assert names(tmp_path / "a") == names(tmp_path / "b") == ["step-000003", "step-000004"]
    for name in names(tmp_path / "a"):
        assert_same(tmp_path / "a" / "checkpoints" / name, tmp_path / "b" / "checkpoints" / name)


def test_a_failed_write_ends_the_training_at_the_next_step_and_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, failed = torch.save, threading.Event()

    def full(what: dict[str, Any], path: Path) -> None:
        if what["step"] == 2:
            failed.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        save(what, path)

    monkeypatch.setattr(torch, "save", full)
    steps: list[int] = []

    def on_step(report: StepReport) -> None:
        steps.append(report.step)
        assert report.step < 3 or failed.wait(60)

    with pytest.raises(OSError, match="No space left"):
        train(tmp_path, speed=EVERY_STEP, on_step=on_step)
    assert steps[-1] in (2, 3)  # the write may have been begun after step 3 had
    assert names(tmp_path) == ["step-000001"]
    monkeypatch.setattr(torch, "save", save)
    _, rest, _ = train(tmp_path, speed=EVERY_STEP)
    assert [r.step for r in rest] == [2, 3, 4]


def test_the_last_write_is_waited_for_and_its_error_is_the_training_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(what: dict[str, Any], path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        train(tmp_path)
    assert names(tmp_path) == []


def test_a_kill_during_a_write_leaves_the_checkpoint_before_and_the_run_ends_as_if_undisturbed(
    tmp_path: Path,
) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from sage.training import checkpoint
from tests.distill_run import train
from tests.training.test_background import EVERY_STEP
seal = checkpoint.seal
def die(folder):
    if folder.name.startswith(".partial-000003"):
        os.kill(os.getpid(), signal.SIGKILL)
    seal(folder)
checkpoint.seal = die
train(Path(sys.argv[1]), speed=EVERY_STEP)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "killed")]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], timeout=300)
    assert ended.returncode == -signal.SIGKILL
    partial = [name for name in names(tmp_path / "killed") if name.startswith(".partial-")]
    assert len(partial) == 1
    assert newest(tmp_path / "killed") == "step-000002"
    _, rest, _ = train(tmp_path / "killed", speed=EVERY_STEP)
    _, whole, _ = train(tmp_path / "whole", speed=EVERY_STEP)
    assert plain(rest) == plain(whole)[2:]
    assert names(tmp_path / "killed") == names(tmp_path / "whole") == ["step-000003", "step-000004"]
    for name in names(tmp_path / "whole"):
        assert_same(*(tmp_path / which / "checkpoints" / name for which in ("killed", "whole")))


def test_a_signal_waits_for_the_write_and_writes_the_last_whole_step_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, order = threading.Event(), threading.Event(), []
    write = checkpoint.write

    def slow(folder: Path, content: Any, kind: Any, *, finished: bool) -> Path:
        if content.step == 2:
            begun.set()
            assert go.wait(60)
        order.append(content.step)
        return write(folder, content, kind, finished=finished)

    monkeypatch.setattr(checkpoint, "write", slow)

    def on_step(report: StepReport) -> None:
        if report.step == 3:
            assert begun.wait(60)
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Timer(0.3, go.set).start()

    every_two = SPEED.model_copy(update={"checkpoint_every": 2})
    with stop_on_signals(), pytest.raises(Stopped):
        train(tmp_path, speed=every_two, on_step=on_step)
    assert order == [2, 3]
    assert names(tmp_path) == ["step-000002", "step-000003"]


def test_weights_alone_are_smaller_and_a_run_that_is_cut_starts_over_and_says_so(tmp_path: Path) -> None:
    def die(report: StepReport) -> None:
        if report.step == 3:
            raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "cut", trainer=WEIGHTS, speed=EVERY_STEP, on_step=die)
    checkpoints = tmp_path / "cut" / "checkpoints"
    assert names(tmp_path / "cut") == ["step-000001", "step-000002"]
    assert newest(tmp_path / "cut") == ""
    assert checkpoint.starts_over(checkpoints) == (
        "step-000002 holds weights alone (trainer.checkpoint=weights), from which no training goes on "
        "exactly: the run starts over, and makes it again. trainer.checkpoint=full keeps what is done."
    )
    _, again, _ = train(tmp_path / "cut", trainer=WEIGHTS, speed=EVERY_STEP)
    _, whole, _ = train(tmp_path / "whole", speed=EVERY_STEP)
    assert plain(again) == plain(whole)
    sizes = {}
    for which in ("cut", "whole"):
        last = tmp_path / which / "checkpoints" / "step-000004"
        sizes[which] = sum(p.stat().st_size for p in last.rglob("*") if p.suffix in (".pt", ".safetensors"))
    assert sizes["cut"] < 0.5 * sizes["whole"]
    ours, theirs = (
        load_file(tmp_path / which / "checkpoints" / "step-000004" / "student" / "model.safetensors")
        for which in ("cut", "whole")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_finished_training_of_weights_alone_is_gone_on_from_exactly(tmp_path: Path) -> None:
    done, _, both = train(tmp_path, trainer=WEIGHTS)
    assert newest(tmp_path) == "step-000004"
    assert checkpoint.starts_over(tmp_path / "checkpoints") == ""
    again, none, same = train(tmp_path, trainer=WEIGHTS)
    assert (again, none) == (done, [])
    for a, b in zip(both.student.model.parameters(), same.student.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_signal_writes_no_weights_that_nobody_could_go_on_from(tmp_path: Path) -> None:
    def stop(report: StepReport) -> None:
        if report.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with stop_on_signals(), pytest.raises(Stopped):
        train(tmp_path, trainer=WEIGHTS, on_step=stop)
    assert newest(tmp_path) == ""


def test_a_copy_shares_no_memory_with_the_training_and_keeps_tied_weights_one() -> None:
    from sage.training.content import content_of
    from sage.training.optimizer import StudentOptimizer
    from tests.tiny_models import tiny_lm

    lm = tiny_lm(1)
    optimizer = StudentOptimizer(lm.model, TRAINER)
    for p in lm.model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    live = content_of(1, lm, optimizer.state_dict())
    copy = live.copied()
    before = {name: value.clone() for name, value in copy.weights.items()}
    moments = copy.rest["optimizer"]["state"][0]["exp_avg"].clone()
    tied = [name for name, value in copy.weights.items()
            if value.data_ptr() == copy.weights["lm_head.weight"].data_ptr()]  # fmt: skip
    names_of_one = ["lm_head.weight", "model.embed_tokens.weight"]
    assert sorted(tied) == (names_of_one if lm.model.config.tie_word_embeddings else names_of_one[:1])
    for p in lm.model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in copy.weights.items())
    assert torch.equal(copy.rest["optimizer"]["state"][0]["exp_avg"], moments)
    assert not torch.equal(live.weights["lm_head.weight"], before["lm_head.weight"])


def test_an_error_of_the_work_is_raised_once_and_another_error_is_kept() -> None:
    def fail() -> None:
        raise ValueError("of the work")

    writer = Background()
    writer.start(fail)
    with pytest.raises(ValueError, match="of the work"):
        writer.wait()
    writer.check()
    with pytest.raises(ValueError, match="of the work"), Background() as writer:
        writer.start(fail)

    def ends_with(error: BaseException) -> None:
        with Background() as writer:
            writer.start(fail)
            raise error

    with pytest.raises(KeyError, match="other"):
        ends_with(KeyError("other"))
    with pytest.raises(ValueError, match="of the work"):
        ends_with(Stopped(signal.SIGTERM))
