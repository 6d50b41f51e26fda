"""Whole runs with a teacher on Ray: the numbers of a local one, to the last bit, whatever happens."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.launch.test_elsewhere import wait_for
from tests.launch.test_multirun import ROOT
from tests.teacher.ray.conftest import PATH, Sage, folder_of

pytestmark = pytest.mark.slow

SMALL = (
    *("env.games=generated", "env.generated.train=6", "env.generated.valid_seen=2"),
    *("env.generated.valid_unseen=2", "env.turn_budget=3", "env.evaluation_splits=[valid_seen]"),
    *("trainer.steps=2", "trainer.tasks_per_step=4", "trainer.warmup_steps=0", "evaluation.limit=1"),
    *("evaluation.before=false", "tracking=none", "speed.threads=1", "speed.checkpoint_every=1"),
    *("evaluation.after=false", "intervention.max_new_tokens=8", "speed.micro_batch=2"),
)
NOT_TIME = re.compile(r"^speed_|seconds|_s$|^time|per_second|memory|rss|^run$|^name$|^method$")


def attempt(root: Path, runs: str) -> Path:
    (found,) = root.glob(f"{runs}/*/attempt_*")
    return found


def table(folder: Path, name: str) -> list[dict[str, Any]]:
    rows = pq.read_table(next(folder.glob(f"{name}*.parquet"))).to_pylist()
    return [{k: v for k, v in row.items() if not NOT_TIME.search(k)} for row in rows]


def same(mine: Path, theirs: Path) -> None:
    for name in ("steps", "turns", "episodes"):
        assert repr(table(mine, name)) == repr(table(theirs, name)), name


@pytest.fixture(scope="module")
def here(sage: Sage) -> Path:
    """The attempt of the run with the same teacher in its own process."""
    ended = sage(*SMALL, PATH, "launch.runs_dir=here")
    assert ended.returncode == 0, ended.stderr
    return attempt(folder_of(sage), "here")


def test_a_run_is_bit_for_bit_that_of_the_same_teacher_here(
    sage: Sage, teacher: tuple[str, ...], here: Path
) -> None:
    ended = sage(*SMALL, *teacher, "launch.runs_dir=there")
    assert (ended.returncode, ended.stderr) == (0, "")
    there = attempt(folder_of(sage), "there")
    same(here, there)
    assert table(here, "steps")[0]["judge_queries"] > 0
    models = json.loads((there / "provenance.json").read_text())["models"]
    assert models == json.loads((here / "provenance.json").read_text())["models"]
    assert json.loads((there / "teacher_ray.json").read_text())["replicas"] == 2


def test_an_actor_that_is_killed_in_mid_step_begins_again_and_the_step_goes_on(
    sage: Sage, teacher: tuple[str, ...], here: Path
) -> None:
    """The actors are suspended, so that the first question to them cannot be over when they are killed."""
    pids = [int(pid) for pid in re.findall(r"process (\d+) of", sage("teacher", "status").stdout)]
    assert len(pids) == 2
    process = subprocess.Popen(
        [sys.executable, "-m", "sage", *SMALL, *teacher, "launch.runs_dir=killed"],
        cwd=folder_of(sage),
        env=sage.environment,  # type: ignore[attr-defined]
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    wait_for(lambda: any(folder_of(sage).glob("killed/*/attempt_*/teacher_ray.json")), 900)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    folder = attempt(folder_of(sage), "killed")
    wait_for(lambda: is_waiting(process.pid), 900)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    same(here, folder)
    begun_again = [int(pid) for pid in re.findall(r"process (\d+) of", sage("teacher", "status").stdout)]
    assert len(begun_again) == 2
    assert not {*begun_again} & {*pids}


def is_waiting(pid: int) -> bool:
    """Whether a process does nothing for ten seconds; also on a machine that is shared by many."""

    def used() -> int:
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))

    before = used()
    time.sleep(10)
    return used() - before < 0.5 * os.sysconf("SC_CLK_TCK")


def test_two_ranks_have_the_loss_of_one_process_and_play_every_game_once(
    sage: Sage, teacher: tuple[str, ...], here: Path
) -> None:
    config = str(ROOT / "conf" / "accelerate" / "ddp_cpu.yaml")
    launch = ("-m", "accelerate.commands.launch", "--config_file", config, "--main_process_port", "0")
    ended = sage(*SMALL, *teacher, "launch.runs_dir=ranks", before=(*launch, "-m", "sage"))
    assert ended.returncode == 0, ended.stderr
    ranks = attempt(folder_of(sage), "ranks")
    for mine, theirs in zip(table(here, "steps"), table(ranks, "steps"), strict=True):
        for name in ("loss", "z", "grad_norm", "student_tokens"):
            assert theirs[name] == pytest.approx(mine[name], rel=1e-5), name
    played = [
        sorted((row["step"], row["task"], row["rollout"]) for row in table(run, "episodes"))
        for run in (here, ranks)
    ]
    assert played[0] == played[1]
    assert len(set(played[0])) == len(played[0])


def test_what_is_amiss_is_one_sentence_before_anything_is_played(
    sage: Sage, teacher: tuple[str, ...]
) -> None:
    wrong = {
        ("teacher.ray.name=other",): "has no teacher 'other' (it has 'sage-teacher'); start it",
        (
            "teacher.dtype=bfloat16",
        ): "was started with teacher.dtype='float32', and the config says 'bfloat16'",
        ("teacher.ray.address=127.0.0.1:9",): "There is no Ray cluster at 127.0.0.1:9",
    }
    for words, sentence in wrong.items():
        ended = sage(*SMALL, *teacher, "launch.runs_dir=wrong", *words)
        assert sentence in ended.stderr, ended.stderr
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
        assert len(ended.stderr) < 400


def test_start_and_stop_say_what_they_did_and_refuse_what_cannot_be(
    sage: Sage, teacher: tuple[str, ...]
) -> None:
    again = sage("teacher", "start", *teacher)
    assert again.returncode == 0, again.stderr
    assert "0 started" in again.stdout
    refused = {
        ("start", *teacher, "teacher.dtype=bfloat16"): "was started with teacher.dtype='float32'",
        ("start", *teacher, "teacher.ray.name=big", "teacher.ray.num_gpus=1"): "do not fit; lower one",
        ("stop", "teacher.ray.name=nobody"): "has no teacher 'nobody'",
    }
    for words, sentence in refused.items():
        ended = sage("teacher", *words)
        assert sentence in ended.stderr, ended.stderr
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    said = sage("teacher", "status").stdout
    assert len(re.findall(r"sage-teacher/[01]: sage://tiny-teacher, float32 on cpu, digest", said)) == 2
