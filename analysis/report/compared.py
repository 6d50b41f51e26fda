"""Each method against the baseline."""

from __future__ import annotations

from analysis import figures
from analysis.compare import RECIPE, compare
from analysis.load import Records
from analysis.report.section import Options, Section

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
        **options.choice,
    )
    section.say(
        f"Difference of each method to {options.baseline}. p asks whether the recipe differs on this "
        "benchmark (Welch's t on run means; the run is the unit). The interval also allows for other games "
        "than these (calibrated two-way bootstrap). q_bh corrects for looking at many. detectable is the "
        "true difference that these runs would find with power 0.8 at the level that decides after that "
        "correction, with its own interval: where it is large, “not shown” says "
        "little."
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
