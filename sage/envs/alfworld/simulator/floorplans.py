"""What the `alfworld` wheel knows about households: floor plans, affordances, goals, domain and grammar.

Invariant: everything here is read from the installed wheel (or follows from it with a stream seeded by the
floor plan's number), so two machines with the same wheel see the same rooms. Nothing of the package is
imported: its modules pull in torch and TextWorld, while we need six small files.

The wheel lists reachable receptacles with positions only where an agent can open or use them, and the types
of everything else (`objects.json`). Stove burners, toasters, towel holders and the like are therefore placed
here, next to a reachable point of the layout.
"""

from __future__ import annotations

import importlib.util
import json
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

UNSEEN_SCENES = (10, 219, 308, 424)
"""Floor plans of the official valid_unseen split; train never uses them."""

OPENABLE_TYPES = frozenset({"Fridge", "Cabinet", "Microwave", "Drawer", "Safe"})
"""Receptacles that are opened in text games (the official files also list exactly these)."""

EXTRA_COUNT = {"StoveBurner": 4}
"""How many to place of a receptacle type that the wheel names without a position; one where absent."""

FIXED_FRONTS = {
    "Kitchen": (("Cabinet", 4), ("Drawer", 3)),
    "LivingRoom": (("Drawer", 2),),
    "Bedroom": (("Drawer", 3),),
    "Bathroom": (("Cabinet", 2), ("Drawer", 2)),
}
"""At most this many cabinets and drawers that no agent can open, as official games have them."""


class WheelMissing(RuntimeError):
    """The `alfworld` wheel, whose data the generator needs, is not installed."""


@dataclass(frozen=True, slots=True)
class Fixture:
    """One receptacle of a floor plan. `id` and `location` are in the simulator's own `Type|+01.00|…` form."""

    id: str
    type: str
    location: str
    openable: bool
    position: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class FloorPlan:
    """A room: its receptacles, the object types that occur in it, and the points an agent can stand on."""

    scene: int
    room: str
    fixtures: tuple[Fixture, ...]
    object_types: tuple[str, ...]
    points: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Affordances:
    """Type-level facts: what may lie where, what can be done to what, and where tasks are possible."""

    contains: dict[str, frozenset[str]]
    """Receptacle type to object types (no sliced ones, no movable receptacles)."""
    pickupable: frozenset[str]
    heatable: frozenset[str]
    coolable: frozenset[str]
    cleanable: frozenset[str]
    toggleable: frozenset[str]
    sliceable: frozenset[str]
    movable_receptacles: frozenset[str]
    task_rooms: dict[str, frozenset[str]]


def wheel_root() -> Path:
    """Folder of the installed `alfworld` package, found without importing it.

    Raises:
        WheelMissing: it is not installed.
    """
    spec = importlib.util.find_spec("alfworld")
    if spec is None or not spec.submodule_search_locations:
        raise WheelMissing(
            "Generated ALFWorld games are built from the floor plans of the `alfworld` package, which is not "
            "installed: `pip install --no-deps alfworld==0.4.2`, or set ALFWORLD_DATA to play official games."
        )
    return Path(next(iter(spec.submodule_search_locations)))


def _load_module(name: str) -> ModuleType:
    path = wheel_root() / "gen" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"_sage_alfworld_{name}", path)
    if spec is None or spec.loader is None or not path.exists():
        raise WheelMissing(f"The installed `alfworld` package has no {path.name}; version 0.4.2 has it.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def _constants() -> ModuleType:
    return _load_module("constants")


@cache
def goal_library() -> dict[str, dict[str, Any]]:
    """Task type to its PDDL goal (`pddl`) and its sentence templates (`templates`)."""
    return _load_module("goal_library").gdict


@cache
def domain_and_grammar() -> tuple[str, str]:
    """The wheel's PDDL domain and text grammar, as they go into every game file."""
    data = wheel_root() / "data"
    return (data / "alfred.pddl").read_text(encoding="utf-8"), (data / "alfred.twl2").read_text(
        encoding="utf-8"
    )


@cache
def affordances() -> Affordances:
    """The wheel's affordance tables, without sliced objects (no text task needs them)."""
    c = _constants()
    whole = set(c.OBJECTS)
    movable = frozenset(c.MOVABLE_RECEPTACLES)
    contains = {
        receptacle: frozenset(objects & whole)
        for receptacle, objects in c.VAL_RECEPTACLE_OBJECTS.items()
        if receptacle not in movable
    }
    able = {name: frozenset(types & whole) for name, types in c.VAL_ACTION_OBJECTS.items()}
    return Affordances(
        contains=contains,
        pickupable=frozenset().union(*contains.values()),
        heatable=able["Heatable"],
        coolable=able["Coolable"],
        cleanable=able["Cleanable"],
        toggleable=able["Toggleable"],
        sliceable=able["Sliceable"],
        movable_receptacles=movable,
        task_rooms={task: frozenset(rooms) for task, rooms in c.GOALS_VALID.items()},
    )


def format_id(kind: str, position: tuple[float, float, float]) -> str:
    """`Apple|+01.09|+01.69|-01.44`: the simulator's id of something at `position`."""
    return kind + "".join(f"|{'-' if value < 0 else '+'}{abs(value):05.2f}" for value in position)


def format_location(x: int, z: int, turn: int, horizon: int) -> str:
    """`loc|1|-8|1|45`: where an agent stands (quarter metres), its quarter turns and its camera's tilt."""
    return f"loc|{x}|{z}|{turn}|{horizon}"


def _type_of(fixture_id: str) -> str:
    # `Sink|…|SinkBasin` is the basin: the last part names the receptacle.
    parts = fixture_id.split("|")
    return parts[0] if len(parts) == 4 else parts[-1]


def _listed_fixture(fixture_id: str, view: list[float]) -> Fixture:
    x, z, degrees, horizon = view
    kind = _type_of(fixture_id)
    px, py, pz = (float(value) for value in fixture_id.split("|")[1:4])
    location = format_location(round(x * 4), round(z * 4), round(degrees / 90) % 4, round(horizon))
    return Fixture(fixture_id, kind, location, kind in OPENABLE_TYPES, (px, py, pz))


_AHEAD = ((0.0, 0.6), (0.6, 0.0), (0.0, -0.6), (-0.6, 0.0))


def _placed_fixture(
    kind: str, rng: random.Random, points: tuple[tuple[int, int], ...], beside: Fixture | None
) -> Fixture:
    """A receptacle the wheel names without a position, at a random view or `beside` another one's."""
    if beside is not None:
        location = beside.location
        position = (
            beside.position[0] + rng.uniform(-0.3, 0.3),
            beside.position[1],
            beside.position[2] + rng.uniform(-0.3, 0.3),
        )
    else:
        (x, z), turn = rng.choice(points), rng.randrange(4)
        location = format_location(x, z, turn, 45)
        ahead = _AHEAD[turn]
        position = (x / 4 + ahead[0], rng.choice((0.1, 0.5, 0.9)), z / 4 + ahead[1])
    rounded = (round(position[0], 2), round(position[1], 2), round(position[2], 2))
    # A basin's id is that of what it is part of, then its own type: the engine names it by the last part.
    whole = kind.removesuffix("Basin")
    identifier = format_id(whole, rounded) + (f"|{kind}" if whole != kind else "")
    return Fixture(identifier, kind, location, False, rounded)


def _missing_fixtures(
    types: set[str], listed: list[Fixture], room: str, rng: random.Random, points: tuple[tuple[int, int], ...]
) -> list[Fixture]:
    fixtures: list[Fixture] = []
    present = {fixture.type for fixture in listed}
    known = set(affordances().contains)
    wanted = {kind: EXTRA_COUNT.get(kind, 1) for kind in sorted((types & known) - present)}
    for kind, most in FIXED_FRONTS[room]:
        if kind in present:
            wanted[kind] = rng.randint(0, most)
    for kind, count in wanted.items():
        for index in range(count):
            # Burners come in pairs; about half of the fixed fronts are seen from where another one is.
            same = [fixture for fixture in listed + fixtures if fixture.type == kind]
            pair = kind == "StoveBurner" and index % 2 == 1
            beside = fixtures[-1] if pair else None
            if kind in OPENABLE_TYPES and same and rng.random() < 0.5:
                beside = rng.choice(same)
            fixtures.append(_placed_fixture(kind, rng, points, beside))
    return fixtures


def _load_points(path: Path) -> tuple[tuple[int, int], ...]:
    import numpy as np  # only needed here, and late: see the house rule on import time

    grid = np.unique(np.round(np.load(path) * 4).astype(int), axis=0)
    return tuple((int(x), int(z)) for x, z in grid)


@cache
def load_floor_plans() -> dict[int, FloorPlan]:
    """All 120 floor plans of the wheel by scene number.

    Raises:
        WheelMissing: `alfworld` is not installed or lacks its layouts.
    """
    c = _constants()
    layouts = wheel_root() / "gen" / "layouts"
    known_objects = set(c.OBJECTS)
    receptacle_types = set(affordances().contains)
    plans: dict[int, FloorPlan] = {}
    for room, scenes in c.SCENE_TYPE.items():
        for scene in scenes:
            types = set(json.loads((layouts / f"FloorPlan{scene}-objects.json").read_text(encoding="utf-8")))
            views = json.loads((layouts / f"FloorPlan{scene}-openable.json").read_text(encoding="utf-8"))
            points = _load_points(layouts / f"FloorPlan{scene}-layout.npy")
            listed = [_listed_fixture(name, view) for name, view in sorted(views.items())]
            rng = random.Random(f"floor plan {scene}")
            fixtures = listed + _missing_fixtures(types, listed, room, rng, points)
            unique = {fixture.id.lower(): fixture for fixture in fixtures}
            objects = sorted((types & known_objects) - receptacle_types)
            plans[scene] = FloorPlan(scene, room, tuple(unique.values()), tuple(objects), points)
    if not plans:
        raise WheelMissing("The installed `alfworld` package has no floor plans; version 0.4.2 has 120.")
    return plans
