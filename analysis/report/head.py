"""What stands first in a report: its status, its verdict, and what was trained on what.

The verdict is one sentence, so that it is read before anything scrolls; the single verdicts follow it, those
that found something first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from analysis.records import Records
from analysis.render import signed
from analysis.report.section import Brief, Section

MANY = 3
"""More values of a fact than this are counted instead of listed."""
FOUND = ("supported", "contradicted", "better", "worse", "equivalent", "these checkpoints differ")
"""How verdicts begin that found something, in the order in which they are told."""


@dataclass(frozen=True)
class Head:
    """`status` is confirmatory or exploratory; `why` says it in a sentence. `facts` are (name, value)."""

    status: str
    why: str
    verdict: str
    lines: list[str] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)


def head_of(sections: list[Section], records: Records, brief: Brief) -> Head:
    """The head of a report whose sections are filled."""
    tables = {
        part.name: part.frame for section in sections for part in section.parts if part.frame is not None
    }
    planned, compared = _rows(tables, "plan_hypotheses"), _rows(tables, "compare_full")
    lines = [_planned_line(row) for row in _first_found(planned)]
    lines += [_compared_line(row) for row in _first_found(compared)]
    status = next((section.tag for section in sections if section.name == "plan"), "exploratory")
    if planned:
        verdict = _counted(planned, "planned hypothesis", "planned hypotheses", "hypothesis")
    elif compared:
        with_it = f"with {compared[0]['baseline']}"
        verdict = _counted(compared, f"comparison {with_it}", f"comparisons {with_it}", "method")
    else:
        verdict = _alone(_rows(tables, "per_run"))
    why = _why(tables.get("plan_conditions"), brief)
    return Head(status, why, verdict, lines, facts(records))


def _why(conditions: pd.DataFrame | None, brief: Brief) -> str:
    if brief.plan is None:
        return "No plan was given: p values here help to choose what to test next, and confirm nothing."
    if conditions is None:
        return f"The plan {brief.plan.path.name} could not be held against these records."
    met, first = conditions["met"].astype(bool), ""
    if not met.all():
        row = conditions[~met].iloc[0]
        first = f"; the first that is not: {row['condition']} ({row['detail']})"
    return f"Plan {brief.plan.path.name}: {int(met.sum())} of {len(met)} conditions are met{first}."


def _rows(tables: dict[str, pd.DataFrame], name: str) -> list[dict[str, Any]]:
    frame = tables.get(name)
    return [] if frame is None else frame.to_dict("records")


def _word(row: dict[str, Any]) -> str:
    """How a verdict begins: what it was, in a word or two."""
    text = str(row["verdict"])
    return next((word for word in FOUND if text.startswith(word)), text.split(" (")[0].split(":")[0])


def _first_found(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: FOUND.index(_word(row)) if _word(row) in FOUND else len(FOUND))


def _counted(rows: list[dict[str, Any]], one: str, many: str, name: str) -> str:
    """`Of 6 comparisons with opd: 1 better (sage_opd on valid_seen), 5 not shown.`"""
    words: dict[str, list[str]] = {}
    for row in _first_found(rows):
        words.setdefault(_word(row), []).append(f"{row[name]} on {row['split']}")
    told = []
    for word, who in words.items():
        named = word in FOUND and len(who) <= MANY
        told.append(f"{len(who)} {word}" + (f" ({', '.join(who)})" if named else ""))
    if len(rows) == 1:
        return f"The {one}: {told[0].removeprefix('1 ')}."
    return f"Of {len(rows)} {many}: {', '.join(told)}."


def _alone(runs: list[dict[str, Any]]) -> str:
    """Where nothing is compared: how the runs did."""
    told = [
        f"{row['method']}, seed {row['seed']}, on {row['env']} {row['split']}: {row['mean']:.3f}"
        + (f" [{row['wilson_low']:.3f}, {row['wilson_high']:.3f}]" if "wilson_low" in row else "")
        for row in runs[:4]
    ]
    more = f"; and {len(runs) - 4} more" if len(runs) > 4 else ""
    return f"Nothing is compared here. {'; '.join(told)}{more}." if told else "Nothing is compared here."


def _planned_line(row: dict[str, Any]) -> str:
    return (
        f"Planned: {row['hypothesis']} ({row['method']} against {row['baseline']} on {row['split']}): "
        f"{row['verdict']}, {signed(row['difference'])}{_planned_interval(row)}; {row['status']}."
    )


def _compared_line(row: dict[str, Any]) -> str:
    return (
        f"{row['method']} on {row['env']} {row['split']}: {row['verdict']}. Difference "
        f"{signed(row['difference'])}{_interval(row)}, {row['runs']} and {row['runs_baseline']} runs."
    )


def _planned_interval(row: dict[str, Any]) -> str:
    """The same with its level, which is that of the plan and not of the page."""
    said = _interval(row)
    return said and f"{said} ({100 * row['interval_level']:.4g} %, {row['interval_of']})"


def _interval(row: dict[str, Any]) -> str:
    """` [low, high]`; nothing where one run a side leaves no interval."""
    return "" if row["low"] != row["low"] else f" [{signed(row['low'])}, {signed(row['high'])}]"


def facts(records: Records) -> list[tuple[str, str]]:
    """What was trained on what, as far as the records say."""
    used = records.runs[records.runs["used"].astype(bool)]
    settings = [records.configs[run] for run in used["run"] if records.configs.get(run)]
    found = {
        "model": _models(settings),
        "training": _training(records, settings),
        "budget": _budget(records, settings),
        "games": _games(records),
        "runs": _runs(records, used),
    }
    return [(name, value) for name, value in found.items() if value]


def _listed(values: Iterable[Any]) -> str:
    """`8`, `8 or 16`, `4 different ones`; what is not set is left out."""
    known = sorted({str(value) for value in values if value is not None}, key=lambda v: (len(v), v))
    return f"{len(known)} different ones" if len(known) > MANY else " or ".join(known)


def _models(settings: list[dict[str, Any]]) -> str:
    student, teacher = (
        _listed(one.get(f"{side}.path") for one in settings) for side in ("student", "teacher")
    )
    return f"{student}, taught by {teacher}" if student and teacher else student


def _training(records: Records, settings: list[dict[str, Any]]) -> str:
    steps = _listed(one.get("trainer.steps") for one in settings)
    tasks = _listed(one.get("trainer.tasks_per_step") for one in settings)
    if steps:
        return f"{steps} optimizer steps" + (f" of {tasks} tasks" if tasks else "")
    episodes = records.episodes
    last = int(episodes["step"].max()) if len(episodes) else 0
    return f"last evaluated after {last} optimizer steps" if last else ""


def _budget(records: Records, settings: list[dict[str, Any]]) -> str:
    turns = _listed(one.get("env.turn_budget") for one in settings)
    teacher = _listed(one.get("trainer.teacher_budget") for one in settings)
    parts = [f"{turns} turns an episode"] if turns else []
    parts += [f"{teacher} teacher tokens a run"] if teacher else []
    spent = [name for name in TEACHER_TOKENS if name in records.steps]
    if spent and not teacher:
        mean = records.steps.groupby("run")[spent].sum().sum(axis=1).mean()
        parts += [f"{mean:,.0f} teacher tokens spent a run"] if mean > 0 else []
    return ", ".join(parts)


TEACHER_TOKENS = ("teacher_tokens", "judge_tokens", "teacher_play_tokens")


def _games(records: Records) -> str:
    """`alfworld: 140 valid_seen, 134 valid_unseen (generated)`"""
    if not len(records.episodes):
        return ""
    played = records.episodes[records.episodes["phase"] == "eval"]
    told = []
    for (env, source), group in played.groupby(["env", "source"], sort=True, observed=True):
        counts = group.groupby("split", sort=True, observed=True)["task"].nunique()
        told.append(f"{env}: {', '.join(f'{n} {split}' for split, n in counts.items())} ({source})")
    return "; ".join(told)


def _runs(records: Records, used: pd.DataFrame) -> str:
    seeds = sorted(set(used["seed"]))
    many = f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > MANY else f"seeds {', '.join(map(str, seeds))}"
    named = many if len(seeds) > 1 else f"seed {_listed(seeds)}"
    methods = used["method"].nunique()
    told = f"{len(used)} of {methods} method{'s' if methods > 1 else ''}, {named}" if len(used) else "none"
    lost = len(records.unused)
    return f"{told}; {lost} more not in the numbers" if lost else told
