"""`compare`: each method against a baseline."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from analysis.question import Question
from analysis.questions import options, values
from analysis.questions.asked import Asked, Tables

if TYPE_CHECKING:
    from analysis.records import Records
    from analysis.report.section import Brief, Section

TEXT = """\
Each method against a baseline: is the difference real, and could we have seen it?

Interval (low, high): calibrated two-way bootstrap; runs and games are resampled, games jointly for both
methods. p: the test of the --design; the run is the unit. independent: Welch's t on run means. paired: t on
the differences of runs that share a seed. blocked: all methods together, a block for each seed. What makes
two runs a pair is in run.json and checked. p_permutation: exact relabelling of runs, from 5 runs a side on,
or flips of signs, from 6 pairs on. pair_correlation: how alike runs of one seed end; p_other,
detectable_other: what the other design would have shown (that decides nothing). p_holm for the declared
--family, q_bh (false discovery rate) for everything else, p_dunnett for both in a blocked design.
detectable: the true difference that this number of runs with this spread finds with power 0.8; read it
before reading "not shown" as "no effect".

--metric score compares mean scores by the same procedures; --average splits compares the macro-average over
an environment's splits, in which each split counts the same."""


def own_options(parser: argparse.ArgumentParser) -> None:
    """Options of this question alone."""
    parser.add_argument("--baseline", required=True, help="method to compare with")
    parser.add_argument(
        "--family",
        type=values.names,
        help="methods of the declared family, comma-separated (Holm over them)",
    )
    parser.add_argument(
        "--margin", type=values.margin, help="equivalence margin in the metric's unit, e.g. 0.05 (TOST)"
    )
    options.average(parser)
    options.design(parser)
    options.bootstrap(parser, 10_000)
    parser.add_argument(
        "--checkpoints", action="store_true", help="also McNemar for every pair of runs with one seed"
    )


def tables(args: argparse.Namespace) -> Tables:
    """Answers the command line."""
    from analysis.compare import checkpoints, compare

    records, question = options.records(args), Question.of(args)
    found = {"compare": compare(records, question)}
    if args.checkpoints:
        found["checkpoints"] = checkpoints(records, question)
    return found


CORRECTED = {"independent": "q_bh", "paired": "q_bh", "blocked": "p_dunnett"}
SHORT = [
    "env",
    "source",
    "split",
    "method",
    "verdict",
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
]
"""Columns of the comparison that the report shows; the others are folded away."""


def section(part: Section, records: Records, brief: Brief) -> None:
    """Against the baseline."""
    from analysis import figures
    from analysis.compare import RECIPE, compare, seed_pairs
    from analysis.designs import design_of
    from analysis.report.words import words

    part.tag = "exploratory"
    question = brief.question
    frame = compare(records, question)
    part.say(
        f"Difference of each method to {question.baseline}. p asks whether the recipe differs on this "
        f"benchmark ({design_of(question.design).title}; the run is the unit). The interval also allows "
        f"for other games than these (calibrated two-way bootstrap). “{words(CORRECTED[question.design])}” "
        "allows for looking at many. “could see” is the true difference that these runs would find with "
        "power 0.8 at the level that decides after that correction, with its own interval: where it is "
        "large, “not "
        "shown” says little."
    )
    part.say(
        "The correlation of pairs is how alike runs with one seed end, with its interval; beside it stands "
        "what the other design would have shown. The design is chosen before the data, so that this "
        "decides nothing."
    )
    if (frame["estimand"] != RECIPE).any():
        part.say(
            "Rows with one run a side compare two checkpoints by McNemar's test; they say nothing about the "
            "recipe that made them.",
            "refusal",
        )
    part.draw(
        "forest",
        figures.forest(frame, brief.palette),
        f"Differences to {question.baseline} with their {question.level:.0%} intervals.",
    )
    pairs = seed_pairs(records, question)
    if len(pairs):
        part.draw(
            "pairs",
            figures.pairs_by_seed(pairs, brief.palette, question.metric),
            f"Runs that share a seed: one line from {question.against}'s run to the method's, with the "
            "number "
            "of the seed; the wide line joins the means.",
        )
    part.table("compare", frame[[name for name in SHORT if name in frame]], "Against the baseline")
    part.table("compare_full", frame, "All columns", folded=True)
    part.table("pairs_by_seed", pairs, "Runs that share a seed", folded=True)


ASKED = Asked(
    text=TEXT,
    options=own_options,
    tables=tables,
    title="Against the baseline",
    section=section,
    rank=30,
)
