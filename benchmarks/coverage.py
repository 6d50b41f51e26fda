"""Coverage of every interval and false-positive rate of every test, printed and written into
docs/statistics.md.

    nice -n 15 python benchmarks/coverage.py                 # 1,000 simulated studies a cell; minutes
    nice -n 15 python benchmarks/coverage.py --reps 100      # a look
    python benchmarks/coverage.py --write docs/statistics.md # replaces the block between the coverage marks

Cells are 3, 5 and 10 runs × sd over runs 0, 0.04 and 0.08 (of a run's true success rate), 134 games, success
55 %. Also imported by tests/slow.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.agreement import from_confusion
from analysis.bootstrap import two_way
from analysis.clusters import bounds, resampled_sums
from analysis.intervals import t_interval, wilsons
from analysis.render import markdown
from analysis.significance import mcnemar, permutation, tost, welch
from analysis.simulate import World
from analysis.variance import mean_squares

RUNS = (3, 5, 10)
SEED_SDS = (0.0, 0.04, 0.08)
GAMES = 134


def comparison(runs: int, seed_sd: float, reps: int, draws: int = 1000, seed: int = 0) -> dict[str, float]:
    """Coverage of the intervals of a true difference of 0.05, for these games and for new ones."""
    world = World(seed_sd=seed_sd, effect=0.05, games=GAMES)
    rng = np.random.default_rng([seed, runs, int(1000 * seed_sd)])
    strata, weights = np.zeros(GAMES, int), np.full(GAMES, 1 / GAMES)
    a, b = np.arange(runs, 2 * runs), np.arange(runs)
    hits: dict[str, list[bool]] = {}
    for rep in range(reps):
        table, here = world.draw(runs, rng)
        boot = two_way(table.reshape(2 * runs, GAMES), a, b, strata, weights, draws=draws, seed=rep)
        test = welch(table[1].mean(axis=1), table[0].mean(axis=1))
        found = {
            "two-way calibrated, new games": boot.low <= 0.05 <= boot.high,
            "two-way calibrated, these games": boot.low <= here <= boot.high,
            "Welch, these games": test.low <= here <= test.high,
            "two-way percentile, new games (not used)": boot.percentile_low <= 0.05 <= boot.percentile_high,
            "Welch, new games (not claimed)": test.low <= 0.05 <= test.high,
        }
        for name, hit in found.items():
            hits.setdefault(name, []).append(bool(hit))
    return {name: float(np.mean(values)) for name, values in hits.items()}


def single(runs: int, seed_sd: float, reps: int, seed: int = 1) -> dict[str, float]:
    """Coverage for one method: Student's interval over runs (these games) and Wilson's (one checkpoint)."""
    world = World(seed_sd=seed_sd, games=GAMES, method_game_sd=0.0)
    rng = np.random.default_rng([seed, runs, int(1000 * seed_sd)])
    student, bootstrap, wilson_hits = [], [], []
    for _ in range(reps):
        table, (truth, _) = world.draw_arms(runs, rng)
        means = table[0].mean(axis=1)
        low, high = t_interval(means)
        student.append(low <= truth <= high)
        drawn = means[rng.integers(0, runs, (1000, runs))].mean(axis=1)
        low, high = np.quantile(drawn, [0.025, 0.975])
        bootstrap.append(low <= truth <= high)
        checkpoint = rng.normal()
        rate = float(np.clip(0.55 + seed_sd * checkpoint, 0.02, 0.98))
        low_w, high_w = wilsons([int(rng.binomial(GAMES, rate))], [GAMES])
        wilson_hits.append(bool(low_w[0] <= rate <= high_w[0]))
    return {
        "Student over runs, these games": float(np.mean(student)),
        "Wilson, one checkpoint": float(np.mean(wilson_hits)),
        "percentile bootstrap over runs (not used)": float(np.mean(bootstrap)),
    }


def false_positives(runs: int, seed_sd: float, reps: int, seed: int = 2) -> dict[str, float]:
    """Share of true nulls rejected at 0.05. TOST's null is a difference that equals its margin."""
    null = World(seed_sd=seed_sd, games=GAMES, method_game_sd=0.0)
    at_margin = World(seed_sd=seed_sd, games=GAMES, method_game_sd=0.0, effect=0.10)
    rng = np.random.default_rng([seed, runs, int(1000 * seed_sd)])
    found: dict[str, list[bool]] = {}
    for _ in range(reps):
        table, _ = null.draw(runs, rng)
        base, method = table[0].mean(axis=1), table[1].mean(axis=1)
        row = {"Welch on run means": welch(method, base).p < 0.05}
        if runs >= 5:
            row["run-label permutation"] = permutation(method, base)[0] <= 0.05
        only_a = int((table[1] * (1 - table[0])).sum())
        only_b = int((table[0] * (1 - table[1])).sum())
        row["McNemar pooled over runs (refused)"] = mcnemar(only_a, only_b) < 0.05
        other, here = at_margin.draw(runs, rng)
        row["TOST at its margin"] = tost(other[1].mean(axis=1), other[0].mean(axis=1), here) < 0.05
        for name, value in row.items():
            found.setdefault(name, []).append(bool(value))
    return {name: float(np.mean(values)) for name, values in found.items()}


def components(runs: int, seed_sd: float, reps: int, seed: int = 3) -> dict[str, float]:
    """Coverage of the intervals of the variance components: normal layout with the stated sd over runs."""
    rng = np.random.default_rng([seed, runs, int(1000 * seed_sd)])
    hits: dict[str, list[bool]] = {"training run": [], "game": []}
    for _ in range(reps):
        values = rng.normal(0, 0.3, (1, GAMES)) + rng.normal(0, 0.35, (runs, GAMES))
        values = (values + rng.normal(0, seed_sd, (runs, 1)))[:, :, None]
        drawn = mean_squares(values).drawn(400, rng)
        for name, truth in (("training run", seed_sd**2), ("game", 0.09)):
            low, high = np.quantile(np.maximum(drawn[name], 0), [0.025, 0.975])
            hits[name].append(bool(low <= truth <= high))
    return {f"variance of {name}": float(np.mean(values)) for name, values in hits.items()}


def kappa(episodes: int, reps: int, seed: int = 4) -> float:
    """Coverage of kappa's cluster bootstrap: 12 turns an episode, the judge's accuracy varies between
    episodes."""
    rng = np.random.default_rng([seed, episodes])

    def counts(n: int) -> np.ndarray:
        truth = rng.choice(3, (n, 12), p=[0.6, 0.25, 0.15])
        accuracy = rng.beta(8, 2, (n, 1))
        decided = np.where(rng.random((n, 12)) < accuracy, truth, rng.integers(0, 3, (n, 12)))
        flat = decided * 3 + truth + 9 * np.arange(n)[:, None]
        return np.bincount(flat.ravel(), minlength=9 * n).reshape(n, 9).astype(float)

    true = float(from_confusion(counts(400_000).sum(axis=0))["kappa"])
    hits = []
    for _ in range(reps):
        drawn = from_confusion(resampled_sums(counts(episodes), 1000, rng))["kappa"]
        low, high = bounds(drawn, 0.95)
        hits.append(low <= true <= high)
    return float(np.mean(hits))


def grid(function: Callable[[int, float, int], dict[str, float]], reps: int) -> pd.DataFrame:
    """One row per runs × sd cell."""
    rows = []
    for runs in RUNS:
        for seed_sd in SEED_SDS:
            rows.append({"runs": runs, "sd over runs": seed_sd, **function(runs, seed_sd, reps)})
    return pd.DataFrame(rows)


def report(reps: int) -> str:
    """All tables as Markdown."""
    error = 1.96 * np.sqrt(0.95 * 0.05 / reps)
    parts = [
        f"Simulated with {reps:,} studies a cell by `benchmarks/coverage.py`; a printed 0.95 is known to "
        f"±{error:.3f}.\n"
    ]
    for title, function in (
        ("Coverage of intervals of a difference (nominal 0.95)", comparison),
        ("Coverage of intervals of one rate (nominal 0.95)", single),
        ("False positives (nominal 0.05)", false_positives),
        ("Coverage of variance components (nominal 0.95)", components),
    ):
        started = time.perf_counter()
        parts += [f"### {title}\n", markdown(grid(function, reps).round(3))]
        print(f"{parts[-2]}\n{parts[-1]}\n({time.perf_counter() - started:.0f} s)", flush=True)
    clusters = pd.DataFrame(
        [{"episodes": n, "kappa, cluster bootstrap": kappa(n, reps)} for n in (30, 100, 300)]
    )
    parts += ["### Coverage of kappa by the cluster bootstrap (nominal 0.95)\n", markdown(clusters.round(3))]
    print(parts[-1], flush=True)
    return "\n".join(parts)


START, END = "<!-- coverage: written by benchmarks/coverage.py -->", "<!-- end of coverage -->"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reps", type=int, default=1000)
    parser.add_argument("--write", type=Path, help="Markdown file whose coverage block is replaced")
    args = parser.parse_args()
    text = report(args.reps)
    if args.write:
        page = args.write.read_text(encoding="utf-8")
        before, after = page.split(START)[0], page.split(END)[1]
        args.write.write_text(f"{before}{START}\n\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
