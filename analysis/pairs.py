"""Which runs are a pair, and how alike pairs end.

Two runs are a pair where they have the same seed, the same games, the same student and the same random
streams: what run.json has under `pair` (`sage.records.identity`). Records that do not say it (a CSV) are
paired by seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from analysis.cells import Cells
from analysis.errors import Refusal
from analysis.question import Question
from analysis.records import Records

SEED_ALONE = "seed alone: these records do not say more"


@dataclass(frozen=True)
class Correlation:
    """How alike runs of one seed end: the share of the variance of run means that the seed explains."""

    value: float
    low: float
    high: float


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """What two runs differ in that makes them no pair; empty also where one of them says nothing."""
    return sorted(key for key in set(a) & set(b) if a[key] != b[key])


def check_pairs(records: Records, table: Cells, question: Question) -> None:
    """Refuse runs without a partner, and partners that are none. Nothing is checked of independent runs.

    In a paired design each method is held against the baseline, in a blocked one all against each other. With
    `unpaired="drop"` seeds that not all have are no reason to refuse: the comparison uses the shared ones.
    """
    if question.design == "independent":
        return
    baseline, refuse = question.against, question.unpaired == "refuse"
    runs = {m: {table.seeds[r]: table.runs[r] for r in table.rows(m)} for m in sorted(set(table.methods))}
    for method, mine in runs.items():
        if question.design == "blocked":
            for other in runs:
                _check_partners(records, table, (method, mine), (other, runs[other]), refuse)
            continue
        _check_partners(records, table, (method, mine), (baseline, runs[baseline]), refuse)
        if not set(mine) & set(runs[baseline]):
            raise Refusal(f"{method} and {baseline} share no seed on {table.env} {table.split}.")
        for seed in mine:
            if refuse and seed not in runs[baseline]:
                raise Refusal(_lonely(baseline, method, seed, mine[seed], table))


def _check_partners(
    records: Records,
    table: Cells,
    mine: tuple[str, dict[Any, str]],
    theirs: tuple[str, dict[Any, str]],
    refuse: bool,
) -> None:
    """Refuse runs of `theirs` (a method and its run of each seed) that no run of `mine` is the partner of."""
    (method, own), (other, others) = mine, theirs
    for seed, run in others.items():
        if seed not in own:
            if refuse:
                raise Refusal(_lonely(method, other, seed, run, table))
            continue
        wrong = differing(records.pairs.get(own[seed], {}), records.pairs.get(run, {}))
        if wrong:
            raise Refusal(
                f"{method} seed {seed} (run {own[seed]}) and {other} seed {seed} (run {run}) are no pair: "
                f"they differ in {', '.join(wrong)}; compare them with --design independent."
            )


def _lonely(method: str, other: str, seed: Any, run: str, table: Cells) -> str:
    return (
        f"{other} seed {seed} (run {run}) has no partner on {table.env} {table.split}: there is no run of "
        f"{method} with that seed, and the design pairs runs; run it, or pass --unpaired drop to compare the "
        "seeds that both have and say so."
    )


def paired_by(records: Records, table: Cells, rows: np.ndarray) -> str:
    """What these runs are known to share beside their number: `seed, games, …`, or that nothing is known."""
    known = [set(records.pairs.get(table.runs[row], {})) for row in rows]
    shared = set.intersection(*known) if known else set()
    order = ("seed", "games", "student", "streams")
    return ", ".join(name for name in order if name in shared) or SEED_ALONE


def real_pairs(records: Records, table: Cells, method: str, baseline: str) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of those runs of one seed that are pairs."""
    a, b = table.pairs(method, baseline)
    same = [
        not differing(records.pairs.get(table.runs[i], {}), records.pairs.get(table.runs[j], {}))
        for i, j in zip(a, b, strict=True)
    ]
    return a[np.array(same, bool)], b[np.array(same, bool)]


def correlation(a: np.ndarray, b: np.ndarray, level: float = 0.95) -> Correlation:
    """Correlation of paired run means with its exact interval under normal runs of equal spread.

    The intraclass correlation of consistency, ICC(3,1) of Shrout and Fleiss (1979): from the mean squares
    of seeds and of what is left, so that a variance of the difference is 2 sd² (1 − value). nan below two
    pairs and where nothing varies.
    """
    nan = float("nan")
    n = len(a)
    if n < 2:
        return Correlation(nan, nan, nan)
    between = float(np.var((a + b) / 2, ddof=1)) * 2
    rest = float(np.var(a - b, ddof=1)) / 2
    if max(between, rest) <= 1e-18 * max(1.0, float(np.abs(np.r_[a, b]).max()) ** 2):
        return Correlation(nan, nan, nan)

    def of(ratio: float) -> float:
        return (ratio - 1) / (ratio + 1) if np.isfinite(ratio) else 1.0

    f = between / rest if rest > 0 else float("inf")
    reach = float(stats.f.ppf(0.5 + level / 2, n - 1, n - 1))
    return Correlation(of(f), of(f / reach), of(f * reach))
