"""What a plan says of stopping early: when it looks, at which levels, when it gives up.

    looks: {after: [3, 5, 7, 10], futility: 0.05}

`after`: numbers of the plan's first seeds, in the order of `seeds`, at which its runs are looked at; the last
is all of them. `futility`: total level at which a hypothesis' margin may be found excluded, so that the study
need not go on for it; null looks for effects alone. Both are part of the plan's hash, and freezing writes the
levels that follow from them beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.errors import Refusal
from analysis.group_sequential import Looks, t_at_looks

FIELD = "looks"
SIMULATED = 20_000


def check_looks(content: Mapping[str, Any], where: str) -> None:
    """Raises Refusal for a `looks` that means nothing."""
    if FIELD not in content:
        return
    looks, seeds = content[FIELD], len(content["seeds"])
    if "format" not in content:
        raise Refusal(f"{where}: looks need a plan of format 2 (docs/reference/analysis.md).")
    if set(looks) != {"after", "futility"}:
        raise Refusal(
            f"{where}: looks has the fields after and futility, as in {{after: [3, 5, {max(seeds, 6)}], "
            "futility: 0.05}."
        )
    after = looks["after"]
    whole = isinstance(after, list) and all(type(n) is int for n in after)
    if not whole or not after or after != sorted(set(after)) or after[0] < 2 or after[-1] != seeds:
        raise Refusal(
            f"{where}: looks.after is a growing list of numbers of seeds, from 2 on, whose last is all "
            f"{seeds} of the plan, not {after!r}."
        )
    gamma = looks["futility"]
    if gamma is not None and not (isinstance(gamma, float) and 0 < gamma < 0.5):
        raise Refusal(
            f"{where}: looks.futility is a level such as 0.05, or null to look for effects alone, not "
            f"{gamma!r}."
        )
    if content["estimand"] != "recipe on this benchmark":
        raise Refusal(
            f"{where}: looks hold for the estimand 'recipe on this benchmark': on new games more seeds do "
            "not add the information that the levels count on."
        )


def looks_of(content: Mapping[str, Any]) -> Looks | None:
    """The schedule of a plan; None where it is tested once, at its end."""
    return Looks(tuple(content[FIELD]["after"])) if FIELD in content else None


def futility_of(content: Mapping[str, Any]) -> float | None:
    """The total level at which margins may be found excluded."""
    gamma = content[FIELD]["futility"] if FIELD in content else None
    return None if gamma is None else float(gamma)


def boundaries(content: Mapping[str, Any]) -> dict[str, list[float]]:
    """Nominal levels of each look, as freezing writes them: two-sided of the tests (of one hypothesis alone),
    one-sided of futility."""
    looks, gamma = looks_of(content), futility_of(content)
    if looks is None:
        return {}
    levels = {"levels": [round(float(level), 6) for level in looks.levels(content["alpha"])]}
    if gamma is not None:
        levels["futility_levels"] = [round(float(level), 6) for level in looks.futility_levels(gamma)]
    return levels


def schedule(content: Mapping[str, Any]) -> pd.DataFrame:
    """One row for each look: seeds, share of all, nominal levels."""
    looks = looks_of(content)
    if looks is None:
        return pd.DataFrame()
    levels = boundaries(content)
    frame = pd.DataFrame({"look": np.arange(1, len(looks.after) + 1), "seeds": looks.after})
    frame["level"] = levels["levels"]
    frame["futility_level"] = levels.get("futility_levels", float("nan"))
    return frame


def expected(content: Mapping[str, Any], sd: float, margin: float, alpha: float) -> pd.DataFrame:
    """What the looks do under the plan's assumptions, simulated for paired runs: for no effect, half the
    margin and the margin, the chance to show it, the same without looks, the chance to stop for futility, and
    the mean number of seeds. `sd` is that of a paired difference; `alpha` the level of this test."""
    looks, gamma = looks_of(content), futility_of(content)
    if looks is None or not sd > 0:
        return pd.DataFrame()
    n = np.array(looks.after)
    reach = stats.t.isf(looks.levels(alpha) / 2, n - 1)
    give_up = stats.t.isf(looks.futility_levels(gamma), n - 1) if gamma is not None else None
    draws = np.random.default_rng([23, *looks.after]).standard_normal((SIMULATED, looks.after[-1]))
    rows = []
    for share in (0.0, 0.5, 1.0) if margin > 0 else (0.0,):
        effect = share * margin / sd
        mean, se = t_at_looks(draws, looks.after, effect)
        shown = np.abs(mean) >= reach * se
        futile = np.zeros_like(shown)
        if give_up is not None and margin > 0:
            futile = (margin / sd - np.abs(mean)) >= give_up * se
        stops = shown | futile
        stops[:, -1] = True
        at, every = stops.argmax(axis=1), np.arange(SIMULATED)
        fixed = np.abs(mean[:, -1]) >= stats.t.isf(alpha / 2, n[-1] - 1) * se[:, -1]
        rows.append(
            {
                "true_difference": share * margin,
                "shown": float(shown[every, at].mean()),
                "shown_without_looks": float(fixed.mean()),
                "stopped_for_futility": float((futile & ~shown)[every, at].mean()),
                "mean_seeds": float(n[at].mean()),
                "seeds": int(n[-1]),
            }
        )
    return pd.DataFrame(rows)
