"""Writes down what happens in a run, and tells whoever watches: evaluations, steps, sentences.

Only one process writes; in the others a recorder answers what has been recorded, and does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sage.episode import Episode, Label, Status, TrainingEpisode
from sage.records.clock import PhaseClock
from sage.records.ledger import TEACHER
from sage.records.rows import Row, RunKey, episode_rows, step_row, token_rows
from sage.records.rundir import RunDir
from sage.records.tables import Tables
from sage.records.trouble import fallback_warning


@dataclass(frozen=True, slots=True)
class StepReport:
    """One optimizer step: `row` has columns of the steps table, `batch` the episodes of all processes."""

    step: int
    row: dict[str, Any]
    batch: list[TrainingEpisode]

    @property
    def through_teacher(self) -> int:
        """Tokens that went through the teacher, whatever for."""
        return sum(self.row[name] for name in TEACHER.values())


class Watcher(Protocol):
    """What is told of progress; see `sage.console`."""

    def begin(self, what: str, total: int | None = None) -> None: ...
    def advance(self, count: int = 1, note: str = "") -> None: ...
    def end(self, note: str = "") -> None: ...
    def step(self, row: Mapping[str, Any]) -> None: ...
    def say(self, text: str) -> None: ...


class Recorder:
    """The tables, log and heartbeat of one attempt.

    done: steps of the checkpoint that the run goes on from; what was recorded after it is taken back.
    """

    def __init__(
        self, folder: RunDir, key: RunKey, view: Watcher, clock: PhaseClock, *, done: int, writes: bool
    ) -> None:
        self.folder, self.key, self.view, self.clock, self.writes = folder, key, view, clock, writes
        self.tables = Tables(folder.path)
        if writes:
            self.tables.resume(done)
        self._judged, self._fallback, self._warned = 0, 0, False

    def say(self, line: str) -> None:
        """A sentence for the log and for whoever watches."""
        self.folder.log(line)
        self.view.say(line)

    def needs(self, step: int, split: str) -> bool:
        """False where a resumed run has this evaluation already; every process answers alike."""
        return not self.tables.evaluated(step, split)

    def evaluating(self, step: int, split: str, games: int) -> Callable[[Episode], None]:
        """An evaluation begins; the callback takes each episode as it ends."""
        self.view.begin(f"evaluating {split} after {step} steps", games)
        won = 0

        def count(episode: Episode) -> None:
            nonlocal won
            won += episode.won
            self.view.advance(1, f"{won} won")

        return count

    def evaluated(self, step: int, split: str, episodes: Sequence[Episode]) -> None:
        """An evaluation has ended, and counts from now on."""
        if not self.writes:
            return
        turns, rows = episode_rows(self.key, episodes, phase="eval", step=step)
        self.tables.append_evaluation(step, split, turns=turns, episodes=rows)
        ok = [e for e in episodes if e.status.is_ok]
        won = sum(e.won for e in ok)
        self.folder.beat(step=step, success=won / len(ok) if ok else None, seconds=self.clock.totals())
        full = sum(e.status is Status.CONTEXT_FULL for e in ok)
        line = f"{won} of {len(ok)} won"
        line += f", {full} cut by the context" if full else ""
        line += f", {len(episodes) - len(ok)} not ok" if len(ok) < len(episodes) else ""
        self.folder.log(f"evaluation of {split} after {step} steps: {line}")
        self.view.end(line)

    def stepped(self, report: StepReport) -> None:
        """An optimizer step is made."""
        step, batch = report.step, report.batch
        turns, episodes = episode_rows(
            self.key,
            [one.episode for one in batch],
            phase="train",
            step=step - 1,
            decisions=[one.decisions for one in batch],
            scores=[one.scores for one in batch],
            effective_weights=[one.effective_weights for one in batch],
        )
        row = step_row(self.key, step, **report.row)
        tokens = [token for one in batch for token in token_rows(self.key, one, step=step - 1)]
        self.tables.append_step(step, turns=turns, episodes=episodes, row=row, tokens=tokens)
        if broken := row.get("demonstration_not_ok"):
            self.say(f"{broken} of the demonstrations of training step {step} broke and taught nothing")
        self._warn_of_the_judge(turns)
        self.folder.beat(step=step, seconds=self.clock.totals())
        self.view.step(row)

    def _warn_of_the_judge(self, turns: Sequence[Row]) -> None:
        """Once, at the first step after which too many replies cannot be read."""
        asked = [row["label"] for row in turns if row.get("judge_cached") is not None]
        self._judged, self._fallback = self._judged + len(asked), self._fallback + asked.count(Label.FALLBACK)
        warning = fallback_warning(self._judged, self._fallback)
        if warning and not self._warned:
            self._warned = True
            self.say(warning)
