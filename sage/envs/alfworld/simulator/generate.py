"""Seeded generator of ALFWorld games: in memory for training data, on disk as the official file format.

How to use it: `for game in sample_games("train", seed=0, count=50_000): game.game` costs some 3 ms a game and
touches no disk; `sage.envs.alfworld.store` writes whole sets.

Invariant: a game depends on (`GENERATOR_VERSION`, seed, split, index) alone, so a set of 1,000 begins with
the set of 100. `valid_unseen` uses only `UNSEEN_SCENES`, the other splits never do; `valid_seen` has train's
floor plans and goals, with layouts of its own. The text that an agent reads follows from the file alone;
`GeneratedGame.game` is the same game for code that wants no disk.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property

from sage.envs.alfworld.simulator.floorplans import (
    UNSEEN_SCENES,
    FloorPlan,
    affordances,
    domain_and_grammar,
    goal_library,
    load_floor_plans,
)
from sage.envs.alfworld.simulator.household import ALSO_PICKUPABLE, Household, places_for, sample_household
from sage.envs.alfworld.simulator.planner import NoPlan, is_won, plan
from sage.envs.alfworld.simulator.world import Game, Goal, Receptacle, State, Thing

GENERATOR_VERSION = 4
"""Raise it whenever the same seed would give another game; the cache folder and the task ids carry it."""

TASK_MIX = {
    "pick_two_obj_and_place": 813,
    "pick_and_place_simple": 790,
    "pick_clean_then_place_in_recep": 650,
    "pick_cool_then_place_in_recep": 533,
    "pick_heat_then_place_in_recep": 459,
    "look_at_obj_in_light": 308,
}
"""Weights of the six task types: their counts in the official train split."""

UNSEEN_MIX = {
    "pick_two_obj_and_place": 17,
    "pick_and_place_simple": 24,
    "pick_clean_then_place_in_recep": 31,
    "pick_cool_then_place_in_recep": 21,
    "pick_heat_then_place_in_recep": 23,
    "look_at_obj_in_light": 18,
}
"""The same for valid_unseen, whose four rooms allow another mix."""

ROOM_MIX = {
    "pick_two_obj_and_place": {"Kitchen": 124, "LivingRoom": 216, "Bedroom": 240, "Bathroom": 233},
    "pick_and_place_simple": {"Kitchen": 79, "LivingRoom": 210, "Bedroom": 237, "Bathroom": 264},
    "pick_clean_then_place_in_recep": {"Kitchen": 501, "Bathroom": 149},
    "pick_cool_then_place_in_recep": {"Kitchen": 1},
    "pick_heat_then_place_in_recep": {"Kitchen": 1},
    "look_at_obj_in_light": {"LivingRoom": 51, "Bedroom": 257},
}
"""Kinds of rooms a task type is set in: official train counts."""

LAMP = "DeskLamp"
"""The only light of look-at tasks, as in the official games."""

SEEN_AMONG = 1000
"""valid_seen repeats goals of this many first train games."""

SPLITS = ("train", "valid_seen", "valid_unseen")


@dataclass(frozen=True)
class GeneratedGame:
    """One sampled game. `folder` and `trial` are its path below the split; types as in official names."""

    split: str
    folder: str
    trial: str
    sentence: str
    household: Household

    @property
    def key(self) -> str:
        """`<folder>/<trial>`, unique within a split."""
        return f"{self.folder}/{self.trial}"

    @cached_property
    def game(self) -> Game:
        """The game as every engine of ours reads it, walkthrough included."""
        bare = _as_game(self.household, self.sentence, f"{self.split}/{self.key}")
        bare.walkthrough = tuple(plan(bare, bare.initial))
        return bare

    def as_json(self) -> dict[str, object]:
        """The content of `game.tw-pddl`."""
        domain, grammar = domain_and_grammar()
        return {
            "pddl_domain": domain,
            "grammar": grammar.replace("UNKNOWN GOAL", self.sentence),
            "pddl_problem": _problem_text(self.household, self.trial),
            "solvable": True,
            "walkthrough": list(self.game.walkthrough),
        }


def sample_game(split: str, seed: int, index: int) -> GeneratedGame:
    """Game number `index` of `split` under `seed`.

    Raises:
        WheelMissing: the `alfworld` wheel is not installed.
        ValueError: `split` is not one of `SPLITS`.
    """
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}; generated games have {', '.join(SPLITS)}.")
    rng = _stream(seed, split, index)
    while True:
        if split == "valid_seen":
            # As in the official split: a goal and a floor plan of train, in another layout.
            goal, scene = _sample_goal("train", _stream(seed, "train", rng.randrange(SEEN_AMONG)))
        else:
            goal, scene = _sample_goal(split, rng)
        floor_plan = load_floor_plans()[scene]
        household = sample_household(floor_plan, goal, affordances(), rng)
        target = goal.lamp or goal.receptacle
        folder = f"{goal.task_type}-{goal.object}-None-{target}-{scene}"
        template = rng.choice(goal_library()[goal.task_type]["templates"])
        sentence = template.format(
            obj=goal.object.lower(), recep=goal.receptacle.lower(), toggle=goal.lamp.lower(), mrecep=""
        )
        candidate = GeneratedGame(split, folder, f"trial_G{seed}_{index:06d}", sentence, household)
        # A room can turn out unsolvable (the lamp on the floor) or solved: draw again from the same stream.
        try:
            if candidate.game.walkthrough:
                return candidate
        except NoPlan:
            continue


def _stream(seed: int, split: str, index: int) -> random.Random:
    return random.Random(f"sage alfworld games {GENERATOR_VERSION} {seed} {split} {index}")


def sample_games(split: str, seed: int, count: int, start: int = 0) -> Iterator[GeneratedGame]:
    """`count` games from index `start` on; see `sample_game`."""
    for index in range(start, start + count):
        yield sample_game(split, seed, index)


@cache
def _plans_of(split: str) -> tuple[FloorPlan, ...]:
    unseen = split == "valid_unseen"
    return tuple(p for scene, p in sorted(load_floor_plans().items()) if (scene in UNSEEN_SCENES) == unseen)


@cache
def possible_goals(scene: int, task_type: str) -> dict[str, tuple[Goal, ...]]:
    """Goals this floor plan can hold, by object type."""
    floor_plan, able = load_floor_plans()[scene], affordances()
    goals: dict[str, tuple[Goal, ...]] = {}
    if floor_plan.room not in able.task_rooms[task_type]:
        return goals
    needs = {
        "pick_clean_then_place_in_recep": ("SinkBasin", able.cleanable),
        "pick_heat_then_place_in_recep": ("Microwave", able.heatable),
        "pick_cool_then_place_in_recep": ("Fridge", able.coolable),
    }
    appliance, allowed = needs.get(task_type, ("", able.pickupable))
    if appliance and appliance not in {fixture.type for fixture in floor_plan.fixtures}:
        return goals
    for kind in sorted(set(floor_plan.object_types) & able.pickupable & allowed):
        homes = {fixture.type for fixture in places_for(kind, floor_plan, able)}
        if task_type == "look_at_obj_in_light":
            found = [Goal(task_type, kind, "", LAMP)] if LAMP in floor_plan.object_types and homes else []
        else:
            found = _goals_of_placing(task_type, kind, homes, appliance)
        if found:
            goals[kind] = tuple(found)
    return goals


def _goals_of_placing(task_type: str, kind: str, homes: set[str], appliance: str) -> list[Goal]:
    """A goal for each type of receptacle that an object of type `kind` may be asked to be put into."""
    count = 2 if task_type == "pick_two_obj_and_place" else 1
    # What is cleaned at the basin, heated or cooled is never asked to be put where that happens.
    targets = sorted(homes - {appliance} - {"Toaster", "SinkBasin", "BathtubBasin"})
    return [
        Goal(task_type, kind, target, "", count) for target in targets if appliance or homes - {target}
    ]


@cache
def _scenes_for(split: str, task_type: str) -> dict[str, tuple[int, ...]]:
    scenes: dict[str, list[int]] = {}
    for floor_plan in _plans_of(split):
        if floor_plan.room in ROOM_MIX[task_type] and possible_goals(floor_plan.scene, task_type):
            scenes.setdefault(floor_plan.room, []).append(floor_plan.scene)
    return {room: tuple(found) for room, found in scenes.items()}


def _sample_goal(split: str, rng: random.Random) -> tuple[Goal, int]:
    mix = UNSEEN_MIX if split == "valid_unseen" else TASK_MIX
    task_type = rng.choices(list(mix), list(mix.values()))[0]
    scenes = _scenes_for(split, task_type)
    rooms = sorted(scenes)
    room = rng.choices(rooms, [ROOM_MIX[task_type][name] for name in rooms])[0]
    scene = rng.choice(scenes[room])
    by_object = possible_goals(scene, task_type)
    return rng.choice(by_object[rng.choice(sorted(by_object))]), scene


def mangle(identifier: str) -> str:
    """The simulator's id as a PDDL name: `Mug|-00.10` becomes `Mug_bar__minus_00_dot_10`."""
    return (
        identifier.replace("|", "_bar_")
        .replace("-", "_minus_")
        .replace("+", "_plus_")
        .replace(".", "_dot_")
        .replace(",", "_comma_")
    )


def name_entities(identifiers: list[str]) -> dict[str, str]:
    """Simulator ids to the names an agent reads, numbered as the alfworld package numbers them.

    That is: per type, descending in the order of the mangled lower-case ids (`Demangler` in the package).
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for identifier in identifiers:
        low = mangle(identifier).lower()
        kind = low.split("_bar_", 1)[0] + ("basin" if "basin" in low else "")
        groups.setdefault(kind, []).append((low, identifier))
    names: dict[str, str] = {}
    for kind, members in groups.items():
        members.sort()
        for position, (_, identifier) in enumerate(members):
            names[identifier] = f"{kind} {len(members) - position}"
    return names


def _as_game(household: Household, sentence: str, path: str) -> Game:
    able = affordances()
    goal = household.goal
    # The order of a game's things is that of their ids, which the names are numbered by.
    fixtures = sorted(household.plan.fixtures, key=lambda f: mangle(f.id).lower())
    objects = sorted(household.objects, key=lambda o: mangle(o.id).lower())
    names = name_entities([f.id for f in fixtures] + [o.id for o in objects])
    receptacles = {
        names[f.id]: Receptacle(names[f.id], f.type.lower(), mangle(f.location), f.openable) for f in fixtures
    }
    things = {names[o.id]: replace(_sample_thing(o.type), name=names[o.id]) for o in objects}
    kinds = {o.type for o in objects}
    can_contain = frozenset(
        (holder.lower(), kind.lower())
        for holder in {f.type for f in fixtures}
        for kind in able.contains[holder] & kinds
    )
    inside = {names[o.id]: names[o.receptacles[0]] for o in objects if o.receptacles}
    also_inside = {(names[o.id], names[other]) for o in objects for other in o.receptacles[1:]}
    lying = {(names[o.id], mangle(o.location)) for o in objects}
    lowered = Goal(
        goal.task_type, goal.object.lower(), goal.receptacle.lower(), goal.lamp.lower(), goal.count
    )
    state = State(mangle(household.start), inside=inside, also_inside=also_inside, lying=lying)
    game = Game(path, sentence, lowered, receptacles, things, can_contain, state)
    if is_won(game, state):
        raise NoPlan(f"{path} is won before it begins.")
    return game


@cache
def _sample_thing(kind: str) -> Thing:
    """A nameless thing of this type, with the type's abilities."""
    able = affordances()
    return Thing(
        name="",
        type=kind.lower(),
        pickupable=kind in able.pickupable or kind in ALSO_PICKUPABLE,
        cleanable=kind in able.cleanable,
        heatable=kind in able.heatable,
        coolable=kind in able.coolable,
        toggleable=kind in able.toggleable,
        sliceable=kind in able.sliceable,
        holder=kind in able.movable_receptacles,
    )


def _problem_text(household: Household, trial: str) -> str:
    """The PDDL problem, laid out like an official one."""
    goal = household.goal
    pddl_goal = (
        goal_library()[goal.task_type]["pddl"]
        .replace("#", "-")
        .format(obj=goal.object, recep=goal.receptacle, toggle=goal.lamp, mrecep="")
    )
    indent = "\n        "
    return (
        f"(define (problem plan_{trial})\n(:domain alfred)\n(:objects\n"
        + indent.join(_problem_objects(household))
        + "\n        )\n\n\n(:init\n\n        "
        + indent.join(_problem_facts(household))
        + "\n        )\n"
        + pddl_goal
    )


def _object_kinds(household: Household) -> list[str]:
    return sorted({o.type for o in household.objects} | {"Sink"})  # some domains name SinkType


def _holder_kinds(household: Household) -> list[str]:
    return sorted({f.type for f in household.plan.fixtures})


def _problem_objects(household: Household) -> list[str]:
    """The lines of the problem's `:objects`."""
    fixtures, objects = household.plan.fixtures, household.objects
    locations = sorted({f.location for f in fixtures} | {o.location for o in objects} | {household.start})
    lines = ["agent1 - agent"]
    lines += [f"{kind}Type - otype" for kind in _object_kinds(household)]
    lines += [f"{kind}Type - rtype" for kind in _holder_kinds(household)]
    lines += [f"{mangle(o.id)} - object" for o in objects]
    lines += [f"{mangle(f.id)} - receptacle" for f in fixtures]
    return lines + [f"{mangle(location)} - location" for location in locations]


def _problem_facts(household: Household) -> list[str]:
    """The lines of the problem's `:init`."""
    fixtures, objects = household.plan.fixtures, household.objects
    ids = {o.id: mangle(o.id) for o in objects} | {f.id: mangle(f.id) for f in fixtures}
    facts = [f"(receptacleType {ids[f.id]} {f.type}Type)" for f in fixtures]
    facts += [f"(objectType {ids[o.id]} {o.type}Type)" for o in objects]
    facts += [
        f"(canContain {holder}Type {kind}Type)"
        for holder in _holder_kinds(household)
        for kind in _object_kinds(household)
        if kind in affordances().contains[holder]
    ]
    facts += _problem_abilities(household)
    facts.append(f"(atLocation agent1 {mangle(household.start)})")
    facts += [f"(inReceptacle {ids[o.id]} {ids[holder]})" for o in objects for holder in o.receptacles]
    facts += [f"(receptacleAtLocation {ids[f.id]} {mangle(f.location)})" for f in fixtures]
    return facts + [f"(objectAtLocation {ids[o.id]} {mangle(o.location)})" for o in objects]


def _problem_abilities(household: Household) -> list[str]:
    """What can be done with each thing, as facts."""
    kinds = [(mangle(placed.id), _sample_thing(placed.type)) for placed in household.objects]
    facts = []
    for ability in ("pickupable", "cleanable", "heatable", "coolable", "toggleable", "sliceable"):
        facts += [f"({ability} {name})" for name, thing in kinds if getattr(thing, ability)]
    facts += [f"(isReceptacleObject {name})" for name, thing in kinds if thing.holder]
    return facts + [f"(openable {mangle(f.id)})" for f in household.plan.fixtures if f.openable]
