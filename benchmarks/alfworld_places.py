"""Make the expert's search order from generated training rooms.

    python benchmarks/alfworld_places.py   # 20 s; rewrites likely_places.json of sage/envs/alfworld/simulator

For every object type and receptacle type: how likely is one such receptacle to hold one, given that the room
has the object somewhere, divided by what looking costs (1 turn, 2 for a receptacle that starts closed). The
types are then brought into ONE order for all objects, the one that contradicts those ratios least; an
object's list is that order without the types where it is never found. One order for everything costs no turns
against a separate order per object (docs/evidence/alfworld_expert.md) and is far less for a small model to
learn. No official game is read.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path

from sage.envs.alfworld.simulator.generate import sample_games

TARGET = Path(__file__).parents[1] / "sage/envs/alfworld/simulator/likely_places.json"


def chance_per_cost(games: int, seed: int) -> dict[str, dict[str, float]]:
    """Object type -> receptacle type -> chance that one such receptacle holds one, per turn of looking."""
    hits: dict[str, Counter[str]] = defaultdict(Counter)
    tries: dict[str, Counter[str]] = defaultdict(Counter)
    openable: set[str] = set()
    for game in sample_games("train", seed, games):
        room = game.household
        kinds = {fixture.id: fixture.type.lower() for fixture in room.plan.fixtures}
        openable |= {fixture.type.lower() for fixture in room.plan.fixtures if fixture.openable}
        where: dict[str, set[str]] = defaultdict(set)
        for placed in room.objects:
            if placed.receptacles:
                where[placed.type.lower()].update(placed.receptacles)
        for thing, places in where.items():
            for fixture, kind in kinds.items():
                tries[thing][kind] += 1
                hits[thing][kind] += fixture in places
    return {
        thing: {
            kind: hits[thing][kind] / tries[thing][kind] / (2 if kind in openable else 1)
            for kind in sorted(tries[thing])
            if hits[thing][kind]
        }
        for thing in sorted(tries)
    }


def common_order(chance: dict[str, dict[str, float]]) -> list[str]:
    """One order of all receptacle types; neighbours are swapped until no swap agrees better."""
    lead: defaultdict[tuple[str, str], float] = defaultdict(float)
    total: defaultdict[str, float] = defaultdict(float)
    for by_kind in chance.values():
        for first, value in by_kind.items():
            total[first] += value
            for second, other in by_kind.items():
                lead[first, second] += value - other
    seen_for = Counter(kind for by_kind in chance.values() for kind in by_kind)
    order = sorted(total, key=lambda kind: (-total[kind] / seen_for[kind], kind))
    for _ in range(len(order) ** 2):
        swapped = False
        for i in range(len(order) - 1):
            if lead[order[i + 1], order[i]] > lead[order[i], order[i + 1]]:
                order[i], order[i + 1] = order[i + 1], order[i]
                swapped = True
        if not swapped:
            break
    return order


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--games", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance = chance_per_cost(args.games, args.seed)
    order = common_order(chance)
    rows = [
        f"  {json.dumps(thing)}: {json.dumps([kind for kind in order if kind in by_kind])}"
        for thing, by_kind in chance.items()
    ]
    TARGET.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
    print("order:", " > ".join(order))
    print(f"{len(rows)} object types -> {TARGET.name}")


if __name__ == "__main__":
    main()
