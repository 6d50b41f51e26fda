"""No Java process outlives its run, and one that dies takes its own episodes and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sage.config.load import load
from sage.envs.pool import EnvFault, EnvPool, FaultKind, PoolStep, Result
from sage.episode import Task
from sage.launch.execute import execute
from sage.records.tables import read

REPOSITORY = Path(__file__).parents[3]


def tasks(*slots: int) -> list[tuple[int, Task]]:
    task = Task("lifespan-longest-lived/93", "scienceworld", "test", "lifespan", "")
    return [(slot, task) for slot in slots]


def javas(parent: int | None = None) -> list[psutil.Process]:
    """The Java processes below `parent` (default: this process), without the one that other tests share."""
    below = psutil.Process(parent).children(recursive=True)
    return [p for p in below if p.name().startswith("java") and p.ppid() != os.getpid()]


def gone(processes: list[psutil.Process], seconds: float = 20.0) -> bool:
    return not psutil.wait_procs(processes, timeout=seconds)[1]


def make() -> EnvPool:
    return EnvPool(load(["env=scienceworld"]).env.make, 1, 60, distances=True)


def texts(results: dict[int, Result]) -> list[str]:
    return [r.step.observation if isinstance(r, PoolStep) else r.reason for r in results.values()]


def test_many_slots_share_one_jvm_which_ends_with_the_pool() -> None:
    with make() as pool:
        started = pool.reset_many(tasks(0, 1, 2))
        assert len(set(texts(started))) == 1
        running = javas()
        assert len(running) == 1
        assert texts(pool.step_many([(0, "teleport to outside"), (2, "teleport to outside")])) == [
            "You teleport to the outside."
        ] * 2
    assert gone(running)


def test_a_jvm_that_is_killed_is_a_fault_of_its_episodes_and_a_fresh_one_at_the_next_reset() -> None:
    with make() as pool:
        pool.reset_many(tasks(0, 1))
        (first,) = javas()
        os.kill(first.pid, signal.SIGKILL)
        results = pool.step_many([(0, "look around"), (1, "look around")])
        assert all(isinstance(r, EnvFault) and r.kind is FaultKind.RAISED for r in results.values())
        assert all("ScienceWorld's JVM failed" in text for text in texts(results))
        again = pool.reset_many(tasks(0, 1))
        assert all(isinstance(r, PoolStep) for r in again.values())
        (second,) = javas()
        assert second.pid != first.pid
    assert gone([second])


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("workers", "ending"),
    [
        pytest.param(0, "falls off the end", marks=SLOW),
        pytest.param(0, "raises", marks=SLOW),
        pytest.param(0, "SIGINT", marks=SLOW),
        pytest.param(0, "SIGTERM", marks=SLOW),
        (0, "SIGKILL"),
        pytest.param(1, "falls off the end", marks=SLOW),
        pytest.param(1, "raises", marks=SLOW),
        pytest.param(1, "SIGINT", marks=SLOW),
        pytest.param(1, "SIGTERM", marks=SLOW),
        (1, "SIGKILL"),
    ],
)
def test_no_java_is_left_however_the_parent_ends(workers: int, ending: str, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    last = {"falls off the end": "pass", "raises": "raise RuntimeError"}.get(ending, "time.sleep(600)")
    script.write_text(
        "import sys, time\n"
        f"sys.path[:0] = [{str(REPOSITORY)!r}]\n"
        "from sage.envs.pool import EnvPool\n"
        "from sage.episode import Task\n"
        "from sage.config.load import load\n"
        "if __name__ == '__main__':\n"
        f"    pool = EnvPool(load(['env=scienceworld']).env.make, {workers}, 60)\n"
        "    task = Task('lifespan-longest-lived/93', 'scienceworld', 'test', 'lifespan', '')\n"
        "    print(list(pool.reset_many([(0, task)]).values()), flush=True)\n"
        "    sys.stdin.readline()\n"
        f"    {last}\n"
    )
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )
    try:
        assert parent.stdout is not None
        assert parent.stdin is not None
        assert "PoolStep" in parent.stdout.readline()
        running = javas(parent.pid)
        assert len(running) == 1
        parent.stdin.write("\n")
        parent.stdin.flush()
        if ending.startswith("SIG"):
            time.sleep(0.3)
            parent.send_signal(getattr(signal, ending))
        parent.wait(30)
        assert gone(running)
    finally:
        parent.kill()
        parent.communicate()


@pytest.mark.slow
def test_a_jvm_killed_in_the_middle_of_a_run_costs_its_episodes_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    play = EnvPool.step_many
    killed: list[int] = []

    def step_many(pool: EnvPool, requests: list[tuple[int, str]]) -> dict[int, Result]:
        nonlocal calls
        calls += 1
        if calls == 3:
            killed.append(javas()[0].pid)
            os.kill(killed[0], signal.SIGKILL)
        return play(pool, requests)

    monkeypatch.setattr(EnvPool, "step_many", step_many)
    outcome = execute(
        load([
            "env=scienceworld", "method=base", "env.turn_budget=6", "evaluation.limit=8", "speed.slots=4",
            "speed.workers=2", "speed.threads=1", "tracking.mlflow=false", f"launch.runs_dir={tmp_path}",
        ]),
        export=False,
    )
    assert outcome.state == "done", outcome.reason
    assert outcome.folder is not None
    episodes = read(outcome.folder, "episodes").to_pylist()
    assert len(episodes) == len({e["task"] for e in episodes}) == 8
    broken = [e for e in episodes if e["status"] == "env_error"]
    assert killed
    assert 1 <= len(broken) <= 2  # two slots share a JVM, and one of them may just have been free
    assert all("ScienceWorld's JVM failed" in e["error"] for e in broken)
    assert all(e["status"] in ("won", "lost", "turn_budget") for e in episodes if e not in broken)
    assert not javas()
