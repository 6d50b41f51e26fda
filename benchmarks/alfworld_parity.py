"""Compare the native ALFWorld engine with the real one, step by step, and print what was compared.

    python benchmarks/alfworld_parity.py                              # a quarter of an hour of CPU: 460 games
    python benchmarks/alfworld_parity.py --official 3 --generated 3 --unmemoised 1       # a minute

Official games come from ALFWORLD_DATA (skipped, and said so, where it is unset); generated ones are made in a
temporary folder with the seed given. Exit status 1 where any observation, admissible list, reward or `won`
differs. Needs the packages alfworld and textworld.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pretrain.alfworld_parity import Parity, compare
from sage.envs.alfworld.textworld_engine import TextWorldEngine

OFFICIAL_SPLITS = {"valid_unseen": 134, "valid_seen": 140, "train": 120}
"""How many games of each official split a full run plays: all of the validation games."""
GENERATED_SPLITS = ("train", "valid_seen", "valid_unseen")


def official_games(share: int | None, splits: list[str]) -> Iterator[tuple[str, str, Path]]:
    """(source and split, key, path) of official games, evenly over the task types."""
    root = os.environ.get("ALFWORLD_DATA")
    if not root:
        print("ALFWORLD_DATA is not set: no official game is compared.")
        return
    for split in splits if share != 0 else []:
        base = Path(root) / "json_2.1.1" / split
        files = sorted(base.glob("*/*/game.tw-pddl"))
        random.Random(f"sage alfworld parity {split}").shuffle(files)
        by_type: dict[str, list[Path]] = {}
        for file in files:
            by_type.setdefault(file.parts[-3].split("-")[0], []).append(file)
        rounds = [file for group in zip_longest_lists(list(by_type.values())) for file in group]
        for file in rounds[: OFFICIAL_SPLITS[split] if share is None else share]:
            yield f"official {split}", f"{split}/{file.parts[-3]}/{file.parts[-2]}", file


def zip_longest_lists(groups: list[list[Path]]) -> Iterator[list[Path]]:
    """First of each group, second of each, ... until all are used up."""
    for index in range(max(map(len, groups), default=0)):
        yield [group[index] for group in groups if index < len(group)]


def generated_games(count: int, seed: int, folder: Path) -> Iterator[tuple[str, str, Path]]:
    """`count` games of each split, written below `folder`."""
    from sage.envs.alfworld.simulator.generate import sample_games

    for split in GENERATED_SPLITS:
        for game in sample_games(split, seed, count):
            file = folder / split / game.key / "game.tw-pddl"
            file.parent.mkdir(parents=True)
            file.write_text(json.dumps(game.as_json()), encoding="utf-8")
            yield f"generated {split}", f"{split}/{game.key}", file


@dataclass
class Totals:
    """What has been compared so far, by group of games."""

    games: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    won: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    verbs: Counter[str] = field(default_factory=Counter)
    differences: int = 0
    start: float = field(default_factory=time.perf_counter)

    def add(self, group: str, key: str, parity: Parity) -> None:
        self.games[group] += 1
        self.steps[group] += parity.steps
        self.won[group] += parity.won
        self.types[key.split("/")[1].split("-")[0]] += 1
        self.verbs.update(parity.kinds)
        self.differences += len(parity.differences)
        for step, command, name, real, native in parity.differences:
            print(f"DIFFERENCE {key} step {step} {command!r} {name}\n  real   {real!r}\n  native {native!r}")
        if self.games.total() % 20 == 0:
            print(self.summary(), file=sys.stderr, flush=True)

    def summary(self) -> str:
        return (f"{self.games.total()} games, {self.steps.total()} steps, {self.differences} differences, "
                f"{time.perf_counter() - self.start:.0f} s")

    def print(self) -> None:
        for group in self.games:
            games, steps, won = self.games[group], self.steps[group], self.won[group]
            print(f"{group:38} {games:4} games {steps:6} steps {won:4} won")
        print("games by type:", ", ".join(f"{name} {n}" for name, n in sorted(self.types.items())))
        verbs = self.verbs.most_common()
        print("commands:", ", ".join(f"{verb or 'without effect'} {n}" for verb, n in verbs))
        print("all:", self.summary())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--official", type=int, help="games per official split (default: OFFICIAL_SPLITS)")
    add("--split", choices=OFFICIAL_SPLITS, help="only this official split (one process each, say)")
    add("--generated", type=int, default=22, help="games per generated split")
    add("--unmemoised", type=int, default=4, help="games played on the engine as shipped too")
    add("--steps", type=int, default=60, help="commands per game")
    add("--seed", type=int, default=7, help="of the generated games")
    args = parser.parse_args()

    totals = Totals()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        official = official_games(args.official, [args.split] if args.split else list(OFFICIAL_SPLITS))
        games = [*official, *generated_games(args.generated, args.seed, folder)]
        stride = max(1, len(games) // max(1, args.unmemoised))
        shipped = [(f"{group} (as shipped)", key, file) for group, key, file in games[::stride]]
        # The engine as shipped first: what `remember_parses` changes stays changed.
        for remember, chosen in ((False, shipped[: args.unmemoised]), (True, games)):
            if not chosen:
                continue
            engine = TextWorldEngine(remember=remember)
            for group, key, file in chosen:
                totals.add(group, key, compare(engine, file, args.steps, key))
    totals.print()
    return 1 if totals.differences else 0


if __name__ == "__main__":
    sys.exit(main())
