"""A partial-information expert for ALFWorld: it knows only what the episode's text has shown.

Invariant: `SearchingExpert` reads the goal, the first observation and (command, observation) pairs, nothing
else; the game file and the simulator's state stay out of its sight. It therefore works the same over both
engines, and what it does can be learnt from the text history alone.

The policy is meant to be imitated by small models, so it is deterministic and has few rules:

* A needed object that has been seen is fetched, at once where it is in reach.
* Otherwise search: receptacle types in the fixed order of `likely_places.json` for that object, within a
  type in the order of the first observation, skipping what was already seen inside; a closed receptacle one
  stands at is opened. When everything has been seen without success, the search starts over.
* The first listed sinkbasin, microwave, fridge and target receptacle is the one that is used; of a
  two-object task, the target that already holds one.
* A wrong object in hand is put down right here if that can be, else at the nearest likely place.

`observe` takes whatever was executed, so a student's turns and injected mistakes are fine. Read by the
AlfWorld environments (`expert_action`), by the pretraining data and by `oracle.py`'s callers.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from sage.envs.alfworld.simulator.world import Goal

NOTHING = "Nothing happens."

STATION = {"clean": "sink", "heat": "microwave", "cool": "fridge"}
"""What the names of the receptacles that change an object begin with (`sinkbasin 1`)."""

_VERB = {
    "pick_clean_then_place_in_recep": "clean",
    "pick_heat_then_place_in_recep": "heat",
    "pick_cool_then_place_in_recep": "cool",
}
_UNDONE_BY = {"heat": "cool", "cool": "heat"}

_NAME = re.compile(r"\b([a-z]+ \d+)\b")
_OPEN = re.compile(r"The ([a-z]+ \d+) is open\. In it, you see (.*)", re.DOTALL)
_ON = re.compile(r"On the ([a-z]+ \d+), you see (.*)", re.DOTALL)
_CLOSED = re.compile(r"The ([a-z]+ \d+) is closed\.")
_ARRIVE = re.compile(r"You arrive at ([a-z]+ \d+)\.")
_CLOSE = re.compile(r"You close the ([a-z]+ \d+)\.")
_TAKE = re.compile(r"You pick up the ([a-z]+ \d+) from the ([a-z]+ \d+)\.")
_MOVE = re.compile(r"You move the ([a-z]+ \d+) to the ([a-z]+ \d+)\.")
_CHANGE = re.compile(r"You (clean|heat|cool) the ([a-z]+ \d+) using the ([a-z]+ \d+)\.")
_CARRY = re.compile(r"You are carrying: an? ([a-z]+ \d+)\.")
_FACING = re.compile(r"You are facing the (.*?)\. Next to it", re.DOTALL)

_C_GO = re.compile(r"go to ([a-z]+ \d+)")
_C_OPEN = re.compile(r"open ([a-z]+ \d+)")
_C_EXAMINE = re.compile(r"examine ([a-z]+ \d+)")
_C_TAKE = re.compile(r"take ([a-z]+ \d+) from ([a-z]+ \d+)")
_C_MOVE = re.compile(r"move ([a-z]+ \d+) to ([a-z]+ \d+)")
_C_CHANGE = re.compile(r"(clean|heat|cool) ([a-z]+ \d+) with ([a-z]+ \d+)")
_C_USE = re.compile(r"use ([a-z]+ \d+)")


class Move(NamedTuple):
    """What the expert does now: the plan sentence and the command."""

    thought: str
    command: str


@cache
def likely_places() -> dict[str, tuple[str, ...]]:
    """Object type -> receptacle types in search order (docs/evidence/alfworld_expert.md: how it is made)."""
    text = files(__package__).joinpath("likely_places.json").read_text(encoding="utf-8")
    return {kind: tuple(places) for kind, places in json.loads(text).items()}


def kind_of(name: str) -> str:
    """`cabinet 3` -> `cabinet`."""
    return name.split(" ", 1)[0]


def listed_receptacles(scene: str) -> list[str]:
    """The receptacles of a first observation, in its order."""
    room = scene.split("Your task is to", 1)[0]
    return _NAME.findall(room.split("you see", 1)[-1])


class SearchingExpert:
    """Plays one episode from its text. `act` and `thought` may be asked any number of times per turn."""

    def __init__(self, scene: str, goal_sentence: str, goal: Goal) -> None:
        self.goal = goal
        self.goal_sentence = goal_sentence
        self.verb = _VERB.get(goal.task_type, "")
        self.receptacles = listed_receptacles(scene)
        self.here: list[str] = []
        """Receptacles known to be where the agent is, the one it went to first."""
        self.holding: str | None = None
        self.contents: dict[str, list[str]] = {}
        """What was last seen inside each receptacle, in order of first sight."""
        self.closed: set[str] = set()
        self.searched: set[str] = set()
        """Receptacles whose inside was seen in this round of the search."""
        self.changed: dict[str, set[str]] = defaultdict(set)
        """Object -> the changes (`clean`, `heat`, `cool`) it has undergone."""
        self.stuck: set[str] = set()
        """Objects that could not be taken, changed or used although everything was in place."""
        self.refuses: set[tuple[str, str]] = set()
        """(receptacle type, object type) pairs of a `move` that failed."""
        self.searched_new = False
        """Whether the last turn, with something yet to be found, showed a place for the first time."""
        self._places = likely_places()
        self._next: Move | None = None
        """The decided move, until the next observation."""

    # What the text tells -------------------------------------------------------------------------------

    def observe(self, command: str, observation: str) -> None:
        """Take in one executed command, whoever chose it, and what the environment said."""
        searching = self.thought().startswith("find ")
        self.searched_new = False
        self._take_in(command, observation.strip())
        self._next = None
        self.searched_new &= searching

    def _take_in(self, command: str, text: str) -> None:
        if text.startswith(NOTHING):
            self._learn_from_failure(command.strip())
            return
        if m := _ARRIVE.search(text):
            self.here = [m[1]]
        elif m := _TAKE.search(text):
            self.holding = m[1]
            self._forget(m[1])
        elif m := _MOVE.search(text):
            self.holding = None
            self._forget(m[1])
            self.contents.setdefault(m[2], []).append(m[1])
        elif m := _CHANGE.search(text):
            self.changed[m[2]].add(m[1])
            self.changed[m[2]].discard(_UNDONE_BY.get(m[1], ""))
        elif m := _CLOSE.search(text):
            self.closed.add(m[1])
        elif m := _CARRY.search(text):
            self.holding = m[1]
        elif text.startswith("You are not carrying"):
            self.holding = None
        elif m := _FACING.search(text):
            self.here += [name for name in _NAME.findall(m[1]) if name not in self.here]
        self._see_inside(text)

    def _see_inside(self, text: str) -> None:
        if m := _OPEN.search(text) or _ON.search(text):
            place, items = m[1], _NAME.findall(m[2])
            for item in items:
                self._forget(item)
            self.searched_new = place not in self.contents
            self.contents[place] = items
            self.closed.discard(place)
            self.searched.add(place)
        elif m := _CLOSED.search(text):
            place = m[1]
            self.searched_new = place not in self.contents and place not in self.closed
            self.closed.add(place)
        else:
            return
        if place not in self.here:
            self.here.append(place)

    def _forget(self, item: str) -> None:
        for items in self.contents.values():
            if item in items:
                items.remove(item)

    def _learn_from_failure(self, command: str) -> None:
        """A refusal says something only where, as far as is known, the command should have worked."""
        for pattern, learn in _FROM_REFUSED:
            if found := pattern.fullmatch(command):
                learn(self, *found.groups())
                return

    def _refused_go(self, place: str) -> None:
        if place in self.receptacles and place not in self.here:
            self.here.append(place)  # `go to` fails where the agent already stands: they share a place

    def _refused_open(self, place: str) -> None:
        if place in self.here:
            self.closed.discard(place)

    def _refused_examine(self, place: str) -> None:
        if place in self.here[1:]:
            self.here.remove(place)

    def _refused_take(self, item: str, place: str) -> None:
        if self._reaches(place) and self.holding is None and item in self.contents.get(place, ()):
            self.stuck.add(item)

    def _refused_move(self, item: str, place: str) -> None:
        if self._reaches(place) and self.holding == item:
            self.refuses.add((kind_of(place), kind_of(item)))

    def _refused_change(self, verb: str, item: str, station: str) -> None:
        fits = verb == self.verb and station.startswith(STATION[verb])
        if fits and station in self.here and self.holding == item:
            self.stuck.add(item)

    def _refused_use(self, item: str) -> None:
        place = self._place_of(item)
        if kind_of(item) == self.goal.lamp and place is not None and self._reaches(place):
            self.stuck.add(item)

    def _reaches(self, place: str) -> bool:
        return place in self.here and place not in self.closed

    def _place_of(self, item: str) -> str | None:
        return next((place for place, items in self.contents.items() if item in items), None)

    # What to do ----------------------------------------------------------------------------------------

    def act(self) -> str:
        """The next command."""
        return self.move().command

    def thought(self) -> str:
        """The current subgoal in at most six words; the same until the subgoal changes."""
        return self.move().thought

    def move(self) -> Move:
        """Thought and command together."""
        if self._next is None:
            self._next = self._decide()
        return self._next

    def _decide(self) -> Move:
        held = self.holding
        if held is None:
            return self._get_object()
        if kind_of(held) != self.goal.object or held in self.stuck:
            return self._put_down(held)
        if self.goal.lamp:
            return self._use_lamp()
        if self.verb and self.verb not in self.changed[held]:
            station = next((name for name in self.receptacles if name.startswith(STATION[self.verb])), None)
            if station is not None:
                thought = f"{self.verb} {held}"
                return self._reach(thought, station) or Move(thought, f"{self.verb} {held} with {station}")
        target = self._target()
        if target is None:
            return Move("look around", "look")
        return self._at(f"put {held} in {self.goal.receptacle}", target, f"move {held} to {target}")

    def _get_object(self) -> Move:
        goal = self.goal
        target = self._target()
        placed = [item for item in self.contents.get(target or "", ()) if self._is_ready(item)]
        seen: list[tuple[str, str]] = []
        for place, items in self.contents.items():
            for item in items:
                if kind_of(item) == goal.object and item not in self.stuck and item not in placed:
                    seen.append((item, place))
        # In reach first, then what already is clean, hot or cool, then in order of sight.
        seen.sort(key=lambda pair: (pair[1] not in self.here, self.verb not in self.changed[pair[0]]))
        if seen:
            item, place = seen[0]
            return self._at(f"take {item}", place, f"take {item} from {place}")
        second = "second " if placed else ""
        return self._search(f"find {second}{goal.object}", goal.object)

    def _use_lamp(self) -> Move:
        for place, items in self.contents.items():
            for item in items:
                if kind_of(item) == self.goal.lamp and item not in self.stuck:
                    return self._at(f"use {item}", place, f"use {item}")
        return self._search(f"find {self.goal.lamp}", self.goal.lamp)

    def _put_down(self, held: str) -> Move:
        thought = f"put down {held}"
        kinds = self._places.get(kind_of(held), ())
        options = [*self.here, *self._search_order(kind_of(held))]
        for place in options:
            if kind_of(place) in kinds and (kind_of(place), kind_of(held)) not in self.refuses:
                return self._at(thought, place, f"move {held} to {place}")
        for place in options:
            if (kind_of(place), kind_of(held)) not in self.refuses:
                return self._at(thought, place, f"move {held} to {place}")
        return Move(thought, "look")

    def _is_ready(self, item: str) -> bool:
        return kind_of(item) == self.goal.object and (not self.verb or self.verb in self.changed[item])

    def _target(self) -> str | None:
        """The receptacle to fill: of its kind the one with most finished objects, else the first listed."""
        if not self.goal.receptacle:
            return None
        options = [name for name in self.receptacles if kind_of(name) == self.goal.receptacle]
        return max(
            options, key=lambda name: sum(map(self._is_ready, self.contents.get(name, ()))), default=None
        )

    # Getting somewhere ---------------------------------------------------------------------------------

    def _reach(self, thought: str, place: str) -> Move | None:
        """Go to `place`, or None when there."""
        return None if place in self.here else Move(thought, f"go to {place}")

    def _at(self, thought: str, place: str, command: str) -> Move:
        """`command`, once at `place` and `place` is open."""
        if move := self._reach(thought, place):
            return move
        if place not in self.contents and place not in self.closed:
            return Move(thought, f"examine {place}")  # reached without seeing it: another one stands here
        return Move(thought, f"open {place}") if place in self.closed else Move(thought, command)

    def _search_order(self, kind: str) -> list[str]:
        ranking = {place: rank for rank, place in enumerate(self._places.get(kind, ()))}
        return sorted(self.receptacles, key=lambda name: ranking.get(kind_of(name), len(ranking)))

    def _search(self, thought: str, kind: str) -> Move:
        order = self._search_order(kind)
        if self.searched.issuperset(order):
            self.searched.clear()
            if self.stuck:
                self.stuck.clear()
                return self._decide()
        likely = self._places.get(kind, ())
        for place in self.here:
            if place in self.closed and place not in self.searched and kind_of(place) in likely:
                return Move(thought, f"open {place}")
        for place in order:
            if place not in self.searched:
                return self._at(thought, place, f"examine {place}")
        return Move(thought, "look")


_FROM_REFUSED: tuple[tuple[re.Pattern[str], Callable[..., None]], ...] = (
    (_C_GO, SearchingExpert._refused_go),
    (_C_OPEN, SearchingExpert._refused_open),
    (_C_EXAMINE, SearchingExpert._refused_examine),
    (_C_TAKE, SearchingExpert._refused_take),
    (_C_MOVE, SearchingExpert._refused_move),
    (_C_CHANGE, SearchingExpert._refused_change),
    (_C_USE, SearchingExpert._refused_use),
)
"""What a refused command of each form tells; the form's groups are the arguments."""
