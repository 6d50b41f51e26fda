"""The falsification table."""

from __future__ import annotations

from analysis.controls import controls
from analysis.load import Records
from analysis.report.section import Options, Section


def fill(section: Section, records: Records, options: Options, palette: dict[str, str]) -> None:
    """Fill the section."""
    section.tag = "exploratory"
    frame = controls(
        records,
        draws=options.draws,
        level=options.level,
        seed=options.seed,
        metric=options.metric,
        average=options.average,
        design=options.design,
        unpaired=options.unpaired,
        **options.choice,
    )
    run = frame[frame["verdict"] != "not run"]
    section.say(
        "One line per claim and split (or macro-average); p corrected by Holm over the claims that were run "
        "there. A claim “holds” only past that correction."
    )
    section.table("controls", run[["verdict", "line"]], "Verdicts")
    missing = sorted(set(frame.loc[frame["verdict"] == "not run", "claim"]) - set(run["claim"]))
    if missing:
        section.say("Not run: " + "; ".join(missing) + ".")
    section.table(
        "controls_full", frame.drop(columns="line"), "Numbers, with the claims that were not run", folded=True
    )
