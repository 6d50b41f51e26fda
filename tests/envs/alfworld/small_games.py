"""Small random games and a brute-force search over the native engine: the oracle for the planner."""

from __future__ import annotations

import random
from collections import deque

from sage.envs.alfworld.simulator.native import NativeWorld
from sage.envs.alfworld.simulator.planner import TREATMENTS
from sage.envs.alfworld.simulator.world import Game, Goal, Receptacle, State, Thing

TASKS = ("pick_and_place_simple", "look_at_obj_in_light", "pick_clean_then_place_in_recep",
         "pick_heat_then_place_in_recep", "pick_cool_then_place_in_recep", "pick_two_obj_and_place")


def random_game(rng: random.Random, task_type: str) -> Game:
    """Three to six receptacles and up to six objects in a random state, often that of a mid-episode."""
    kinds = ["microwave", "fridge", "sinkbasin", "shelf", "shelf", "drawer", "drawer", "cabinet", "desk"]
    appliance = [TREATMENTS[task_type][1][0]] if task_type in TREATMENTS else []
    chosen = rng.sample(kinds, rng.randint(3, 5)) + appliance
    locations = [f"loc{i}" for i in range(rng.randint(2, len(chosen)))]
    receptacles: dict[str, Receptacle] = {}
    for i, kind in enumerate(chosen):
        openable = kind in ("microwave", "fridge", "drawer", "cabinet") and rng.random() < 0.8
        receptacles[f"{kind} {i}"] = Receptacle(f"{kind} {i}", kind, rng.choice(locations), openable)
    names = list(receptacles)
    things = {
        f"mug {i}": Thing(f"mug {i}", "mug", True, rng.random() < 0.9, rng.random() < 0.9, rng.random() < 0.9)
        for i in range(rng.randint(1, 3))
    }
    things["fork 0"] = Thing("fork 0", "fork", True)
    movable = list(things)
    n_lamps = rng.randint(1, 2) if task_type == "look_at_obj_in_light" else 0
    lamps = [f"desklamp {i}" for i in range(n_lamps)]
    things |= {name: Thing(name, "desklamp", toggleable=True) for name in lamps}
    pairs = [(kind, thing) for kind in sorted(set(chosen)) for thing in ("mug", "fork")]
    can_contain = frozenset(pair for pair in pairs if rng.random() < 0.7)
    state = State(rng.choice([*locations, "nowhere"]))
    for name in things:
        if rng.random() < 0.93 or name in lamps:
            state.inside[name] = rng.choice(names)
    if rng.random() < 0.5:
        state.holding = rng.choice(movable)
        state.inside.pop(state.holding, None)
    if rng.random() < 0.4:  # official files say of some objects that they are in two receptacles
        name, place = rng.choice(list(things)), rng.choice(names)
        if state.inside.get(name) != place:
            state.also_inside.add((name, place))
    state.opened = {name for name in names if receptacles[name].openable and rng.random() < 0.3}
    state.clean = {name for name in movable if rng.random() < 0.2}
    state.hot = {name for name in movable if rng.random() < 0.2}
    state.cool = {name for name in movable if name not in state.hot and rng.random() < 0.2}
    state.toggled = {name for name in lamps if rng.random() < 0.3}
    if task_type == "look_at_obj_in_light":
        goal = Goal(task_type, "mug", "", "desklamp")
    else:
        goal = Goal(task_type, "mug", rng.choice(chosen), "", 2 if "two" in task_type else 1)
    return Game("", "a test", goal, receptacles, things, can_contain, state)


def _key(state: State) -> tuple:
    return (state.location, state.holding, frozenset(state.inside.items()), frozenset(state.opened),
            frozenset(state.clean), frozenset(state.hot), frozenset(state.cool), frozenset(state.toggled),
            frozenset(state.also_inside))


def search_distance(game: Game, limit: int) -> int | None:
    """Length of a shortest winning sequence by breadth-first search; None if there is none within `limit`."""
    world = NativeWorld(game)
    if world.won():
        return 0
    seen = {_key(game.initial)}
    frontier = deque([(game.initial, 0)])
    while frontier:
        state, depth = frontier.popleft()
        if depth == limit:
            continue
        world.state = state
        for command in world.admissible():
            if command.startswith(("look", "inventory", "help", "examine")):
                continue
            world.state = state.copy()
            world.apply(command)
            key = _key(world.state)
            if key in seen:
                continue
            if world.won():
                return depth + 1
            seen.add(key)
            frontier.append((world.state, depth + 1))
    return None
