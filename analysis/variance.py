"""Where the spread comes from: training run, game, run × game, decoding.

Model: success of run s on game g in repeat r  =  mean + run_s + game_g + run×game_sg + decoding_sgr, all
random (crossed two-way layout). Components are the ANOVA estimates for a balanced table (Searle, Casella and
McCulloch 1992, chapter 4); negative ones are shown as 0. Intervals come from redrawn mean squares: that of
the runs as a scaled chi-square (the generalized confidence interval of Weerahandi 1993), the others by
resampling games jointly, because how noisy a game is differs between games, and a chi-square is then much too
sure (it covered 58 to 90 %). Nothing is certain without reason: runs that differ by less than their games'
chance bound the spread over runs as if they differed by just that, and where no play of a game ended
otherwise than the others the chance of that has the prior of half a game each way. Unit: variances in
(success rate)². `analysis.spread_of_difference` does the same for the difference of two methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.cells import each_split
from analysis.check import check_baseline, check_metric, select
from analysis.clusters import resampled_sums
from analysis.errors import Refusal
from analysis.question import EVERYTHING, Question
from analysis.records import Records

DRAWS = 4000
DECODING = "decoding noise"
RESIDUE = "run × game + decoding"


@dataclass(frozen=True)
class MeanSquares:
    """Mean squares of a balanced runs × games × repeats table, with its sizes. `error` is nan without
    repeats. `by_game` [games, 4] holds each game's deviation, that squared, and its sums of squares of run ×
    game and of repeats."""

    run: float
    game: float
    cross: float
    error: float
    runs: int
    games: int
    repeats: int
    by_game: np.ndarray
    grain: float = 1.0
    """Range of a single result: 1 for wins and losses."""

    @property
    def least_noise(self) -> float:
        """The noise of one play cannot be taken for less: half a game each way (`analysis.runmeans`)."""
        return 0.5 * self.grain**2 / (self.games * self.repeats + 1)

    @property
    def residual(self) -> float:
        """Run × game plus decoding, of a run's mean on one game, never below what chance leaves."""
        return max(self.cross / self.repeats, self.least_noise / self.repeats)

    def components(self) -> dict[str, float]:
        """Unbiased estimates, not truncated."""
        return _components(np.array([self.run, self.game, self.cross, self.error]), self)

    def drawn(self, draws: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Components under resampled mean squares."""
        s, g, r = self.runs, self.games, self.repeats
        run, sums = self.drawn_run(draws, rng), resampled_sums(self.by_game, draws, rng)
        cross, error = self.drawn_noise(sums, rng)
        game = inverted(self.game, s * r * spread_of(sums[:, 0], sums[:, 1], g), self.cross)
        if self.game <= ROUNDING:
            game = s * r * self.grain**2 * unseen(g, draws, rng)
        return _components(np.array([run, game, cross, error]), self)

    def drawn_run(self, draws: int, rng: np.random.Generator) -> np.ndarray:
        """[draws]: mean squares of runs; never below that of run × game, which it contains."""
        return (
            max(self.run, self.cross, self.least_noise)
            * (self.runs - 1)
            / rng.chisquare(self.runs - 1, draws)
        )

    def drawn_noise(self, sums: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Mean squares of run × game and of repeats (nan without), from sums of `by_game` over resampled
        games."""
        s, g, r = self.runs, self.games, self.repeats
        cross = inverted(self.cross, r * sums[:, 2] / ((s - 1) * (g - 1)))
        error = np.full(len(sums), np.nan)
        nothing = self.grain**2 * unseen(s * g * r, len(sums), rng)
        if r > 1:
            error = inverted(self.error, sums[:, 3] / (s * g * (r - 1)))
            error = nothing if self.error <= ROUNDING else error
        if self.cross <= ROUNDING:
            cross = nothing if r == 1 else error + r * self.grain**2 * unseen(s * g, len(sums), rng)
        return cross, error


ROUNDING = 1e-12
"""What is left of a mean square that is exactly 0."""


def unseen(plays: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """[draws]: variance p (1 − p) of a play where all of `plays` ended alike; p from Jeffreys' posterior,
    which is the prior of half a game each way."""
    chance = rng.beta(0.5, plays + 0.5, draws)
    return chance * (1 - chance)


def spread_of(deviations: np.ndarray, squares: np.ndarray, games: int) -> np.ndarray:
    """Variance over resampled games, from sums of deviations and of their squares."""
    # g/(g−1): resampled games spread less than new ones would.
    return (squares - deviations**2 / games) / (games - 1) * games / (games - 1)


def inverted(observed: float, resampled: np.ndarray, least: float = 0.0) -> np.ndarray:
    """observed²/resampled: as far above the truth as the resample fell below, as with an inverted chi-square.
    `least` stands in for an observed mean square below it, which contains that of `least`."""
    ratio = (
        observed / np.where(resampled > 0, resampled, observed) if observed > 0 else np.ones(len(resampled))
    )
    return max(observed, least) * ratio


def _components(squares: np.ndarray, shape: MeanSquares) -> dict[str, Any]:
    run, game, cross, error = squares
    s, g, r = shape.runs, shape.games, shape.repeats
    result = {"training run": (run - cross) / (g * r), "game": (game - cross) / (s * r)}
    if r > 1:
        return result | {"run × game": (cross - error) / r, DECODING: error}
    return result | {RESIDUE: cross}


def mean_squares(values: np.ndarray, grain: float = 1.0) -> MeanSquares:
    """From [runs, games, repeats] without gaps."""
    s, g, r = values.shape
    cell = values.mean(axis=2)
    run, game, grand = cell.mean(axis=1), cell.mean(axis=0), cell.mean()
    cross = cell - run[:, None] - game[None, :] + grand
    error = ((values - cell[:, :, None]) ** 2).sum(axis=(0, 2))
    by_game = np.stack([game - grand, (game - grand) ** 2, (cross**2).sum(axis=0), error], axis=1)
    return MeanSquares(
        run=float(g * r * ((run - grand) ** 2).sum() / (s - 1)),
        game=float(s * r * ((game - grand) ** 2).sum() / (g - 1)),
        cross=float(r * (cross**2).sum() / ((s - 1) * (g - 1))),
        error=float(error.sum() / (s * g * (r - 1))) if r > 1 else float("nan"),
        runs=s,
        games=g,
        repeats=r,
        by_game=by_game,
        grain=grain,
    )


def grain_of(episodes: pd.DataFrame, metric: str) -> float:
    """Range of a single result: 1 for wins and losses, of other metrics what was seen, with 0 among it."""
    if metric == "won":
        return 1.0
    seen = pd.to_numeric(episodes.loc[episodes["ok"], metric]).to_numpy(float)
    return float(seen.max(initial=0.0) - seen.min(initial=0.0))


def full_games(episodes: pd.DataFrame) -> tuple[set[str], int]:
    """(games of one method that every run played equally often and ok, how often). Refuses a single run."""
    ok = episodes["ok"].to_numpy(bool)
    run_code, runs = pd.factorize(episodes["run"], sort=True)
    game_code, games = pd.factorize(episodes["task"], sort=True)
    if len(runs) < 2:
        raise Refusal(
            f"{episodes['method'].iloc[0]} has one run on {episodes['env'].iloc[0]} "
            f"{episodes['split'].iloc[0]}; "
            "a spread over runs needs at least two."
        )
    counts = np.bincount(run_code * len(games) + game_code, ok, minlength=len(runs) * len(games))
    counts = counts.reshape(len(runs), len(games)).astype(int)
    repeats = int(counts.max())
    return set(games[(counts == repeats).all(axis=0)]), repeats


def balanced(
    episodes: pd.DataFrame, metric: str = "won", games: set[str] | None = None
) -> tuple[np.ndarray, int]:
    """([runs, games, repeats], games left out) of one method: games with an episode that is not ok are left
    out, and those that are not in `games` where it is given."""
    check_metric(episodes, metric)
    full, repeats = full_games(episodes)
    full = full if games is None else full & games
    if len(full) < 2:
        raise Refusal("Fewer than two games were played the same number of times by every run.")
    kept = episodes[episodes["ok"] & episodes["task"].isin(full)]
    kept = kept.sort_values(["run", "task", "rollout"], kind="stable")
    values = kept[metric].to_numpy(float).reshape(kept["run"].nunique(), len(full), repeats)
    return values, int(episodes["task"].nunique()) - len(full)


def variance(records: Records, question: Question = EVERYTHING) -> pd.DataFrame:
    """One row per method, env, split and component.

    `variance` and `sd` are per episode; `low`/`high` bound the sd. `in_mean` is the component's part of the
    variance of the method's mean and `share_of_mean` its share. `removed_by` names what would remove it:
    more runs, more games or more repeats of each game.
    """
    rows = []
    for group in each_split(select(records, question)):
        for method in sorted(group["method"].unique()):
            mine = group[group["method"] == method]
            values, left_out = balanced(mine, question.metric)
            place = {name: group[name].iloc[0] for name in ("env", "source", "split")}
            squares = mean_squares(values, grain_of(group, question.metric))
            rows += _rows({**place, "method": method}, squares, left_out, question)
    return pd.DataFrame(rows)


def _rows(
    names: dict[str, Any], squares: MeanSquares, left_out: int, question: Question
) -> list[dict[str, Any]]:
    s, g, r = squares.runs, squares.games, squares.repeats
    drawn = squares.drawn(question.draws or DRAWS, np.random.default_rng(question.seed))
    tails = [0.5 - question.level / 2, 0.5 + question.level / 2]
    sizes = {"training run": s, "game": g, "run × game": s * g, RESIDUE: s * g * r, DECODING: s * g * r}
    cures = {
        "training run": "more runs",
        "game": "more games",
        "run × game": "more runs or games",
        RESIDUE: "more runs or games; repeats would tell the parts apart",
        DECODING: "more runs, games or repeats",
    }
    parts = {name: value if value > ROUNDING else 0.0 for name, value in squares.components().items()}
    noise = DECODING if r > 1 else RESIDUE
    parts[noise] = max(parts[noise], squares.least_noise)
    in_mean = {name: value / sizes[name] for name, value in parts.items()}
    total = sum(in_mean.values())
    rows = []
    for name, value in parts.items():
        low, high = np.quantile(np.maximum(drawn[name], 0.0), tails)
        rows.append(
            {
                **names,
                "component": name,
                "runs": s,
                "games": g,
                "games_left_out": left_out,
                "repeats": r,
                "variance": value,
                "sd": float(np.sqrt(value)),
                "low": float(np.sqrt(low)),
                "high": float(np.sqrt(high)),
                "in_mean": in_mean[name],
                "share_of_mean": in_mean[name] / total if total else np.nan,
                "removed_by": cures[name],
            }
        )
    return rows


def precision(components: pd.DataFrame) -> pd.DataFrame:
    """Standard error of each method's mean, now and with twice or endlessly many runs, games and repeats.

    `retest_sd` is the sd of one checkpoint's success rate when the same games are played again: exact with
    repeats, an upper bound (it then contains run × game) without; `retest_is_bound` says which.
    """
    rows = []
    for key, group in components.groupby(["env", "source", "split", "method"], sort=True):
        part: dict[str, float] = dict(zip(group["component"], group["variance"], strict=True))
        s, g, r = (int(group[name].iloc[0]) for name in ("runs", "games", "repeats"))
        noise: float = part[DECODING] if DECODING in part else part[RESIDUE]

        def error(
            runs: float, games: float, repeats: float, part: dict[str, float] = part, noise: float = noise
        ) -> float:
            crossed = part.get("run × game", 0.0) / (runs * games)
            value = (
                part["training run"] / runs
                + part["game"] / games
                + crossed
                + noise / (runs * games * repeats)
            )
            return float(np.sqrt(value))

        endless = float("inf")
        rows.append(
            {
                **dict(zip(("env", "source", "split", "method"), key, strict=True)),
                "se_now": error(s, g, r),
                "se_twice_runs": error(2 * s, g, r),
                "se_twice_games": error(s, 2 * g, r),
                "se_twice_repeats": error(s, g, 2 * r),
                "se_endless_runs": error(endless, g, r),
                "se_endless_games": error(s, endless, r),
                "se_endless_repeats": error(s, g, endless) if DECODING in part else np.nan,
                "retest_sd": float(np.sqrt(noise / (g * r))),
                "retest_is_bound": DECODING not in part,
            }
        )
    return pd.DataFrame(rows)


def contrast(records: Records, question: Question) -> pd.DataFrame:
    """What a power plan needs from a pilot, per env and split, pooled over `baseline` and each other method.

    `run_sd` (of a run's true rate), `residual` (run × game + decoding per episode, repeats averaged) and
    `method_game_var` (method × game: how much games differ in the effect). Pooled over the two methods.
    """
    rows, baseline, metric = [], question.against, question.metric
    for group in each_split(select(records, question)):
        check_baseline(baseline, group["method"], f" on {group['split'].iloc[0]}")
        for method in sorted(set(group["method"]) - {baseline}):
            values, base = both_sides(group, method, baseline, metric)
            row = pilot(values, base, grain_of(group, metric))
            place = {name: group[name].iloc[0] for name in ("env", "source", "split")}
            rows.append({**place, "method": method, "baseline": baseline, "games": values.shape[1], **row})
    return pd.DataFrame(rows)


def both_sides(group: pd.DataFrame, method: str, baseline: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """[runs, games, repeats] of both methods on the games that are ok in every run of both."""
    sides = [group[group["method"] == name] for name in (method, baseline)]
    games = full_games(sides[0])[0] & full_games(sides[1])[0]
    values, base = (balanced(side, metric, games)[0] for side in sides)
    return values, base


def pilot(values: np.ndarray, base: np.ndarray, grain: float = 1.0) -> dict[str, float]:
    """Pooled variance components of a contrast from two [runs, games, repeats] tables on the same games."""
    if values.shape[1] != base.shape[1]:
        raise Refusal(
            "The two methods kept different games; leave out the games with episodes that are not ok."
        )
    weights = np.array([len(values) - 1, len(base) - 1], float)
    weights /= weights.sum()
    run_var = residual = 0.0
    for weight, table in zip(weights, (values, base), strict=True):
        squares = mean_squares(table, grain)
        run_var += weight * squares.components()["training run"]
        residual += weight * squares.residual
    profile = values.mean(axis=(0, 2)) - base.mean(axis=(0, 2))
    noise = residual * (1 / len(values) + 1 / len(base))
    return {
        "run_sd": float(np.sqrt(max(0.0, run_var))),
        "residual": float(residual),
        "method_game_var": float(max(0.0, profile.var(ddof=1) - noise) / 2),
        "pilot_runs": float(len(values) + len(base)),
    }
