"""The cluster bootstrap: whole episodes (or runs, or games) are resampled, because turns of one are alike.

Every measure that uses it is a function of sums over turns, so a draw is one matrix product of cluster
weights and per-cluster sums.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse, stats

from analysis.errors import Refusal
from analysis.intervals import z_value
from sage.records.intervals import wilson

CLUSTERS = {
    "episode": ["run", "phase", "step", "split", "task", "rollout"],
    "run": ["run"],
    "game": ["env", "source", "task"],
}
CHUNK_BYTES = 8 * 2**20


def cluster_codes(turns: pd.DataFrame, cluster: str = "episode") -> np.ndarray:
    """Number of each turn's cluster, 0 to C − 1."""
    if cluster not in CLUSTERS:
        raise Refusal(f"cluster is one of {', '.join(CLUSTERS)}, not {cluster}.")
    return turns.groupby(CLUSTERS[cluster], sort=False, observed=True, dropna=False).ngroup().to_numpy()


def cluster_sums(codes: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """[clusters, K]: sums of `columns` [turns, K] within clusters."""
    member = sparse.csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))))
    return np.asarray(member @ columns)


def resampled_sums(sums: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """[draws, K]: sums over clusters drawn with replacement."""
    clusters = len(sums)
    result = np.empty((draws, sums.shape[1]))
    step = max(1, min(draws, CHUNK_BYTES // (8 * max(1, clusters))))
    for start in range(0, draws, step):
        stop = min(start + step, draws)
        picked = rng.integers(0, clusters, (stop - start, clusters))
        picked += (np.arange(stop - start) * clusters)[:, None]
        weights = np.bincount(picked.ravel(), minlength=(stop - start) * clusters)
        result[start:stop] = weights.reshape(stop - start, clusters) @ sums
    return result


MIN_CLUSTERS = 10
"""Percentiles of a bootstrap over fewer clusters say nothing; the interval then stays empty."""


def bounds(drawn: np.ndarray, level: float, clusters: int) -> tuple[float, float]:
    """Percentile interval of draws over `clusters`, ignoring draws in which the measure is undefined; nan if
    that is most of them, or where there are fewer than `MIN_CLUSTERS`."""
    known = drawn[~np.isnan(drawn)]
    if clusters < MIN_CLUSTERS or len(known) < 0.5 * len(drawn):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def clustered_rate(hits: np.ndarray, codes: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Interval of the share of `hits` (0 and 1) among turns whose clusters are `codes`.

    Wilson's at the effective number of turns: their number over the design effect of the clusters, with t for
    z where clusters are few (Korn and Graubard 1998, with Wilson's interval in the place of Clopper and
    Pearson's). A share of 0 or 1 shows no design effect and counts clusters instead of turns, so that it is
    never certain. No turn: nan.
    """
    hits = np.asarray(hits, float)
    if not len(hits):
        return float("nan"), float("nan")
    _, codes = np.unique(codes, return_inverse=True)
    n, rate, clusters = len(hits), float(hits.mean()), int(codes.max()) + 1
    effective = float(clusters)
    if clusters > 1 and 0 < rate < 1:
        residue = np.bincount(codes, hits - rate)
        design = clusters / (clusters - 1) * float((residue**2).sum()) / n / (rate * (1 - rate))
        few = z_value(level) / float(stats.t.ppf(0.5 + level / 2, clusters - 1))
        effective = max(1.0, n / max(1.0, design) * few**2)
    return wilson(rate * effective, effective, level)


def bins_of(values: Any, edges: tuple[float, ...]) -> pd.Categorical:
    """Readable bins, e.g. edges (0, 5, 10) of whole numbers give `0-4`, `5-9`, `10+`."""
    names = [f"{int(a)}-{int(b) - 1}" for a, b in pairwise(edges)]
    return pd.cut(
        pd.to_numeric(values),
        [*edges, np.inf],
        right=False,
        labels=[*names, f"{int(edges[-1])}+"],
        ordered=True,
    )


TURN_EDGES = (0, 3, 6, 10, 15, 20)
DISTANCE_EDGES = (0, 2, 4, 6, 9, 13)
LENGTH_EDGES = (0, 6, 11, 16, 21, 30)
