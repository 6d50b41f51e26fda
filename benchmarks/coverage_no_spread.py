"""Runs that hardly differ and hardly win: false positives, false equivalence and coverage at low rates, where
a variance over three runs is often 0. Printed, and written into docs/evidence/coverage.md.

    nice -n 15 python benchmarks/coverage_no_spread.py --reps 4000 --write docs/evidence/coverage.md

Three runs against three, 12 and 150 games, rates 0.003 to 0.05, and 0.95 for runs that win nearly everything.
Games are equally hard, or differ as in `coverage.py`. No run is better than another, so that what a run mean
varies by is its games' chance alone.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.bootstrap import two_way
from analysis.intervals import t_interval
from analysis.significance import tost, welch
from analysis.simulate import World
from benchmarks.coverage import sample, section, shares, write_block

RUNS = 3
GAMES = (12, 150)
RATES = (0.003, 0.01, 0.02, 0.05, 0.95)
MARGIN = 0.05
TWO_WAY_EVERY = 10
"""The two-way bootstrap is slow: it takes one study of so many."""


def no_spread(games: int, rate: float, alike: bool, reps: int) -> dict[str, float]:
    """Shares of studies: two equal recipes; for equivalence a true difference of exactly the margin."""
    hard = {"game_sd": 0.0, "run_game_sd": 0.0} if alike else {}
    world = World(rate=rate, seed_sd=0.0, games=games, method_game_sd=0.0, **hard)
    other = rate - MARGIN if rate > 0.5 else rate + MARGIN
    rng = np.random.default_rng([11, games, int(1000 * rate), alike])
    strata, weights = np.zeros(games, int), np.full(games, 1 / games)
    rows = np.arange(RUNS), np.arange(RUNS, 2 * RUNS)
    plain = {"no floor: nothing varies": 0, "no floor: p below 1e-6 (not used)": 0}
    smallest = 1.0

    def study(rep: int) -> dict[str, bool]:
        nonlocal smallest
        table, expected = world.draw_arms((rate, rate, other), RUNS, rng)
        base, same, off = (sample(arm) for arm in table)
        null = welch(same, base)
        gap = float(abs(expected[2].mean() - expected[0].mean()))
        low, high = t_interval(base)
        smallest = min(smallest, null.p)
        still = base.observed + same.observed == 0
        plain["no floor: nothing varies"] += still
        plain["no floor: p below 1e-6 (not used)"] += still and base.mean != same.mean
        row = {
            "Welch: false positives at 0.05": null.p < 0.05,
            "Welch: false positives at 1e-6": null.p < 1e-6,
            "Welch: coverage": null.low <= 0 <= null.high,
            "TOST at its margin: false equivalence": tost(off, base, gap) < 0.05,
            "Student over runs: coverage": low <= float(expected[0].mean()) <= high,
        }
        if rep % TWO_WAY_EVERY == 0:
            values = np.concatenate([table[1], table[0]])
            boot = two_way(values, *rows, strata, weights, draws=400, seed=rep)
            row["two-way calibrated: coverage, new games"] = boot.low <= 0 <= boot.high
        return row

    found = shares(study(rep) for rep in range(reps))
    counted = {name: count / reps for name, count in plain.items()}
    return found | {"Welch: smallest p": smallest} | counted


def table(reps: int) -> pd.DataFrame:
    """One row per world, number of games and rate."""
    rows = []
    for alike in (True, False):
        for games in GAMES:
            for rate in RATES:
                kind = "alike" if alike else "unlike"
                place: dict[str, object] = {"games are": kind, "games": games, "rate": rate}
                rows.append(place | no_spread(games, rate, alike, reps))
                print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reps", type=int, default=1000)
    parser.add_argument("--write", type=Path, help="Markdown page whose table is replaced")
    args = parser.parse_args()
    used = time.process_time()
    text = section(
        "Three runs without spread, against three (nominal 0.95 and 0.05)", table(args.reps), args.reps
    )
    print(f"{text}\n({time.process_time() - used:.0f} s of processor time)", flush=True)
    if args.write:
        write_block(args.write, "no_spread", text)


if __name__ == "__main__":
    main()
