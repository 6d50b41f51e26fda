"""The two-way bootstrap: training runs and games are both resampled, games jointly for all methods.

Source: the pigeonhole bootstrap for crossed data (Owen 2007; McCullagh 2000). As it stands it is wrong in two
directions: it counts the run × game residue up to three times (too wide), and with n runs it sees only
(n−1)/n of their variance and knows no t quantile (too narrow at 3 runs). Hence the *calibrated* interval,
our headline: the shape of the draws, rescaled to the unbiased variance of the crossed design and stretched
by t/z with Satterthwaite's degrees of freedom. Both are returned; `docs/evidence/coverage.md` has the
coverage of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis.intervals import z_value
from analysis.runmeans import RunMeans, least_variance

CHUNK_BYTES = 2**20
"""Size of one block of game weights: small enough for a core's own cache, which is what makes it fast."""


@dataclass(frozen=True)
class TwoWay:
    """Difference a − b in the metric's unit: calibrated and plain percentile interval, and what they rest
    on."""

    difference: float
    low: float
    high: float
    percentile_low: float
    percentile_high: float
    se: float
    df: float


def game_weights(strata: np.ndarray, weights: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """[draws, games] weights of resampled games; games are drawn within their stratum, rows sum to one."""
    games = len(strata)
    counts = np.empty((draws, games), np.float32)
    for stratum in range(int(strata.max()) + 1):
        members = np.flatnonzero(strata == stratum)
        size = len(members)
        picked = rng.integers(0, size, (draws, size))
        picked += (np.arange(draws) * size)[:, None]
        counts[:, members] = np.bincount(picked.ravel(), minlength=draws * size).reshape(draws, size)
    counts *= weights.astype(np.float32)
    return counts


def resampled_run_means(
    values: np.ndarray, strata: np.ndarray, weights: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """[draws, runs]: each run's mean on the resampled games; one resample of games serves all runs
    (paired)."""
    known = ~np.isnan(values)
    filled = np.where(known, values, 0).astype(np.float32).T
    complete = bool(known.all())
    mask = None if complete else known.astype(np.float32).T
    result = np.empty((draws, len(values)))
    step = max(1, min(draws, CHUNK_BYTES // (4 * values.shape[1])))
    for start in range(0, draws, step):
        stop = min(start + step, draws)
        weight = game_weights(strata, weights, stop - start, rng)
        block = weight @ filled
        if mask is None:
            result[start:stop] = block
        else:
            total = weight @ mask
            result[start:stop] = np.divide(block, total, out=np.full_like(block, np.nan), where=total > 0)
    return result


def resample_rows(means: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[draws]: mean over runs drawn with replacement from each row of `means` [draws, runs]."""
    draws, runs = means.shape
    picked = rng.integers(0, runs, (draws, runs))
    return np.take_along_axis(means, picked, axis=1).mean(axis=1)


def crossed_variance(
    a: np.ndarray, b: np.ndarray, strata: np.ndarray, weights: np.ndarray, grain: float = 1.0
) -> tuple[float, float, tuple[float, float, float]]:
    """Variance of mean(a) − mean(b) when runs and games are both random, with Satterthwaite's df.

    `a` and `b` are [runs, games] on the same games. Sum of the run part (Welch's), the game part (of the
    paired differences) and minus the residue that both contain; never below either part. Neither part is
    certain without reason: the run part is that of `RunMeans`, and the games' differences have the same prior
    of half a game (`grain`: how far one play moves a cell). Returns (variance, df, parts).
    """
    parts, df_terms = [], []
    residue = 0.0
    for rows in (a, b):
        n = len(rows)
        sample = RunMeans(_means(rows, weights), least_variance(rows, weights, grain))
        run_part = sample.variance / n if n > 1 else 0.0
        parts.append(run_part)
        if n > 1:
            df_terms.append(run_part**2 / (n - 1))
            residue += _residue(rows, strata, weights)
    game_part, game_terms = _game_part(_game_means(a) - _game_means(b), strata, weights, grain)
    return _sum_of(parts[0] + parts[1], game_part, residue, df_terms + game_terms)


def crossed_variance_of_pairs(
    gaps: np.ndarray,
    strata: np.ndarray,
    weights: np.ndarray,
    grain: float,
    run_part: float,
    run_df: float,
) -> tuple[float, float, tuple[float, float, float]]:
    """The same for paired runs: `gaps` [pairs, games] are the differences of each pair on each game.

    `run_part` is the variance of the mean difference on these games, with `run_df` degrees of freedom: that
    of the paired or of the blocked test. `grain` is how far one play of both runs can move a gap.
    """
    residue = _residue(gaps, strata, weights) if len(gaps) > 1 else 0.0
    game_part, game_terms = _game_part(_game_means(gaps), strata, weights, grain)
    return _sum_of(run_part, game_part, residue, [run_part**2 / run_df, *game_terms])


def _residue(rows: np.ndarray, strata: np.ndarray, weights: np.ndarray) -> float:
    """Variance of the mean of [runs, games] that the run × game mean square explains."""
    total, n = 0.0, len(rows)
    centred = rows - _game_means(rows)
    for stratum in range(int(strata.max()) + 1):
        inside = strata == stratum
        size = int(inside.sum())
        if size > 1:
            block = centred[:, inside]
            block = block - _game_means(block.T)[:, None]
            mean_square = np.nansum(block**2) / ((n - 1) * (size - 1))
            total += weights[inside][0] ** 2 * size * mean_square / n
    return total


def _game_part(
    profile: np.ndarray, strata: np.ndarray, weights: np.ndarray, grain: float
) -> tuple[float, list[float]]:
    """Variance of the mean of a profile over games, and its terms of Satterthwaite's sum."""
    total, terms = 0.0, []
    for stratum in range(int(strata.max()) + 1):
        inside = (strata == stratum) & ~np.isnan(profile)
        size = int(inside.sum())
        if size > 1:
            spread = max(profile[inside].var(ddof=1), 0.5 * grain**2 / (len(profile) + 1))
            part = weights[inside][0] ** 2 * size * spread
            total += part
            terms.append(part**2 / (size - 1))
    return total, terms


def _sum_of(
    run_part: float, game_part: float, residue: float, df_terms: list[float]
) -> tuple[float, float, tuple[float, float, float]]:
    variance = max(run_part + game_part - residue, run_part, game_part)
    df = variance**2 / sum(df_terms) if sum(df_terms) > 0 else float("inf")
    return float(variance), float(df), (float(run_part), float(game_part), float(residue))


def _game_means(rows: np.ndarray) -> np.ndarray:
    """Mean of each column over its known cells; nan for a game that nobody has ok."""
    known = ~np.isnan(rows)
    counts = known.sum(axis=0)
    total = np.nan_to_num(rows).sum(axis=0)
    return np.divide(total, counts, out=np.full(rows.shape[1], np.nan), where=counts > 0)


def _floored(rows: np.ndarray, weights: np.ndarray, grain: float) -> bool:
    return RunMeans(_means(rows, weights), least_variance(rows, weights, grain)).floored


def _means(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    known = ~np.isnan(rows)
    return np.nan_to_num(rows) @ weights / (known @ weights)


def two_way(
    values: np.ndarray,
    rows_a: np.ndarray,
    rows_b: np.ndarray,
    strata: np.ndarray,
    weights: np.ndarray,
    means: np.ndarray | None = None,
    draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    *,
    grain: float = 1.0,
) -> TwoWay:
    """Interval of mean(a) − mean(b). `means` [draws, runs] may be passed to share one resample of games.

    `grain` is how far one play can move a value (`analysis.runmeans`). Where the spread over runs is less
    than their games' chance, the draws lack what the variance has, and the interval is Student's, without
    their shape; everything is nan where the scale of the values is unknown."""
    rng = np.random.default_rng(seed)
    if means is None:
        rows = np.concatenate([rows_a, rows_b])
        means = np.empty((draws, len(values)))
        means[:, rows] = resampled_run_means(values[rows], strata, weights, draws, rng)
    a, b = values[rows_a], values[rows_b]
    difference = float(_means(a, weights).mean() - _means(b, weights).mean())
    drawn = resample_rows(means[:, rows_a], rng) - resample_rows(means[:, rows_b], rng)
    variance, df, _ = crossed_variance(a, b, strata, weights, grain)
    floored = _floored(a, weights, grain) or _floored(b, weights, grain)
    return calibrated(difference, drawn, variance, df, level, shaped=not floored)


def calibrated(
    difference: float, drawn: np.ndarray, variance: float, df: float, level: float, shaped: bool = True
) -> TwoWay:
    """The interval with the shape of the draws (Student's, where not `shaped`) and the variance of the
    crossed design."""
    se = float(np.sqrt(variance))
    tails = [0.5 - level / 2, 0.5 + level / 2]
    low, high = np.quantile(drawn, tails)
    spread = float(drawn.std())
    reach = float(stats.t.ppf(tails[1], df))
    if spread > 0 and shaped:
        stretch = se / spread * reach / z_value(level)
        centred = np.quantile(drawn - drawn.mean(), tails) * stretch
        bounds = (difference + float(centred[0]), difference + float(centred[1]))
    else:
        bounds = (difference - se * reach, difference + se * reach)
    return TwoWay(difference, *bounds, float(low), float(high), se, df)
