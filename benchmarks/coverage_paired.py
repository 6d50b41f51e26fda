"""Coverage and false positives of the paired and the blocked design, printed and written into
docs/evidence/coverage.md.

    nice -n 15 python benchmarks/coverage_paired.py --reps 6000 --write docs/evidence/coverage.md
    python benchmarks/coverage_paired.py --study paired_alike --reps 200000 --write docs/evidence/coverage.md
    nice -n 15 python benchmarks/coverage_paired.py --reps 400                               # a look

Cells are correlation 0, 0.5, 0.9 × 3, 5, 10 runs × sd over runs 0, 0.04, 0.08 × with and without run × game
interaction; then unequal spreads (one method's runs vary twice as much) and a missing run; then pairs that
hardly differ. Four methods, 134 games, success 55 %. The tests are computed for all studies of a cell at
once, and the first ones are held against `analysis.designs`; the interval on new games is that of
`analysis.designs`.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats

from analysis.blocked import layout_of
from analysis.cells import Cells
from analysis.designs import design_of
from analysis.simulate import World
from analysis.simulate_pairs import PairedWorld
from benchmarks.coverage import Studies, main

GAMES, ARMS = 134, 4
CHECKED = 5
"""Studies of a cell that are held against the shipped code."""


def table_of(values: np.ndarray) -> Cells:
    """One study's [arms, runs, games] as the analysis has it; runs that are nan are not there."""
    arms, runs, games = values.shape
    names = np.repeat([f"m{i}" for i in range(arms)], runs).astype(object)
    flat = values.reshape(-1, games)
    keep = ~np.isnan(flat).all(axis=1)
    return Cells(
        values=flat[keep],
        runs=[f"r{i}" for i in np.flatnonzero(keep)],
        methods=names[keep],
        seeds=np.tile(np.arange(runs), arms)[keep],
        games=[f"g{i}" for i in range(games)],
        strata=np.zeros(games, int),
        weights=np.full(games, 1 / games),
        not_ok=np.zeros(int(keep.sum()), int),
        context_full=np.zeros(int(keep.sum()), int),
    )


def paired_tests(means: np.ndarray, games: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(differences, standard errors, df) of arm 1 against arm 0 in all studies; `means` [studies, arms,
    runs]."""
    gaps = means[:, 1] - means[:, 0]
    gaps = gaps[:, ~np.isnan(gaps[0])]
    pairs = gaps.shape[1]
    variance = np.maximum(gaps.var(axis=1, ddof=1), 1 / (games * (games + 1)))
    return gaps.mean(axis=1), np.sqrt(variance / pairs), pairs - 1


def blocked_tests(
    means: np.ndarray, games: int, pair: tuple[int, int] = (1, 0)
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(differences, standard errors, dfs, pooled standard errors) of the first arm of `pair` against the
    second in all studies; at most ten arms, whose names are then in order."""
    _, arms, runs = means.shape
    there = ~np.isnan(means[0]).ravel()
    methods = tuple(str(name) for name in np.repeat([f"m{i}" for i in range(arms)], runs)[there])
    layout = layout_of(methods, tuple(int(s) for s in np.tile(np.arange(runs), arms)[there]))
    y = means.reshape(len(means), -1)[:, there]
    a = layout.weights(*(f"m{arm}" for arm in pair))
    assert layout.unmix is not None  # there is more than one method
    rest = y @ layout.residual_maker
    pooled = (rest**2).sum(axis=1) / layout.df * (a @ a)
    own = np.maximum(rest**2 @ layout.member.T @ layout.unmix.T, 0.0) * (layout.member @ a**2)
    counts = layout.member.sum(axis=1) - 1
    total = own.sum(axis=1)
    df = total**2 / np.maximum((own**2 / counts).sum(axis=1), 1e-300)
    df = np.clip(df, counts[list(pair)].min(), counts[list(pair)].sum())
    is_own = total > pooled * (1 + 1e-9)
    gaps = means[:, pair[0]] - means[:, pair[1]]
    gaps = gaps[:, ~np.isnan(gaps[0])]
    of_pairs = gaps.var(axis=1, ddof=1) / 2 * (a @ a)
    df = np.where(of_pairs > total, np.minimum(df, gaps.shape[1] - 1), df)
    variance = np.maximum(
        np.where(is_own, np.maximum(total, of_pairs), pooled), (a @ a) / 2 / (games * (games + 1))
    )
    return y @ a, np.sqrt(variance), np.where(is_own, df, layout.df), np.sqrt(pooled)


def cell(world: PairedWorld, runs: int, reps: int, missing: bool, key: list[int]) -> dict[str, float]:
    """Shares of studies, for a true difference of 0.05 and for none."""
    rng = np.random.default_rng(key)
    null = replace(world, world=replace(world.world, method_game_sd=0.0))
    row: dict[str, float] = {}
    for kind, here_world, effect in (("coverage", world, 0.05), ("false positives", null, 0.0)):
        hits: dict[str, list[np.ndarray]] = {}
        for start in range(0, reps, 500):
            size = min(500, reps - start)
            won, chance = here_world.draw((0.55, 0.55 + effect, 0.55, 0.6), runs, size, rng)
            values = won.astype(np.float32)
            if missing:
                values[:, 1, runs - 1] = np.nan
            here = chance[:, 1].mean(axis=1) - chance[:, 0].mean(axis=1)
            for name, hit in _tests(values, here, effect, check=start == 0).items():
                if kind == "coverage" or "new games" not in name:
                    hits.setdefault(f"{kind}: {name}", []).append(hit if kind == "coverage" else ~hit)
        row |= {name: float(np.concatenate(found).mean()) for name, found in hits.items()}
        if kind == "false positives":
            row["correlation of pairs"] = _correlation(values)
    return row


def _tests(values: np.ndarray, here: np.ndarray, new: float, check: bool) -> dict[str, np.ndarray]:
    """Per study whether the 95 % interval of each test holds the truth on these games, and on new ones."""
    means, games = values.mean(axis=3, dtype=float), values.shape[3]
    gap, se, df = paired_tests(means, games)
    block, block_se, block_df, pooled_se = blocked_tests(means, games)
    wide = {
        "paired": crossed(values, se, np.full(len(se), df)),
        "blocked": crossed(values, block_se, block_df),
    }
    for study in range(min(CHECKED, len(values)) if check else 0):
        table = table_of(values[study].astype(float))
        ours = {
            "paired": (gap[study], se[study], df),
            "blocked": (block[study], block_se[study], block_df[study]),
        }
        for name, numbers in ours.items():
            test = design_of(name).test(table, "m1", "m0").test
            shipped = test.difference, test.se, test.df
            np.testing.assert_allclose(shipped, numbers, rtol=1e-6, atol=1e-7)
            both = [column[study] for column in wide[name]]
            np.testing.assert_allclose(design_of(name).crossed(table, "m1", "m0")[1:], both, rtol=1e-6)
    pooled_df = (ARMS - 1) * (values.shape[2] - 1) - int(np.isnan(means[0]).sum())
    pooled_reach = stats.t.ppf(0.975, pooled_df) * pooled_se
    return {
        "paired": np.abs(gap - here) <= stats.t.ppf(0.975, df) * se,
        "blocked": np.abs(block - here) <= stats.t.ppf(0.975, block_df) * block_se,
        "blocked, always pooled (not used)": np.abs(block - here) <= pooled_reach,
        "paired, new games": np.abs(gap - new) <= stats.t.ppf(0.975, wide["paired"][1]) * wide["paired"][0],
        "blocked, new games": np.abs(block - new)
        <= stats.t.ppf(0.975, wide["blocked"][1]) * wide["blocked"][0],
    }


def crossed(values: np.ndarray, se: np.ndarray, df: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(standard errors, dfs) of arm 1 against arm 0 with games random too, in all studies."""
    gaps = values[:, 1] - values[:, 0]
    gaps = gaps[:, ~np.isnan(gaps[0, :, 0])].astype(float)
    _, pairs, games = gaps.shape
    profile = gaps.mean(axis=1)
    rest = gaps - profile[:, None, :]
    rest = rest - rest.mean(axis=2, keepdims=True)
    residue = (rest**2).sum(axis=(1, 2)) / ((pairs - 1) * (games - 1)) / (pairs * games)
    game = np.maximum(profile.var(axis=1, ddof=1), 1 / (games + 1)) / games
    run = se**2
    variance = np.maximum(run + game - residue, np.maximum(run, game))
    wide, wide_df = np.sqrt(variance), variance**2 / (run**2 / df + game**2 / (games - 1))
    narrower = wide * stats.t.ppf(0.975, wide_df) < se * stats.t.ppf(0.975, df)
    return np.where(narrower, se, wide), np.where(narrower, df, wide_df)


def _correlation(values: np.ndarray) -> float:
    """Of the run means of arms 0 and 1, over the last studies, within each."""
    means = values.mean(axis=3, dtype=float)[:, :2]
    means = means[:, :, ~np.isnan(means[0]).any(axis=0)]
    rest = means - means.mean(axis=2, keepdims=True)
    return float((rest[:, 0] * rest[:, 1]).sum() / np.sqrt((rest[:, 0] ** 2).sum() * (rest[:, 1] ** 2).sum()))


def designs(reps: int) -> pd.DataFrame:
    """The main grid."""
    rows = []
    for interaction in (True, False):
        for correlation in (0.0, 0.5, 0.9):
            for runs in (3, 5, 10):
                for sd in (0.0, 0.04, 0.08):
                    world = World(seed_sd=sd, games=GAMES, run_game_sd=0.5 if interaction else 0.0)
                    place: dict[str, object] = {
                        "run × game": "yes" if interaction else "no",
                        "correlation": correlation,
                        "runs": runs,
                        "sd over runs": sd,
                    }
                    key = [14, interaction, int(10 * correlation), runs, int(1000 * sd)]
                    rows.append(place | cell(PairedWorld(world, correlation), runs, reps, False, key))
                    print(rows[-1], file=sys.stderr, flush=True)
    return pd.DataFrame(rows)


def odd_designs(reps: int) -> pd.DataFrame:
    """Unequal spreads and missing runs."""
    kinds = {
        "one method's runs spread twice": ((1.0, 2.0), False),
        "the baseline's runs spread twice": ((2.0, 1.0), False),
        "the method lacks a run": ((), True),
    }
    rows = []
    for number, (kind, (spreads, missing)) in enumerate(kinds.items()):
        for correlation in (0.0, 0.5, 0.9):
            for runs in (3, 5, 10):
                for sd in (0.04, 0.08):
                    world = PairedWorld(World(seed_sd=sd, games=GAMES), correlation, spreads)
                    place = {"world": kind, "correlation": correlation, "runs": runs, "sd over runs": sd}
                    key = [15, number, int(10 * correlation), runs, int(1000 * sd)]
                    rows.append(place | cell(world, runs, reps, missing, key))
                    print(rows[-1], file=sys.stderr, flush=True)
    return pd.DataFrame(rows)


def alike_pairs(reps: int) -> pd.DataFrame:
    """Pairs that differ on few games only: false positives, and false equivalence at a margin of 0.05."""
    rows = []
    for runs in (3, 5, 10):
        for games in (12, 134):
            for differing in (0.005, 0.02, 0.08, 0.3):
                rng = np.random.default_rng([16, runs, games, int(1000 * differing)])
                up, down = (rng.binomial(games, differing / 2, (reps, runs)) for _ in range(2))
                off = rng.binomial(games, 0.05, (reps, runs)) / games
                gaps, least = (up - down) / games, 1 / (games * (games + 1))
                raw = gaps.var(axis=1, ddof=1)
                p, q, plain = (
                    2 * stats.t.sf(np.abs(g.mean(axis=1)) / np.sqrt(np.maximum(v, 1e-30) / runs), runs - 1)
                    for g, v in ((gaps, np.maximum(raw, least)), (gaps, np.maximum(raw, least)), (gaps, raw))
                )
                at_margin = 0.05 * 0.95 / games  # `analysis.designs.error_at_margin`
                own = np.maximum(off.var(axis=1, ddof=1), least)
                plain_equal = stats.t.cdf((off.mean(axis=1) - 0.05) / np.sqrt(own / runs), runs - 1)
                se = np.sqrt(np.maximum(own, at_margin) / runs)
                equal = stats.t.cdf((off.mean(axis=1) - 0.05) / se, runs - 1)
                changed = gaps.mean(axis=1) != 0
                rows.append(
                    {
                        "runs": runs,
                        "games": games,
                        "games that differ": differing,
                        "paired: false positives at 0.05": float((p < 0.05).mean()),
                        "paired: false positives at 1e-6": float((q < 1e-6).mean()),
                        "TOST at its margin: false equivalence": float((equal < 0.05).mean()),
                        "TOST with the pairs' spread (not used)": float((plain_equal < 0.05).mean()),
                        "no floor: p below 1e-6 (not used)": float(((plain < 1e-6) & changed).mean()),
                    }
                )
    return pd.DataFrame(rows)


STUDIES: Studies = {
    "paired": ("Paired and blocked designs (nominal 0.95 and 0.05)", designs),
    "paired_odd": ("Unequal spreads and missing runs (nominal 0.95 and 0.05)", odd_designs),
    "paired_alike": ("Pairs that hardly differ (nominal 0.05)", alike_pairs),
}


if __name__ == "__main__":
    main(STUDIES, __doc__)
