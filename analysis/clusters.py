"""The cluster bootstrap: whole episodes (or runs, or games) are resampled, because turns of one are alike.

Every measure that uses it is a function of sums over turns, so a draw is one matrix product of cluster
weights and per-cluster sums.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import Refusal

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
    size = int(codes.max()) + 1 if len(codes) else 0
    return np.stack([np.bincount(codes, column, minlength=size) for column in columns.T], axis=1)


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


def bounds(drawn: np.ndarray, level: float) -> tuple[float, float]:
    """Percentile interval of draws, ignoring those in which the measure is undefined; nan if that is most of
    them."""
    known = drawn[~np.isnan(drawn)]
    if len(known) < 0.5 * len(drawn) or not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


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
