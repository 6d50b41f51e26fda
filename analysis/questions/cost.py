"""`cost`: what each method has cost, in tokens and in seconds."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from analysis.errors import Refusal
from analysis.question import EVERYTHING, Question
from analysis.questions import options
from analysis.questions.asked import Asked, Tables

if TYPE_CHECKING:
    import pandas as pd

    from analysis.records import Records

TEXT = """\
What each method has cost: student tokens, teacher tokens (scored, judged, played) and seconds by phase.

Means over runs. Train with trainer=equal_teacher_tokens to compare methods at one cost of the teacher.

cost and seconds: means over a method's runs, with the sd of the teacher's total. runs: each run by itself,
with the judge's queries, and the tokens a second of each phase that has tokens of its own."""

PHASES = ["rollout", "judge", "teacher", "student", "other"]


def tables(args: argparse.Namespace) -> Tables:
    """Answers the command line."""
    return answer(options.records(args, "steps"), Question.of(args))


def answer(records: Records, question: Question = EVERYTHING) -> Tables:
    """`cost`: one row per method and environment with mean tokens per run. `seconds`: mean wall time of
    training by phase, in seconds, and what a step took. `runs`: both of each run."""
    runs = by_run(records, question)
    tokens = [name for name in runs if name not in ("method", "env", "seed", "run", "queries")]
    tokens = tokens[: tokens.index("teacher") + 1]
    cells = runs.groupby(["method", "env"])
    cost = cells[tokens].mean()
    cost["teacher_sd"] = cells["teacher"].std()
    cost.insert(0, "runs", cells.size())
    seconds = cells[[f"seconds_{phase}" for phase in PHASES]].mean().set_axis(PHASES, axis=1)
    seconds["training"] = seconds.sum(axis=1)
    seconds["per_step"] = seconds["training"] / cost["steps"]
    cost = cost.sort_values("teacher", kind="stable")
    return {"cost": cost.reset_index(), "seconds": seconds.loc[cost.index].reset_index(), "runs": runs}


def by_run(records: Records, question: Question = EVERYTHING) -> pd.DataFrame:
    """One row per run: `sage.records.ledger.ledger` of its steps. Raises Refusal where no run made one."""
    import pandas as pd

    from sage.records.ledger import ledger

    if question.split is not None:
        raise Refusal("A training has one cost, whatever splits it is evaluated on; leave --split out.")
    steps = records.steps
    for name in ("env", "source"):
        wanted = getattr(question, name)
        if wanted is not None and name in steps:
            steps = steps[steps[name] == wanted]
    if not len(steps):
        raise Refusal("No run here has made a training step; give runs that trained.")
    rows = []
    for (method, env, run), mine in steps.groupby(["method", "env", "run"]):
        book = ledger(mine.astype(object).where(mine.notna(), None).to_dict("records"))
        row = {"method": method, "env": env, "run": run, "steps": len(mine)}
        row |= {**book.tokens, "teacher": book.teacher, "queries": book.queries}
        row |= {f"seconds_{phase}": book.seconds[phase] for phase in PHASES}
        rows.append(row | {f"{phase}_tokens_s": speed for phase, speed in book.tokens_per_second.items()})
    return pd.DataFrame(rows)


ASKED = Asked(text=TEXT, tables=tables, choice=False)
