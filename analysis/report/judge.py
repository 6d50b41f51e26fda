"""The judge against the oracle."""

from __future__ import annotations

import pandas as pd

from analysis import figures
from analysis.agreement import tables
from analysis.load import Records
from analysis.report.section import Options, Section

AGREEMENT = [
    "method",
    "env",
    "scope",
    "by",
    "group",
    "turns",
    "prevalence",
    "agreement",
    "kappa",
    "kappa_low",
    "kappa_high",
    "kappa_runs_low",
    "kappa_runs_high",
    "kappa_intervening",
    "mcc",
    "sensitivity",
    "specificity",
    "auroc_confidence_right",
    "calibration_error",
]


def fill(section: Section, records: Records, options: Options, palette: dict[str, str]) -> None:
    """Fill the section."""
    found = tables(records, options.level, seed=options.seed, **options.place())
    section.say(
        "Right label by the environment's expert: progress SKIP, no effect WEAK, harm STRONG. Scope judge: "
        "turns on which the teacher was asked; rule: deterministic failures too. prevalence: share of turns "
        "without progress; kappa falls with it at equal error rates. Intervals allow for turns of one "
        "episode being alike; kappa_runs: Student's interval over the runs' kappas. kappa_intervening asks "
        "only whether to intervene at all: fair for scope rule too, where a failure without effect counts "
        "as STRONG against WEAK."
    )
    columns = [name for name in AGREEMENT if name in found["agreement"]]
    main = found["agreement"]
    section.table("agreement", main.loc[main["by"] == "all", columns], "Agreement")
    title = "Decided (rows; deterministic failures count as STRONG) against right labels"
    section.table("confusion", found["confusion"], title)
    section.table(
        "agreement_groups",
        main.loc[main["by"] != "all", columns],
        "By task type, turn position and failure kind",
        folded=True,
    )
    if len(found["reliability"]):
        section.draw(
            "reliability",
            figures.reliability(found["reliability"]),
            "Is confidence a probability of the judge being right? On the dashed line it is. Bars: Wilson's "
            "interval at the effective number of turns, as turns of one episode are alike.",
            small=found["reliability"][["method", "env"]].drop_duplicates().shape[0] < 3,
        )
        section.table("reliability", found["reliability"], "Numbers of the reliability diagram", folded=True)
    section.draw(
        "labels",
        figures.label_shares(*(_choosing(found[name]) for name in ("labels_by_step", "labels_by_turn"))),
        "Labels over training and over turn positions, of the methods that choose turns.",
    )
    section.table("labels_by_step", found["labels_by_step"], "Label shares over training", folded=True)
    section.table("labels_by_turn", found["labels_by_turn"], "Label shares over turn positions", folded=True)


def _choosing(shares: pd.DataFrame) -> pd.DataFrame:
    """Without the methods that treat all turns alike."""
    alike = [name for name in ("ALWAYS", "NEVER") if name in shares]
    share = shares[alike].fillna(0).sum(axis=1)
    return shares[share.groupby([shares["method"], shares["env"]]).transform("min") < 1]
