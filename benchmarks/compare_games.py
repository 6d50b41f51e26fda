"""Generated games against the official ones, in numbers: the tables of docs/evidence/generated_games.md.

How to run it (official games are needed; nothing of them is copied):

    ALFWORLD_DATA=/folder/that/holds/json_2.1.1/ python benchmarks/compare_games.py --split train
    python benchmarks/compare_games.py --split valid_unseen --seed 1

Prints Markdown. Every number is computed from the game files that `load_tasks` names, with `parse_game`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

from sage.envs.alfworld.manifest import TASK_TYPES, load_tasks
from sage.envs.alfworld.simulator.native import NativeWorld
from sage.envs.alfworld.simulator.parse import parse_game
from sage.envs.alfworld.simulator.planner import shortest_distance
from sage.envs.alfworld.simulator.world import Game

ROOMS = {0: "kitchen", 2: "living room", 3: "bedroom", 4: "bathroom"}


@dataclass(frozen=True)
class Loaded:
    """A game with what its folder's name says."""

    task_type: str
    scene: int
    game: Game

    @property
    def room(self) -> str:
        return ROOMS[self.scene // 100]


def load(source: str, split: str, seed: int) -> list[Loaded]:
    """Every game of a split, parsed."""
    loaded = []
    for task in load_tasks(source, split, seed=seed):
        scene = int(task.id.split("/")[-2].rsplit("-", 1)[1])
        loaded.append(Loaded(task.task_type, scene, parse_game(task.path)))
    return loaded


def share(count: float, total: int) -> str:
    return f"{100 * count / max(total, 1):.1f} %"


def row(name: str, sets: Sequence[list[Loaded]], value: Callable[[list[Loaded]], str]) -> None:
    print("| " + " | ".join([name, *(value(games) for games in sets)]) + " |")


def table(title: str, columns: Iterable[str]) -> None:
    names = [title, *columns]
    print("\n| " + " | ".join(names) + " |\n|" + "---|" * len(names))


def average(measure: Callable[[Game], float]) -> Callable[[list[Loaded]], str]:
    return lambda games: f"{mean(measure(x.game) for x in games):.2f}" if games else "none"


def part(wanted: str, of: Callable[[Loaded], str]) -> Callable[[list[Loaded]], str]:
    """The share of games of which `of` says `wanted`."""
    return lambda games: share(sum(of(x) == wanted for x in games), len(games))


def places(game: Game) -> int:
    return len({receptacle.location for receptacle in game.receptacles.values()})


def placed(game: Game) -> int:
    return sum(1 for name in game.initial.inside if game.things[name].pickupable)


def shut_in(game: Game) -> float:
    inside = [r for name, r in game.initial.inside.items() if game.things[name].pickupable]
    return 100 * sum(game.receptacles[r].openable for r in inside) / max(len(inside), 1)


def targets(game: Game) -> int:
    return sum(1 for thing in game.things.values() if thing.type == game.goal.object)


def target_shut_in(game: Game) -> float:
    """1 where every object of the task that can be fetched is behind a door."""
    places = [r for name, r in game.initial.inside.items() if game.things[name].type == game.goal.object]
    return float(all(game.receptacles[r].openable for r in places))


def words(game: Game) -> float:
    return float(len(NativeWorld(game).reset().observation.split()))


def occupancy(kind: str) -> Callable[[list[Loaded]], str]:
    """Objects in one receptacle of this type."""

    def measure(games: list[Loaded]) -> str:
        holders = sum(r.type == kind for x in games for r in x.game.receptacles.values())
        held = sum(x.game.receptacles[r].type == kind for x in games for r in x.game.initial.inside.values())
        return f"{held / holders:.2f}" if holders else "none"

    return measure


def instances(count: int) -> Callable[[list[Loaded]], str]:
    """Share of (room, pickupable type) pairs with this many instances."""

    def measure(games: list[Loaded]) -> str:
        found = Counter(
            min(n, 4) for x in games
            for n in Counter(t.type for t in x.game.things.values() if t.pickupable).values()
        )
        return share(found[count], sum(found.values()))

    return measure


def template(game: Game) -> str:
    """The task sentence with its types blanked out."""
    goal = game.goal
    kinds = {goal.object: "OBJ", goal.receptacle or goal.lamp: "REC"}
    return " ".join(kinds.get(word, word) for word in game.task_text.split())


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--split", default="train")
    parser.add_argument("--seed", type=int, default=0, help="of the generated set")
    options = parser.parse_args()
    sources = ("official", "generated")
    sets = [load(source, options.split, options.seed) for source in sources]

    table(f"{options.split}: means per game", sources)
    row("games", sets, lambda games: str(len(games)))
    row("floor plans", sets, lambda games: str(len({x.scene for x in games})))
    row("receptacles", sets, average(lambda g: len(g.receptacles)))
    row("of them openable", sets, average(lambda g: sum(r.openable for r in g.receptacles.values())))
    row("distinct places to go to", sets, average(places))
    row("objects (all)", sets, average(lambda g: len(g.things)))
    row("pickupable objects in a receptacle", sets, average(placed))
    row("of them behind a door, %", sets, average(shut_in))
    row("objects in two receptacles", sets, average(lambda g: len(g.initial.also_inside)))
    row("objects of the task's type", sets, average(targets))
    row("all of the task's type behind a door", sets, average(target_shut_in))
    row("words of the first observation", sets, average(words))
    row("stored walkthrough, steps", sets, average(lambda g: len(g.walkthrough)))
    row("shortest solution, steps", sets, average(lambda g: shortest_distance(g, g.initial) or 0))

    table("shortest solution by task type", sources)
    for kind in TASK_TYPES:
        row(kind, [[x for x in games if x.task_type == kind] for games in sets],
            average(lambda g: shortest_distance(g, g.initial) or 0))

    table("share of games by task type", sources)
    for kind in TASK_TYPES:
        row(kind, sets, part(kind, lambda x: x.task_type))

    table("by room: share of games; receptacles; pickupable objects placed", sources)
    for room in ROOMS.values():
        def of_room(games: list[Loaded], room: str = room) -> str:
            chosen = [x for x in games if x.room == room]
            if not chosen:
                return "none"
            return (f"{share(len(chosen), len(games))}; {mean(len(x.game.receptacles) for x in chosen):.1f}; "
                    f"{mean(placed(x.game) for x in chosen):.1f}")

        row(room, sets, of_room)

    table("objects in one receptacle of the type", sources)
    for kind in sorted({r.type for x in sets[0] for r in x.game.receptacles.values()}):
        row(kind, sets, occupancy(kind))

    table("share of (room, object type) with so many instances", sources)
    for count in (1, 2, 3, 4):
        row("4 or more" if count == 4 else str(count), sets, instances(count))

    table("wording of the task: share of games", sources)
    for text in sorted({template(x.game) for games in sets for x in games}):
        row(text, sets, part(text, lambda x: template(x.game)))


if __name__ == "__main__":
    main()
