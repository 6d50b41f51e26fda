"""The falsification table: each claim of the paper against the control that could bring it down, and a plain
verdict.

A claim is a contrast of two methods and the direction in which it must go. Its verdict is `holds` only where
Holm's correction over all claims that were run is passed in that direction, `contradicted` where it is
passed in the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.cells import cells, each_place, place_of
from analysis.check import check_margin, select
from analysis.compare import RECIPE, compare
from analysis.designs import design_of, error_at_margin
from analysis.errors import Refusal
from analysis.not_ok import Bounded, mixed
from analysis.question import EVERYTHING, Question
from analysis.records import Records
from analysis.render import signed
from analysis.significance import holm, worse_by
from analysis.verdict import bounds_words, could_see, seen_words, survives

MARGIN = 0.05
"""Loss that still counts as "as well as", unless another is asked for."""


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


def controls(records: Records, question: Question = EVERYTHING) -> pd.DataFrame:
    """One row per claim, env and split, or per claim and env with `average="splits"`; claims whose arms were
    not run are listed as such, never left out.

    The question's margin (default `MARGIN`) is the loss that still counts as "as well as" (one-sided
    non-inferiority); its baseline does not matter.
    """
    margin = MARGIN if question.margin is None else question.margin
    question, level = replace(question, margin=margin, family=()), question.level
    check_margin(margin, question.metric)
    episodes = select(records, question)
    present = set(episodes["method"])
    if not present & {claim.method for claim in CLAIMS}:
        raise Refusal(
            f"None of the claims' methods was run; these records have {', '.join(sorted(present))}."
        )
    compared = {
        baseline: compare(records, _against(question, baseline, present))
        for baseline in sorted({claim.against for claim in CLAIMS} & present)
        if _partners(baseline) & (present - {baseline})
    }
    rows = [
        _row(claim, here, compared.get(claim.against), question)
        for here in each_place(episodes, question.average)
        for claim in CLAIMS
    ]
    frame = pd.DataFrame(rows)
    place = frame.groupby(["env", "source", "split"])
    for name in ("p", "p_if_lost", "p_if_won"):
        frame[f"{name}_holm"] = place[name].transform(holm)
    tests = place["p"].transform("count").clip(lower=1)
    seen = [
        could_see(se, df, (1 - level) / m, level)
        for se, df, m in zip(frame["se"], frame["df"], tests, strict=True)
    ]
    frame["detectable"], frame["detectable_low"], frame["detectable_high"] = zip(*seen, strict=True)
    frame["verdict"] = [_verdict(row, 1 - level, margin) for row in frame.to_dict("records")]
    frame["line"] = [_line(row) for row in frame.to_dict("records")]
    return frame


def _against(question: Question, baseline: str, present: set[str]) -> Question:
    """The comparisons with one baseline that claims are about."""
    # Blocks take the seeds' luck from all methods that there are.
    methods = present if question.design == "blocked" else _partners(baseline) & present
    return replace(question, baseline=baseline, margin=None, methods=tuple(sorted(methods)))


def _partners(baseline: str) -> set[str]:
    return {claim.method for claim in CLAIMS if claim.against == baseline} | {baseline}


NOT_RUN: dict[str, Any] = {
    "runs": 0,
    "runs_against": 0,
    **dict.fromkeys(("difference", "low", "high", "p", "se", "df"), np.nan),
    "episodes_not_ok": 0,
    **dict.fromkeys(("bounds_low", "bounds_high", "p_if_lost", "p_if_won"), np.nan),
    "estimand": "",
}
"""The numbers of a claim whose arms are not there."""


def _row(
    claim: Claim, here: pd.DataFrame, compared: pd.DataFrame | None, question: Question
) -> dict[str, Any]:
    """One claim on the episodes of one place."""
    place = place_of(here, question.average)
    row: dict[str, Any] = {
        **place,
        "claim": claim.text,
        "method": claim.method,
        "against": claim.against,
        "metric": question.metric,
        "kind": "non-inferiority" if claim.equivalence else "superiority",
        **NOT_RUN,
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
        **{name: result[name] for name in ("difference", "low", "high", "se", "df", "episodes_not_ok")},
        **{name: result.get(name, np.nan) for name in ("bounds_low", "bounds_high")},
    }
    if result["estimand"] != RECIPE:
        return row
    if claim.equivalence:
        return row | _non_inferiority(claim, here, question)
    # A claim whose episodes are all ok stands in its family with its own p.
    ends = {name: result.get(name, np.nan) for name in ("p_if_lost", "p_if_won")}
    ends = {name: result["p"] if np.isnan(p) else p for name, p in ends.items()}
    return row | {"p": result["p"]} | ends


def _non_inferiority(claim: Claim, here: pd.DataFrame, question: Question) -> dict[str, float]:
    """p of the claim, and with the episodes that are not ok against it (`p_if_lost`) and for it."""
    metric, average, design = question.metric, question.average, design_of(question.design)
    if question.design != "blocked":
        here = here[here["method"].isin([claim.method, claim.against])]
    table, bounded = cells(here, metric, average), Bounded.of(here, metric, average)
    found = {"p": table, "p_if_lost": table, "p_if_won": table}
    if bounded:
        found |= {
            "p_if_lost": mixed(table, claim.method, claim.against, bounded.low, bounded.high),
            "p_if_won": mixed(table, claim.method, claim.against, bounded.high, bounded.low),
        }
    tests = {name: design.test(one, claim.method, claim.against).test for name, one in found.items()}
    margin = MARGIN if question.margin is None else question.margin
    errors = {
        name: error_at_margin(design, found[name], claim.method, claim.against, t.se, margin)
        for name, t in tests.items()
    }
    return {name: worse_by(t.difference, errors[name], t.df, margin) for name, t in tests.items()}


def _verdict(row: dict[str, Any], alpha: float, margin: float) -> str:
    if not row["runs"]:
        return "not run"
    if np.isnan(row["p"]):
        return "cannot tell (one run has no spread)"
    if not row["p_holm"] < alpha:
        return "not shown"
    if row["kind"] == "non-inferiority":
        if not row["p_if_lost_holm"] < alpha:
            return "cannot tell (hangs on episodes that are not ok)"
        return f"holds within {margin:g}"
    ends = {"p_corrected_if_lost": row["p_if_lost_holm"], "p_corrected_if_won": row["p_if_won_holm"]}
    if not survives(row | ends, alpha):
        return "cannot tell (hangs on episodes that are not ok)"
    return "holds" if row["difference"] > 0 else "contradicted"


def _line(row: dict[str, Any]) -> str:
    """The verdict as one sentence."""
    if row["verdict"] == "not run":
        return f"{row['claim']} on {row['split']}: not run ({row['method']} against {row['against']})"
    interval = "" if np.isnan(row["low"]) else f" [{signed(row['low'])}, {signed(row['high'])}]"
    p = "" if np.isnan(row["p"]) else f", p = {row['p']:.3f} (Holm {row['p_holm']:.3f})"
    runs = f"{row['runs']} and {row['runs_against']} runs"
    seen = f"; could see {seen_words(row)}" if row["verdict"] == "not shown" else ""
    gaps = "" if np.isnan(row["bounds_low"]) else f"; {bounds_words(row)}"
    return (
        f"{row['claim']} on {row['split']}: {signed(row['difference'])}{interval}{p}, {runs}: "
        f"{row['verdict']}{seen}{gaps}"
    )
