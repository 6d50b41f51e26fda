"""The falsification table: each claim of the paper against the control that could bring it down, and a plain
verdict.

A claim is a contrast of two methods and the direction in which it must go. Its verdict is `holds` only where
Holm's correction over all claims that were run is passed in that direction, `contradicted` where it is
passed in the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.cells import cells, each_place, place_of
from analysis.check import select
from analysis.compare import RECIPE, compare
from analysis.errors import Refusal
from analysis.load import Records
from analysis.significance import holm, non_inferiority


@dataclass(frozen=True)
class Claim:
    """`method` must do better than `against`; with `equivalence` it must not do worse by the margin or
    more."""

    text: str
    method: str
    against: str
    equivalence: bool = False


CLAIMS = (
    Claim("selective distillation beats standard distillation", "sage_opd", "opd"),
    Claim("selection beats rate-matched random selection", "sage_opd", "random_intervention"),
    Claim("the judge's choice beats its inverse", "sage_opd", "inverted_intervention"),
    Claim("inverting the choice does harm", "opd", "inverted_intervention"),
    Claim("selection is more than the scale of the loss", "sage_opd", "matched_scale"),
    Claim("the judge adds to deterministic failures alone", "sage_opd", "feedback_only"),
    Claim("the judge beats a second rollout at the same cost", "sage_opd", "opd_two_rollouts"),
    Claim("confidence adds to the intervention", "sage_opd", "intervention_only"),
    Claim("confidence on its own turns beats shuffled confidence", "sage_opd", "shuffled_confidence"),
    Claim("normalization adds", "sage_opd", "no_norm"),
    Claim("an oracle in the judge's place would do better", "oracle_intervention", "sage_opd"),
    Claim("the oracle's selection beats no selection", "oracle_intervention", "opd"),
    Claim("a learned rule does as well as the judge", "learned_intervention", "sage_opd", equivalence=True),
)


def controls(
    records: Records,
    margin: float = 0.05,
    draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    metric: str = "won",
    average: str = "micro",
    **choice: Any,
) -> pd.DataFrame:
    """One row per claim, env and split, or per claim and env with `average="splits"`; claims whose arms were
    not run are listed as such, never left out.

    `margin` is the loss that still counts as "as well as" (in the metric's unit, one-sided non-inferiority).
    """
    episodes = select(records, **choice)
    present = set(episodes["method"])
    if not present & {claim.method for claim in CLAIMS}:
        raise Refusal(
            f"None of the claims' methods was run; these records have {', '.join(sorted(present))}."
        )
    compared = {
        baseline: compare(
            records,
            baseline,
            metric=metric,
            average=average,
            draws=draws,
            level=level,
            seed=seed,
            **{**choice, "methods": _partners(baseline) & present},
        )
        for baseline in sorted({claim.against for claim in CLAIMS} & present)
        if _partners(baseline) & (present - {baseline})
    }
    rows = [
        _row(claim, here, compared.get(claim.against), metric, average, margin)
        for here in each_place(episodes, average)
        for claim in CLAIMS
    ]
    frame = pd.DataFrame(rows)
    frame["p_holm"] = frame.groupby(["env", "source", "split"])["p"].transform(holm)
    frame["verdict"] = [_verdict(row, 1 - level, margin) for row in frame.to_dict("records")]
    frame["line"] = [_line(row) for row in frame.to_dict("records")]
    return frame


def _partners(baseline: str) -> set[str]:
    return {claim.method for claim in CLAIMS if claim.against == baseline} | {baseline}


def _row(
    claim: Claim,
    here: pd.DataFrame,
    compared: pd.DataFrame | None,
    metric: str,
    average: str,
    margin: float,
) -> dict[str, Any]:
    """One claim on the episodes of one place."""
    place = place_of(here, average)
    row: dict[str, Any] = {
        **place,
        "claim": claim.text,
        "method": claim.method,
        "against": claim.against,
        "kind": "non-inferiority" if claim.equivalence else "superiority",
        "runs": 0,
        "runs_against": 0,
        "difference": np.nan,
        "low": np.nan,
        "high": np.nan,
        "p": np.nan,
        "detectable": np.nan,
        "estimand": "",
    }
    found = pd.DataFrame()
    if compared is not None:
        same = (compared[list(place)] == pd.Series(place)).all(axis=1)
        found = compared[same & (compared["method"] == claim.method)]
    if not len(found):
        return row
    result = found.iloc[0]
    row |= {
        "runs": result["runs"],
        "runs_against": result["runs_baseline"],
        "estimand": result["estimand"],
        **{name: result[name] for name in ("difference", "low", "high", "detectable")},
    }
    if result["estimand"] == RECIPE:
        row["p"] = (
            _non_inferiority(claim, here, metric, average, margin) if claim.equivalence else result["p"]
        )
    return row


def _non_inferiority(claim: Claim, here: pd.DataFrame, metric: str, average: str, margin: float) -> float:
    table = cells(here[here["method"].isin([claim.method, claim.against])], metric, average)
    return non_inferiority(table.sample(claim.method), table.sample(claim.against), margin)


def _verdict(row: dict[str, Any], alpha: float, margin: float) -> str:
    if not row["runs"]:
        return "not run"
    if np.isnan(row["p"]):
        return "cannot tell (one run has no spread)"
    significant = row["p_holm"] < alpha
    if row["kind"] == "non-inferiority":
        return f"holds within {margin:g}" if significant else "not shown"
    if not significant:
        return "not shown"
    return "holds" if row["difference"] > 0 else "contradicted"


def _line(row: dict[str, Any]) -> str:
    """The verdict as one sentence."""
    if row["verdict"] == "not run":
        return f"{row['claim']} on {row['split']}: not run ({row['method']} against {row['against']})"
    interval = "" if np.isnan(row["low"]) else f" [{row['low']:+.3f}, {row['high']:+.3f}]"
    p = "" if np.isnan(row["p"]) else f", p = {row['p']:.3f} (Holm {row['p_holm']:.3f})"
    runs = f"{row['runs']} and {row['runs_against']} runs"
    seen = f"; could see ±{row['detectable']:.3f}" if row["verdict"] == "not shown" else ""
    return (
        f"{row['claim']} on {row['split']}: {row['difference']:+.3f}{interval}{p}, {runs}: "
        f"{row['verdict']}{seen}"
    )


def tables(records: Records, **options: Any) -> dict[str, pd.DataFrame]:
    """`verdicts` (one line per claim) and `controls` (the numbers)."""
    frame = controls(records, **options)
    return {"verdicts": frame[["verdict", "line"]], "controls": frame.drop(columns="line")}
