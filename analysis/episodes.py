"""A table of episodes made whole: its columns, its words, and whether `won`, `status` and `ok` agree.

Invariant: what a table says is read as it is meant or refused in one sentence; nothing that is not understood
becomes a loss, an error of the environment, or nothing.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import Refusal

REQUIRED = ("method", "env", "split", "seed", "task")
"""Columns that a table of episodes from another framework must have, beside `won` or `status`."""
NAMES = ("method", "env", "split", "task")
"""Of these the ones that hold words."""
EPISODE_DEFAULTS: dict[str, Any] = {
    "source": "unnamed",
    "phase": "eval",
    "step": 0,
    "task_type": "all",
    "rollout": 0,
    "score": float("nan"),
    "turns": float("nan"),
    "expert_distance_start": float("nan"),
    "error": "",
    "game_sha256": "",
}
PLAIN = (*NAMES, "status", "source", "phase", "task_type")
"""Columns whose words are read without the spaces around them."""
WORDS = (*PLAIN, "run", "error", "game_sha256")
"""Columns that hold words: `None` and `NA` in them are words too, and no missing values."""
NO_SETTINGS = (*REQUIRED, *EPISODE_DEFAULTS, "run", "won", "status", "ok")
"""Columns that describe an episode and are no setting of its run."""
NUMBERS = ("step", "rollout", "score", "turns", "expert_distance_start")
NOT_OK = ("env_error", "policy_error")
"""Statuses that say nothing about the agent."""
CONTEXT_FULL = "context_full"
"""Status of an episode that the limit on its tokens cut: not won, and counted apart beside every rate."""
STATUSES = ("won", "lost", "turn_budget", CONTEXT_FULL, *NOT_OK)
"""Those of `sage.episode.Status`; a test holds them equal, because nothing here imports the training code."""
PHASES = ("eval", "train")
LARGEST = 1e100
"""Larger numbers have no square that a variance could be made of."""
MISSING = ("none", "nan", "null", "na", "n/a", "<na>")
"""What other programs write for a name that is not there."""
NEEDS = f"{', '.join(REQUIRED)} and won (0/1) or status"


def plain_words(episodes: pd.DataFrame, where: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The table with names and statuses in plain spelling (`Won` → `won`, spaces around a name taken off,
    numbers as names), and a note on each column that was read so, and on names that look alike."""
    episodes, notes = episodes.copy(), []
    for name in WORDS:
        if name not in episodes:
            continue
        episodes[name] = _words(episodes[name], where)
        if name not in PLAIN:
            continue
        found = episodes[name].unique()
        plain = {word: _plain(word, lower=name in ("status", "phase")) for word in found}
        changed = {word: new for word, new in plain.items() if new is not word and new != word}
        if changed:
            episodes[name] = episodes[name].replace(changed)
            some = ", ".join(f"{word!r} as {new}" for word, new in list(changed.items())[:3])
            notes.append(f"{where}: in the column {name} {some} was read.")
        if name in ("method", "env", "split"):
            notes += [
                f"{where}: the {name}s {' and '.join(map(repr, alike))} differ only in case, spaces or "
                "dashes, and are taken as different; where they are one, write one name."
                for alike in _alike(episodes[name].unique())
            ]
    return episodes, tuple(notes)


def _words(column: pd.Series, where: str) -> pd.Series:
    """A column of names as text: numbers as they are written, categories as their words. Raises Refusal for
    what is no name (bytes, lists, dates)."""
    if isinstance(column.dtype, pd.StringDtype):
        return column
    column = column.astype(object)
    kinds = {type(value) for value in column}
    wrong = next((kind for kind in kinds if not issubclass(kind, (str, int, float, np.number))), None)
    wrong = None if wrong in (type(None), type(pd.NA)) else wrong
    if wrong is not None:
        value = next(value for value in column if type(value) is wrong)
        raise Refusal(
            f"{where} holds {str(value)[:60]} in the column {column.name}, which is no text but of the type "
            f"{wrong.__name__}; write a name."
        )
    return column.where(column.isna(), column.astype(str)) if kinds - {str} else column


def _alike(names: Any) -> list[list[str]]:
    """Names that are the same but for case, spaces, signs that are not seen, and dashes between letters."""
    same: dict[str, list[str]] = {}
    for name in names:
        if isinstance(name, str):
            plain = unicodedata.normalize("NFKC", name).casefold()
            seen = "".join(sign for sign in plain if unicodedata.category(sign)[0] not in "ZC")
            same.setdefault(re.sub(r"(?<=[^\W\d_])[-_](?=[^\W\d_])", "", seen), []).append(name)
    return [sorted(group) for core, group in same.items() if core and len(group) > 1]


def _plain(word: Any, lower: bool) -> Any:
    if not isinstance(word, str):
        return word
    return word.strip().lower() if lower else word.strip()


def complete_episodes(episodes: pd.DataFrame, where: str) -> pd.DataFrame:
    """Check the columns and their values, fill the optional ones, and derive `ok` and `won` from `status` or
    back. Raises Refusal, in a sentence that names the column, the value and what would do."""
    _check_columns(episodes, where)
    episodes = episodes.copy()
    _check_names(episodes, where)
    for name, value in EPISODE_DEFAULTS.items():
        if name not in episodes:
            episodes[name] = value
    for name in NUMBERS:
        episodes[name] = _numbers(episodes, name, where)
    unknown = sorted(set(episodes["phase"]) - set(PHASES), key=str)
    if unknown:
        raise Refusal(f"{where} holds the phase {unknown[0]!r}; a phase is {' or '.join(PHASES)}.")
    if "run" not in episodes:
        parts = (episodes[name].astype(str) for name in ("method", "env", "seed"))
        episodes["run"] = ["/".join(row) for row in zip(*parts, strict=True)]
    won = None if "won" not in episodes else episodes["won"].map(_as_bool).astype("float64")
    if "status" not in episodes:
        assert won is not None
        _no_blank(episodes, won.isna(), where)
        episodes["status"] = np.where(won == 1, "won", "lost")
    _check_statuses(episodes, where)
    ok = ~episodes["status"].isin(NOT_OK)
    said = ok if "ok" not in episodes else episodes["ok"].map(lambda value: _as_bool(value, "ok"))
    if (said != ok).any():
        row = episodes[said != ok].iloc[0]
        raise Refusal(f"{where} has ok = {row['ok']} beside the status {row['status']} ({_which(row)}).")
    episodes["ok"] = ok
    is_won = episodes["status"].eq("won")
    if won is not None:
        _no_blank(episodes, won.isna() & ok, where)
        # A lost episode that is not ok is an older way to write a missing one; a won one is a contradiction.
        clash = won.notna() & (won.eq(1) != is_won) & (ok | won.eq(1))
        if clash.any():
            row = episodes[clash].iloc[0]
            raise Refusal(
                f"{where} has {int(clash.sum())} episodes whose won and status contradict each other, first "
                f"won = {row['won']} with the status {row['status']} ({_which(row)}); one of them is wrong."
            )
    episodes["won"] = is_won.astype("float64").where(ok)
    episodes["score_clipped"] = episodes["score"].clip(lower=0.0)
    return episodes


def _check_columns(episodes: pd.DataFrame, where: str) -> None:
    missing = [name for name in REQUIRED if name not in episodes]
    if missing:
        raise Refusal(
            f"{where} lacks the column(s) {', '.join(missing)}; it needs {NEEDS}, and has "
            f"{', '.join(map(str, episodes.columns))[:120]}."
        )
    if "won" not in episodes and "status" not in episodes:
        raise Refusal(f"{where} has neither a column won (0/1) nor a column status.")
    if not len(episodes):
        raise Refusal(f"{where} has a header and no episode; it needs one row per played game.")


def _check_names(episodes: pd.DataFrame, where: str) -> None:
    for name in NAMES:
        blank = episodes[name].isna() | episodes[name].eq("")
        if blank.any():
            raise Refusal(f"{where} has {int(blank.sum())} rows without a {name}.")
        word = next((w for w in episodes[name].unique() if str(w).strip().lower() in MISSING), None)
        if word is not None and name != "task":
            count = int(episodes[name].eq(word).sum())
            raise Refusal(
                f"{where} has {count} rows whose {name} is {word!r}, which is how other programs write a "
                f"name that is missing; give the {name} its name."
            )
    seeds = _as_numbers(episodes["seed"])
    if episodes["seed"].isna().any() or episodes["seed"].eq("").any():
        count = int((episodes["seed"].isna() | episodes["seed"].eq("")).sum())
        raise Refusal(f"{where} has {count} rows without a seed; it is the number of the training run.")
    wrong = ~_whole(seeds)
    if wrong.any():
        found = episodes.loc[wrong, "seed"].astype(object).iloc[0]
        raise Refusal(f"{where} holds the seed {found}; a seed is the whole number of a training run.")
    episodes["seed"] = seeds.astype("int64")


def _numbers(episodes: pd.DataFrame, name: str, where: str) -> pd.Series:
    """The column as numbers; empty cells are nan."""
    column = episodes[name]
    numbers = _as_numbers(column)
    blank = column.isna() | column.eq("")
    wrong = (numbers.isna() & ~blank) | (numbers.astype(float).abs() > LARGEST)
    if wrong.any():
        found = column[wrong].astype(object).iloc[0]
        raise Refusal(
            f"{where} holds {found!r} in the column {name}, first in row {_line(wrong)}; it is a number"
            f"{f' of at most {LARGEST:g}' if numbers[wrong].notna().iloc[0] else ''}."
        )
    if name in ("step", "rollout"):
        if not _whole(numbers).all():
            raise Refusal(f"{where} has rows without a whole number in the column {name}.")
        return numbers.astype("int64")
    return numbers


def _as_numbers(column: pd.Series) -> pd.Series:
    """The column as numbers, nan where it holds something else; dates and durations are no numbers."""
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        return pd.Series(np.nan, index=column.index)
    return pd.to_numeric(column, errors="coerce")


def _whole(numbers: pd.Series) -> pd.Series:
    """Which are whole numbers that 64 bits hold exactly."""
    if pd.api.types.is_bool_dtype(numbers):
        return pd.Series(False, index=numbers.index)
    if pd.api.types.is_signed_integer_dtype(numbers):
        return numbers.notna()
    return (numbers.notna() & (numbers.astype(float).abs() < 2**53) & (numbers % 1 == 0)).astype(bool)


def _check_statuses(episodes: pd.DataFrame, where: str) -> None:
    unknown = [word for word in episodes["status"].unique() if word not in STATUSES]
    if not unknown:
        return
    word = unknown[0]
    count = int((episodes["status"].isna() if pd.isna(word) else episodes["status"].eq(word)).sum())
    near = difflib.get_close_matches(str(word).strip().lower(), STATUSES, 1, cutoff=0.5)
    raise Refusal(
        f"{where} holds the status {word!r} in {count} rows; known are {', '.join(STATUSES)}"
        + (f", and the nearest is {near[0]}." if near else ".")
    )


def _no_blank(episodes: pd.DataFrame, blank: pd.Series, where: str) -> None:
    if blank.any():
        raise Refusal(
            f"{where} has {int(blank.sum())} episodes without a value in won, first in row {_line(blank)} "
            f"({_which(episodes[blank].iloc[0])}); write 0 or 1, or a status such as env_error where the "
            "episode says nothing about the agent."
        )


def _line(mask: pd.Series) -> int:
    """Number of the first such row in the file, which has a header."""
    return int(np.flatnonzero(mask.to_numpy())[0]) + 2


def _which(row: pd.Series) -> str:
    return f"{row['method']}, seed {row['seed']}, {row['task']}"


def _as_bool(value: Any, name: str = "won") -> bool | None:
    if value is None or value is pd.NA or value != value:
        return None
    if isinstance(value, str):
        known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False, "": None}
        if value.strip().lower() not in known:
            raise Refusal(f"The column {name} holds {value[:60]!r}; it must be 0/1 or true/false.")
        return known[value.strip().lower()]
    if value not in (0, 1):
        raise Refusal(
            f"The column {name} holds {str(value)[:60]}; it must be 0/1 or true/false (use score for graded "
            "results)."
        )
    return bool(value)
