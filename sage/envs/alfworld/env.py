"""ALFWorld as an `Environment`, over either engine.

Invariant: the agent reads the same text from both. With `textworld` the native world follows in lockstep to
know the distance to the goal, and an episode in which the two ever differ is a fault, not data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage.envs.alfworld.simulator.native import NativeWorld, Outcome
from sage.envs.alfworld.simulator.parse import parse_game
from sage.envs.base import EnvironmentFault, Step
from sage.episode import Failure, Task

if TYPE_CHECKING:
    from sage.envs.alfworld.simulator.expert import SearchingExpert
    from sage.envs.alfworld.textworld_engine import TextWorldEngine

ENGINES = ("native", "textworld")


def scene_of(welcome: str) -> str:
    """The room alone: the first observation without the banner and the task, which `goal` holds."""
    return welcome.split("\n\n")[1]


class AlfworldEnvironment:
    """Plays one game at a time. `goal` is the task's sentence; `world.state` may be read, not changed."""

    def __init__(self, engine: str = "native") -> None:
        if engine not in ENGINES:
            raise ValueError(f"env.engine={engine} does not exist; choose one of {', '.join(ENGINES)}.")
        self.engine = engine
        self.goal = ""
        self._world: NativeWorld | None = None
        self._real: TextWorldEngine | None = None
        self._score = 0.0
        self._scene = ""
        self._unread: list[tuple[str, str]] = []
        """Executed (command, observation) pairs that the expert has not been told yet."""
        self._expert: SearchingExpert | None = None

    @property
    def world(self) -> NativeWorld:
        """Raises EnvironmentFault before the first reset."""
        if self._world is None:
            raise EnvironmentFault("The ALFWorld environment was used before reset.")
        return self._world

    def reset(self, task: Task) -> Step:
        """Start the game file `task.path`; the observation is the room (see `scene_of`).

        Raises:
            EnvironmentFault: the file is missing or not covered, or the textworld engine is not installed.
        """
        self._world = NativeWorld(parse_game(task.path))
        self.goal = self._world.game.task_text
        self._score, self._unread, self._expert = 0.0, [], None
        outcome = self._world.reset()
        if self.engine == "textworld":
            if self._real is None:
                from sage.envs.alfworld.textworld_engine import TextWorldEngine

                self._real = TextWorldEngine()
            outcome = self._compared(self._real.reset(task.path), outcome, "reset")
        self._scene = scene_of(outcome.observation)
        return self._step(outcome._replace(observation=self._scene))

    def step(self, action: str) -> Step:
        """Execute one command; one that is not admissible changes nothing and comes back as `NO_EFFECT`."""
        outcome = self.world.step(action)
        if self._real is not None:
            outcome = self._compared(self._real.step(action), outcome, action)
        self._unread.append((action, outcome.observation))
        return self._step(outcome)

    def expert_distance(self) -> int | None:
        """Shortest number of commands to the goal with full information; None where it is out of reach."""
        from sage.envs.alfworld.simulator.planner import shortest_distance

        return shortest_distance(self.world.game, self.world.state)

    def expert_action(self) -> str | None:
        """What the searching expert would do now, given only this episode's text."""
        return self.expert.act()

    def expert_thought(self) -> str:
        """The expert's current subgoal in a few words."""
        return self.expert.thought()

    @property
    def expert(self) -> SearchingExpert:
        """The partial-information expert, told everything up to now."""
        if self._expert is None:
            from sage.envs.alfworld.simulator.expert import SearchingExpert

            self._expert = SearchingExpert(self._scene, self.goal, self.world.game.goal)
        for command, observation in self._unread:
            self._expert.observe(command, observation)
        self._unread.clear()
        return self._expert

    def close(self) -> None:
        """Forget the episode; the object can be reset again."""
        self._world = self._real = self._expert = None

    def _compared(self, real: Outcome, native: Outcome, command: str) -> Outcome:
        if real != native:
            raise EnvironmentFault(
                f"TextWorld and the native engine differ after {command!r} in {self.world.game.path}: "
                f"{real.observation!r} against {native.observation!r}."
            )
        return real

    def _step(self, outcome: Outcome) -> Step:
        self._score = max(self._score, outcome.reward)
        return Step(
            outcome.observation,
            outcome.admissible,
            outcome.reward,
            self._score,
            outcome.done,
            outcome.won,
            Failure.NONE if outcome.executed else Failure.NO_EFFECT,
        )
