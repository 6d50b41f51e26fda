"""The ALFRED text world as plain data: one parsed game and its changing state.

Read by the native engine, the planner, the expert and the generator's solvability check. Names are the
text names an agent sees (`cabinet 3`), types are lower case without number (`cabinet`). Locations are the
problem file's own location ids; several receptacles can share one.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Receptacle:
    name: str
    type: str
    location: str
    openable: bool


@dataclass(frozen=True, slots=True)
class Thing:
    """An object of the household; abilities as the problem file states them."""

    name: str
    type: str
    pickupable: bool = False
    cleanable: bool = False
    heatable: bool = False
    coolable: bool = False
    toggleable: bool = False
    sliceable: bool = False
    holder: bool = False
    """A cup, plate, box ...: examining it lists `contents` and nothing else."""
    contents: tuple[str, ...] = ()
    """What the problem file says is in it; the domain never changes that."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What wins, read from the problem's goal.

    task_type: one of the six ALFWorld names (`pick_and_place_simple`, `look_at_obj_in_light`,
    `pick_clean_then_place_in_recep`, `pick_heat_then_place_in_recep`, `pick_cool_then_place_in_recep`,
    `pick_two_obj_and_place`). object/receptacle: types (receptacle empty for look-at tasks, where `lamp`
    is the type of the light). count: how many objects must be placed.
    """

    task_type: str
    object: str
    receptacle: str = ""
    lamp: str = ""
    count: int = 1


@dataclass(slots=True)
class State:
    """Everything that changes. `inside[obj]` is a receptacle name, or absent when held or nowhere.

    The last three fields hold oddities of the problem files that the engine's text and commands show:
    `also_inside` are further (object, receptacle) pairs, because some objects are said to be in two to
    four receptacles at once and stay in the others when they are taken from one; `lying` are
    (object, location) pairs, which decide what can be sliced; `left` are (object, receptacle) pairs of
    objects taken out, which `look` lists as lying beside the receptacle when they come back to its location.
    """

    location: str
    holding: str | None = None
    inside: dict[str, str] = field(default_factory=dict)
    opened: set[str] = field(default_factory=set)
    clean: set[str] = field(default_factory=set)
    hot: set[str] = field(default_factory=set)
    cool: set[str] = field(default_factory=set)
    toggled: set[str] = field(default_factory=set)
    sliced: set[str] = field(default_factory=set)
    also_inside: set[tuple[str, str]] = field(default_factory=set)
    lying: set[tuple[str, str]] = field(default_factory=set)
    left: set[tuple[str, str]] = field(default_factory=set)

    def copy(self) -> State:
        return State(
            self.location,
            self.holding,
            dict(self.inside),
            set(self.opened),
            set(self.clean),
            set(self.hot),
            set(self.cool),
            set(self.toggled),
            set(self.sliced),
            set(self.also_inside),
            set(self.lying),
            set(self.left),
        )


@dataclass(slots=True)
class Game:
    """Static facts of one game file plus its initial state.

    `task_text` is the goal sentence, without its full stop. `receptacles` and `things` are in the order of
    their ids in the file, which is the order the text lists them in and the reverse of their numbers.
    """

    path: str
    task_text: str
    goal: Goal
    receptacles: dict[str, Receptacle]
    things: dict[str, Thing]
    can_contain: frozenset[tuple[str, str]]
    """Pairs (receptacle type, object type) that a `move` accepts."""
    initial: State
    walkthrough: tuple[str, ...] = ()
