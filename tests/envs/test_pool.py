"""The pool answers every request, whatever its environments do, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from sage.envs.base import Step
from sage.envs.pool import EnvFault, EnvPool, FaultKind, PoolStep, Result
from sage.episode import Task


class Counter:
    """Counts commands. `raise`, `exit`, `hang`, `late` and `unpicklable` do what they say; done after ten."""

    def __init__(self) -> None:
        self.goal = ""
        self.count = 0

    def reset(self, task: Task) -> Step:
        if task.id == "broken":
            raise FileNotFoundError("there is no such game")
        self.goal, self.count = f"count for {task.id}", 0
        return Step(f"start {task.id}")

    def step(self, action: str) -> Step:
        if action == "raise":
            raise RuntimeError("the engine\nlost its mind")
        if action == "exit":
            os._exit(7)
        if action == "hang":
            time.sleep(600)
        if action == "late":
            time.sleep(1.5)
        if action == "leave":
            sys.exit("enough")
        if action == "unpicklable":
            return Step(lambda: None)  # type: ignore[arg-type]
        self.count += 1
        return Step(f"{action} {self.count}", done=self.count == 10)

    def expert_distance(self) -> int | None:
        return 10 - self.count

    def expert_action(self) -> str | None:
        return "count"

    def close(self) -> None: ...


def tasks(*slots: int) -> list[tuple[int, Task]]:
    return [(slot, Task(f"t{slot}", "toy", "train", "count", "toy")) for slot in slots]


def texts(results: dict[int, Result]) -> dict[int, str]:
    return {
        slot: result.step.observation if isinstance(result, PoolStep) else result.kind.value
        for slot, result in results.items()
    }


@pytest.fixture(params=[0, 1, 3])
def workers(request: pytest.FixtureRequest) -> int:
    return request.param


def test_it_plays_many_episodes_the_same_however_many_workers(workers: int) -> None:
    with EnvPool(Counter, workers, 20, distances=True) as pool:
        first = pool.reset_many(tasks(4, 0, 2))
        assert list(first) == [4, 0, 2]
        assert first[4] == PoolStep(Step("start t4"), "count for t4", 10)
        pool.step_many([(0, "a")])
        second = pool.step_many([(0, "b"), (4, "c")])
        assert second == {
            0: PoolStep(Step("b 2"), "count for t0", 8), 4: PoolStep(Step("c 1"), "count for t4", 9)
        }
        assert texts(pool.reset_many(tasks(0))) == {0: "start t0"}
        assert texts(pool.step_many([(0, "d"), (2, "e")])) == {0: "d 1", 2: "e 1"}


def test_an_exception_is_a_fault_of_its_slot_alone(workers: int) -> None:
    with EnvPool(Counter, workers, 20) as pool:
        pool.reset_many(tasks(0, 1, 3))
        after = pool.step_many([(0, "a"), (3, "raise"), (1, "b")])
        assert after[3] == EnvFault(FaultKind.RAISED, "RuntimeError: the engine lost its mind")
        assert texts(after) == {0: "a 1", 3: "raised", 1: "b 1"}
        again = pool.step_many([(0, "a"), (3, "a"), (1, "leave")])
        assert again[3] == after[3]
        assert texts(again) == {0: "a 2", 3: "raised", 1: "raised"}
        assert texts(pool.reset_many(tasks(3))) == {3: "start t3"}
        assert texts(pool.step_many([(0, "a"), (3, "a")])) == {0: "a 3", 3: "a 1"}


def test_a_task_that_cannot_be_loaded_and_a_slot_never_reset(workers: int) -> None:
    with EnvPool(Counter, workers, 20) as pool:
        broken = (0, Task("broken", "toy", "train", "count", "toy"))
        result = pool.reset_many([broken, *tasks(1)])
        assert result[0] == EnvFault(FaultKind.RAISED, "FileNotFoundError: there is no such game")
        after = texts(pool.step_many([(0, "a"), (1, "a"), (8, "a")]))
        assert after == {0: "raised", 1: "a 1", 8: "not_running"}


def test_a_worker_that_dies_takes_only_its_own_slots_and_comes_back() -> None:
    with EnvPool(Counter, 2, 20) as pool:
        pool.reset_many(tasks(0, 1, 2, 3, 4))
        after = pool.step_many([(0, "a"), (1, "b"), (2, "exit"), (3, "c")])
        assert texts(after) == {0: "a 1", 1: "b 1", 2: "died", 3: "c 1"}
        assert isinstance(after[2], EnvFault)
        assert "exit code 7" in after[2].reason
        # 0 and 4 lived in the same process: their episodes are over too, and say so.
        later = pool.step_many([(0, "a"), (1, "b"), (4, "a")])
        assert texts(later) == {0: "died", 1: "b 2", 4: "died"}
        assert texts(pool.reset_many(tasks(2, 4))) == {2: "start t2", 4: "start t4"}
        assert texts(pool.step_many([(2, "a"), (4, "a"), (3, "c"), (0, "a")])) == {
            2: "a 1", 4: "a 1", 3: "c 2", 0: "died"
        }


def test_a_worker_killed_between_two_calls() -> None:
    with EnvPool(Counter, 2, 20) as pool:
        pool.reset_many(tasks(0, 1))
        victim = next(worker for number, worker in pool._workers.items() if number == 0)
        os.kill(victim.process.pid or 0, signal.SIGKILL)
        victim.process.join()
        assert texts(pool.step_many([(0, "a"), (1, "a")])) == {0: "died", 1: "a 1"}
        assert texts(pool.reset_many(tasks(0))) == {0: "start t0"}


def test_a_step_that_hangs_is_cut_off_and_the_others_go_on() -> None:
    with EnvPool(Counter, 2, 2.0, reset_timeout_s=60) as pool:
        pool.reset_many(tasks(0, 1, 2))
        began = time.monotonic()
        after = pool.step_many([(0, "a"), (2, "hang"), (1, "b")])
        assert time.monotonic() - began < 30
        assert texts(after) == {0: "a 1", 2: "timed_out", 1: "b 1"}
        assert texts(pool.reset_many(tasks(0, 2))) == {0: "start t0", 2: "start t2"}
        assert texts(pool.step_many([(0, "a"), (2, "a"), (1, "b")])) == {0: "a 1", 2: "a 1", 1: "b 2"}


def test_a_result_that_cannot_be_pickled_is_a_fault() -> None:
    with EnvPool(Counter, 1, 20) as pool:
        pool.reset_many(tasks(0, 1))
        after = pool.step_many([(0, "unpicklable"), (1, "a")])
        assert texts(after) == {0: "raised", 1: "a 1"}


def test_misuse_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="picklable"):
        EnvPool(lambda: Counter(), 1, 20)
    with pytest.raises(ValueError, match="-1 workers"):
        EnvPool(Counter, -1, 20)
    with EnvPool(Counter, 0, 20) as pool, pytest.raises(ValueError, match="twice"):
        pool.step_many([(0, "a"), (0, "b")])
    with pytest.raises(ValueError, match="closed"):
        pool.step_many([(0, "a")])


def no_children_left(pids: list[int]) -> bool:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE for p in pids):
            return True
        time.sleep(0.1)
    return False


def test_close_ends_every_process_also_after_an_exception() -> None:
    pids: list[int] = []

    def play() -> None:
        with EnvPool(Counter, 2, 20) as pool:
            pool.reset_many(tasks(0, 1))
            pids.extend(worker.process.pid or 0 for worker in pool._workers.values())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play()
    assert len(pids) == 2
    assert no_children_left(pids)


@pytest.mark.parametrize("ending", ["fall off the end", "SIGINT", "SIGKILL"])
def test_no_orphans_however_the_parent_ends(ending: str, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    last = "time.sleep(600)" if ending == "SIGKILL" else "pool.step_many([(0, 'hang')])"
    script.write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[2])!r}]\n"
        "from test_pool import Counter, tasks\n"
        "from sage.envs.pool import EnvPool\n"
        "if __name__ == '__main__':\n"
        "    pool = EnvPool(Counter, 2, 60)\n"
        "    pool.reset_many(tasks(0, 1))\n"
        "    print(*[worker.process.pid for worker in pool._workers.values()], flush=True)\n"
        + ("" if ending == "fall off the end" else f"    {last}\n")
    )
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        if ending != "fall off the end":
            time.sleep(0.3)
            parent.send_signal(getattr(signal, ending))
        parent.wait(20)
        assert no_children_left(pids)
    finally:
        parent.kill()
        parent.wait()


def taken(pool: EnvPool, count: int) -> list[dict[int, str]]:
    """What comes until so many slots have answered, as it comes."""
    got: list[dict[int, str]] = []
    while sum(map(len, got)) < count:
        got.append(texts(pool.answers(wait=True)))
    return got


def test_who_is_fast_is_heard_while_others_still_answer() -> None:
    with EnvPool(Counter, 2, 20) as pool:
        pool.reset_many(tasks(0, 1, 2))
        pool.ask_steps([(0, "late"), (1, "a"), (2, "b")])  # 2 stands behind 0 in one process
        assert taken(pool, 1) == [{1: "a 1"}]
        pool.ask_steps([(1, "c")])
        assert taken(pool, 1) == [{1: "c 2"}]
        assert texts(pool.step_many([(1, "d")])) == {1: "d 3"}  # and one may wait for some of them
        with pytest.raises(ValueError, match="asked twice"):
            pool.ask_steps([(0, "e")])
        late = {slot: text for part in taken(pool, 2) for slot, text in part.items()}
        assert late == {0: "late 1", 2: "b 1"}
        assert pool.answers(wait=True) == {}  # nothing is out


def test_a_process_that_dies_is_heard_of_with_what_it_had_said(workers: int) -> None:
    with EnvPool(Counter, workers, 20) as pool:
        pool.ask_resets(tasks(0, 1))
        assert sorted(slot for part in taken(pool, 2) for slot in part) == [0, 1]
        if not workers:
            return  # it would be this process
        pool.ask_steps([(0, "a"), (1, "exit")])
        heard = {slot: text for part in taken(pool, 2) for slot, text in part.items()}
        assert heard == {0: "a 1", 1: "died"}


def test_answers_that_nobody_will_take_are_not_taken_for_later_ones() -> None:
    with EnvPool(Counter, 2, 20) as pool:
        pool.reset_many(tasks(0, 1))
        pool.ask_steps([(0, "late"), (1, "a")])
        pool.forget()
        assert texts(pool.reset_many(tasks(0, 1))) == {0: "start t0", 1: "start t1"}
        assert texts(pool.step_many([(0, "b"), (1, "c")])) == {0: "b 1", 1: "c 1"}


def test_a_step_that_hangs_beside_others_that_are_asked_meanwhile_is_given_up_in_time() -> None:
    with EnvPool(Counter, 2, 0.5) as pool:
        pool.reset_many(tasks(0, 1))
        pool.ask_steps([(0, "hang")])
        started = time.monotonic()
        while time.monotonic() - started < 60:
            pool.ask_steps([(1, "a")])
            heard = texts(pool.answers(wait=True))
            if 0 in heard:
                break
        assert heard[0] == "timed_out"
