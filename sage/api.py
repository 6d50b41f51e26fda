"""The front door of Python: `sage.load`, `sage.execute`, `sage.table` take the words of the command line.

    import sage

    run = sage.execute("method=opd", "budget=smoke")     # like `python -m sage method=opd budget=smoke`
    turns = sage.table(run, "turns")                      # a DataFrame

Invariant: what `execute` runs is the run of the same words on the command line, with the same id and folder.
`import sage` itself stays light: these names are looked up when they are used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sage.config.load import load as load_words
from sage.errors import RunFailure
from sage.records.schema import TABLES

if TYPE_CHECKING:
    import pandas as pd

    from sage.config.schema import RunConfig
    from sage.launch.execute import Outcome


def load(*words: str) -> RunConfig:
    """The validated config that the words of a command line mean, as in `load("method=opd", "seed=1")`.

    Raises `sage.errors.ConfigError`, one sentence that names the nearest right word.
    """
    return load_words(words)


def execute(*words: str) -> Outcome:
    """Run what the words say in this process, unless it is done already; how it ended, with its `folder`.

    Raises `sage.errors.ConfigError` where it cannot start, and `sage.errors.RunFailure` with the reason where
    it did not end well: the same words again go on from its newest checkpoint.
    """
    from sage.launch.execute import execute as run

    outcome = run(load(*words))
    if outcome.exit_code:
        raise RunFailure(outcome.reason)
    return outcome


def table(run: Outcome | Path | str, name: str) -> pd.DataFrame:
    """A table of a run's records (`turns`, `episodes`, `steps`, …), of its outcome or its attempt's folder.

    Raises ValueError where there is no such table, FileNotFoundError where there is no such folder.
    """
    from sage.records.tables import read_frame

    folder = Path(run) if isinstance(run, str | Path) else run.folder
    if name not in TABLES:
        raise ValueError(f"There is no table {name!r}; a run has {', '.join(TABLES)}.")
    if folder is None or not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder of a run, such as runs/<id>/attempt_1.")
    return read_frame(folder, name)
