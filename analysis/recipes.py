"""Two recipes under one name: the one rule that every command follows.

Invariant: after `tell_apart` a method name on an environment means one recipe (`sage.records.identity`), so
that no command can pool two. Recipes that share a name are told apart by the settings that differ between
them, `sage_opd[trainer.steps=2]`; runs from a table have no settings, and their names are all there is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from sage.records.identity import MANIFEST

if TYPE_CHECKING:
    from analysis.records import Records

SHOWN = 3
"""Settings in a name; where more differ the recipe's digest stands for them, and a note lists them."""
_NEVER = {"seed", "name", "method"}


def tell_apart(records: Records) -> Records:
    """`records` with every method that names several recipes renamed by what differs, and a note for each."""
    runs = records.runs
    used = runs[runs["used"].astype(bool) & (runs["config_id"] != "")]
    named: dict[str, str] = {}
    notes = []
    for (method, env), group in used.groupby(["method", "env"], sort=True):
        if group["config_id"].nunique() < 2:
            continue
        mine = _names(records, str(method), group)
        named |= mine
        names = sorted(set(mine.values()))
        keys = _differing(records, group)
        shown = ", ".join(keys[:6]) + (f" and {len(keys) - 6} more" if len(keys) > 6 else "")
        notes.append(
            f"{method} is the name of {len(names)} recipes on {env}, which differ in {shown}; they are told "
            f"apart as {' and '.join(names[:4])}{' and others' if len(names) > 4 else ''}, and never pooled."
        )
    if not named:
        return records
    tables = {}
    for table in ("runs", "episodes", "turns", "steps"):
        frame = getattr(records, table)
        if len(frame):
            frame = frame.assign(method=frame["run"].map(named).fillna(frame["method"]))
        tables[table] = frame
    return replace(records, **tables, notes=records.notes + tuple(notes))


def _differing(records: Records, group: pd.DataFrame) -> list[str]:
    """Settings that are not the same in all of these runs."""
    settings = [records.configs.get(run, {}) for run in group["run"]]
    keys = sorted(set().union(*settings) - _NEVER)
    return [key for key in keys if len({_text(flat.get(key, "none")) for flat in settings}) > 1]


def _names(records: Records, method: str, group: pd.DataFrame) -> dict[str, str]:
    """Run to its name; runs of one recipe share it."""
    keys = _differing(records, group)
    names = {}
    for row in group.itertuples():
        flat = records.configs.get(row.run, {})
        words = [f"{_title(key)}={_text(flat.get(key, 'none'))}" for key in keys]
        label = ",".join(words)
        if not keys or len(keys) > SHOWN or len(label) > 80:
            label = f"recipe {str(row.config_id)[:6]}"
        names[row.run] = f"{method}[{label}]"
    return names


def _title(key: str) -> str:
    return "games" if key == MANIFEST else key


def _text(value: Any) -> str:
    text = str(value)
    return text[:8] if len(text) == 64 and " " not in text else text
