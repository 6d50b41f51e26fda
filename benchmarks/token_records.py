"""What recording single tokens (`trainer.log_tokens`) costs a training step: CPU seconds of everything that
is done for it alone, beside those of the whole training.

    OMP_NUM_THREADS=1 python benchmarks/token_records.py method=sage_opd trainer.steps=3 \\
        evaluation.before=false evaluation.after=false tracking=none launch.on_existing=rerun

Words are settings, as of `python -m sage`. A difference between two runs would be lost in their noise: the
functions are timed where they are called.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from typing import Any

import sage.__main__
import sage.records.recorder
import sage.records.tables
import sage.run
import sage.teacher.score
import sage.training.batch
import sage.training.gradient

SPENT: dict[str, float] = collections.defaultdict(float)
ALONE: list[tuple[Any, str]] = [
    (sage.teacher.score._Likeliest, "note"),
    (sage.training.batch, "note_teacher"),
    (sage.training.gradient, "note_confidence"),
    (sage.training.gradient, "note_student"),
    (sage.training.gradient, "note_weights"),
    (sage.records.recorder, "token_rows"),
]
"""What is there for the tokens alone."""


def timed(function: Callable[..., Any], name: str, when: Callable[..., bool]) -> Callable[..., Any]:
    """The function, its CPU time added up under `name` where `when` says so of its arguments."""

    def run(*args: Any, **kwargs: Any) -> Any:
        before = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            if when(*args):
                SPENT[name] += time.process_time() - before

    return run


def main() -> None:
    for place, name in ALONE:
        setattr(place, name, timed(getattr(place, name), name, lambda *_: True))
    tables = sage.records.tables
    tables.to_arrow = timed(tables.to_arrow, "to_arrow", lambda table, _: table == "tokens")
    write = timed(tables.pq.write_table, "write_table", lambda _, path: path.name.startswith("tokens"))
    tables.pq.write_table = write
    sage.run.distill = timed(sage.run.distill, "training", lambda *_: True)
    try:
        sage.__main__.main()
    except SystemExit as end:
        if end.code:
            raise
    whole = SPENT.pop("training")
    for name, seconds in sorted(SPENT.items()):
        print(f"{name:<18} {seconds:7.3f}")
    spent = sum(SPENT.values())
    print(f"together {spent:.3f} of {whole:.2f} CPU s of training: {spent / whole:.2%}")


if __name__ == "__main__":
    main()
