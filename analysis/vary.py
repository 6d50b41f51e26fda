"""A setting that was varied on purpose: each of its values makes a method of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.errors import Refusal
from analysis.records import TABLES, Records
from sage.config.moved import new_name
from sage.records.identity import recipe_of


def vary(records: Records, keys: Sequence[str]) -> Records:
    """Rename each method to `method[key=value]` and add the values as columns of runs and episodes.

    The old name of a setting is read as today's. Raises Refusal for a key that is no setting of a run.
    """
    keys = [key if key in records.episodes else new_name(key) or key for key in keys]
    runs = records.runs.copy()
    values = {run: {key: _config_value(records, run, key) for key in keys} for run in runs["run"]}
    tables = {"runs": runs, **{name: getattr(records, name).copy() for name in TABLES}}
    for frame in tables.values():
        if len(frame):
            _rename(frame, values, keys)
    configs = {run: _without(flat, keys) for run, flat in records.configs.items()}
    runs["config_id"] = [recipe_of(configs.get(run, {})) for run in runs["run"]]
    return replace(records, **tables, configs=configs)


def _rename(frame: pd.DataFrame, values: dict[str, dict[str, Any]], keys: Sequence[str]) -> None:
    """Give the rows of a table, in place, their run's new name and its values of `keys`."""
    label = frame["run"].map({run: _label(chosen) for run, chosen in values.items()})
    plain = frame["method"].astype(str).map(lambda name: _without_tokens(name, keys))
    frame["method"] = plain + label.map(lambda text: f"[{text}]" if text else "")
    for key in keys:
        frame[key] = frame["run"].map({run: chosen[key] for run, chosen in values.items()})


def _label(chosen: dict[str, Any]) -> str:
    """`tau=0.3,steps=8`; a setting that the run does not have is not in it."""
    return ",".join(f"{key.rsplit('.', 1)[-1]}={v}" for key, v in chosen.items() if v is not None)


def _without(flat: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """A run's settings but for `keys`, which its name may hold too."""
    return {
        key: _without_tokens(value, keys) if key == "name" else value
        for key, value in flat.items()
        if key not in keys
    }


def _without_tokens(name: str, keys: Sequence[str]) -> str:
    """A run's name without what it says itself about `keys`: opd+confidence.tau=0.3 varied by that is opd."""
    head, *tokens = str(name).split("+")
    return "+".join([head, *(token for token in tokens if token.partition("=")[0] not in keys)])


def _config_value(records: Records, run: str, key: str) -> Any:
    config = records.configs.get(run, {})
    if config:
        return config.get(key)
    if key in records.episodes:
        found = records.episodes.loc[records.episodes["run"] == run, key].unique()
        if len(found) == 1:
            return found[0]
        raise Refusal(
            f"The column {key} has {len(found)} values within run {run}; a setting is one value per run."
        )
    raise Refusal(f"{key} is neither a config key of run {run} nor a column of its episodes.")
