"""A run directory into a logger that is not MLflow, step by step; its package is imported when it is opened.

    python -m sage.records.loggers.export runs/<digest12>/attempt_1 --logger tensorboard

What was sent is noted in `logger_<name>.json` of the run's folder, after the logger has it. Where the run has
gone back to an earlier checkpoint since, the note no longer fits, and the destination is told that it holds
another history (`About.held` is -1).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from sage.config.components import conf_dir, register_components
from sage.config.registry import loggers
from sage.locks import locked
from sage.records.files import Unreadable, read_object
from sage.records.loggers import curves, labels, samples
from sage.records.loggers.base import About, Destination, Logger, Point
from sage.records.loggers.by_hand import Ways, export_parser, run_export
from sage.records.loggers.note import note_name, read_config, tracking_of
from sage.records.rundir import RunDir
from sage.redaction import redact, redact_data

TURNS_EVERY_S = 30.0


class StepwiseExport:
    """Brings one run of a logger up to date with its directory; `sync` may be called any number of times."""

    def __init__(self, run_dir: Path, label: str) -> None:
        self.run, self._label = RunDir(run_dir), label
        self._logger: Logger | None = None
        self._destination: Destination | None = None
        self._last_step = -1
        self._sent: set[Point] = set()
        self._seen: list[str] | None = None
        self._turns_not_before = 0.0

    def sync(self, final: bool) -> str:
        """Send what is new (`final`: everything, and the end); returns the run's name in the logger."""
        parts = self.run.path / "parts"
        present = sorted(os.listdir(parts)) if parts.exists() else []
        if not final and present == self._seen:
            return labels.key(self.run)
        self._logger = self._logger or logger_of(self.run, self._label)  # before a file has the label's name
        with locked(self.run.path / f".{note_name(self._label)}.lock"):
            try:
                self._send(final, self._logger)
            except BaseException:
                self._destination = None  # nobody knows what has arrived: begin again
                raise
        self._seen = present
        return labels.key(self.run)

    def _send(self, final: bool, logger: Logger) -> None:
        destination = self._begun(logger)
        new = [point for point in curves.points(self.run, self._last_step) if point not in self._sent]
        destination.send(new)
        self._sent.update(new)
        self._last_step = max([self._last_step, *(p.step for p in new if p.key == curves.MARKER)])
        if final or time.monotonic() >= self._turns_not_before:
            self._turns_not_before = time.monotonic() + TURNS_EVERY_S
            destination.turns(redact_data(samples.turn_table(self.run)))
        complete = False
        if final:
            status = self.run.status()
            state = status.state if status else "running"
            destination.end(state, curves.final_points(self.run))
            self._destination, complete = None, state == "done"
        step = max(self._last_step, 0)
        note = {"step": step, "time": curves.step_times(self.run).get(step), "complete": complete}
        self.run.write_json(note_name(self._label), note)

    def _begun(self, logger: Logger) -> Destination:
        """The destination, with the run found or made."""
        if self._destination is None or not self._destination.is_alive():
            destination = logger.open()
            self._sent = set()
            self._last_step = destination.begin(self._about())
            self._destination = destination
        return self._destination

    def _about(self) -> About:
        tags, times = redact_data(labels.tags(self.run)), curves.step_times(self.run)
        again = f"-attempt_{self.run.attempt}" if self.run.attempt != 1 else ""
        name = tags.pop("mlflow.runName") + again
        note = read_object(self.run.path / note_name(self._label)) or {}
        step = note.get("step", -1)
        held = step if times.get(step) == note.get("time") else -1
        params = redact_data(labels.params(self.run))
        return About(labels.key(self.run), name, params, tags, times[0], held)


def logger_of(run: RunDir, label: str) -> Logger:
    """The logger as the run's own config has it, else as `conf/tracking/<label>.yaml` does. Raises Unreadable
    where neither has one of that name."""
    config = read_config(run.path)
    settings = (tracking_of(run.path).get("loggers") or {}).get(label) or _shipped().get(label)
    if settings is None:
        raise Unreadable(
            f"{label!r} is no logger that ships ({', '.join(sorted(_shipped()))}), and "
            f"the run's config.yaml has no tracking.loggers.{label}"
        )
    register_components(config.get("plugins") or ())
    logger = loggers.build(settings)
    if not isinstance(logger, Logger):
        raise Unreadable(f"tracking.loggers.{label}: {type(logger).__name__} is no Logger")
    return logger


def _shipped() -> dict[str, Any]:
    """Settings of the loggers that ship, by name: for runs that were made without them."""
    found: dict[str, Any] = {}
    for option in (conf_dir() / "tracking").glob("*.yaml"):
        found |= (yaml.safe_load(option.read_text(encoding="utf-8")) or {}).get("loggers") or {}
    return found


def explain(error: Exception, label: str) -> str:
    """What went wrong with a logger, without a traceback."""
    text = " ".join(redact(str(error)).split())[:200].rstrip(".")
    if isinstance(error, Unreadable):
        return text
    if isinstance(error, ImportError):
        ours = label in loggers.names() and loggers.get(label).__module__.startswith("sage.")
        way = f"; install it with `pip install 'sage-opd[{label}]'`" if ours else ""
        return f"its package cannot be imported ({text}){way}"
    return f"it answered {type(error).__name__}: {text}".removesuffix(": ")


def main(arguments: list[str] | None = None) -> int:
    """Command line; exits 1 where any run directory could not be exported."""
    parser = export_parser("python -m sage.records.loggers.export", __doc__)
    told = "a name below tracking.loggers of the run's config, or one that ships"
    parser.add_argument("--logger", required=True, help=told)

    def ways(options: argparse.Namespace) -> Ways:
        label = options.logger
        return Ways(
            lambda path: StepwiseExport(path, label),
            lambda path: f"{StepwiseExport(path, label).sync(final=True)} in {label}",
            lambda error: explain(error, label),
        )

    return run_export(parser, arguments, ways)


if __name__ == "__main__":
    sys.exit(main())
