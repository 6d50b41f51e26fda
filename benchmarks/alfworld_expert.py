"""How well the searching expert plays: share won and steps, with and without mistakes.

    python benchmarks/alfworld_expert.py                        # generated games; 15 s
    ALFWORLD_DATA=<folder with json_2.1.1> python benchmarks/alfworld_expert.py   # the official ones too

With `--mistakes p` each command is replaced, with chance p during the first 30 turns, by a random admissible
one that the expert did not choose; it then has to recover. `--limit n` plays only n games of each split.
"""

from __future__ import annotations

import argparse
import os
import random
from collections import Counter
from dataclasses import dataclass

from sage.envs.alfworld.manifest import load_tasks
from sage.envs.alfworld.simulator.expert import SearchingExpert
from sage.envs.alfworld.simulator.native import NativeWorld
from sage.envs.alfworld.simulator.parse import parse_game
from sage.envs.alfworld.simulator.planner import shortest_distance
from sage.envs.alfworld.simulator.world import Game

BUDGET = 100


@dataclass(frozen=True)
class Played:
    task_type: str
    steps: int | None
    """None where the game was not won in `BUDGET` turns."""
    shortest: int | None
    refused: int
    """The expert's own commands that the world answered with `Nothing happens.`."""
    doomed: bool
    """A mistake led to a state from which nobody can win: column `lost`, and left out of the others."""


def play(game: Game, mistakes: float, rng: random.Random, budget: int = BUDGET) -> Played:
    world = NativeWorld(game)
    outcome = world.reset()
    shortest = shortest_distance(game, world.state)
    expert = SearchingExpert(outcome.observation, game.task_text, game.goal)
    refused = 0
    for turn in range(1, budget + 1):
        command = expert.act()
        own = True
        if turn <= 30 and rng.random() < mistakes:
            others = [other for other in outcome.admissible if other != command]
            if others:
                command, own = rng.choice(others), False
        outcome = world.step(command)
        refused += own and not outcome.executed
        expert.observe(command, outcome.observation)
        if outcome.won:
            return Played(game.goal.task_type, turn, shortest, refused, False)
    doomed = bool(mistakes) and shortest_distance(game, world.state) is None
    return Played(game.goal.task_type, None, shortest, refused, doomed)


def report(label: str, played: list[Played]) -> None:
    fair = [one for one in played if not one.doomed]
    steps = sorted(one.steps for one in fair if one.steps is not None)
    within = [sum(n <= budget for n in steps) / len(fair) for budget in (30, 50, BUDGET)]
    mean = sum(steps) / len(steps)
    shortest = sum(one.shortest or 0 for one in fair) / len(fair)
    cells = [
        label, len(fair), *(f"{share:.1%}" for share in within), f"{mean:.1f}", steps[int(len(steps) * 0.9)],
        steps[-1], f"{shortest:.1f}", sum(one.refused for one in fair), len(played) - len(fair),
    ]
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mistakes", type=float, default=0.0)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--splits", nargs="+", default=["valid_seen", "valid_unseen", "train"])
    parser.add_argument("--by-type", action="store_true")
    args = parser.parse_args()
    sources = ["generated"] + (["official"] if os.environ.get("ALFWORLD_DATA") else [])
    print("| games | n | won in 30 | in 50 | in 100 | mean steps | 90 % | most | shortest | refused | lost |")
    print("|" + "---|" * 11)
    for source in sources:
        for split in args.splits:
            tasks = load_tasks(source, split)[: args.limit]
            played = [
                play(parse_game(task.path), args.mistakes, random.Random(f"{args.seed} {task.id}"))
                for task in tasks
            ]
            report(f"{source} {split}", played)
            if args.by_type:
                for kind, _ in sorted(Counter(one.task_type for one in played).items()):
                    report(f"{source} {split} {kind}", [one for one in played if one.task_type == kind])


if __name__ == "__main__":
    main()
