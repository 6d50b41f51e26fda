"""The shortest way to the goal with full information, from any state of a game.

Invariant: `plan` is exact. No shorter command sequence wins; tests compare it with a breadth-first search.

Why a few scripts suffice. Every command costs one, `go to` reaches any receptacle in one command (none where
its location is the agent's), and a hand holds one thing. So a winning sequence is: maybe put down what is
held, then for each object still needed take it, maybe treat it (clean, heat, cool), and put it down or carry
it to a lit lamp. What remains is to choose where to drop, which objects, which appliance and which target:
those choices interact only through shared locations and through a receptacle that is used twice and opened
once. Choices that share neither are interchangeable, so `_worth_trying` keeps one of them, and the rest is
enumerated. Official files put some objects into several receptacles at once; such an object can be taken from
any of them, stays in the others, and counts for the goal wherever it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sage.envs.alfworld.simulator.world import Game, Receptacle, State

TREATMENTS = {
    "pick_clean_then_place_in_recep": ("clean", ("sinkbasin", "sink")),
    "pick_heat_then_place_in_recep": ("heat", ("microwave",)),
    "pick_cool_then_place_in_recep": ("cool", ("fridge",)),
}
"""Task type to its verb and the appliances that do it."""

Step = tuple[str, str, str]
"""(verb, object, receptacle) of one manipulation, without the walking and opening around it."""


class NoPlan(ValueError):
    """The goal cannot be reached from this state (for example: what is held fits nowhere)."""


def is_won(game: Game, state: State) -> bool:
    """Whether `state` satisfies the goal, as the game's PDDL goal states it."""
    goal = game.goal
    if goal.task_type == "look_at_obj_in_light":
        held = state.holding
        if held is None or game.things[held].type != goal.object:
            return False
        return any(
            game.receptacles[place].location == state.location
            for lamp, place in _lamps(game, state)
            if lamp in state.toggled
        )
    placed: dict[str, int] = {}
    for name in _done(game, state):
        for receptacle in _places(state, name):
            if game.receptacles[receptacle].type == goal.receptacle:
                placed[receptacle] = placed.get(receptacle, 0) + 1
    return any(count >= goal.count for count in placed.values())


def plan(game: Game, state: State) -> list[str]:
    """A shortest command sequence from `state` to the goal; empty where it is reached already.

    Raises:
        NoPlan: no sequence of commands wins from here.
    """
    best = _search(game, state)
    if best is None:
        raise NoPlan(f"No sequence of commands reaches `{game.task_text}` from this state.")
    return best


def shortest_distance(game: Game, state: State) -> int | None:
    """Length of a shortest winning command sequence; 0 where won, None where the goal is out of reach."""
    best = _search(game, state)
    return None if best is None else len(best)


def _search(game: Game, state: State) -> list[str] | None:
    if is_won(game, state):
        return []
    best: list[str] | None = None
    for script in _scripts(game, state):
        commands = _spell_out(game, state, script, None if best is None else len(best))
        if commands is not None:
            best = commands
    return best


def _spell_out(game: Game, state: State, script: Iterable[Step], limit: int | None) -> list[str] | None:
    """The script as commands, walking and opening where needed; None as soon as it is not under `limit`."""
    commands: list[str] = []
    location = state.location
    opened: set[str] = set()
    for verb, thing, name in script:
        receptacle = game.receptacles[name]
        if receptacle.location != location:
            commands.append(f"go to {name}")
            location = receptacle.location
        shut = receptacle.openable and name not in state.opened and name not in opened
        if shut and verb in ("take", "move"):
            commands.append(f"open {name}")
            opened.add(name)
        if verb == "take":
            commands.append(f"take {thing} from {name}")
        elif verb == "move":
            commands.append(f"move {thing} to {name}")
        elif verb == "use":
            commands.append(f"use {thing}")
        elif verb != "stand":
            commands.append(f"{verb} {thing} with {name}")
        if limit is not None and len(commands) >= limit:
            return None
    return commands


def _lamps(game: Game, state: State) -> list[tuple[str, str]]:
    """(lamp, its receptacle) of every light of the task's type that stands in a receptacle."""
    return [
        (name, place)
        for name, thing in game.things.items()
        if thing.type == game.goal.lamp and thing.toggleable
        for place in _places(state, name)
    ]


def _places(state: State, name: str) -> list[str]:
    """Receptacles that `name` is in, the main one first."""
    main = state.inside.get(name)
    places = [] if main is None else [main]
    if state.also_inside:
        places += sorted(place for thing, place in state.also_inside if thing == name and place != main)
    return places


def _candidates(game: Game) -> list[str]:
    """Objects of the task's type that can serve it at all."""
    ability = {"clean": "cleanable", "heat": "heatable", "cool": "coolable"}
    treatment = TREATMENTS.get(game.goal.task_type)
    names = [name for name, thing in game.things.items() if thing.type == game.goal.object]
    if treatment is None:
        return names
    return [name for name in names if getattr(game.things[name], ability[treatment[0]])]


def _treated(game: Game, state: State) -> set[str] | None:
    """Objects that have had the task's treatment; None where the task asks for none."""
    treatment = TREATMENTS.get(game.goal.task_type)
    if treatment is None:
        return None
    return {"clean": state.clean, "heat": state.hot, "cool": state.cool}[treatment[0]]


def _done(game: Game, state: State) -> list[str]:
    treated = _treated(game, state)
    return [name for name in _candidates(game) if treated is None or name in treated]


def _worth_trying(
    game: Game, state: State, options: Iterable[Receptacle], locations: set[str], names: set[str]
) -> list[Receptacle]:
    """Drop interchangeable receptacles: all that share a location or are used otherwise, and one more.

    That one is the cheapest of the rest: one that need not be opened, if there is any.
    """
    kept: list[Receptacle] = []
    spare: Receptacle | None = None
    spare_shut = True
    for receptacle in options:
        if receptacle.location in locations or receptacle.name in names:
            kept.append(receptacle)
            continue
        shut = receptacle.openable and receptacle.name not in state.opened
        if spare is None or (spare_shut and not shut):
            spare, spare_shut = receptacle, shut
    if spare is not None:
        kept.append(spare)
    return kept


def _scripts(game: Game, state: State) -> Iterator[list[Step]]:
    """Every script that can be a shortest one."""
    candidates = _candidates(game)
    sources = [
        (name, place)
        for name in candidates
        if game.things[name].pickupable and name != state.holding
        for place in _places(state, name)
    ]
    spots = {game.receptacles[place].location for _, place in sources} | {state.location}
    if game.goal.task_type == "look_at_obj_in_light":
        yield from _look_scripts(game, state, candidates, sources, spots)
    else:
        yield from _place_scripts(game, state, candidates, sources, spots)


def _look_scripts(
    game: Game, state: State, candidates: list[str], sources: list[tuple[str, str]], spots: set[str]
) -> Iterator[list[Step]]:
    """Have one of `candidates` in hand, then be at a lamp and have it lit."""
    ends: list[Step] = [
        ("stand" if lamp in state.toggled else "use", lamp, place) for lamp, place in _lamps(game, state)
    ]
    if state.holding in candidates:
        yield from ([end] for end in ends)
    for drop in _drops(game, state, spots, {place for _, place in sources}):
        for name, place in sources:
            for end in ends:
                yield [*drop, ("take", name, place), end]


class _Delivery(NamedTuple):
    """How objects get to a target: what is known of the game before a script is tried."""

    fits: bool
    """Whether the target's type can hold the object's."""
    verb: str
    """clean, heat or cool; empty where the task asks for no treatment."""
    appliances: list[Receptacle]
    done: frozenset[str]
    """Objects that need no treatment any more."""
    places: dict[str, list[str]]

    def deliver(self, name: str, source: str | None, target: str) -> Iterator[list[Step]]:
        """What follows once `name`, taken from `source`, is in hand."""
        stays = target != source and target in self.places[name]
        if not (stays or self.fits):
            return
        put: list[Step] = [] if stays else [("move", name, target)]
        if name in self.done:
            yield put
        elif self.verb:
            yield from ([(self.verb, name, appliance.name), *put] for appliance in self.appliances)

    def fetch(self, sources: list[tuple[str, str]], count: int, target: str) -> Iterator[list[Step]]:
        """Every way to bring `count` of the objects to `target`, one after the other."""
        if count <= 0:
            yield []
            return
        for name, source in sources:
            others = [pair for pair in sources if pair[0] != name]
            for middle in self.deliver(name, source, target):
                for rest in self.fetch(others, count - 1, target):
                    yield [("take", name, source), *middle, *rest]

    def scripts(
        self,
        sources: list[tuple[str, str]],
        count: int,
        target: str,
        held: str | None,
        drops: list[list[Step]],
    ) -> Iterator[list[Step]]:
        """Ways to bring `count` objects to `target`: what is in hand first, then after one of `drops`."""
        if held is not None and held in self.places:
            for first in self.deliver(held, None, target):
                for rest in self.fetch(sources, count - 1, target):
                    yield first + rest
        for drop in drops:
            for rest in self.fetch(sources, count, target):
                yield drop + rest


def _delivery(game: Game, state: State, candidates: list[str]) -> _Delivery:
    goal = game.goal
    verb, appliance_types = TREATMENTS.get(goal.task_type, ("", ()))
    return _Delivery(
        (goal.receptacle, goal.object) in game.can_contain,
        verb,
        [r for r in game.receptacles.values() if r.type in appliance_types],
        frozenset(_done(game, state)),
        {name: _places(state, name) for name in candidates},
    )


def _place_scripts(
    game: Game, state: State, candidates: list[str], sources: list[tuple[str, str]], spots: set[str]
) -> Iterator[list[Step]]:
    """Bring as many objects as are missing to one target, each treated if the task asks for it."""
    goal = game.goal
    way = _delivery(game, state, candidates)
    spots = spots | {r.location for r in way.appliances}
    used = {place for where in way.places.values() for place in where}
    of_type = [r for r in game.receptacles.values() if r.type == goal.receptacle]
    targets = [r.name for r in _worth_trying(game, state, of_type, spots, used)]
    drops = list(_drops(game, state, spots, used.union(targets)))
    for target in targets:
        there = {name for name in way.done if target in way.places[name]}
        outside = [(name, place) for name, place in sources if name not in there]
        held = None if state.holding in there else state.holding
        yield from way.scripts(outside, goal.count - len(there), target, held, drops)


def _drops(game: Game, state: State, spots: set[str], names: set[str]) -> Iterator[list[Step]]:
    """Ways to have an empty hand: nothing to do, or put down what is held."""
    if state.holding is None:
        yield []
        return
    kind = game.things[state.holding].type
    options = [r for r in game.receptacles.values() if (r.type, kind) in game.can_contain]
    for receptacle in _worth_trying(game, state, options, spots, names):
        yield [("move", state.holding, receptacle.name)]
