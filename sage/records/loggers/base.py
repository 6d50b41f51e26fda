"""What a logger beside MLflow is: settings that open a destination for a run's curves, turns and end.

    @loggers.register("mine")
    class Mine(Logger):
        address: str
        def open(self) -> Destination:
            from my_package import Client      # heavy imports here alone
            return MyDestination(Client(self.address))

with `conf/tracking/mine.yaml` holding `loggers: {mine: {name: mine, address: ...}}`, and `tracking=mine` or
`tracking=[mlflow,mine]`. Records come first: a destination is called in a process of its own, which reads the
run directory; what it raises is one sentence at the run's end, and is made up for by the same line later.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sage.config.registry import Component


class Point(NamedTuple):
    """One value of one curve."""

    key: str
    value: float
    timestamp_ms: int
    step: int


@dataclass(frozen=True, slots=True)
class About:
    """Which run it is. All of it can be made from the run directory again; secrets are blanked."""

    key: str
    """Names one attempt of one run, for ever."""
    name: str
    """For people; unique within a folder of runs."""
    params: Mapping[str, str]
    """The arm's (`arm.method`, ...), and every setting that can change a result."""
    tags: Mapping[str, str]
    started_ms: int
    """Since the epoch."""
    held: int
    """The last step that was sent completely before; -1 where nothing was, or where the run has gone back to
    an earlier checkpoint since, so that what the store holds is another history."""


class Destination(ABC):
    """One run in a store. One process calls it at a time: `begin` once, the others whenever there is news."""

    @abstractmethod
    def begin(self, about: About) -> int:
        """Find or make the run; returns the last step of which it holds everything, and keeps nothing of
        later ones (-1: nothing at all). What is sent begins behind it: no point may stand there twice."""

    @abstractmethod
    def send(self, points: Sequence[Point]) -> None:
        """Curves' points, step by step; when it returns they are safe."""

    def turns(self, table: Mapping[str, Sequence[Any]]) -> None:  # noqa: B027 - a store may have no tables
        """Turns of sampled episodes, a column a key, in place of what was sent before."""

    @abstractmethod
    def end(self, state: str, single: Sequence[Point]) -> None:
        """The run is `done` or `failed`, or `running` where its process has gone; `single`: what a run has
        one value of. Closes what is open. A run may be begun again afterwards."""

    def is_alive(self) -> bool:
        """Whether what was begun is still there to be sent to, and is not another process's by now."""
        return True


class Logger(Component):
    """Settings of a logger: registered by name, importable in milliseconds."""

    def open(self) -> Destination:
        """A destination for one run. Raises ImportError where the logger's package is not installed."""
        raise NotImplementedError(f"{type(self).__name__} does not say where records go.")

    def look(self) -> str:
        """The line that shows the runs, for the end of a run; empty where there is none."""
        return ""
