"""A real vLLM server on the CPU against the same teacher here. Needs vLLM: `nox -s served` makes an
environment with it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage.config.load import load
from sage.launch.execute import execute
from sage.policy.decoding.generate import reply
from sage.policy.models.folder import resolve_path
from sage.policy.models.load import LanguageModel, load_model
from sage.records.tables import read
from sage.teacher.elsewhere import Part
from sage.teacher.server.teacher import open_teacher
from tests.teacher.server.conftest import settings_at
from tests.teacher.server.test_run import SMALL

MODEL = "sage://tiny-teacher"
START_S = 600.0
"""vLLM imports for half a minute on an idle machine."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(port: int, log: Path) -> subprocess.Popen[bytes]:
    how = ["--dtype", "float32", "--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "8"]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", resolve_path(MODEL)]
    where = ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "tiny-teacher"]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("ab") as output:
        return subprocess.Popen(
            [*command, *where, *how], env=environment, stdout=output, stderr=subprocess.STDOUT
        )


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + START_S
    while time.monotonic() < ends:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            urllib.request.urlopen(f"{address}/v1/models", timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"no server after {START_S:g} s: {log.read_text(errors='replace')[-2000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("vllm")
    log, port = tmp_path_factory.mktemp("vllm") / "log", free_port()
    process, address = start(port, log), f"http://127.0.0.1:{port}"
    try:
        wait_for(address, process, log)
        yield address
    finally:
        stop(process)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load_model(load([f"teacher.path={MODEL}"]).teacher)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "games"))


@pytest.mark.parametrize("loss", ["divergence=top_k", "divergence=sampled_token"])
def test_the_loss_of_a_step_is_that_of_the_same_teacher_here(vllm: str, loss: str) -> None:
    """The same episodes: both runs sample them from the same student with the same numbers."""
    how = [*SMALL, loss, "trainer.steps=1", "trainer.tasks_per_step=6", "rollout.temperature=1"]
    mine = execute(load([*how, f"teacher.path={MODEL}"]))
    there = ["teacher=server", f"teacher.path={MODEL}", f"teacher.server.address={vllm}"]
    theirs = execute(load([*how, *there]))
    assert (mine.state, theirs.state) == ("done", "done"), theirs.reason
    assert mine.folder is not None
    assert theirs.folder is not None
    (a,), (b,) = (read(run, "steps").to_pylist() for run in (mine.folder, theirs.folder))
    print(f"{loss}: loss {a['loss']:.6f} here, {b['loss']:.6f} served, {a['student_tokens']} tokens")
    assert b["loss"] == pytest.approx(a["loss"], abs=1e-3)
    assert (b["student_tokens"], b["judge_queries"]) == (a["student_tokens"], a["judge_queries"])
    labels = [read(run, "turns").column("label").to_pylist() for run in (mine.folder, theirs.folder)]
    assert labels[0] == labels[1]


@pytest.mark.parametrize("judge", ["completions", "chat"])
def test_greedy_replies_are_those_of_the_same_model_here(vllm: str, lm: LanguageModel, judge: str) -> None:
    from sage.policy.dialogue import Dialogue

    messages = [("", f"You see a mug {n}.\nYour task is to: put a mug in desk.") for n in range(3)]
    dialogue = Dialogue(lm.tokenizer, False)
    prompts = [dialogue.open(*message) for message in messages]
    teacher = open_teacher(
        settings_at(vllm, judge=judge, deadline_s=120.0, patience_s=120.0),
        lm.tokenizer,
        path=MODEL,
        thinking=False,
        k=1,
    )
    try:
        got = teacher.reply(prompts, messages, 16, None)
    finally:
        teacher.close()
    want = reply(lm, prompts, 16)
    assert [r.text for r in got] == [r.text for r in want]
    if judge == "completions":
        assert [r.ids for r in got] == [r.ids for r in want]


def test_a_server_that_is_started_again_in_mid_run_costs_its_time(
    lm: LanguageModel, tmp_path: Path
) -> None:
    pytest.importorskip("vllm")
    log, port = tmp_path / "log", free_port()
    process, address = start(port, log), f"http://127.0.0.1:{port}"
    try:
        wait_for(address, process, log)
        said: list[str] = []
        settings = settings_at(address, deadline_s=120.0, patience_s=START_S)
        teacher = open_teacher(settings, lm.tokenizer, path=MODEL, thinking=False, k=4, say=said.append)
        ids = list(range(5, 60))
        before = teacher.states([ids], [[10, 20]])
        stop(process)
        process = start(port, log)
        teacher.prepare([Part.of([ids], [[10, 20]])])
        after = teacher.states([ids], [[10, 20]])
        teacher.close()
    finally:
        stop(process)
    assert float((after - before).abs().max()) < 1e-3
    assert "does not answer" in said[0]
    assert said[-1] == "the teacher's server answers again"
