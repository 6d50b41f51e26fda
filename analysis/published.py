"""Printed tables under the magnifier: impossible percentages, what a difference is worth, duplicated rows.

Input is a CSV with one printed number per row and the columns `table, student, teacher, method, benchmark,
split, metric, value, n_episodes`; `value` is read as text because its printed decimals matter. A percentage's
metric ends in `_pct`; a row without `n_episodes` in split `macro_average` is checked against the mean of its
siblings.
"""

from __future__ import annotations

import math
from collections import Counter
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.errors import Refusal
from analysis.intervals import newcombe
from analysis.render import signed
from analysis.significance import holm, mcnemar, two_proportions
from analysis.table_file import header_of

COLUMNS = ("table", "student", "teacher", "method", "benchmark", "split", "metric", "value", "n_episodes")
SETUP = ["table", "student", "teacher", "benchmark"]
POWER = 0.8
"""At which the games are counted that a difference would need."""
MAX_RUNS = 5
"""How many pooled runs of n episodes are tried for a percentage that does not fit n. More would fit
anything."""


def read_published(path: str | Path) -> pd.DataFrame:
    """The printed numbers of a file, as `printed_rows` has them."""
    if not Path(path).exists():
        raise Refusal(f"{path} does not exist.")
    header_of(Path(path), ", ".join(COLUMNS))
    rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    return printed_rows(rows, str(path))


def printed_rows(rows: pd.DataFrame, path: str) -> pd.DataFrame:
    """Rows of text with `printed` (text), `value` (float), `decimals` and `n_episodes` (nullable); `path`
    names them in a refusal."""
    missing = [name for name in COLUMNS if name not in rows]
    if missing:
        raise Refusal(f"{path} lacks the column(s) {', '.join(missing)}; it needs {', '.join(COLUMNS)}.")
    rows["printed"] = rows["value"].str.strip()
    try:
        rows["value"] = rows["printed"].astype(float)
    except ValueError as error:
        raise Refusal(f"{path} holds a value that is not a number: {error}.") from None
    rows["decimals"] = [max(0, -int(Decimal(text).as_tuple().exponent)) for text in rows["printed"]]
    sizes_read = pd.to_numeric(rows["n_episodes"], errors="coerce")
    wrong = (
        sizes_read.isna() & rows["n_episodes"].str.strip().ne("") | (sizes_read < 1) | (sizes_read % 1 > 0)
    )
    if wrong.any():
        found = rows.loc[wrong, "n_episodes"].iloc[0]
        raise Refusal(f"{path} holds {found!r} in n_episodes; it is a number of episodes, or empty.")
    rows["n_episodes"] = sizes_read.astype("Int64")
    return rows[["table", *COLUMNS[1:7], "printed", "value", "decimals", "n_episodes"]]


def count_behind(value: float, decimals: int, n: int) -> int | None:
    """The whole number k with 100 k/n printed as `value`, or None (GRIM, Brown and Heathers 2017).

    A tie may have been rounded either way, so both are allowed.
    """
    half = 0.5 * 10.0**-decimals
    low = math.ceil((value - half) * n / 100 - 1e-9)
    high = math.floor((value + half) * n / 100 + 1e-9)
    nearest = round(value * n / 100)
    if low > high or high < 0 or low > n:
        return None
    return int(min(max(nearest, low), high))


def grim(rows: pd.DataFrame) -> pd.DataFrame:
    """Every printed percentage with its n: possible or not, the count behind it, and the n nearest that
    would fit.

    `chance` is the share of arbitrary values that would pass for that n: a test with chance 1 has no power.
    """
    percent = rows[rows["metric"].str.endswith("_pct") & rows["n_episodes"].notna()]
    result = []
    for row in percent.itertuples():
        n = int(row.n_episodes)
        wins = count_behind(row.value, row.decimals, n)
        near = sorted(range(max(2, n // 2), 2 * n + 1), key=lambda other: (abs(other - n), other))
        fits = [other for other in near if count_behind(row.value, row.decimals, other) is not None][:5]
        runs = [k for k in range(2, MAX_RUNS + 1) if count_behind(row.value, row.decimals, n * k) is not None]
        result.append(
            {
                **{name: getattr(row, name) for name in COLUMNS[:7]},
                "printed": row.printed,
                "n": n,
                "possible": wins is not None,
                "wins": wins,
                "nearest_possible": _nearest(row.value, row.decimals, n),
                "n_that_fit": " ".join(map(str, sorted(fits, key=lambda m: (abs(m - n), m)))),
                "runs_that_fit": " ".join(map(str, runs)),
                "chance": min(1.0, (n + 1) / (100 * 10**row.decimals + 1)),
            }
        )
    return pd.DataFrame(result).astype({"wins": "Int64"})


def _nearest(value: float, decimals: int, n: int) -> str:
    return f"{100 * round(value * n / 100) / n:.{decimals}f}"


def sizes(rows: pd.DataFrame) -> pd.DataFrame:
    """Per table, benchmark and split: how many percentages are impossible for the stated n, and the n within
    ±20 that the most percentages fit."""
    percent = rows[rows["metric"].str.endswith("_pct") & rows["n_episodes"].notna()]
    result = []
    for (table, benchmark, split, metric), group in percent.groupby(
        ["table", "benchmark", "split", "metric"]
    ):
        for n in sorted(group["n_episodes"].unique()):
            cell = group[group["n_episodes"] == n]

            def fits(m: int, cell: pd.DataFrame = cell) -> int:
                return sum(
                    count_behind(v, d, m) is not None
                    for v, d in zip(cell["value"], cell["decimals"], strict=True)
                )

            best = max(range(max(2, int(n) - 20), int(n) + 21), key=lambda m: (fits(m), -abs(m - int(n))))
            result.append(
                {
                    "table": table,
                    "benchmark": benchmark,
                    "split": split,
                    "metric": metric,
                    "n": int(n),
                    "percentages": len(cell),
                    "impossible": len(cell) - fits(int(n)),
                    "best_n": best,
                    "impossible_at_best_n": len(cell) - fits(best),
                }
            )
    return pd.DataFrame(result)


def fitting_n(rows: pd.DataFrame) -> dict[tuple[str | int, ...], int]:
    """Per table, benchmark, split, metric and stated n: the n that the most percentages fit (`sizes`), which
    is the stated one unless another fits more of them."""
    found = sizes(rows)
    keys = ["table", "benchmark", "split", "metric", "n"]
    return {tuple(key): int(best) for *key, best in found[[*keys, "best_n"]].itertuples(index=False)}


def differences(rows: pd.DataFrame, baseline: str = "opd", level: float = 0.95) -> pd.DataFrame:
    """Each method against `baseline` in the same table, set-up and split: what one printed difference is
    worth.

    `n` is the number of episodes that fits (`fitting_n`), `n_stated` the printed one; `counts` says whether
    the wins are the exact ones behind both printed rates or the nearest, where no whole number gives them.
    `z`, `p` and the interval treat the two rates as independent samples of games. The same games were
    played, but a table does not say which were won by both: `p_best_pairing` and `p_worst_pairing` are the
    exact McNemar p if the wins were nested and if they overlapped as little as they can. None of it knows
    the spread over training runs.
    """
    percent = rows[rows["metric"].str.endswith("_pct") & rows["n_episodes"].notna()]
    best = fitting_n(rows)
    result = []
    for _, group in percent.groupby([*SETUP, "split", "metric"], sort=False):
        reference = group[group["method"] == baseline]
        if len(reference) != 1:
            continue
        base = next(reference.itertuples())
        for row in group[group["method"] != baseline].itertuples():
            stated = int(row.n_episodes)
            n = best[(row.table, row.benchmark, row.split, row.metric, stated)]
            names = {name: getattr(row, name) for name in COLUMNS[:7]}
            counts = [_wins(r.value, r.decimals, n) for r in (row, base)]
            exact = all(is_exact for _, is_exact in counts)
            (wins, _), (wins_base, _) = counts
            result.append(
                {
                    **names,
                    "baseline": baseline,
                    "wins": wins,
                    "wins_baseline": wins_base,
                    "n": n,
                    "n_stated": stated,
                    "counts": "exact" if exact else "nearest",
                    **_worth(wins, wins_base, n, level),
                }
            )
    if not result:
        raise Refusal(f"No row has the baseline {baseline!r} in its table and set-up.")
    frame = pd.DataFrame(result)
    frame["p_holm"] = frame.groupby("table")["p"].transform(holm)
    return frame


def _wins(value: float, decimals: int, n: int) -> tuple[int, bool]:
    """(wins behind a printed percentage of n, whether a whole number gives it exactly)."""
    exact = count_behind(value, decimals, n)
    nearest = min(n, max(0, round(value * n / 100)))
    return (nearest, False) if exact is None else (exact, True)


def _worth(wins: int, wins_base: int, n: int, level: float) -> dict[str, float]:
    """What the difference of two counts of n is worth."""
    z, p = two_proportions(wins, n, wins_base, n)
    low, high = newcombe(wins, n, wins_base, n, level)
    least = max(0, wins + wins_base - n)
    return {
        "difference_pct": 100 * (wins - wins_base) / n,
        "low_pct": 100 * low,
        "high_pct": 100 * high,
        "z": z,
        "p": p,
        "p_best_pairing": mcnemar(0, abs(wins - wins_base)),
        "p_worst_pairing": mcnemar(min(wins, wins_base) - least, max(wins, wins_base) - least),
    }


def claims(compared: pd.DataFrame, method: str = "sage_opd", level: float = 0.95) -> pd.DataFrame:
    """The printed differences of `method` with a plain verdict, and n per method that would show them with
    power 0.8."""
    chosen = compared[compared["method"] == method].copy()
    alpha = 1 - level
    verdicts, needed = [], []
    for row in chosen.itertuples():
        direction = "above" if row.difference_pct > 0 else "below" if row.difference_pct < 0 else "equal to"
        if row.p_holm < alpha:
            verdict = f"survives: {direction} {row.baseline}, also after Holm over the table"
        elif row.p < alpha:
            verdict = f"{direction} {row.baseline} taken alone; not after Holm over the table"
        elif row.p_best_pairing < alpha:
            verdict = "not shown: games alone could produce it; per-game results could still decide"
        else:
            verdict = "not shown, however the same games were won"
        verdicts.append(verdict)
        needed.append(_games_needed(row.wins / row.n, row.wins_baseline / row.n, alpha))
    chosen["games_needed"] = pd.array(needed, dtype="Int64")
    chosen["verdict"] = verdicts
    keep = [
        *COLUMNS[:6],
        "baseline",
        "wins",
        "wins_baseline",
        "n",
        "n_stated",
        "counts",
        "difference_pct",
        "low_pct",
        "high_pct",
        "z",
        "p",
    ]
    return chosen[[*keep, "p_holm", "games_needed", "verdict"]].reset_index(drop=True)


def lines(judged: pd.DataFrame) -> pd.DataFrame:
    """Each claim as one sentence that can be read alone."""
    sentences = [
        f"{row.method} against {row.baseline} on {row.benchmark} {row.split}, {row.student} / {row.teacher}: "
        f"{_of(row)}, {signed(row.difference_pct, 1)} points "
        f"[{signed(row.low_pct, 1)}, {signed(row.high_pct, 1)}], "
        f"z = {row.z:.2f}, p = {row.p:.3f}: {row.verdict}"
        for row in judged.itertuples()
    ]
    return pd.DataFrame({"table": judged["table"], "claim": sentences})


def _of(row: Any) -> str:
    """`94 and 83 of 134`, with what is not as printed."""
    text = f"{row.wins} and {row.wins_baseline} of {row.n}"
    notes = [f"{row.n_stated} stated, {row.n} fits more rows"] if row.n != row.n_stated else []
    notes += ["nearest counts, not exact: no whole number gives both rates"] if row.counts != "exact" else []
    return f"{text} ({'; '.join(notes)})" if notes else text


def _games_needed(a: float, b: float, alpha: float) -> int | None:
    """Games per method for an unpaired two-proportion z-test with unpooled variance (Fleiss, without
    correction)."""
    if a == b:
        return None
    reach = stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(POWER)
    return int(np.ceil(reach**2 * (a * (1 - a) + b * (1 - b)) / (a - b) ** 2))


def averages(rows: pd.DataFrame) -> pd.DataFrame:
    """Printed macro-averages against the mean of the printed parts; `possible` allows for the parts'
    rounding."""
    result = []
    for row in rows[rows["split"] == "macro_average"].itertuples():
        same = (
            rows[["table", "student", "teacher", "method", "benchmark", "metric"]]
            == [row.table, row.student, row.teacher, row.method, row.benchmark, row.metric]
        ).all(axis=1)
        parts = rows[same & (rows["split"] != "macro_average")]
        if not len(parts):
            continue
        mean = float(parts["value"].mean())
        slack = 0.5 * 10.0**-row.decimals + 0.5 * float((10.0 ** -parts["decimals"]).mean()) + 1e-9
        result.append(
            {
                "table": row.table,
                "student": row.student,
                "teacher": row.teacher,
                "method": row.method,
                "benchmark": row.benchmark,
                "metric": row.metric,
                "printed": row.printed,
                "parts": len(parts),
                "mean_of_parts": mean,
                "possible": abs(mean - row.value) <= slack,
            }
        )
    return pd.DataFrame(result)


def duplicates(rows: pd.DataFrame) -> pd.DataFrame:
    """Pairs of rows of one table and benchmark that print the same numbers: all of them, or all but some.

    Listed are pairs that agree in at least two numbers of one split; within a set-up methods are compared,
    for the untrained base also models.
    """
    named = rows.copy()
    named["row"] = named[["student", "teacher", "method"]].agg(" / ".join, axis=1)
    result = []
    for (table, benchmark), group in named.groupby(["table", "benchmark"]):
        numbers: dict[str, dict[tuple[str, str], str]] = {}
        for row in group.itertuples():
            numbers.setdefault(row.row, {})[(row.split, row.metric)] = row.printed
        for first, second in combinations(sorted(numbers), 2):
            both = sorted(numbers[first].keys() & numbers[second].keys())
            equal = [key for key in both if numbers[first][key] == numbers[second][key]]
            if max(Counter(split for split, _ in equal).values(), default=0) < 2:
                continue
            result.append(
                {
                    "table": table,
                    "benchmark": benchmark,
                    "row": first,
                    "same_as": second,
                    "equal": len(equal),
                    "numbers": len(both),
                    "identical": len(equal) == len(both),
                    "where": ", ".join(f"{key[0]} {key[1]} {numbers[first][key]}" for key in equal),
                }
            )
    columns = ["table", "benchmark", "row", "same_as", "equal", "numbers", "identical", "where"]
    return pd.DataFrame(result, columns=columns)


def contradictions(rows: pd.DataFrame) -> pd.DataFrame:
    """The same model, method, split and metric printed with different values in two tables."""
    key = ["student", "teacher", "method", "benchmark", "split", "metric"]
    groups = rows.groupby(key, sort=True)
    bad = groups.filter(lambda group: group["printed"].nunique() > 1)
    return bad[["table", *key, "printed"]].reset_index(drop=True)


def tables(
    source: str | Path | pd.DataFrame,
    baseline: str | None = None,
    method: str = "sage_opd",
    level: float = 0.95,
) -> dict[str, pd.DataFrame]:
    """All checks of one file, or of rows from `to_published`: `impossible`, `sizes`, `claim_lines`, `claims`,
    `differences`, `averages`, `duplicates`, `contradictions`, `grim`. Without `baseline` differences to `opd`
    where it is there; one that is named and not there is refused."""
    if isinstance(source, pd.DataFrame):
        rows = printed_rows(source.astype(str), "our own table")
    else:
        rows = read_published(source)
    all_grim = grim(rows)
    result = {
        "impossible": all_grim[~all_grim["possible"]]
        .drop(columns=["possible", "wins"])
        .reset_index(drop=True),
        "sizes": sizes(rows),
    }
    named, baseline = baseline is not None, baseline or "opd"
    if named and not (rows["method"] == baseline).any():
        known = ", ".join(sorted(rows["method"].unique()))
        raise Refusal(f"No printed row is of the baseline {baseline!r}; methods there are {known[:250]}.")
    if (rows["method"] == baseline).any():
        compared = differences(rows, baseline, level)
        result["claims"] = claims(compared, method, level)
        result["claim_lines"] = lines(result["claims"])
        result["differences"] = compared
    mean_check = averages(rows)
    if len(mean_check):
        result["averages"] = mean_check
    result["duplicates"] = duplicates(rows)
    result["contradictions"] = contradictions(rows)
    result["grim"] = all_grim
    return result


def to_published(summary: pd.DataFrame) -> pd.DataFrame:
    """Our own per-run summary rows in the format above, so that our tables pass the same checks.

    `summary` is `analysis.summary.per_run`; each run is printed with its own n.
    """
    return pd.DataFrame(
        {
            "table": "own",
            "student": "-",
            "teacher": "-",
            "method": summary["method"].astype(str) + " seed " + summary["seed"].astype(str),
            "benchmark": summary["env"],
            "split": summary["split"],
            "metric": "success_rate_pct",
            "value": (100 * summary["mean"]).map(lambda value: f"{value:.2f}"),
            "n_episodes": summary["episodes_ok"],
        }
    )
