"""ScienceWorld as an `Environment`: the package's simulator, its scores and (unless `brief`) its words.

Invariant: scores are the package's own, negative ones included; won means 100. A JVM that dies ends the
episodes that it held as faults, and the next reset starts another one.
"""

from __future__ import annotations

from sage.envs.base import EnvironmentFault, Step
from sage.envs.scienceworld import jvm
from sage.envs.scienceworld.actions import brief, failure_of, is_crash
from sage.envs.scienceworld.gold import SIMPLIFICATIONS, Follower, paths
from sage.envs.scienceworld.tasks import parse_id
from sage.episode import Failure, Task

WON = 100
"""The score of a finished task."""

_TASK = "Your task is to "


class ScienceWorldEnvironment:
    """Plays one variation at a time; all environments of a process share its JVM."""

    def __init__(
        self, simplifications: str = "easy", observation: str = "full", admissible: bool = False
    ) -> None:
        self.goal = ""
        self._simplifications = simplifications
        self._brief = observation == "brief"
        self._admissible = admissible
        self._simulator: jvm.Simulator | None = None
        self._session: jvm.Session | None = None
        self._follower: Follower | None = None
        self._score = 0
        self._enlisted = False

    def reset(self, task: Task) -> Step:
        """Start `task`; the observation is the first room. Raises EnvironmentFault."""
        if not self._enlisted:
            jvm.enlist()
            self._enlisted = True
        simulator = jvm.shared()
        if simulator is not self._simulator:
            self._simulator, self._session = simulator, simulator.open()
        assert self._session is not None
        name, variation = parse_id(task.id)
        simulator.load(self._session, name, variation, self._simplifications)
        self.goal = " ".join(simulator.goal(self._session).split()).removeprefix(_TASK).rstrip(". ")
        path = paths().get(task.id) if self._simplifications == SIMPLIFICATIONS else None
        self._follower = Follower(path) if path else None
        self._score = 0
        text, _, _ = simulator.step(self._session, "look around")
        return self._read(text, 0, False, Failure.NONE)

    def step(self, action: str) -> Step:
        """Execute one command. Raises EnvironmentFault where the JVM or the simulator failed."""
        if self._simulator is None or self._session is None:
            raise EnvironmentFault("The ScienceWorld environment was used before reset.")
        text, score, done = self._simulator.step(self._session, action)
        if is_crash(text):
            raise EnvironmentFault(f"ScienceWorld's simulator failed after {action!r}: {text[:200]}")
        failure = failure_of(action, text)
        reward, self._score = score - self._score, score
        if self._follower is not None:
            self._follower.observe(action, failure is Failure.NONE, score, done)
        return self._read(text, reward, done, failure)

    def expert_distance(self) -> int | None:
        """Gold actions left (see `gold.Follower`); None where the task is lost or no path is known."""
        return None if self._follower is None else self._follower.distance

    def expert_action(self) -> str | None:
        """The gold path's next action."""
        return None if self._follower is None else self._follower.next_action()

    def close(self) -> None:
        """Forget the episode; the last environment of a process ends its JVM."""
        if self._simulator is not None and self._session is not None:
            self._simulator.release(self._session)
        self._simulator = self._session = self._follower = None
        if self._enlisted:
            self._enlisted = False
            jvm.release()

    def _read(self, text: str, reward: int, done: bool, failure: Failure) -> Step:
        listed: tuple[str, ...] = ()
        if self._admissible and not done and self._simulator is not None and self._session is not None:
            listed = self._simulator.valid_actions(self._session)
        text = brief(text) if self._brief else text.strip()
        return Step(text, listed, reward, self._score, done, self._score >= WON, failure)
