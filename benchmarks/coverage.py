"""Coverage of every interval over runs and games, and false-positive rate of every test on them, printed and
written into docs/evidence/coverage.md. (`coverage_turns.py` does the procedures over turns.)

    nice -n 15 python benchmarks/coverage.py                 # 1,000 simulated studies a cell; minutes
    nice -n 15 python benchmarks/coverage.py --reps 100      # a look
    python benchmarks/coverage.py --reps 2000 --write docs/evidence/coverage.md   # replaces its tables
    python benchmarks/coverage.py --study winners --reps 200               # one of them

Cells are 3, 5 and 10 runs × sd over runs 0, 0.04 and 0.08 (of a run's true success rate), 134 games, success
55 %. Also imported by tests/slow.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.bootstrap import two_way
from analysis.intervals import newcombe, newcombe_paired, t_interval, wilsons
from analysis.power import plannable, standard_error
from analysis.render import markdown
from analysis.runmeans import RunMeans, least_variance
from analysis.significance import (
    benjamini_hochberg,
    holm,
    mcnemar,
    non_inferiority,
    permutation,
    tost,
    two_proportions,
    welch,
)
from analysis.simulate import Graded, World
from analysis.spread_of_difference import INTERACTION, drawn_components
from analysis.sweep import selection_bias
from analysis.variance import RESIDUE, mean_squares

RUNS = (3, 5, 10)
SEED_SDS = (0.0, 0.04, 0.08)
GAMES = 134
TASK_TYPES = np.repeat(np.arange(6), (31, 24, 23, 21, 18, 17))
"""Task types of the 134 games, of the sizes that valid_unseen has: what the macro-average weighs alike."""


def shares(found: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Per name the share of studies in which it was true."""
    return {str(name): float(value) for name, value in pd.DataFrame(list(found)).mean().items()}


def generator(study: int, runs: int, seed_sd: float) -> np.random.Generator:
    """Each study and cell draws from numbers of its own."""
    return np.random.default_rng([study, runs, int(1000 * seed_sd)])


def sample(table: np.ndarray, weights: np.ndarray | None = None, grain: float = 1.0) -> RunMeans:
    """The run means of one recipe's [runs, games] results, as `Cells.sample` makes them."""
    if weights is None:
        weights = np.full(table.shape[1], 1 / table.shape[1])
    return RunMeans(table @ weights, least_variance(table, weights, grain))


def comparison(runs: int, seed_sd: float, reps: int, draws: int = 1000) -> dict[str, float]:
    """Coverage of the intervals of a true difference of 0.05, for these games and for new ones."""
    world = World(seed_sd=seed_sd, effect=0.05, games=GAMES)
    rng = generator(0, runs, seed_sd)
    strata, weights = np.zeros(GAMES, int), np.full(GAMES, 1 / GAMES)
    a, b = np.arange(runs, 2 * runs), np.arange(runs)

    def study(rep: int) -> dict[str, bool]:
        table, here = world.draw(runs, rng)
        boot = two_way(table.reshape(2 * runs, GAMES), a, b, strata, weights, draws=draws, seed=rep)
        test = welch(sample(table[1]), sample(table[0]))
        return {
            "two-way calibrated, new games": boot.low <= 0.05 <= boot.high,
            "two-way calibrated, these games": boot.low <= here <= boot.high,
            "Welch, these games": test.low <= here <= test.high,
            "two-way percentile, new games (not used)": boot.percentile_low <= 0.05 <= boot.percentile_high,
            "Welch, new games (not claimed)": test.low <= 0.05 <= test.high,
        }

    return shares(study(rep) for rep in range(reps))


def other_estimands(runs: int, seed_sd: float, reps: int, draws: int = 1000) -> dict[str, float]:
    """The same intervals for the macro-average over task types, and for graded scores between −100 and
    100."""
    world, graded = World(seed_sd=seed_sd, effect=0.05, games=GAMES), Graded()
    rng = generator(5, runs, seed_sd)
    even, one = np.full(GAMES, 1 / GAMES), np.zeros(GAMES, int)
    macro = 1 / np.bincount(TASK_TYPES)[TASK_TYPES] / 6
    a, b = np.arange(runs, 2 * runs), np.arange(runs)

    def study(rep: int) -> dict[str, bool]:
        table, expected = world.draw_arms((0.55, 0.60), runs, rng)
        values, gap = table.reshape(2 * runs, GAMES), expected[1] - expected[0]
        boot = two_way(values, a, b, TASK_TYPES, macro, draws=draws, seed=rep)
        test = welch(sample(table[1], macro), sample(table[0], macro))
        scores = graded.score(values, rng)
        score_boot = two_way(scores, a, b, one, even, draws=draws, seed=rep, grain=graded.span)
        mine, base = (sample(scores[rows], grain=graded.span) for rows in (a, b))
        score_test = welch(mine, base)
        low, high = t_interval(base)
        new, here = 0.05 * graded.slope, float(gap.mean()) * graded.slope
        mean_here = graded.lost_mean + graded.slope * float(expected[0].mean())
        return {
            "macro: two-way calibrated, new games": boot.low <= 0.05 <= boot.high,
            "macro: Welch, these games": test.low <= float(gap @ macro) <= test.high,
            "score: two-way calibrated, new games": score_boot.low <= new <= score_boot.high,
            "score: Welch, these games": score_test.low <= here <= score_test.high,
            "score: Student over runs": low <= mean_here <= high,
        }

    return shares(study(rep) for rep in range(reps))


def single(runs: int, seed_sd: float, reps: int) -> dict[str, float]:
    """Coverage for one method: Student's interval over runs (these games) and Wilson's (one checkpoint)."""
    world = World(seed_sd=seed_sd, games=GAMES, method_game_sd=0.0)
    rng = generator(1, runs, seed_sd)

    def study() -> dict[str, bool]:
        table, expected = world.draw_arms((0.55,), runs, rng)
        truth, means = float(expected[0].mean()), table[0].mean(axis=1)
        low, high = t_interval(sample(table[0]))
        drawn = means[rng.integers(0, runs, (1000, runs))].mean(axis=1)
        low_b, high_b = np.quantile(drawn, [0.025, 0.975])
        rate = float(np.clip(0.55 + seed_sd * rng.normal(), 0.02, 0.98))
        low_w, high_w = wilsons([int(rng.binomial(GAMES, rate))], [GAMES])
        return {
            "Student over runs, these games": low <= truth <= high,
            "Wilson, one checkpoint": bool(low_w[0] <= rate <= high_w[0]),
            "percentile bootstrap over runs (not used)": bool(low_b <= truth <= high_b),
        }

    return shares(study() for _ in range(reps))


def false_positives(runs: int, seed_sd: float, reps: int) -> dict[str, float]:
    """Share of true nulls rejected at 0.05. The null of TOST and of non-inferiority is a difference at the
    margin."""
    null = World(seed_sd=seed_sd, games=GAMES, method_game_sd=0.0)
    at_margin = World(seed_sd=seed_sd, games=GAMES, method_game_sd=0.0, effect=0.10)
    rng = generator(2, runs, seed_sd)

    def study() -> dict[str, bool]:
        table, _ = null.draw(runs, rng)
        base, method = sample(table[0]), sample(table[1])
        row = {"Welch on run means": welch(method, base).p < 0.05}
        if runs >= 5:
            row["run-label permutation"] = permutation(method, base)[0] <= 0.05
        other, here = at_margin.draw(runs, rng)
        better, worse = sample(other[1]), sample(other[0])
        row["TOST at its margin"] = tost(better, worse, here) < 0.05
        row["non-inferiority at its margin"] = non_inferiority(worse, better, here) < 0.05
        only_a = int((table[1] * (1 - table[0])).sum())
        only_b = int((table[0] * (1 - table[1])).sum())
        row["McNemar pooled over runs (refused)"] = mcnemar(only_a, only_b) < 0.05
        return row

    return shares(study() for _ in range(reps))


def families(runs: int, seed_sd: float, reps: int) -> dict[str, float]:
    """Three methods against one baseline. Holm: some true null rejected where all three are null. Benjamini
    and Hochberg: share of false ones among the rejections where one method is 15 points better."""
    world = World(seed_sd=seed_sd, games=GAMES, method_game_sd=0.0)
    rng = generator(6, runs, seed_sd)

    def p_values(rates: tuple[float, ...]) -> np.ndarray:
        base, *others = (sample(arm) for arm in world.draw_arms(rates, runs, rng)[0])
        return np.array([welch(mine, base).p for mine in others])

    def study() -> dict[str, float]:
        nulls = p_values((0.55, 0.55, 0.55, 0.55))
        found = benjamini_hochberg(p_values((0.55, 0.70, 0.55, 0.55))) < 0.05
        return {
            "Holm, family-wise error": float((holm(nulls) < 0.05).any()),
            "Benjamini and Hochberg, false discoveries": found[1:].sum() / max(1, found.sum()),
            "no correction, family-wise error (not used)": float((nulls < 0.05).any()),
        }

    return shares(study() for _ in range(reps))


def components(runs: int, seed_sd: float, reps: int) -> dict[str, float]:
    """Coverage of the variance components' intervals, games played once and three times, and of those of the
    difference of two methods."""
    world = World(seed_sd=seed_sd, games=GAMES, method_game_sd=0.0)
    truth = world.components()
    unlike = World(seed_sd=seed_sd, games=GAMES)
    rest = unlike.components()
    gaps = {
        "training run": 2 * seed_sd**2,
        INTERACTION: rest["method × game"],
        RESIDUE: 2 * rest[RESIDUE],
    }
    rng = generator(3, runs, seed_sd)

    def study() -> dict[str, bool]:
        row = {}
        for repeats in (1, 3):
            values = world.draw_arms((world.rate,), runs, rng, repeats)[0][0]
            drawn = mean_squares(values.reshape(runs, GAMES, repeats)).drawn(400, rng)
            for name, sample in drawn.items():
                low, high = np.quantile(np.maximum(sample, 0), [0.025, 0.975])
                row[name if repeats == 1 else f"{name}, 3 plays"] = bool(low <= truth[name] <= high)
        arms = unlike.draw_arms((world.rate, world.rate), runs, rng)[0]
        sides = (mean_squares(arms[1][..., None]), mean_squares(arms[0][..., None]))
        profile = arms[1].mean(axis=0) - arms[0].mean(axis=0)
        for name, sample in drawn_components(sides, profile, 400, rng).items():
            low, high = np.quantile(np.maximum(sample, 0), [0.025, 0.975])
            row[f"difference: {name}"] = bool(low <= gaps[name] <= high)
        return row

    return shares(study() for _ in range(reps))


def planned_power(runs: int, seed_sd: float, reps: int) -> dict[str, float]:
    """Share of studies in which Welch finds a true effect that equals the planned detectable difference."""
    truth = World(seed_sd=seed_sd, games=GAMES, method_game_sd=0.0).components()
    se = standard_error(runs, GAMES, seed_sd, truth["run × game + decoding"])
    effect = plannable(se, runs)
    world = World(rate=0.55 - effect / 2, effect=effect, seed_sd=seed_sd, games=GAMES, method_game_sd=0.0)
    rng = generator(7, runs, seed_sd)

    def study() -> dict[str, bool]:
        table, _ = world.draw(runs, rng)
        found = welch(sample(table[1]), sample(table[0])).p < 0.05
        return {"power at the detectable difference": found}

    return {"detectable difference": effect, **shares(study() for _ in range(reps))}


def winners(runs: int, seed_sd: float, reps: int, settings: int = 20, draws: int = 300) -> dict[str, float]:
    """How much better than it is the best of 20 equal settings looks, and what is left after the correction,
    in points."""
    world = World(seed_sd=seed_sd, games=GAMES, method_game_sd=0.0)
    rng = generator(8, runs, seed_sd)
    members = [np.arange(i * runs, (i + 1) * runs) for i in range(settings)]
    strata, weights = np.zeros(GAMES, int), np.full(GAMES, 1 / GAMES)
    flattery, left = [], []
    for rep in range(reps):
        table, expected = world.draw_arms((world.rate,) * settings, runs, rng)
        scores = table.mean(axis=(1, 2))
        bias, _ = selection_bias(table.reshape(-1, GAMES), members, strata, weights, draws, rep)
        best = int(scores.argmax())
        flattery.append(scores[best] - expected[best].mean())
        left.append(flattery[-1] - bias)
    return {
        "flattery of the winner, points": 100 * float(np.mean(flattery)),
        "left after the correction, points": 100 * float(np.mean(left)),
    }


def checkpoints(rate: float, games: int, reps: int) -> dict[str, float]:
    """One run a side, or two printed rates: coverage, and the share of true nulls rejected."""
    world = World(rate=rate, seed_sd=0.0, games=games, method_game_sd=0.0)
    rng = np.random.default_rng([9, games, int(100 * rate)])
    gap = 0.08

    def pairs(difference: float) -> tuple[int, int, int, int]:
        (base,), (mine,) = world.draw_arms((rate, rate + difference), 1, rng)[0]
        both, only_mine = (mine * base).sum(), (mine * (1 - base)).sum()
        only_base = (base * (1 - mine)).sum()
        return int(both), int(only_mine), int(only_base), int(games - both - only_mine - only_base)

    def study() -> dict[str, bool]:
        low, high = newcombe_paired(*pairs(gap))
        _, only_a, only_b, _ = pairs(0.0)
        wins = [int(rng.binomial(games, r)) for r in (rate + gap, rate, rate)]
        low_u, high_u = newcombe(wins[0], games, wins[1], games)
        return {
            "coverage: Newcombe, paired": low <= gap <= high,
            "coverage: Newcombe, unpaired": low_u <= gap <= high_u,
            "false positives: McNemar": mcnemar(only_a, only_b) < 0.05,
            "false positives: z of two proportions": two_proportions(wins[1], games, wins[2], games)[1]
            < 0.05,
        }

    return shares(study() for _ in range(reps))


def grid(function: Callable[[int, float, int], dict[str, float]], reps: int) -> pd.DataFrame:
    """One row per runs × sd cell."""
    rows = []
    for runs in RUNS:
        for sd in SEED_SDS:
            rows.append({"runs": runs, "sd over runs": sd, **function(runs, sd, reps)})
            print(f"{function.__name__}: {rows[-1]}", file=sys.stderr, flush=True)
    return pd.DataFrame(rows)


def single_checkpoints(reps: int) -> pd.DataFrame:
    """One row per number of games and rate."""
    rows = []
    for games in (60, 134):
        for rate in (0.1, 0.55, 0.85):
            rows.append({"games": games, "rate": rate, **checkpoints(rate, games, reps)})
    return pd.DataFrame(rows)


Studies = dict[str, tuple[str, Callable[[int], pd.DataFrame]]]
"""By name: a title, and what makes the table of so many simulated studies."""

STUDIES: Studies = {
    "comparison": (
        "Coverage of intervals of a difference (nominal 0.95)",
        partial(grid, comparison),
    ),
    "other_estimands": (
        "Coverage for the macro-average and for graded scores (nominal 0.95)",
        partial(grid, other_estimands),
    ),
    "single": ("Coverage of intervals of one rate (nominal 0.95)", partial(grid, single)),
    "false_positives": ("False positives (nominal 0.05)", partial(grid, false_positives)),
    "families": ("Three methods against one baseline (nominal 0.05)", partial(grid, families)),
    "planned_power": (
        "Power at the planned detectable difference (nominal 0.80)",
        partial(grid, planned_power),
    ),
    "components": ("Coverage of variance components (nominal 0.95)", partial(grid, components)),
    "winners": ("The best of 20 equal settings", partial(grid, winners)),
    "checkpoints": ("Two single checkpoints, or two printed rates", single_checkpoints),
}
"""Title of each study and the table that it makes from a number of repetitions."""


def section(title: str, table: pd.DataFrame, reps: int) -> str:
    """A study as it stands in the page."""
    error = 1.96 * np.sqrt(0.95 * 0.05 / reps)
    note = f"{reps:,} studies a cell; a printed 0.95 is known to ±{error:.3f}."
    return f"## {title}\n\n{note}\n\n{markdown(table.round(3))}"


def write_block(page: Path, name: str, text: str) -> None:
    """Replace what stands between the marks of a study in a Markdown page."""
    start, end = f"<!-- simulated: {name} -->", f"<!-- end: {name} -->"
    whole = page.read_text(encoding="utf-8")
    before, after = whole.split(start)[0], whole.split(end)[1]
    page.write_text(f"{before}{start}\n\n{text}\n{end}{after}", encoding="utf-8")


def main(studies: Studies, description: str | None) -> None:
    """The command line of a set of simulations; `benchmarks/coverage_paired.py` has another."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reps", type=int, default=1000)
    parser.add_argument("--study", nargs="+", choices=studies, default=list(studies), help="only these")
    parser.add_argument("--write", type=Path, help="Markdown page whose tables are replaced, one by one")
    args = parser.parse_args()
    for name in args.study:
        title, study = studies[name]
        used = time.process_time()
        text = section(title, study(args.reps), args.reps)
        print(f"{text}\n({time.process_time() - used:.0f} s of processor time)\n", flush=True)
        if args.write:
            write_block(args.write, name, text)


if __name__ == "__main__":
    main(STUDIES, __doc__)
