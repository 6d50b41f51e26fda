"""What each method has cost: tokens of the student, and of the teacher by what they were for.

Means over a method's runs, with the sd of the teacher's total; a run is one seed. To compare methods at one
cost rather than at one number of steps, train them with `trainer=equal_teacher_tokens`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from analysis.errors import Refusal

if TYPE_CHECKING:
    from analysis.records import Records

TOKENS = {
    "student": "student_tokens",
    "gold": "gold_tokens",
    "scored": "teacher_tokens",
    "judged": "judge_tokens",
    "played": "teacher_play_tokens",
}
"""Column of this table: column of the steps table. The last three go through the teacher."""
TEACHER = ["scored", "judged", "played"]
SECONDS = ["rollout", "judge", "teacher", "student", "other"]


def tables(records: Records, env: str | None = None) -> dict[str, pd.DataFrame]:
    """`cost`: one row per method and environment with mean tokens per run. `seconds`: mean wall time of
    training by phase, in seconds, and what a step took."""
    steps = records.steps.copy()
    if env is not None and not steps.empty:
        steps = steps[steps["env"] == env]
    if steps.empty:
        raise Refusal("No run here has made a training step; give runs that trained.")
    timed = {phase: f"seconds_{phase}" for phase in SECONDS}
    for column in (*TOKENS.values(), *timed.values()):
        steps[column] = steps[column].fillna(0) if column in steps else 0
    by_run = steps.groupby(["method", "env", "run"])
    runs = by_run[[*TOKENS.values(), *timed.values()]].sum()
    runs["steps"] = by_run.size()
    runs["teacher"] = runs[[TOKENS[name] for name in TEACHER]].sum(axis=1)
    cells = runs.groupby(["method", "env"])
    cost = cells[["steps", *TOKENS.values(), "teacher"]].mean()
    cost = cost.rename(columns={column: name for name, column in TOKENS.items()})
    cost["teacher_sd"] = cells["teacher"].std()
    cost.insert(0, "runs", cells.size())
    seconds = cells[list(timed.values())].mean().set_axis(SECONDS, axis=1)
    seconds["training"] = seconds.sum(axis=1)
    seconds["per_step"] = seconds["training"] / cost["steps"]
    cost = cost.sort_values("teacher", kind="stable")
    return {"cost": cost.reset_index(), "seconds": seconds.loc[cost.index].reset_index()}
