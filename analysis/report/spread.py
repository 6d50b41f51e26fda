"""Where the spread comes from, and what it means for the next study."""

from __future__ import annotations

from analysis import figures
from analysis.cells import cells, each_split
from analysis.check import select
from analysis.load import Records
from analysis.power import table as power_table
from analysis.report.section import Options, Section
from analysis.spread_of_difference import difference
from analysis.variance import contrast, precision, variance


def fill(section: Section, records: Records, options: Options, palette: dict[str, str]) -> None:
    """Fill the section."""
    spread, alone = _by_runs(records, options)
    if alone:
        section.say(f"Left out, as one run has no spread: {', '.join(alone)}.", "refusal")
    if not spread:
        return
    choice = {**options.choice, "methods": spread}
    frame = variance(records, options.level, options.metric, seed=options.seed, **choice)
    section.say(
        "Share of each source in the variance of a method's mean: training run (other seeds), game (other "
        "games), run × game, decoding (the same games again; separate only where games were repeated)."
    )
    section.draw("variance", figures.variance_bars(frame), "What the uncertainty of each mean is made of.")
    section.table("precision", precision(frame), "Standard error of the mean, now and with more of each")
    section.table("variance", frame, "Components with intervals of their sd", folded=True)
    if options.baseline not in spread:
        return
    if len(spread) > 1:
        gaps = difference(
            records, options.baseline, options.level, options.metric, seed=options.seed, **choice
        )
        section.table(
            "variance_of_difference",
            gaps,
            f"What the differences to {options.baseline} are made of; how hard a game is cancels",
            folded=True,
        )
    pilot = contrast(records, options.baseline, options.metric, **choice)
    if len(pilot):
        section.table("pilot", pilot, "Spread as a pilot for the next study", folded=True)
        found = {round(float(pilot["run_sd"].quantile(q)), 3) for q in (0, 0.5, 1)}
        runs = sorted(_run_counts(records, options, spread))
        curves = power_table(
            runs=sorted({3, 5, 8, 10, 15, 20, *runs}),
            games=sorted(set(pilot["games"].astype(int))),
            run_sds=sorted(found | {0.05} if options.metric == "won" else found),
            residual=float(pilot["residual"].mean()),
        )
        section.draw(
            "power",
            figures.power_curves(curves, [(f"{n} runs", n) for n in runs]),
            "Difference that a study with so many runs a method finds with power 0.8, for the spread over "
            "runs found here (lowest, middle, highest)"
            + (" and for 0.05." if options.metric == "won" else "."),
        )
        section.table("power", curves, "Numbers of the power curves", folded=True)


def _by_runs(records: Records, options: Options) -> tuple[list[str], list[str]]:
    """Methods with two or more runs wherever they were evaluated, and the others."""
    episodes = select(records, **options.choice)
    runs = episodes.groupby(["method", "env", "split"], observed=True)["run"].nunique()
    least = runs.groupby("method").min()
    return sorted(least.index[least > 1]), sorted(least.index[least < 2])


def _run_counts(records: Records, options: Options, methods: list[str]) -> set[int]:
    counts = set()
    for group in each_split(select(records, **{**options.choice, "methods": methods})):
        table = cells(group, options.metric)
        counts |= {len(table.rows(method)) for method in set(table.methods)}
    return counts
