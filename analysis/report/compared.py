"""Each method against the baseline."""

from __future__ import annotations

from analysis import figures
from analysis.compare import RECIPE, compare
from analysis.designs import design_of
from analysis.load import Records
from analysis.report.section import Options, Section

CORRECTED = {"independent": "q_bh", "paired": "q_bh", "blocked": "p_dunnett"}
SHORT = [
    "env",
    "source",
    "split",
    "method",
    "runs",
    "mean",
    "mean_baseline",
    "difference",
    "low",
    "high",
    "bounds_low",
    "bounds_high",
    "p",
    "p_permutation",
    "p_holm",
    "q_bh",
    "p_dunnett",
    "pair_correlation",
    "pair_correlation_low",
    "pair_correlation_high",
    "other_design",
    "p_other",
    "detectable_other",
    "detectable",
    "detectable_low",
    "detectable_high",
    "verdict",
]


def fill(section: Section, records: Records, options: Options, palette: dict[str, str]) -> None:
    """Fill the section."""
    section.tag = "exploratory"
    frame = compare(
        records,
        options.baseline,
        metric=options.metric,
        average=options.average,
        draws=options.draws,
        level=options.level,
        seed=options.seed,
        design=options.design,
        unpaired=options.unpaired,
        **options.choice,
    )
    section.say(
        f"Difference of each method to {options.baseline}. p asks whether the recipe differs on this "
        f"benchmark ({design_of(options.design).title}; the run is the unit). The interval also allows "
        f"for other games than these (calibrated two-way bootstrap). {CORRECTED[options.design]} corrects "
        "for looking at many. detectable is the true difference that these runs would find with power 0.8 "
        "at the level that decides after that correction, with its own interval: where it is large, “not "
        "shown” says little."
    )
    section.say(
        "pair_correlation is how alike runs with one seed end, with its interval; p_other and "
        "detectable_other are what the other design would have shown. The design is chosen before the data, "
        "so that they decide nothing."
    )
    if (frame["estimand"] != RECIPE).any():
        section.say(
            "Rows with one run a side compare two checkpoints by McNemar's test; they say nothing about the "
            "recipe that made them.",
            "refusal",
        )
    section.draw(
        "forest",
        figures.forest(frame, palette),
        f"Differences to {options.baseline} with their {options.level:.0%} intervals.",
    )
    section.table("compare", frame[[name for name in SHORT if name in frame]], "Against the baseline")
    section.table("compare_full", frame, "All columns", folded=True)
