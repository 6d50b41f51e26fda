"""`variance`: where the spread comes from."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from analysis.question import Question
from analysis.questions import options
from analysis.questions.asked import Asked, Tables

if TYPE_CHECKING:
    from analysis.records import Records
    from analysis.report.section import Brief, Section

TEXT = """\
Where the spread comes from: training run, game, run × game, decoding noise.

Crossed decomposition per method, env and split, with intervals; the share of the mean's variance that each
part makes and what would remove it; the standard error with twice or endlessly many runs, games or repeats;
and how much one checkpoint's success rate moves when the same games are played again. Decoding
noise needs repeats of a game. Then the same for the difference of each method to --baseline, in which games
cancel: what is left of them is how much the effect differs from game to game."""


def own_options(parser: argparse.ArgumentParser) -> None:
    """Options of this question alone."""
    parser.add_argument(
        "--baseline", help="decompose differences to this method (default: opd, or the first of two methods)"
    )
    options.bootstrap(parser, 4000)


def tables(args: argparse.Namespace) -> Tables:
    """Answers the command line."""
    return answer(options.records(args), Question.of(args))


def answer(records: Records, question: Question) -> Tables:
    """`variance`, `precision`, and `difference`: what the difference of each method to the baseline (left
    out: to `opd` where it is there, or of the only two methods) is made of."""
    from analysis.spread_of_difference import chosen_baseline, difference
    from analysis.variance import precision, variance

    components = variance(records, question)
    found = {"variance": components, "precision": precision(components)}
    against = chosen_baseline(components["method"].unique(), question.baseline)
    if against is not None:
        found["difference"] = difference(records, replace(question, baseline=against))
    return found


def section(part: Section, records: Records, brief: Brief) -> None:
    """Where the spread comes from."""
    from analysis import figures
    from analysis.power_designs import Assumed, detectable_table
    from analysis.spread_of_difference import difference
    from analysis.variance import contrast, precision, variance

    spread, alone = _by_runs(records, brief.question)
    if alone:
        part.say(f"Left out, as one run has no spread: {', '.join(alone)}.", "refusal")
    if not spread:
        return
    question = replace(brief.question.as_usual(), methods=spread)
    frame = variance(records, question)
    part.say(
        "How much each source makes single plays differ: training run (other seeds), game (other games), run "
        "× game, decoding (the same games again; separate only where games were repeated). What share of the "
        "variance of a method's mean each makes is in the components below."
    )
    part.draw(
        "variance",
        figures.spread_bars(frame),
        f"sd that each source makes, with its {question.level:.0%} interval.",
    )
    part.table("precision", precision(frame), "Standard error of the mean, now and with more of each")
    part.table("variance", frame, "Components with intervals of their sd", folded=True)
    if question.baseline not in spread:
        return
    if len(spread) > 1:
        gaps = difference(records, question)
        part.table(
            "variance_of_difference",
            gaps,
            f"What the differences to {question.baseline} are made of; how hard a game is cancels",
            folded=True,
        )
    pilot = contrast(records, question)
    if len(pilot):
        part.table("pilot", pilot, "Spread as a pilot for the next study", folded=True)
        found = {round(float(pilot["run_sd"].quantile(q)), 3) for q in (0, 0.5, 1)}
        runs = sorted(_run_counts(records, question))
        assumed = Assumed(
            games=sorted(set(pilot["games"].astype(int))),
            run_sds=sorted(found | {0.05} if question.metric == "won" else found),
            residual=float(pilot["residual"].mean()),
        )
        curves = detectable_table(sorted({3, 5, 8, 10, 15, 20, *runs}), assumed)
        curves = curves.drop(columns=["design", "correlation"])
        part.draw(
            "power",
            figures.power_curves(curves, [(f"{n} runs", n) for n in runs]),
            "Difference that a study with so many runs a method finds with power 0.8, for the spread over "
            "runs found here (lowest, middle, highest)"
            + (" and for 0.05." if question.metric == "won" else "."),
        )
        part.table("power", curves, "Numbers of the power curves", folded=True)


def _by_runs(records: Records, question: Question) -> tuple[tuple[str, ...], list[str]]:
    """Methods with two or more runs wherever they were evaluated, and the others."""
    from analysis.check import select

    episodes = select(records, question)
    runs = episodes.groupby(["method", "env", "split"], observed=True)["run"].nunique()
    least = runs.groupby("method").min()
    return tuple(sorted(least.index[least > 1])), sorted(least.index[least < 2])


def _run_counts(records: Records, question: Question) -> set[int]:
    """How many runs a method has, over methods and splits."""
    from analysis.cells import cells, each_split
    from analysis.check import select

    tables = [cells(group, question.metric) for group in each_split(select(records, question))]
    return {len(table.rows(method)) for table in tables for method in set(table.methods)}


ASKED = Asked(
    text=TEXT,
    options=own_options,
    tables=tables,
    title="Where the spread comes from",
    section=section,
    rank=50,
)
