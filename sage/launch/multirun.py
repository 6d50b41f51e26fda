"""Many composed configs: all are validated, then those that are not done run, each in its own process.

Called by the Hydra launcher `sage` (`sweeps/hydra_plugins/sage_launcher.py`), once for a plain multirun and
once a batch by a sweeper. What became of each run is appended to `LEDGER`, which the exit code is made of.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage.config.load import load
from sage.errors import ConfigError
from sage.launch.access import open_to
from sage.launch.before import refuse_before
from sage.launch.claim import identify, look_up
from sage.launch.execute import EXIT_FAILED, EXIT_TAKEN_OVER, Outcome, skipped
from sage.launch.row import Row
from sage.launch.schedule import Ended, Job, run_jobs
from sage.launch.until import DECIDED, ELSEWHERE
from sage.records.faults import has_room
from sage.records.preregistration import plan_hash
from sage.redaction import redact
from sage.signals import stop_on_signals

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sage.records.loggers.open import Exports

Engine = Callable[..., tuple[list[Ended], int]]
"""`run_jobs` of this machine, or what does the same on others: (jobs, workers, watch) to ends and signal."""
STATUS_EVERY_S = 1.0
_OLD_LOG_S = 24 * 3600.0
_LOGS = "export-"
"""Begins the names of the files that the exports of a multirun write their errors to."""
_OWN = re.compile(r"^(hydra[./]|launch\.|tracking[.=])")
"""Overrides that do not tell one run of a sweep from another."""


@dataclass(slots=True)
class Ledger:
    """Every outcome of this process's multiruns, and what was asked for: `python -m sage list` only lists the
    runs, `python -m sage confirm` holds a study's winner against its rivals."""

    rows: list[Row] = field(default_factory=list)
    list_only: bool = False
    confirm: bool = False
    common: frozenset[str] = frozenset()
    """Overrides that all runs of a study share, so that they name none of them."""
    stopped_by: int = 0
    in_blocks: bool = False
    """Whether a study is played in blocks of seeds (`sage.launch.until`)."""

    @property
    def exit_code(self) -> int:
        if self.stopped_by:
            return 128 + self.stopped_by
        latest = {row.identity.run: row for row in self.rows}  # a study tries a failed run again
        codes = {row.outcome.exit_code for row in latest.values() if row.outcome is not None} - {0}
        return EXIT_TAKEN_OVER if codes == {EXIT_TAKEN_OVER} else EXIT_FAILED if codes else 0


LEDGER = Ledger()


def launch(
    composed: Sequence[DictConfig], overrides: Sequence[Sequence[str]], engine: Engine = run_jobs
) -> list[Outcome]:
    """Run the composed configs; one outcome each, in order. Raises ConfigError before anything starts."""
    from sage.launch.table import open_board

    names = _names(overrides)
    rows = [_row(config, name) for config, name in zip(composed, names, strict=True)]
    if rows:
        open_to(rows[0].config.launch.access)
    unique = list({row.identity.run: row for row in rows}.values())
    if not LEDGER.list_only:
        _look_closer(rows, unique, engine)
    with stop_on_signals(), open_board(rows, list_only=LEDGER.list_only) as board:
        for row in unique:
            for note in row.found.notes:
                board.note(f"{row.name}: {note}")
        if not LEDGER.list_only:
            _run(unique, board, engine)
            outcomes = {row.identity.run: row.outcome for row in unique}
            for row in rows:
                row.outcome = outcomes[row.identity.run]
    LEDGER.rows += unique
    return [row.outcome or Outcome(row.found.state) for row in rows]


def _look_closer(rows: Sequence[Row], unique: Sequence[Row], engine: Engine) -> None:
    """What is found out only where runs are to start: whose heartbeat beats, and what would be refused."""
    for row in rows:
        if row.found.state == "running":  # all heartbeats are watched at once
            row.found = look_up(row.config, row.identity, wait=True)
    if engine is run_jobs:  # another machine has files and devices of its own
        with stop_on_signals():
            refuse_before([row for row in unique if row.found.action != "skip"])


def _names(overrides: Sequence[Sequence[str]]) -> list[str]:
    """What tells the runs apart: the overrides that not all of them share."""
    telling = [[word for word in words if not _OWN.match(word)] for words in overrides]
    shared = set.intersection(*map(set, telling)) if len(telling) > 1 else set(LEDGER.common)
    return [" ".join(word for word in words if word not in shared) or "(defaults)" for words in telling]


def _row(composed: DictConfig, name: str) -> Row:
    try:
        config = load(without_hydra(composed))
        plan_hash(config.launch.plan)  # a plan that is not there would fail every child
        if config.launch.until == DECIDED and not LEDGER.in_blocks:
            raise ConfigError(ELSEWHERE)
        identity = identify(config)
        return Row(name, config, identity, look_up(config, identity))
    except ConfigError as error:
        raise ConfigError(f"Nothing was started: in the run {name!r}, {error}") from error


def without_hydra(composed: DictConfig) -> DictConfig:
    """The job's part of a composed config; interpolations still see the whole."""
    from omegaconf import OmegaConf, flag_override

    with flag_override(composed, ["struct", "readonly"], [False, False]):
        OmegaConf.resolve(composed)
        composed.pop("hydra", None)
    return composed


def _run(rows: Sequence[Row], board: Any, engine: Engine) -> None:
    for row in rows:
        if row.found.action == "skip":
            row.outcome = skipped(row.found, row.identity)
    todo = [row for row in rows if row.outcome is None]
    done = _done(rows)
    if not todo and not _any_behind(rows, done):
        return
    exporter = _exporter(rows)
    if exporter is not None:
        exporter.make_up_for(done)
    if todo:
        jobs = [_job(row) for row in todo]
        watch = _Watch(todo, board, exporter)
        ends, LEDGER.stopped_by = engine(jobs, todo[0].config.launch.workers, watch)
        for row, end in zip(todo, ends, strict=True):
            if row.outcome is None:
                row.outcome = _outcome(row, end)
    if exporter is not None:
        _finish(exporter, board)


def _finish(exports: Exports, board: Any) -> None:
    board.note("finishing the export ...")
    problems = [result.error for result in exports.finish() if result.error]
    for problem in problems:
        board.note(problem)
    if not problems:  # it has nothing to tell
        exports.remove_logs()


class _Watch:
    """What happens between two polls of the jobs: rows read their folders, the board shows them."""

    def __init__(self, rows: Sequence[Row], board: Any, exporter: Exports | None) -> None:
        self._rows, self._board, self._exporter = rows, board, exporter
        self._followed: set[Path] = set()
        self._read_at = 0.0

    def __call__(self, running: Mapping[int, int], ended: Mapping[int, Ended]) -> None:
        rows = self._rows
        news = [i for i in ended if rows[i].outcome is None]
        fresh = [i for i, pid in running.items() if rows[i].pid != pid]
        for i in fresh:
            rows[i].pid = running[i]
        for i in running:
            self._announce(rows[i])
        if news or fresh or time.monotonic() - self._read_at > STATUS_EVERY_S:
            self._read_at = time.monotonic()
            for i in [*running, *news]:
                rows[i].pid = rows[i].pid or (ended[i].pid if i in ended else 0)
                self._read(rows[i])
            for i in news:
                rows[i].outcome = _outcome(rows[i], ended[i])
                self._board.ended(rows[i])
            self._board.refresh()

    def _announce(self, row: Row) -> None:
        if not row.announced and (row.pid or row.status):
            row.announced = True
            self._board.started(row)

    def _read(self, row: Row) -> None:
        row.refresh()
        if self._exporter is not None and row.folder is not None and row.folder.path not in self._followed:
            self._followed.add(row.folder.path)
            self._exporter.follow(row.folder.path)


def _done(rows: Sequence[Row]) -> list[Path]:
    """The folders of runs that were done before."""
    return [row.found.folder.path for row in rows if row.found.state == "done" and row.found.folder]


def _any_behind(rows: Sequence[Row], done: Sequence[Path]) -> bool:
    """Whether a logger lacks runs that are done."""
    from sage.records.loggers.open import any_behind

    return bool(rows) and any_behind(rows[0].config.tracking, done)


def _job(row: Row) -> Job:
    config = row.config.model_dump(mode="json")
    config["tracking"]["uri"] = redact(config["tracking"]["uri"])  # the parent exports
    request = {"config": config, "manifest_digest": row.identity.manifest_digest}
    return Job(row.name, request, row.home / "console.log")


def _outcome(row: Row, end: Ended) -> Outcome:
    """What a child's end and its folder say together; a run that died without a word is marked failed."""
    path = row.folder.path if row.folder else None
    success = row.status.success if row.status else None
    if end.exit_code is None and row.status is None:
        return Outcome("not started", row.identity.run, None, "stopped before its turn", None, EXIT_FAILED)
    if end.exit_code == 0:
        if row.status is not None:
            return Outcome(row.status.state, row.identity.run, path, "", success)
        row.found = look_up(row.config, row.identity)  # another launcher had taken it meanwhile
        return skipped(row.found, row.identity)
    if end.exit_code == EXIT_TAKEN_OVER:
        reason = _last_line(row.home / "console.log")
        return Outcome("taken over", row.identity.run, path, reason, success, EXIT_TAKEN_OVER)
    reason = _why_ended(row, end)
    if row.status is not None and row.status.state == "failed":
        reason = row.status.reason
    elif row.folder is not None and row.status is not None and row.status.state == "running" and row.pid:
        row.folder.fail_orphan(row.pid, reason)  # else nobody knows that its process is gone
    return Outcome("failed", row.identity.run, path or row.home, reason, success, EXIT_FAILED)


def _why_ended(row: Row, end: Ended) -> str:
    if end.exit_code is None:
        return "stopped"
    if end.reason:
        return end.reason
    if end.exit_code < 0:
        return f"its process was killed by signal {-end.exit_code}"
    return f"its process ended with code {end.exit_code}: {_last_line(row.home / 'console.log')}"


def _last_line(console: Path) -> str:
    try:
        lines = console.read_text(errors="replace", encoding="utf-8").strip().splitlines()
    except OSError:
        lines = []
    if lines:
        return lines[-1]
    return "no output" if has_room(console.parent) else "no output, for the disk is full"


def _exporter(rows: Sequence[Row]) -> Exports | None:
    """One export a logger for the whole multirun, where its runs want one."""
    from sage.records.loggers.open import Exports, is_tracked

    tracking = rows[0].config.tracking
    if not is_tracked(tracking):
        return None
    home = Path(rows[0].config.launch.runs_dir)
    home.mkdir(parents=True, exist_ok=True)
    _remove_old_logs(home)

    def log_of(label: str) -> Path:
        prefix = f"{_LOGS}{label}-"
        with tempfile.NamedTemporaryFile(dir=home, prefix=prefix, suffix=".log", delete=False) as log:
            return Path(log.name)

    return Exports(tracking, log_of)


def _remove_old_logs(home: Path) -> None:
    """What multiruns that were killed have left; one that is at work writes into its own, or is a day old."""
    for log in (*home.glob(f"{_LOGS}*.log"), *home.glob("mlflow-*.log")):
        with suppress(OSError):
            if time.time() - log.stat().st_mtime > _OLD_LOG_S:
                log.unlink()
