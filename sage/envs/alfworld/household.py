"""Sampling a household: which objects a room holds, where each lies, and a task that can be done there.

Invariant: a household depends on the floor plan and the random stream alone. Weights and rates in this file
are statistics (how often, how many) chosen so that rooms resemble the official games in numbers; see
docs/generated_games.md for the comparison. No official game is read.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from sage.envs.alfworld.floorplans import Affordances, Fixture, FloorPlan, format_id, format_location
from sage.envs.alfworld.world import Goal

INSTANCES = ((1, 0.41), (2, 0.34), (3, 0.25))
"""How many of an object type that occurs, and how often."""
TARGET_INSTANCES = ((1, 0.33), (2, 0.29), (3, 0.22), (4, 0.16))
"""The same for the task's object; for two-object tasks drawn until at least two."""

SPACE = {
    "CounterTop": 6.0, "DiningTable": 8.0, "Fridge": 5.5, "SinkBasin": 3.6, "SideTable": 3.0, "CoffeeTable": 4.0,
    "Desk": 5.5, "Dresser": 4.5, "Bed": 7.0, "Sofa": 4.0, "ArmChair": 1.3, "Ottoman": 1.3, "Shelf": 1.3,
    "Cabinet": 0.5, "Drawer": 0.55, "GarbageCan": 1.3, "Microwave": 1.6, "StoveBurner": 1.2, "CoffeeMachine": 0.5,
    "Toilet": 3.2, "Cart": 2.5, "BathtubBasin": 2.2, "ToiletPaperHanger": 0.25, "HandTowelHolder": 1.2,
    "TowelHolder": 1.2, "Safe": 0.8, "TVStand": 1.0, "LaundryHamper": 0.1, "Toaster": 0.1,
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

ALSO_PICKUPABLE = frozenset({"PaperTowelRoll", "TeddyBear", "Boots", "ScrubBrush", "Footstool"})
"""Pickupable in the simulator though no receptacle of the wheel's table takes them back."""

MANY = {"StoveKnob": (4, 4), "Window": (1, 2), "Chair": (1, 3), "Painting": (1, 2), "Blinds": (1, 2)}
"""Fixed furniture of which a room has more than one: least and most."""

ON_FLOOR = {"Boots": 1.0, "ScrubBrush": 1.0, "Footstool": 1.0, "Plunger": 1.0, "BaseballBat": 0.8,
            "BasketBall": 0.8, "TennisRacket": 0.8, "WateringCan": 0.4, "Box": 0.35}
"""Chance to lie on the floor, out of reach of text commands; for other types it is `STRAY`."""
STRAY = 0.03


@dataclass(frozen=True, slots=True)
class Placed:
    """One object: its simulator id, type, the location it is seen from, and its receptacle if it has one."""

    id: str
    type: str
    location: str
    receptacle: str | None


@dataclass(frozen=True, slots=True)
class Household:
    """A sampled room with a task. `fixtures` are the floor plan's receptacles, `start` the agent's location."""

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
            name = format_id(kind, (x + _spread(self.rng), y + self.rng.uniform(0, 0.1), z + _spread(self.rng)))
            if name.lower() not in self.taken:
                self.taken.add(name.lower())
                return name

    def put(self, kind: str, fixture: Fixture) -> None:
        name = self._fresh_id(kind, fixture.position)
        self.objects.append(Placed(name, kind, fixture.location, fixture.id))

    def drop(self, kind: str, beside: Fixture | None = None) -> None:
        """On the floor: `beside` a receptacle (then `look` shows it there), else somewhere in the room."""
        if beside is not None:
            self.objects.append(Placed(self._fresh_id(kind, beside.position), kind, beside.location, None))
            return
        location = self.free_location()
        x, z = (int(value) / 4 for value in location.split("|")[1:3])
        self.objects.append(Placed(self._fresh_id(kind, (x, 0.5, z)), kind, location, None))

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
    """Receptacles of `plan` that may hold an object of this type."""
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
    untouched = goal.task_type in ("pick_and_place_simple", "pick_two_obj_and_place")
    for kind in plan.object_types:
        is_target = kind == goal.object
        if kind not in able.pickupable:
            _furnish(room, kind)
            continue
        options = places_for(kind, plan, able)
        count = _draw(TARGET_INSTANCES if is_target else INSTANCES, rng)
        if is_target:
            count = max(count, goal.count)
            options = [f for f in options if not (untouched and f.type == goal.receptacle)]
            if not options:
                raise ValueError(f"floor plan {plan.scene} has no place for {kind} but {goal.receptacle}")
        for index in range(count):
            # The task's objects must be within reach; others may lie about.
            needed = is_target and index < goal.count
            on_floor = not needed and rng.random() < ON_FLOOR.get(kind, STRAY)
            if on_floor or not options:
                room.drop(kind)
            else:
                room.put(kind, room.pick_fixture(options))
    return Household(plan, tuple(room.objects), goal, room.free_location())
