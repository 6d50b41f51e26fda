"""Sampling a household: which objects a room holds, where each lies, and a task that can be done there.

Invariant: a household depends on the floor plan and the random stream alone. Weights and rates in this file
are statistics (how often, how many) chosen so that rooms resemble the official games in numbers; see
docs/evidence/generated_games.md for the comparison. No official game is read.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from sage.envs.alfworld.simulator.floorplans import (
    Affordances,
    Fixture,
    FloorPlan,
    format_id,
    format_location,
)
from sage.envs.alfworld.simulator.world import Goal

INSTANCES = ((1, 0.41), (2, 0.34), (3, 0.25))
"""How many of an object type that occurs, and how often."""
TARGET_INSTANCES = ((1, 0.33), (2, 0.29), (3, 0.22), (4, 0.16))
"""The same for the task's object; for two-object tasks drawn until at least two."""

SPACE = {
    "CounterTop": 5.2,
    "DiningTable": 8.0,
    "Fridge": 7.0,
    "SinkBasin": 2.0,
    "SideTable": 2.1,
    "CoffeeTable": 4.2,
    "Desk": 5.2,
    "Dresser": 4.3,
    "Bed": 8.5,
    "Sofa": 3.4,
    "ArmChair": 1.2,
    "Ottoman": 1.6,
    "Shelf": 1.2,
    "Cabinet": 0.75,
    "Drawer": 0.9,
    "GarbageCan": 1.5,
    "Microwave": 2.2,
    "StoveBurner": 5.0,
    "CoffeeMachine": 6.0,
    "Toilet": 2.6,
    "Cart": 4.2,
    "BathtubBasin": 6.0,
    "ToiletPaperHanger": 1.3,
    "HandTowelHolder": 8.0,
    "TowelHolder": 1.2,
    "Safe": 1.6,
    "TVStand": 3.5,
    "LaundryHamper": 0.1,
    "Toaster": 0.1,
}
"""Relative chance that an object which may lie in several receptacles lies in one of this type."""

FURNITURE_SURFACES = {
    "HousePlant": ("CounterTop", "SideTable", "DiningTable", "Shelf", "CoffeeTable", "Desk", "Dresser"),
    "DeskLamp": ("SideTable", "Desk", "Dresser", "Shelf", "CoffeeTable"),
    "Television": ("Dresser", "TVStand", "CoffeeTable", "SideTable"),
    "TeddyBear": ("Bed",),
    "PaperTowelRoll": ("CounterTop", "GarbageCan", "DiningTable", "Shelf", "SideTable", "Toilet", "Cart"),
}
"""Where things stand for which the wheel's table has no receptacle; elsewhere they are on the floor."""

ALSO_LIES_IN = {
    "TVStand": frozenset({"Statue", "RemoteControl", "CreditCard", "KeyChain", "Watch", "Vase", "Laptop"}),
}
"""Receptacle type to objects that may start there though nothing of the kind can be put there again."""

ALSO_PICKUPABLE = frozenset({"PaperTowelRoll", "TeddyBear", "Boots", "ScrubBrush", "Footstool"})
"""Pickupable in the simulator though no receptacle of the wheel's table takes them back."""

MANY = {"StoveKnob": (4, 4), "Window": (1, 2), "Chair": (1, 3), "Painting": (1, 2), "Blinds": (1, 2)}
"""Fixed furniture of which a room has more than one: least and most."""

ON_FLOOR = {
    "Boots": 1.0,
    "ScrubBrush": 1.0,
    "Footstool": 1.0,
    "Plunger": 1.0,
    "BaseballBat": 0.8,
    "BasketBall": 0.8,
    "TennisRacket": 0.8,
    "WateringCan": 0.4,
    "Box": 0.35,
    "Towel": 0.35,
}
"""Chance to lie on the floor, out of reach of text commands; for other types it is `STRAY`."""
STRAY = 0.03

OVERLAPS = {
    ("Mug", "CoffeeMachine"): (("CounterTop", "DiningTable"), 0.85),
    ("Pan", "StoveBurner"): (("StoveBurner", "CounterTop"), 0.6),
    ("Pot", "StoveBurner"): (("StoveBurner", "CounterTop"), 0.6),
}
"""(object, receptacle) types to where the object then counts as lying as well, and how often it does."""


@dataclass(frozen=True, slots=True)
class Placed:
    """One object: its simulator id, type, the location it is seen from, and its receptacles.

    `receptacles` is empty for what lies on the floor, and holds more than one id where the simulator counts
    an object twice: a mug in the coffee machine that stands on a countertop is on the countertop as well.
    """

    id: str
    type: str
    location: str
    receptacles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Household:
    """A sampled room with a task; `start` is the agent's location."""

    plan: FloorPlan
    objects: tuple[Placed, ...]
    goal: Goal
    """Types as the simulator writes them (`DishSponge`), unlike `Game.goal`."""
    start: str


def _draw(table: Sequence[tuple[int, float]], rng: random.Random) -> int:
    return rng.choices([value for value, _ in table], [weight for _, weight in table])[0]


def _spread(rng: random.Random) -> float:
    return rng.uniform(-0.35, 0.35)


class _Room:
    """Places objects of one household; ids stay unique because a taken position is drawn again."""

    def __init__(self, plan: FloorPlan, rng: random.Random) -> None:
        self.plan = plan
        self.rng = rng
        self.objects: list[Placed] = []
        self.taken: set[str] = {fixture.id.lower() for fixture in plan.fixtures}
        self.seen_from = {fixture.location for fixture in plan.fixtures}

    def _fresh_id(self, kind: str, position: tuple[float, float, float]) -> str:
        while True:
            x, y, z = position
            near = (x + _spread(self.rng), y + self.rng.uniform(0, 0.1), z + _spread(self.rng))
            name = format_id(kind, near)
            if name.lower() not in self.taken:
                self.taken.add(name.lower())
                return name

    def put(self, kind: str, fixture: Fixture, never: str = "") -> None:
        """Into `fixture`, and maybe into one that overlaps with it, but into none of type `never`."""
        holders = [fixture.id]
        others, chance = OVERLAPS.get((kind, fixture.type), ((), 0.0))
        near = [f for f in self.plan.fixtures if f.type in others and f.id != fixture.id and f.type != never]
        if near and self.rng.random() < chance:
            holders.append(self.rng.choice(near).id)
        name = self._fresh_id(kind, fixture.position)
        self.objects.append(Placed(name, kind, fixture.location, tuple(holders)))

    def drop(self, kind: str, beside: Fixture | None = None) -> None:
        """On the floor: `beside` a receptacle (then `look` shows it there), else somewhere in the room."""
        if beside is not None:
            self.objects.append(Placed(self._fresh_id(kind, beside.position), kind, beside.location))
            return
        location = self.free_location()
        x, z = (int(value) / 4 for value in location.split("|")[1:3])
        self.objects.append(Placed(self._fresh_id(kind, (x, 0.5, z)), kind, location))

    def free_location(self) -> str:
        """A view from which no receptacle is reached."""
        while True:
            x, z = self.rng.choice(self.plan.points)
            location = format_location(x, z, self.rng.randrange(4), self.rng.choice((30, 45, 60)))
            if location not in self.seen_from:
                return location

    def pick_fixture(self, options: Sequence[Fixture]) -> Fixture:
        return self.rng.choices(options, [SPACE[fixture.type] for fixture in options])[0]


def places_for(kind: str, plan: FloorPlan, able: Affordances) -> list[Fixture]:
    """Receptacles of `plan` that an object of this type can be put into."""
    return [fixture for fixture in plan.fixtures if kind in able.contains[fixture.type]]


def _furnish(room: _Room, kind: str) -> None:
    """Things that stand where they stand: lamps, windows, plants, knobs."""
    rng = room.rng
    least, most = MANY.get(kind, (1, 1))
    surfaces = [f for f in room.plan.fixtures if f.type in FURNITURE_SURFACES.get(kind, ())]
    sinks = [f for f in room.plan.fixtures if f.type == f"{kind}Basin"]
    burners = [f for f in room.plan.fixtures if f.type == "StoveBurner"]
    for index in range(rng.randint(least, most)):
        if surfaces:
            room.put(kind, rng.choice(surfaces))
        elif sinks:
            room.drop(kind, beside=sinks[0] if rng.random() < 0.3 else None)
        elif kind == "StoveKnob" and burners and rng.random() < 0.16:
            room.drop(kind, beside=burners[index % len(burners)])
        else:
            room.drop(kind)


def sample_household(plan: FloorPlan, goal: Goal, able: Affordances, rng: random.Random) -> Household:
    """Fill the room for `goal`: its object and what it needs are present, nothing is done yet.

    Objects of the task never start in a receptacle of the target type, except where they must first be
    cleaned, heated or cooled (the official games keep to this). Raises ValueError where the floor plan cannot
    hold the task; `possible_goals` never offers such a goal.
    """
    room = _Room(plan, rng)
    for kind in plan.object_types:
        if kind not in able.pickupable:
            _furnish(room, kind)
        elif kind == goal.object:
            _lay_out_target(room, goal, able)
        else:
            _lay_out(room, kind, _options(kind, plan, able), _draw(INSTANCES, rng))
    return Household(plan, tuple(room.objects), goal, room.free_location())


def _options(kind: str, plan: FloorPlan, able: Affordances) -> list[Fixture]:
    also = [fixture for fixture in plan.fixtures if kind in ALSO_LIES_IN.get(fixture.type, ())]
    return places_for(kind, plan, able) + also


def _lay_out_target(room: _Room, goal: Goal, able: Affordances) -> None:
    untouched = goal.task_type in ("pick_and_place_simple", "pick_two_obj_and_place")
    options = _options(goal.object, room.plan, able)
    count = max(_draw(TARGET_INSTANCES, room.rng), goal.count)
    if untouched:
        options = [fixture for fixture in options if fixture.type != goal.receptacle]
    if not options:
        raise ValueError(f"floor plan {room.plan.scene} has no place for {goal.object} but {goal.receptacle}")
    _lay_out(room, goal.object, options, count, goal.count, goal.receptacle if untouched else "")


def _lay_out(
    room: _Room, kind: str, options: Sequence[Fixture], count: int, needed: int = 0, never: str = ""
) -> None:
    """`count` objects of one type; the first `needed` within reach, others may lie about."""
    for index in range(count):
        on_floor = index >= needed and room.rng.random() < ON_FLOOR.get(kind, STRAY)
        if on_floor or not options:
            room.drop(kind)
        else:
            room.put(kind, room.pick_fixture(options), never)
