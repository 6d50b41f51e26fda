"""The gold paths that ship: what to do in each task, and how far an episode is from its end.

`gold.json.gz` (made by `make_gold`) holds, for the evaluation tasks and a share of the train variations, a
path that was seen to reach score 100: the package's own, made shorter where that still reached 100 (teleports
for walks, no needless looking around), with the score after each of its actions.

Invariant of `Follower`: the distance is the number of gold actions that are left, plus one where the agent
is not in the room in which the next of them must be done; 0 after a win, None once the goal is lost.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from sage.envs.manifest import MissingData

GOLD_FORMAT = "sage-scienceworld-gold-1"
"""`format` of gold.json.gz; raise the number when its fields change meaning."""

SIMPLIFICATIONS = "easy"
"""The paths were made under these, and hold for no others."""

_MOVE = re.compile(r"(?:teleport|go) to (?:the )?(.+)")
_LOOKS = re.compile(r"look around|look (?:at|in) .*|examine .*|inventory|task")


@dataclass(frozen=True, slots=True)
class Path:
    """One gold path. `scores[i]` is the score after `actions[i]`; `package`: length of the package's own."""

    actions: tuple[str, ...]
    scores: tuple[int, ...]
    package: int

    def __len__(self) -> int:
        return len(self.actions)


@cache
def paths() -> Mapping[str, Path]:
    """Task id -> gold path, of all that ship. Raises MissingData where the file is of another format."""
    data = files(__package__).joinpath("gold.json.gz").read_bytes()
    content = json.loads(gzip.decompress(data))
    if content.get("format") != GOLD_FORMAT:
        raise MissingData(
            f"ScienceWorld's gold paths have format {content.get('format')!r}, not {GOLD_FORMAT!r}; "
            "make them anew with `python -m pretrain.scienceworld_gold`."
        )
    return {
        name: Path(tuple(row["actions"]), tuple(row["scores"]), row["package"])
        for name, row in content["paths"].items()
    }


def normal(action: str) -> str:
    """An action as it is compared: lower case, single blanks."""
    return " ".join(action.lower().split())


def room_of(action: str) -> str | None:
    """The room that a movement leads to; None for any other action."""
    found = _MOVE.fullmatch(normal(action))
    return found[1] if found else None


class Follower:
    """How far one episode is along a gold path, judged from its actions and scores alone.

    An action that was executed advances the path where it is the next one, or a later one with nothing but
    movements and looks in between. A score that the path reaches later advances it to there, however it
    came about. Other good ways to the goal are not recognised before they score.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._actions: Sequence[str] = [normal(action) for action in path.actions]
        self._next = 0
        self._room: str | None = None
        """Where the agent has gone; None for where it began."""
        self._won = self._lost = False

    def observe(self, action: str, executed: bool, score: int, done: bool) -> None:
        """One turn: what was done, whether the simulator did it, and the score after it."""
        if done:
            self._won, self._lost = score >= 100, score < 100
            return
        if not executed:
            return
        action = normal(action)
        self._room = room_of(action) or self._room
        self._advance_by(action)
        reached = [i for i, value in enumerate(self.path.scores) if value >= score]
        if score > 0 and reached and (not self._next or score > self.path.scores[self._next - 1]):
            self._next = max(self._next, reached[0] + 1)

    def _advance_by(self, action: str) -> None:
        for ahead in range(self._next, len(self._actions)):
            if action == self._actions[ahead]:
                # A movement that only passes through is not the one that the path waits for.
                if ahead == self._next or room_of(action) is None:
                    self._next = ahead + 1
                return
            if not (room_of(self._actions[ahead]) or _LOOKS.fullmatch(self._actions[ahead])):
                return

    @property
    def distance(self) -> int | None:
        """Actions left to the goal; None where it cannot be reached any more."""
        if self._lost:
            return None
        if self._won:
            return 0
        left = len(self._actions) - self._next
        if self._next < len(self._actions) and room_of(self._actions[self._next]) is None:
            left += self._room != self._expected_room()
        return max(1, left)

    def next_action(self) -> str | None:
        """What the path says to do now."""
        if self._won or self._lost or self._next >= len(self._actions):
            return None
        upcoming = self._actions[self._next]
        expected = self._expected_room()
        if room_of(upcoming) is None and expected is not None and self._room != expected:
            return f"teleport to {expected}"
        return self.path.actions[self._next]

    def _expected_room(self) -> str | None:
        for action in reversed(self._actions[: self._next]):
            if room := room_of(action):
                return room
        return None
