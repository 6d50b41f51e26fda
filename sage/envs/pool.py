"""Many episodes side by side, and no environment can take the others down with it.

Invariant: every request for a slot is answered, by a `PoolStep` or by an `EnvFault`; a fault is of that slot
(an environment that raised) or of the slots of one worker process (it died, or hung and was killed). A slot
that has a fault answers every step with it until it is reset; its worker is started again then.

`workers=0` plays in this process: right for an engine in pure Python at 0.1 ms a step, but there an
environment that hangs or kills its process cannot be survived. `workers>=1` hosts slot `s` in child process
`s % workers` (spawned, so nothing of torch or a lock is inherited); a batch keeps all of them busy.

A child never outlives this process: it leads its own process group, which is killed on `close`, at exit
and on garbage collection, and it watches its parent, so that even a parent that is killed leaves nothing
behind (short of a step that hangs in C without releasing the interpreter lock).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple, Self, cast

from sage.envs.base import Environment, ExpertMove, Step, expert_distance, expert_move
from sage.episode import Task

START_TIMEOUT_S = 120.0
"""For a child process to import and report; not part of any step's time."""
CLOSE_TIMEOUT_S = 2.0
"""For the environments of a child to close by themselves before it is killed."""


class PoolStep(NamedTuple):
    """What the environment said, its goal sentence, and the expert's distance where the pool computes it.

    A tuple, because one is made at every step: a frozen dataclass takes twice as long.
    """

    step: Step
    goal: str
    distance: int | None = None


class FaultKind(StrEnum):
    """Why an episode became `env_error`."""

    RAISED = "raised"
    """The environment (or its factory) raised."""
    DIED = "died"
    """The worker process ended."""
    TIMED_OUT = "timed_out"
    """A step took longer than allowed; its worker was killed."""
    NOT_RUNNING = "not_running"
    """The slot was stepped without a reset."""


@dataclass(frozen=True, slots=True)
class EnvFault:
    """Infrastructure failed; `reason` is one sentence for the record."""

    kind: FaultKind
    reason: str


@dataclass(frozen=True, slots=True)
class Advice:
    """The expert's next move; None where it has none."""

    move: ExpertMove | None


Result = PoolStep | EnvFault
_Answer = PoolStep | EnvFault | Advice


class _Ask(Enum):
    EXPERT = auto()


_Order = Task | str | _Ask
_Request = tuple[int, _Order]
"""A slot, and the task to reset it to, the action to take, or whom to ask."""


class _Host:
    """The environments of some slots, in whichever process this lives."""

    def __init__(self, factory: Callable[[], Environment], distances: bool) -> None:
        self._factory = factory
        self._distances = distances
        self._environments: dict[int, Environment] = {}
        self._faults: dict[int, EnvFault] = {}
        """Of slots whose environment was given up."""

    def serve(self, slot: int, request: _Order) -> _Answer:
        try:
            environment = self._environments.get(slot)
            if isinstance(request, Task):
                self._faults.pop(slot, None)
                if environment is None:
                    environment = self._environments[slot] = self._factory()
                step = environment.reset(request)
            elif environment is None:
                return self._faults.get(slot) or _not_running(slot)
            elif isinstance(request, str):
                step = environment.step(request)
            else:
                return Advice(expert_move(environment))
            distance = expert_distance(environment) if self._distances else None
            return PoolStep(step, environment.goal, distance)
        except (Exception, SystemExit) as error:
            self._discard(slot)
            fault = EnvFault(FaultKind.RAISED, _sentence(error))
            self._faults[slot] = fault
            return fault

    def _discard(self, slot: int) -> None:
        environment = self._environments.pop(slot, None)
        if environment is not None:
            with contextlib.suppress(Exception, SystemExit):  # it is given up; nothing more to learn
                environment.close()

    def close(self) -> None:
        for slot in list(self._environments):
            self._discard(slot)


def _not_running(slot: int) -> EnvFault:
    return EnvFault(FaultKind.NOT_RUNNING, f"Slot {slot} has no running episode; reset it first.")


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else f"{type(error).__name__} was raised."


# The child's side ---------------------------------------------------------------------------------------


def _child(connection: Connection, factory: Callable[[], Environment], distances: bool) -> None:
    """Serve batches until told to stop (None) or the parent is gone."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C is the parent's business; and what the environment starts dies with this group
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()
    host = _Host(factory, distances)
    connection.send(None)  # ready
    try:
        while (batch := connection.recv()) is not None:
            for slot, request in batch:
                result = host.serve(slot, request)
                try:
                    connection.send((slot, result))
                except (pickle.PicklingError, TypeError, AttributeError) as error:
                    fault = EnvFault(FaultKind.RAISED, f"The step cannot be sent between processes: {error}")
                    connection.send((slot, fault))
    except (EOFError, OSError):
        pass  # the parent closed its end
    host.close()


def _die_with(sentinel: int) -> None:
    wait([sentinel])
    _kill_group(os.getpid())
    os._exit(1)


def _kill_group(pid: int) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


# The parent's side --------------------------------------------------------------------------------------


class _Worker:
    """One child process and what is known about it."""

    def __init__(self, factory: Callable[[], Environment], distances: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, far_end = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_child, args=(far_end, factory, distances), name="sage-env", daemon=True
        )
        self.process.start()
        far_end.close()
        self.ready = False
        self.live: set[int] = set()
        """Slots with a running episode."""
        self.waiting: dict[int, float] = {}
        """Slots whose answers are outstanding, in order, and how long each may take."""
        self.deadline = 0.0

    def kill(self) -> None:
        """End it now, with everything its environments started."""
        pid = self.process.pid
        if self.process.is_alive() and self.ready and pid is not None:
            _kill_group(pid)  # only a child that reported leads a group of its own
        self.process.kill()
        self.process.join()
        self.connection.close()

    def stop(self) -> None:
        """Let it close its environments, then end it."""
        if not self.waiting and self.process.is_alive():
            with contextlib.suppress(OSError):
                self.connection.send(None)
                self.process.join(CLOSE_TIMEOUT_S)
        self.kill()


def _kill_all(workers: dict[int, _Worker]) -> None:
    for worker in workers.values():
        worker.kill()
    workers.clear()


class EnvPool:
    """Plays one episode per slot. A context manager; slots are any non-negative integers.

    factory: makes one environment; picklable (a module-level function, a class, a `functools.partial` of
    either) where `workers >= 1`. step_timeout_s: for one step of one slot, and `reset_timeout_s` (default:
    ten times as much) for one reset; without effect where `workers=0`. distances: deliver the expert's
    distance with every step.
    """

    def __init__(
        self,
        factory: Callable[[], Environment],
        workers: int,
        step_timeout_s: float,
        distances: bool = False,
        reset_timeout_s: float | None = None,
    ) -> None:
        if workers < 0:
            raise ValueError(f"A pool cannot have {workers} workers; 0 plays in this process.")
        if workers:
            try:
                pickle.dumps(factory)
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"With workers={workers} the environment factory must be picklable (no lambda, no local "
                    f"function): {error}. Or use workers=0."
                ) from error
        self._factory = factory
        self._distances = distances
        self._n_workers = workers
        self._step_timeout_s = step_timeout_s
        self._reset_timeout_s = reset_timeout_s if reset_timeout_s is not None else 10 * step_timeout_s
        self._host = _Host(factory, distances) if workers == 0 else None
        self._workers: dict[int, _Worker] = {}
        self._faults: dict[int, EnvFault] = {}
        """Why a slot of a lost worker has no running episode."""
        self._told: dict[int, _Answer] = {}
        """Answers that nobody has taken yet."""
        self._closed = False
        self._finalizer = weakref.finalize(self, _kill_all, self._workers)

    def reset_many(self, requests: Iterable[tuple[int, Task]]) -> dict[int, Result]:
        """Start an episode in each slot, whatever the slot did before. Answers are in the order asked."""
        return cast("dict[int, Result]", self._serve(list(requests), self._reset_timeout_s))

    def step_many(self, requests: Iterable[tuple[int, str]]) -> dict[int, Result]:
        """One command in each slot. Answers are in the order asked."""
        return cast("dict[int, Result]", self._serve(list(requests), self._step_timeout_s))

    def advise_many(self, slots: Iterable[int]) -> dict[int, Advice | EnvFault]:
        """What each slot's expert would do now. Answers are in the order asked."""
        requests: list[_Request] = [(slot, _Ask.EXPERT) for slot in slots]
        return cast("dict[int, Advice | EnvFault]", self._serve(requests, self._step_timeout_s))

    def ask_resets(self, requests: Iterable[tuple[int, Task]]) -> None:
        """As `reset_many`, without waiting: `answers` hands out what comes."""
        self._ask(list(requests), self._reset_timeout_s)

    def ask_steps(self, requests: Iterable[tuple[int, str]]) -> None:
        """As `step_many`, without waiting: `answers` hands out what comes."""
        self._ask(list(requests), self._step_timeout_s)

    def answers(self, wait: bool) -> dict[int, Result]:
        """What has come of what was asked and not yet taken; `wait` until there is some, if any is out."""
        self._drop_dead()
        self._collect(0.0)
        while wait and not self._told and self._out():
            self._collect(None)
        told, self._told = self._told, {}
        return cast("dict[int, Result]", told)

    def forget(self) -> None:
        """Whoever asked will not take the answers: they must not be taken for later ones."""
        self._kill_busy()
        self._told.clear()

    def _serve(self, requests: list[_Request], timeout_s: float) -> dict[int, _Answer]:
        if self._host is not None:
            self._refuse_twice(requests)
            return {slot: self._host.serve(slot, request) for slot, request in requests}
        self._refuse_twice(requests)
        try:
            self._ask(requests, timeout_s)
            while any(slot not in self._told for slot, _ in requests):
                self._collect(None)
        except BaseException:
            self._kill_busy()  # interrupted in between: late answers must not be taken for later ones
            raise
        return {slot: self._told.pop(slot) for slot, _ in requests}

    def _refuse_twice(self, requests: list[_Request]) -> None:
        if self._closed:
            raise ValueError("The pool is closed.")
        out = self._out() | self._told.keys()
        if len(dict(requests)) < len(requests) or any(slot in out for slot, _ in requests):
            raise ValueError("A slot is asked twice at a time; an episode takes one command at a time.")

    def _out(self) -> set[int]:
        """Slots whose answers have not come."""
        return {slot for worker in self._workers.values() for slot in worker.waiting}

    def _ask(self, requests: list[_Request], timeout_s: float) -> None:
        if self._host is not None:
            self._told.update(self._serve(requests, timeout_s))
            return
        self._refuse_twice(requests)
        self._drop_dead()
        batches: dict[int, list[_Request]] = {}
        for slot, request in requests:
            number = slot % self._n_workers
            host = self._workers.get(number)
            if not isinstance(request, Task) and (host is None or slot not in host.live):
                self._told[slot] = self._faults.get(slot, _not_running(slot))
            else:
                batches.setdefault(number, []).append((slot, request))
        for number, batch in batches.items():
            self._send(number, batch, timeout_s)

    def _drop_dead(self) -> None:
        for number, worker in list(self._workers.items()):
            if worker.process.is_alive():
                continue
            while self._workers.get(number) is worker and worker.connection.poll():
                self._receive(number)  # what it said before it died, and then that it has
            if self._workers.get(number) is worker:
                self._lose(number, FaultKind.DIED, self._death(worker))

    def _send(self, number: int, batch: list[_Request], timeout_s: float) -> None:
        worker = self._workers.get(number)
        if worker is None:
            worker = self._workers[number] = _Worker(self._factory, self._distances)
        if not worker.waiting:
            worker.deadline = time.monotonic() + (timeout_s if worker.ready else START_TIMEOUT_S)
        worker.waiting.update({slot: timeout_s for slot, _ in batch})
        try:
            worker.connection.send(batch)
        except OSError:
            worker.process.join(1.0)
            self._lose(number, FaultKind.DIED, self._death(worker))

    def _collect(self, most_s: float | None) -> None:
        """Wait for some answer, at most so long (None: as long as one may take), and take what is there."""
        busy = {number: worker for number, worker in self._workers.items() if worker.waiting}
        if not busy:
            return
        by_connection = {worker.connection: number for number, worker in busy.items()}
        left = max(0.0, min(worker.deadline for worker in busy.values()) - time.monotonic())
        for connection in wait(list(by_connection), left if most_s is None else min(left, most_s)):
            assert isinstance(connection, Connection)
            self._receive(by_connection[connection])
        self._drop_late()

    def _drop_late(self) -> None:
        """Give up the workers whose time is over."""
        now = time.monotonic()
        for number, worker in list(self._workers.items()):
            if worker.waiting and now >= worker.deadline and not worker.connection.poll():
                slot, limit = next(iter(worker.waiting.items()))
                what = f"slot {slot}" if worker.ready else "a worker process that starts"
                limit = limit if worker.ready else START_TIMEOUT_S
                self._lose(number, FaultKind.TIMED_OUT, f"No answer from {what} in {limit:g} s.")

    def _receive(self, number: int) -> None:
        worker = self._workers[number]
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join(1.0)
            self._lose(number, FaultKind.DIED, self._death(worker))
            return
        if message is None:
            worker.ready = True
        else:
            slot, result = message
            self._told[slot] = result
            del worker.waiting[slot]
            self._note(worker, slot, result)
        worker.deadline = time.monotonic() + next(iter(worker.waiting.values()), 0.0)

    def _note(self, worker: _Worker, slot: int, result: _Answer) -> None:
        """Whether the slot has a running episode now."""
        if isinstance(result, EnvFault):
            worker.live.discard(slot)
            self._faults[slot] = result
        else:
            worker.live.add(slot)
            self._faults.pop(slot, None)

    def _death(self, worker: _Worker) -> str:
        return f"The worker process ended with exit code {worker.process.exitcode}."

    def _lose(self, number: int, kind: FaultKind, reason: str) -> None:
        """Give up a worker: every episode it played becomes a fault; the next reset starts another."""
        worker = self._workers.pop(number)
        worker.kill()
        culprit = next(iter(worker.waiting), None)
        for slot in {*worker.live, *worker.waiting}:
            text = reason if culprit in (slot, None) else f"{reason} This episode shared its process."
            self._faults[slot] = EnvFault(kind, text)
            if slot in worker.waiting:
                self._told[slot] = self._faults[slot]

    def _kill_busy(self) -> None:
        for number in [number for number, worker in self._workers.items() if worker.waiting]:
            self._lose(number, FaultKind.DIED, "The run was interrupted.")

    def close(self) -> None:
        """Close all environments and end all processes; may be called again."""
        self._closed = True
        if self._host is not None:
            self._host.close()
        for worker in self._workers.values():
            worker.stop()
        self._workers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
