"""A run as Weights & Biases keeps it. wandb is imported here at the top: import this lazily.

Mode, key, account, folder and address are wandb's own settings, of its environment (`WANDB_MODE`,
`WANDB_API_KEY`, `WANDB_ENTITY`, `WANDB_DIR`, ...) and its files; nothing here sets or keeps them.

A run there is a function of the records: whoever begins one writes it anew under its one id, which replaces
what the server has of that id, and removes the folder that an earlier process has left. So no point stands
there twice, whoever reads it. wandb says nothing where its file takes no more (a full disk): what is there at
the end is counted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from sage.records.loggers.base import About, Destination, Point
from sage.records.loggers.rows import rows, settings
from sage.records.loggers.wandb_file import records

STEP = "step"
"""The curves' axis. wandb's own counter takes no step twice and none that is late: it counts rows."""
INIT_S, FINISH_S, FLUSH_S = 30.0, 60.0, 10.0
"""How long a server may take to begin a run, and to take the last of it (wandb waits without end else); and
the file to be whole after that."""
_OPTIONS = {
    "init_timeout": INIT_S,
    "finish_timeout": FINISH_S,
    "finish_timeout_raises": True,
    "silent": True,
    "x_skip_transaction_log": False,  # by its file a run is known to be there, and whole
    # This process is not the run: its output, code, packages and use of the machine are nobody's news.
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "disable_job_creation": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    # A table is then shown from the run's folder, which may be copied to where there is a network.
    "allow_offline_artifacts": False,
}


class WandbRun(Destination):
    """One run of a project of Weights & Biases."""

    def __init__(self, project: str) -> None:
        self._project = project
        self._run: wandb.Run | None = None
        self._turns: Mapping[str, Sequence[Any]] = {}
        self._last_step = self._rows = 0

    def begin(self, about: About) -> int:
        # Of a shell that resumes a run of its own; here it would hold each point twice.
        os.environ.pop("WANDB_RESUME", None)
        home = Path(wandb.setup().settings.wandb_dir)
        home.mkdir(parents=True, exist_ok=True)  # where this fails, wandb goes to a temporary folder unasked
        ident = hashlib.sha256(about.key.encode()).hexdigest()[:16]
        while list(home.glob(f"*run-{time.strftime('%Y%m%d_%H%M%S')}-{ident}")):
            time.sleep(0.1)  # the folder that this second would name is an earlier process's
        run = wandb.init(
            project=self._project,
            id=ident,
            name=about.name,
            config=settings(about.params, about.tags),
            reinit="create_new",  # one process exports several runs side by side
            settings=wandb.Settings(**_OPTIONS),
        )
        self._run, self._turns = run, {}
        self._last_step = self._rows = 0
        folder = self._folder()
        if run.disabled or folder.parent != home:
            self._drop()
            kept = "WANDB_MODE=disabled keeps nothing" if run.disabled else f"{home} cannot be written to"
            raise RuntimeError(kept)
        for old in home.glob(f"*run-*-{ident}"):
            if old != folder:
                shutil.rmtree(old, ignore_errors=True)
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP)
        return -1

    def send(self, points: Sequence[Point]) -> None:
        with self._sending() as run:
            for row in rows(points):
                self._log(run, row.values | {STEP: row.step, "_timestamp": row.timestamp_ms / 1000})
                self._last_step = row.step

    def turns(self, table: Mapping[str, Sequence[Any]]) -> None:
        """Sent with the end: each table that is sent stays there beside those before it."""
        self._turns = table

    def end(self, state: str, single: Sequence[Point]) -> None:
        self.send(single)
        with self._sending() as run:
            if self._turns:
                cells = [list(row) for row in zip(*self._turns.values(), strict=True)]
                table = wandb.Table(columns=list(self._turns), data=cells, allow_mixed_types=True)
                self._log(run, {"turns": table, STEP: self._last_step})
            run.summary["state"] = state
            run.finish(exit_code=0 if state == "done" else 1)
            self._check(Path(run.settings.sync_file))
        self._run = None

    def _log(self, run: wandb.Run, row: Mapping[str, Any]) -> None:
        run.log(dict(row))
        self._rows += 1

    def _check(self, file: Path) -> None:
        """That all that was sent is there: wandb closes its file soon after it has said that it is done."""
        last = time.monotonic() + FLUSH_S
        while (found := _rows_of(file)) != (self._rows, True):
            if time.monotonic() > last:
                there = f"its file has {found[0]} of {self._rows} rows and no end"
                raise RuntimeError(f"{there} (is the disk full?): {file}")
            time.sleep(0.2)

    def is_alive(self) -> bool:
        if self._run is not None and Path(self._run.settings.sync_file).exists():
            return True
        self._drop()
        return False

    def _folder(self) -> Path:
        assert self._run is not None
        return Path(self._run.settings.sync_dir)

    @contextlib.contextmanager
    def _sending(self) -> Iterator[wandb.Run]:
        """The run; where it takes no more, it is let go, so that it may be begun again in this process."""
        if self._run is None:
            raise RuntimeError("the run was not begun")
        try:
            yield self._run
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            with contextlib.suppress(Exception):
                run.finish(exit_code=1)


def _rows_of(file: Path) -> tuple[int, bool]:
    """How many rows there are, and whether the run's end is."""
    kinds = [kind for kind, _ in records(file)]
    return kinds.count("history"), "exit" in kinds
