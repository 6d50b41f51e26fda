"""What the difference of two methods is made of: training runs, method × game, run × game with decoding.

Both methods play the same games, so how hard a game is cancels; what is left of the games is how much the
*effect* differs from game to game. With s and t runs on G games the difference of the means has the variance

    run_a/s + run_b/t  +  (method × game)/G  +  rest_a/(s G) + rest_b/(t G)

and the second term only where the question is about new games. Mean squares, intervals and what is never
certain without reason are those of `analysis.variance`; the per-game differences are resampled jointly with
what both sides contain of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from analysis.cells import each_split
from analysis.check import check_baseline, select
from analysis.clusters import resampled_sums
from analysis.question import Question
from analysis.records import Records
from analysis.variance import (
    DRAWS,
    RESIDUE,
    ROUNDING,
    MeanSquares,
    both_sides,
    grain_of,
    inverted,
    mean_squares,
    spread_of,
    unseen,
)

INTERACTION = "method × game"
CURES = {
    "training run": "more runs",
    INTERACTION: "more games; none of it on these games alone",
    RESIDUE: "more runs, games or repeats",
}


def chosen_baseline(methods: Iterable[str], baseline: str | None) -> str | None:
    """`baseline` where there is a run of it (refused otherwise); left out, `opd` where it is there, or the
    first of two methods; None where nothing says which."""
    known = sorted(methods)
    if baseline is not None:
        check_baseline(baseline, known)
    if baseline is None and "opd" in known and len(known) > 1:
        return "opd"
    return baseline or (known[0] if len(known) == 2 else None)


def difference(records: Records, question: Question) -> pd.DataFrame:
    """One row per method, env, split and component of the difference to `baseline`.

    `variance` and `sd` are those of the difference of one run a side on one game; `low` and `high` bound the
    sd. `in_difference` is the part in the variance of the difference of the means, `share` its share.
    """
    rows, baseline, metric = [], question.against, question.metric
    for group in each_split(select(records, question)):
        place = {name: group[name].iloc[0] for name in ("env", "source", "split")}
        for method in sorted(set(group["method"]) - {baseline}):
            values, base = both_sides(group, method, baseline, metric)
            names = {**place, "method": method, "baseline": baseline}
            sides = tuple(mean_squares(side, grain_of(group, metric)) for side in (values, base))
            profile = values.mean(axis=(0, 2)) - base.mean(axis=(0, 2))
            rows += _rows(names, sides, profile, question)
    return pd.DataFrame(rows)


def _rows(
    names: dict[str, Any], sides: tuple[MeanSquares, ...], profile: np.ndarray, question: Question
) -> list[dict[str, Any]]:
    draws, rng = question.draws or DRAWS, np.random.default_rng(question.seed)
    parts, in_mean = components(sides, profile)
    drawn = drawn_components(sides, profile, draws, rng)
    total = sum(in_mean.values())
    tails = [0.5 - question.level / 2, 0.5 + question.level / 2]
    rows = []
    for name, value in parts.items():
        low, high = np.sqrt(np.quantile(np.maximum(drawn[name], 0.0), tails))
        rows.append(
            {
                **names,
                "component": name,
                "runs": sides[0].runs,
                "runs_baseline": sides[1].runs,
                "games": len(profile),
                "variance": value,
                "sd": float(np.sqrt(value)),
                "low": float(low),
                "high": float(high),
                "in_difference": in_mean[name],
                "share": in_mean[name] / total if total else np.nan,
                "removed_by": CURES[name],
            }
        )
    return rows


def components(
    sides: tuple[MeanSquares, ...], profile: np.ndarray
) -> tuple[dict[str, float], dict[str, float]]:
    """(variance components of the difference, their parts in the variance of the difference of the means).

    Negative estimates are 0, and the rest is never below what chance leaves. `profile` [games] is the mean
    difference on each game.
    """
    games = len(profile)
    runs = [max(0.0, side.components()["training run"]) for side in sides]
    rests = [side.residual for side in sides]
    noise = sum(rest / side.runs for rest, side in zip(rests, sides, strict=True))
    effect = float(profile.var(ddof=1)) - noise
    parts = {"training run": sum(runs), INTERACTION: effect, RESIDUE: sum(rests)}
    parts = {name: value if value > ROUNDING else 0.0 for name, value in parts.items()}
    in_mean = {
        "training run": sum(run / side.runs for run, side in zip(runs, sides, strict=True)),
        INTERACTION: parts[INTERACTION] / games,
        RESIDUE: noise / games,
    }
    return parts, in_mean


def drawn_components(
    sides: tuple[MeanSquares, ...], profile: np.ndarray, draws: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """The components under resampled mean squares; games are resampled jointly for both sides."""
    games, centred = len(profile), profile - profile.mean()
    columns = [*(side.by_game for side in sides), np.stack([centred, centred**2], axis=1)]
    sums = resampled_sums(np.concatenate(columns, axis=1), draws, rng)
    runs, rests, noise = np.zeros(draws), np.zeros(draws), np.zeros(draws)
    for number, side in enumerate(sides):
        cross, _ = side.drawn_noise(sums[:, 4 * number : 4 * number + 4], rng)
        runs += (side.drawn_run(draws, rng) - cross) / (side.games * side.repeats)
        rests += cross / side.repeats
        noise += cross / side.repeats / side.runs
    observed = float(profile.var(ddof=1))
    resampled = spread_of(sums[:, -2], sums[:, -1], games)
    if observed > ROUNDING:
        least = sum(side.residual / side.runs for side in sides)
        spread = inverted(observed, resampled, least)
    else:
        spread = sides[0].grain ** 2 * unseen(games, draws, rng)
    return {"training run": runs, INTERACTION: spread - noise, RESIDUE: rests}
