"""Looking at a study while it runs: the look is written into the ledger, and its conditions are checked.

A look is a line `look` of `runs/ledger.jsonl` with the plan's hash, the number of complete seeds, whether the
plan has a look there, whether that decides the study, and what was seen. It is written when the look is
taken, before any further run can start; taken again with the same seeds it is not written again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.errors import Refusal
from analysis.plan import Plan, frozen_record
from analysis.plan_decision import OPEN, SHOWN, e_values, reached_looks
from analysis.plan_findings import MET, NOT_MET, UNKNOWN, Finding
from analysis.plan_looks import boundaries, looks_of
from analysis.plan_rows import complete_seeds, planned_rows, runs_by_name
from analysis.plan_test import tested
from analysis.records import Records
from sage.records import run_ledger

EVENT = "look"
SEEN = (
    *("hypothesis", "env", "split", "look", "seeds_seen", "difference", "low", "high"),
    *("interval_level", "interval_of", "estimate"),
    *("p_tested", "p_holm", "p_margin", "e_value", "e_low", "e_high", "decision"),
)
UNPLANNED = "no look is planned here"
NOT_UNPLANNED = ("low", "high", "interval_level", "interval_of", "p_tested")
"""Holds at planned looks alone."""
SAME_LEVEL = 0.03
"""Relative: another version of numpy may draw the simulated studies anew."""


def look(
    plan: Plan, records: Records, runs: str | Path, first: int | None = None
) -> tuple[pd.DataFrame, str]:
    """(what is seen, one sentence): of the plan's `first` seeds, or of those that are complete. Writes the
    ledger of the folder `runs`.

    Raises Refusal below two complete seeds, where one of the `first` is not complete, and for a plan that is
    not frozen in that ledger.
    """
    folder = Path(runs)
    ledger = run_ledger.read(folder)
    if not any(entry["digest"] == plan.sha256 for entry in ledger.of("freeze")):
        raise Refusal(
            f"The ledger in {folder} has no freeze of {plan.path.name}; freeze it before its first run: "
            f"python -m analysis plan freeze {plan.path} --runs {folder}"
        )
    plan = plan if first is None else replace(plan, upto=first)
    seeds = complete_seeds(plan, records)
    if first is not None and seeds < first:
        raise Refusal(
            f"Of the first {first} seeds {seeds} are complete; the next lacks a finished run of one of "
            f"{', '.join(plan.methods)} on {', '.join(plan.content['environments'])}."
        )
    if seeds < 2:
        raise Refusal(
            f"There is nothing to look at yet: {seeds} of the plan's {len(plan.content['seeds'])} seeds have "
            "all their runs, and a spread needs two."
        )
    planned = looks_of(plan.content)
    is_planned = planned is not None and seeds in planned.after
    seen = _planned(plan, records) if is_planned else _unplanned(plan, records, seeds)
    over = is_planned and not (seen["decision"] == OPEN).any()
    if not any(entry.get("seeds") == seeds for entry in _looks(plan, ledger)):
        run_ledger.append(
            folder,
            EVENT,
            plan.sha256,
            plan=plan.path.name,
            seeds=seeds,
            planned=is_planned,
            decided=over,
            seen=[_plain(row) for row in seen.to_dict("records")],
        )
    return seen, _sentence(plan, seeds, is_planned, over, seen)


def _planned(plan: Plan, records: Records) -> pd.DataFrame:
    frame = tested(plan, records)
    return frame[[name for name in SEEN if name in frame]]


def _unplanned(plan: Plan, records: Records, seeds: int) -> pd.DataFrame:
    """What holds at any number of seeds: differences, e-values and their intervals."""
    here = replace(plan, upto=seeds)
    evidence = e_values(here, records)
    rows = [
        row
        | {"seeds_seen": seeds, "decision": UNPLANNED, "low": float("nan"), "high": float("nan")}
        | evidence.get((row["hypothesis"], row["env"], row["source"], row["split"]), {})
        for row in planned_rows(here, records)
    ]
    frame = pd.DataFrame(rows)
    if not len(frame):
        raise Refusal("No hypothesis of the plan has episodes on its splits.")
    return frame[[name for name in SEEN if name in frame and name not in NOT_UNPLANNED]]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Numbers as JSON has them: None for nan and for what is infinite."""
    plain: dict[str, Any] = {}
    for key, value in row.items():
        number = value.item() if hasattr(value, "item") else value
        endless = isinstance(number, float) and not abs(number) < float("inf")
        plain[key] = None if endless else number
    return plain


def _sentence(plan: Plan, seeds: int, is_planned: bool, over: bool, seen: pd.DataFrame) -> str:
    total, planned = len(plan.content["seeds"]), looks_of(plan.content)
    if not is_planned or planned is None:
        return (
            f"Looked after {seeds} of {total} seeds, where {plan.path.name} has no look: it is written down, "
            "and the result is exploratory from here on. The e-values hold all the same."
        )
    number = planned.after.index(seeds) + 1
    counts = ", ".join(f"{n} {word}" for word, n in seen["decision"].value_counts().items())
    head = f"Look {number} of {len(planned.after)}, after {seeds} of {total} seeds: {counts}."
    if not over:
        return f"{head} The study goes on to {planned.after[number]} seeds."
    stops = "stops here" if seeds < total else "is over"
    shown = (seen["decision"] == SHOWN).sum()
    return f"{head} Decided: the study {stops}, {shown} of {len(seen)} hypotheses shown."


def _looks(plan: Plan, ledger: run_ledger.RunLedger) -> list[dict[str, Any]]:
    return [entry for entry in ledger.of(EVENT) if entry["digest"] == plan.sha256]


def as_planned(plan: Plan, records: Records) -> Finding:
    """Every look in the ledger was planned, and each planned one up to the last complete one was taken before
    a run of a later seed began, at the levels that were frozen."""
    planned, taken = looks_of(plan.content), _looks(plan, records.ledger)
    if not records.ledger.entries:
        return Finding(UNKNOWN, "these runs have no ledger")
    wrong = [entry for entry in taken if planned is None or entry.get("seeds") not in planned.after]
    if wrong:
        first = wrong[0]
        return Finding(
            NOT_MET,
            f"looked at after {first.get('seeds')} seeds on {first['time']}, where the plan has no look",
            "the result is exploratory; confirm it on new seeds under a new plan",
        )
    if planned is None:
        return Finding(MET, "none, and none are planned")
    frozen = frozen_record(plan.path) or {}
    for name, levels in boundaries(plan.content).items():
        stored = frozen.get(name)
        if (
            not isinstance(stored, list)
            or len(stored) != len(levels)
            or not all(
                isinstance(a, float) and abs(a - b) <= SAME_LEVEL * max(a, b)
                for a, b in zip(stored, levels, strict=True)
            )
        ):
            return Finding(
                NOT_MET, f"{name} beside the plan are not those that follow from it", "freeze a new plan"
            )
    return _in_order(plan, records, planned.after, taken)


def _in_order(plan: Plan, records: Records, after: tuple[int, ...], taken: list[dict[str, Any]]) -> Finding:
    reached, seeds = reached_looks(plan, records), plan.content["seeds"]
    place = {id(entry): number for number, entry in enumerate(records.ledger.entries)}
    runs = runs_by_name(records)
    for n in after[:reached]:
        mine = [place[id(entry)] for entry in taken if entry.get("seeds") == n]
        if not mine:
            return Finding(
                NOT_MET,
                f"no look after {n} seeds is in the ledger",
                "let launch.until=decided look, or look when the seeds are done: plan look PLAN --runs DIR",
            )
        later = set(runs.loc[runs["seed"].isin(seeds[n:]) & runs["method"].isin(plan.methods), "run"])
        starts = [
            number
            for number, entry in enumerate(records.ledger.entries)
            if entry["event"] == "start" and entry.get("run") in later
        ]
        if starts and min(starts) < mine[0]:
            return Finding(
                NOT_MET,
                f"a run of a later seed began before the look after {n} seeds",
                "let launch.until=decided start the seeds",
            )
    return Finding(MET, f"{reached} of {len(after)} looks, each when its seeds were done")


def stopped_by_rule(plan: Plan, records: Records) -> Finding:
    """The study was decided at its last complete look; or that was the last of all."""
    planned, reached = looks_of(plan.content), reached_looks(plan, records)
    if planned is None or reached == len(planned.after):
        return Finding(MET, f"played to its end, {len(plan.content['seeds'])} seeds")
    way_out = "go on with the same line; launch.until=decided knows where it is"
    if not reached:
        return Finding(NOT_MET, f"its first look is after {planned.after[0]} seeds", way_out)
    try:
        undecided = int((tested(plan, records)["decision"] == OPEN).sum())
    except Refusal as refusal:
        return Finding(NOT_MET, f"cannot be tested: {refusal}"[:380], "mend what the sentence names")
    seeds = f"after {planned.after[reached - 1]} of {planned.after[-1]} seeds"
    if undecided:
        return Finding(NOT_MET, f"{undecided} of its differences are open {seeds}", way_out)
    return Finding(MET, f"stopped {seeds}: every difference is decided")
