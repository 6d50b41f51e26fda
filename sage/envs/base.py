"""The environment protocol: what every text environment offers the rollout.

An environment is synchronous and plays one episode at a time; `sage.envs.pool` plays many. It never sees
tokens or models. Infrastructure trouble (a dead process, a missing file) is raised as `EnvironmentFault`;
a bad action of the agent never raises, it comes back as a `Step` with a `failure`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from sage.episode import Failure, Task
from sage.errors import EnvironmentFault as EnvironmentFault  # every environment raises it


@dataclass(frozen=True, slots=True)
class Step:
    """What the environment says after `reset` or `step`.

    observation: text shown to the agent. admissible: sorted commands (empty where the environment does not
    list them). reward: of this step. score: so far, in the environment's own unit. done/won: whether the
    episode ended and with success. failure: `NO_EFFECT`, `SCHEMA` or `TOOL` where the action was not
    executed, else `NONE`.
    """

    observation: str
    admissible: tuple[str, ...] = ()
    reward: float = 0.0
    score: float = 0.0
    done: bool = False
    won: bool = False
    failure: Failure = Failure.NONE


@runtime_checkable
class Environment(Protocol):
    """One episode at a time. `goal` is valid after `reset`. An expert is optional: `WithExpert`."""

    goal: str

    def reset(self, task: Task) -> Step:
        """Start `task`. Raises EnvironmentFault when it cannot be loaded."""
        ...

    def step(self, action: str) -> Step:
        """Execute one command. Raises EnvironmentFault on infrastructure trouble only."""
        ...

    def close(self) -> None: ...


class WithExpert(Environment, Protocol):
    """What an environment with an expert has beside the rest; each of the three may be left out.

    Without `expert_distance` the columns `oracle` and `expert_distance_*` stay empty and
    `intervention=oracle` is refused; without `expert_action` so is `rollout.player=expert`, and
    `rollout.max_context` is compared with openings alone.
    """

    def expert_distance(self) -> int | None:
        """Shortest number of steps to the goal with full information; None where unknown. Asked for where
        the settings' `gives_distances()` says so."""
        ...

    def expert_action(self) -> str | None:
        """What a partial-information expert would do now, given only what this episode has shown."""
        ...

    def expert_thought(self) -> str:
        """Why, in a few words, about the same move."""
        ...


class ExpertMove(NamedTuple):
    """What an expert would do now; `thought` is empty where it does not think aloud."""

    thought: str
    action: str


def expert_move(environment: Environment) -> ExpertMove | None:
    """The expert's next move, None where it has none or the environment has no expert."""
    act = getattr(environment, "expert_action", None)
    action = None if act is None else act()
    if action is None:
        return None
    think = getattr(environment, "expert_thought", None)
    return ExpertMove("" if think is None else think(), action)


def expert_distance(environment: Environment) -> int | None:
    """The expert's distance to the goal, None where it is unknown.

    Raises EnvironmentFault where there is no expert to ask, although the settings promised one.
    """
    measure = getattr(environment, "expert_distance", None)
    if measure is None:
        raise EnvironmentFault(
            f"{type(environment).__name__} has no expert_distance(), and its settings' gives_distances() "
            "says that it has; add the method, or have that return False."
        )
    distance: int | None = measure()
    return distance
