"""Studies that stop early, simulated: false positives, power, seeds, coverage; printed and written into
docs/evidence/coverage.md.

    nice -n 15 python benchmarks/sequential.py --reps 40000 --write docs/evidence/coverage.md  # 2 min

Paired differences are normal with sd 1, so effects are in sd of a paired difference; a study has at most ten
seeds. `stopping` plays schedules of looks with O'Brien and Fleming's levels, with and without futility at the
effect itself (0.02), the fixed design of ten seeds, and the e-value at 20. `stopping_designs` holds the other
designs to the same levels where their methods spread alike and where they do not.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import special, stats

from analysis.evalue import ENOUGH, log_e_value
from analysis.group_sequential import Looks, t_at_looks
from benchmarks.coverage import Studies, main
from benchmarks.coverage_paired import GAMES, blocked_tests

SEEDS = 10
SCHEDULES = ((3, 5, 7, 10), tuple(range(3, 11)), (5, 10))
EFFECTS = (0.0, 1.0, 1.5, 2.0, 3.0)
MARGIN = 1.5
"""Of futility where there is no effect: what a study of ten seeds sees nearly always."""
FUTILITY = 0.02


def stopping(reps: int) -> pd.DataFrame:
    """Schedules × effects, in sd of a paired difference."""
    rows = []
    for after in SCHEDULES:
        for effect in EFFECTS:
            draws = np.random.default_rng([31, *after, int(10 * effect)]).standard_normal((reps, SEEDS))
            rows.append(
                {"looks after": ", ".join(map(str, after)), "effect": effect} | _study(draws, after, effect)
            )
    return pd.DataFrame(rows)


def _study(draws: np.ndarray, after: tuple[int, ...], effect: float) -> dict[str, float]:
    looks, n = Looks(after), np.array(after)
    mean, se = t_at_looks(draws, after, effect)
    reach = -special.stdtrit(n - 1.0, looks.levels(0.05) / 2)
    shown = np.abs(mean) >= reach * se
    margin = effect or MARGIN
    give_up = -special.stdtrit(n - 1.0, looks.futility_levels(FUTILITY))
    futile = margin - np.abs(mean) >= give_up * se
    at = _stops(shown)
    early = _stops(shown | futile)
    every = np.arange(len(mean))
    fixed = np.abs(mean[:, -1]) >= stats.t.isf(0.025, SEEDS - 1) * se[:, -1]
    strong = log_e_value(mean / se, n) >= np.log(ENOUGH)
    covered = np.abs(mean - effect) <= reach * se
    ours = [
        looks.estimate(m, s)
        for m, s in zip(mean[every, at][:4000], (se[every, at] * np.sqrt(n[at]))[:4000], strict=True)
    ]
    return {
        "fixed 10: shown": float(fixed.mean()),
        "shown": float(shown[every, at].mean()),
        "mean seeds": float(n[at].mean()),
        "with futility: shown": float(shown[every, early].mean()),
        "with futility: mean seeds": float(n[early].mean()),
        "coverage at the stop": float(covered[every, at].mean()),
        "coverage at the stop, futility heeded": float(covered[every, early].mean()),
        "bias of the mean": float((mean[every, at] - effect).mean()),
        "bias of the estimate": float(np.mean(ours) - effect),
        "e-value: shown": float(strong.any(axis=1).mean()),
        "e-value: mean seeds": float(n[_stops(strong)].mean()),
    }


def _stops(reached: np.ndarray) -> np.ndarray:
    """Index of the look at which each study stops: the first that is reached, else the last."""
    ends = reached.copy()
    ends[:, -1] = True
    return np.asarray(ends.argmax(axis=1))


def other_designs(reps: int) -> pd.DataFrame:
    """False positives of blocked and independent studies of four methods, held to the paired t's levels."""
    after = (3, 5, 7, 10)
    levels = Looks(after).levels(0.05)
    rows = []
    for correlation in (0.0, 0.9):
        for kind, spreads in (
            ("alike", (1.0, 1.0)),
            ("one twice", (1.0, 2.0)),
            ("one three times", (1.0, 3.0)),
        ):
            rng = np.random.default_rng([32, int(10 * correlation), int(spreads[1])])
            spread = np.array([*spreads, 1.0, 1.0])[None, :, None]
            found: dict[str, list[np.ndarray]] = {"independent": [], "paired": [], "blocked": []}
            for start in range(0, reps, 5000):
                size = min(5000, reps - start)
                luck, own = rng.standard_normal((size, 1, SEEDS)), rng.standard_normal((size, 4, SEEDS))
                y = 0.08 * spread * (np.sqrt(correlation) * luck + np.sqrt(1 - correlation) * own)
                y = y + np.sqrt(0.13 / GAMES * (1 - correlation)) * rng.standard_normal(y.shape)
                for design, p in _p_values(y, after).items():
                    found[design].append(np.asarray((p <= levels).any(axis=1)))
            place: dict[str, object] = {"correlation": correlation, "spreads of the two": kind}
            rows.append(
                place | {f"{d}: shown": float(np.concatenate(hits).mean()) for d, hits in found.items()}
            )
    return pd.DataFrame(rows)


def _p_values(y: np.ndarray, after: tuple[int, ...]) -> dict[str, np.ndarray]:
    """[studies, looks] two-sided p of method 1 against method 0 of `y` [studies, methods, seeds]."""
    p: dict[str, list[np.ndarray]] = {"independent": [], "paired": [], "blocked": []}
    for n in after:
        here = y[:, :, :n]
        gap, a, b = (here[:, 1] - here[:, 0]), *(here[:, i].var(axis=1, ddof=1) / n for i in (0, 1))
        welch = np.abs(gap.mean(axis=1)) / np.sqrt(a + b)
        p["independent"].append(2 * special.stdtr((a + b) ** 2 * (n - 1) / (a**2 + b**2), -welch))
        t = np.abs(gap.mean(axis=1)) / (gap.std(axis=1, ddof=1) / np.sqrt(n))
        p["paired"].append(2 * special.stdtr(n - 1.0, -t))
        difference, se, df, _ = blocked_tests(here, GAMES)
        p["blocked"].append(2 * special.stdtr(df, -np.abs(difference) / se))
    return {design: np.stack(columns, axis=1) for design, columns in p.items()}


STUDIES: Studies = {
    "stopping": (
        "Studies that stop early (at most 10 seeds; effects in sd of a paired difference)",
        stopping,
    ),
    "stopping_designs": ("Early stopping in the other designs, no effect (nominal 0.05)", other_designs),
}


if __name__ == "__main__":
    main(STUDIES, __doc__)
