"""From a table of differences to words: corrections, what could have been seen, what survives.

The corrected p decides, for differences and for equivalence alike. "Could see" is held to the level that
decides: with Holm and with Benjamini and Hochberg the first of m tests is judged at alpha/m. A finding with
episodes that are not ok must hold at both of its bounds (`analysis.not_ok`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.blocked import dunnett_of_p
from analysis.power import detectable
from analysis.render import signed
from analysis.significance import benjamini_hochberg, holm

Rule = Callable[[Any], np.ndarray]


def corrected(frame: pd.DataFrame, declared: pd.Series, testable: pd.Series, level: float) -> pd.DataFrame:
    """`frame` with its corrected p values, the `tests` they were corrected for, and what could be seen.

    `declared` rows get Holm's correction, all others Benjamini and Hochberg's; differences in a blocked
    design get Dunnett's instead (`p_dunnett`), equivalence does not; rows that are not `testable` count in
    none. Adds `p_holm`, `q_bh`, `p_equivalent_corrected`, `tests`, `detectable` with its bounds, and the
    corrected p at the bounds: `p_corrected_if_lost`, `p_corrected_if_won`.
    """
    blocked = (frame["design"] == "blocked") & testable
    frame = frame.assign(
        p_holm=_within(frame["p"], declared & testable, holm),
        q_bh=_within(frame["p"], ~declared & testable, benjamini_hochberg),
    )
    if blocked.any():
        frame["p_dunnett"] = _dunnett(frame, frame["p"], declared, blocked)
    for name in ("p_equivalent", "p_equivalent_worst", "p_if_lost", "p_if_won"):
        if name not in frame:
            continue
        # A row without such episodes stands in its family with its own p.
        own = frame["p_equivalent"] if name.startswith("p_equivalent") else frame["p"]
        p = frame[name].fillna(own)
        by_holm = _within(p, declared & testable, holm)
        by_bh = _within(p, ~declared & testable, benjamini_hochberg)
        if not name.startswith("p_equivalent") and blocked.any():
            by_holm = by_bh = _dunnett(frame, p, declared, blocked)
        title = {"p_equivalent": "p_equivalent_corrected"}.get(name, name.replace("p_", "p_corrected_", 1))
        frame[title] = np.where(declared, by_holm, by_bh)
    known = testable & frame["p"].notna()
    sizes = np.where(declared, (declared & known).sum(), (~declared & known).sum())
    frame["tests"] = pd.array(np.where(known, sizes, 0), dtype="int64")
    seen = [could_see(row.se, row.df, (1 - level) / max(1, row.tests), level) for row in frame.itertuples()]
    frame["detectable"], frame["detectable_low"], frame["detectable_high"] = zip(*seen, strict=True)
    return frame


def _dunnett(frame: pd.DataFrame, p: pd.Series, declared: pd.Series, rows: pd.Series) -> np.ndarray:
    """Dunnett's p over the comparisons of a place that are declared, and over those that are not; times the
    number of places (Bonferroni) where there are several."""
    result = np.full(len(p), np.nan)
    for family in (declared, ~declared):
        mine = frame[family & rows & p.notna()]
        places = [place for _, place in mine.groupby(["env", "source", "split"], sort=True)]
        for place in places:
            for row in place.itertuples():
                alone = dunnett_of_p(p[row.Index], row.df, len(place), row.contrast_correlation)
                result[frame.index.get_loc(row.Index)] = min(1.0, alone * len(places))
    return result


def correction(row: dict[str, Any]) -> tuple[str, float]:
    """Name and value of the corrected p that decides about a difference."""
    if row["design"] == "blocked":
        return "Dunnett", row["p_dunnett"]
    return ("Holm", row["p_holm"]) if row["family"] == "declared" else ("BH", row["q_bh"])


def _within(p: pd.Series, mask: pd.Series, rule: Rule) -> np.ndarray:
    result = np.full(len(p), np.nan)
    result[mask.to_numpy()] = rule(p[mask].to_numpy(float))
    return result


def could_see(se: float, df: float, alpha: float, level: float) -> tuple[float, float, float]:
    """The true effect that the test at `alpha` finds with power 0.8, with its interval at `level`.

    The standard error is itself an estimate with `df` degrees of freedom: its square times df over the true
    one is a chi-square, and the effect is proportional to it. nan where there is no standard error.
    """
    if not se > 0:
        return float("nan"), float("nan"), float("nan")
    effect = detectable(se, df, alpha)
    ends = stats.chi2.ppf([0.5 + level / 2, 0.5 - level / 2], df)
    low, high = effect * np.sqrt(df / ends)
    return effect, float(low), float(high)


def seen_words(row: dict[str, Any]) -> str:
    """`±0.12 (0.08 to 0.35)`, or that no difference of two rates would have been found."""
    if row.get("metric") == "won" and row["detectable"] > 1:
        return f"no difference of rates (it would have to be ±{row['detectable']:.3f})"
    return f"±{row['detectable']:.3f} ({row['detectable_low']:.3f} to {row['detectable_high']:.3f})"


def survives(row: dict[str, Any], alpha: float) -> bool:
    """Whether a significant difference stays one, with its sign, at both bounds; yes where all are ok."""
    if np.isnan(row.get("bounds_low", np.nan)):
        return True
    same_sign = row["bounds_low"] * row["difference"] > 0 and row["bounds_high"] * row["difference"] > 0
    return same_sign and max(row["p_corrected_if_lost"], row["p_corrected_if_won"]) < alpha


def could_turn(row: dict[str, Any], alpha: float) -> bool:
    """Whether what is not shown would be shown at one of the bounds."""
    ends = [row.get("p_corrected_if_lost", np.nan), row.get("p_corrected_if_won", np.nan)]
    return not np.isnan(row.get("bounds_low", np.nan)) and bool(np.nanmin(ends) < alpha)


def bounds_words(row: dict[str, Any]) -> str:
    """`the 12 episodes that are not ok (-0.050 to +0.130, whether they are lost or won)`."""
    return (
        f"the {row['episodes_not_ok']} episodes that are not ok "
        f"({signed(row['bounds_low'])} to {signed(row['bounds_high'])}, whether they are lost or won)"
    )


def recipe_verdict(row: dict[str, Any], level: float, margin: float | None) -> str:
    """One plain sentence about two recipes. The corrected p decides; all numbers are in the row."""
    alpha = 1 - level
    if np.isnan(row["p"]):
        return f"cannot tell: no {row['metric']} differs from 0, so its scale is unknown"
    name, found = correction(row)
    family = "Holm" if row["family"] == "declared" else "BH"  # of equivalence, in every design
    has_gaps = not np.isnan(row.get("bounds_low", np.nan))
    if found < alpha:
        if not survives(row, alpha):
            return (
                f"cannot tell: {signed(row['difference'])} ({name} {found:.3f}) hangs on {bounds_words(row)}"
            )
        way = "better" if row["difference"] > 0 else "worse"
        caution = "" if row["low"] > 0 or row["high"] < 0 else "; on new games the interval includes zero"
        kept = f"; survives {bounds_words(row)}" if has_gaps else ""
        return f"{way} ({name} {found:.3f}){caution}{kept}"
    equivalent = row.get("p_equivalent_corrected", np.nan)
    if margin is not None and equivalent < alpha:
        if has_gaps and not row["p_corrected_equivalent_worst"] < alpha:
            kept = f"being within ±{margin:g} ({family} {equivalent:.3f})"
            return f"cannot tell: {kept} hangs on {bounds_words(row)}"
        kept = f"; survives {bounds_words(row)}" if has_gaps else ""
        return f"equivalent within ±{margin:g} ({family} {equivalent:.3f}){kept}"
    turn = f"; could turn with {bounds_words(row)}" if could_turn(row, alpha) else ""
    return f"not shown ({name} {found:.3f}); these runs could see {seen_words(row)}{turn}"


def checkpoint_verdict(row: dict[str, Any], level: float) -> str:
    """One plain sentence about two checkpoints."""
    if np.isnan(row["p"]):
        return "cannot tell: one run has no spread"
    gaps = f"; {row['episodes_not_ok']} episodes are not ok and left out" if row["episodes_not_ok"] else ""
    if not np.isnan(row.get("bounds_low", np.nan)):
        gaps = f"; without {bounds_words(row)}"
    word = "these checkpoints differ" if row["p"] < 1 - level else "these checkpoints may be equal"
    return f"{word} (McNemar){gaps}"
