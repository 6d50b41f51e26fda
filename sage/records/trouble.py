"""What a reader of a run's numbers has to be told first: sentences about failures, format and the judge."""

from __future__ import annotations

from sage.records.summary import Summary

FALLBACK_LIMIT = 0.2
"""A run warns where more of the turns that its judge was asked about have no readable label."""


def fallback_warning(asked: int, fallback: int) -> str:
    """The warning about a judge whose replies cannot be read; empty where there is nothing to warn of."""
    if not asked or fallback <= FALLBACK_LIMIT * asked:
        return ""
    return (
        f"Warning: the judge's reply names no single label on {fallback / asked:.1%} of the {asked:,} turns "
        "it was asked about (FALLBACK, full weight): read judge_reply in turns.parquet; a larger "
        "intervention.max_new_tokens, another prompt.judge or another teacher may help."
    )


STILL, STILL_AFTER = 1e-5, 10
"""Relative change of the weights below which a student with adapters has not moved, and after how many
steps."""


def still_warning(step: int, change: float | None, rate: float) -> str:
    """The warning about adapters that do not move; empty at other steps and where they do."""
    if step != STILL_AFTER or change is None or change >= STILL:
        return ""
    return (
        f"Warning: after {step} steps the adapters have changed the weights by {change:.1e} of their norm,"
        f" less than {STILL:g}: the student has hardly learnt; raise trainer.learning_rate (now {rate:g};"
        " 1e-4 is usual with student.lora)."
    )


def bounds_lines(summary: Summary) -> list[str]:
    """For each rate with episodes that are not ok: what it would be were they all lost, or all won."""
    lines = []
    for split in summary.splits:
        for rate in split.rates:
            if rate.not_ok:
                low, high = rate.bounds
                lines.append(
                    f"{split.split} after {rate.step} steps: {rate.not_ok} of {rate.n + rate.not_ok} not ok; "
                    f"{100 * low:.1f} % if those were all lost, {100 * high:.1f} % if they were all won."
                )
    return lines


def slip_line(summary: Summary) -> str:
    """The share of turns that failed by their format alone; empty where no environment lists its commands."""
    evaluated = [rate for split in summary.splits for rate in split.rates]
    told = []
    for name, rates in (("evaluation", evaluated), ("training", [summary.train] if summary.train else [])):
        turns = sum(rate.slip_turns for rate in rates)
        if turns:
            told.append(f"{sum(rate.slips for rate in rates) / turns:.1%} of {turns:,} {name} turns")
    if not told:
        return ""
    return (
        f"Format: {' and '.join(told)} had a command that is admissible once markdown, capitals and full "
        "stops are stripped (the environment stays strict)."
    )


def retry_line(summary: Summary) -> str:
    """That a model failed on batches that were then played with fewer rows; empty where none did."""
    if not summary.retried:
        return ""
    return (
        f"A model failed on batches with {summary.retried} of the episodes; they were played again with "
        "fewer rows, to the same tokens. A smaller speed.slots saves the time."
    )
