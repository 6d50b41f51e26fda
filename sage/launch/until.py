"""`launch.until=decided`: a study is played in blocks of seeds and looked at after each, until it knows.

When to look and what decides is in the frozen plan that the study's runs serve (`looks`,
docs/guide/studies.md). The look itself is `python -m analysis plan look`, in a process of its own: nothing
here computes statistics. It writes what it saw into `runs/ledger.jsonl`, and there it is read.

Invariant: no run of a block starts before the look after the block before it is in the ledger; and a study
whose last look decided it starts nothing more, however often its line is typed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sage.errors import ConfigError
from sage.records import run_ledger
from sage.records.preregistration import plan_file, plan_hash

Launch = Callable[[list[list[str]]], Sequence[Any]]
"""Runs jobs (lists of overrides) and returns what became of them."""
UNTIL, PLAN, SEED, DECIDED = "launch.until", "launch.plan", "seed", "decided"
ELSEWHERE = (
    "launch.until=decided belongs to a study whose runs serve a frozen plan with looks: "
    "python -m sage -m study=… launch.until=decided (docs/guide/studies.md)."
)


class Multirun(Protocol):
    """What of a multirun matters here (`sage.launch.multirun.LEDGER`)."""

    list_only: bool
    in_blocks: bool

    @property
    def exit_code(self) -> int:
        """0 while no run has failed."""
        ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the runs of one plan are looked at. `word` is what `launch.plan` says."""

    word: str
    path: Path
    sha256: str
    seeds: tuple[int, ...]
    after: tuple[int, ...]
    runs_dir: Path

    @property
    def taken(self) -> int:
        """How many of the planned looks are in the ledger beside the runs."""
        counts = {entry.get("seeds") for entry in self._lines}
        return next((k for k, n in enumerate(self.after) if n not in counts), len(self.after))

    @property
    def is_over(self) -> bool:
        """Whether a look has decided the study."""
        return any(entry.get("planned") and entry.get("decided") for entry in self._lines)

    @property
    def _lines(self) -> list[dict[str, Any]]:
        return [e for e in run_ledger.read(self.runs_dir).of("look") if e["digest"] == self.sha256]

    def due(self) -> tuple[int, ...]:
        """The seeds that have to be complete for the next look, or that a decided study has played."""
        taken = self.taken
        return self.seeds[: self.after[taken - 1 if self.is_over else min(taken, len(self.after) - 1)]]

    def looks_on(self) -> bool:
        """Take the next look; whether the study goes on after it. Raises ConfigError where it cannot be
        taken."""
        seeds = self.after[self.taken]
        command = [sys.executable, "-m", "analysis", "plan", "look", str(self.path)]
        command += ["--runs", str(self.runs_dir), "--seeds", str(seeds)]
        sys.stdout.flush()
        done = subprocess.run(command, stderr=subprocess.PIPE, encoding="utf-8", errors="replace")
        if done.returncode or self.taken <= self.after.index(seeds):
            lines = done.stderr.strip().splitlines()
            raise ConfigError(
                f"The look of {self.word} after {seeds} seeds was not taken: "
                f"{lines[-1] if lines else 'analysis said nothing'}"
            )
        return not self.is_over


def schedule_of(word: str, runs_dir: Path) -> Schedule:
    """Reads a plan's seeds and looks. Raises ConfigError where it has none, or is not frozen beside the
    runs."""
    import yaml

    sha256, path = plan_hash(word), plan_file(word)
    assert sha256 is not None
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    looks = content.get("looks") if isinstance(content, dict) else None
    if not looks:
        raise ConfigError(
            f"launch.until=decided: the plan {word} has no looks, so nothing says when its study may stop. A "
            "new plan with looks: {after: [3, 5, …], futility: 0.05} does (docs/guide/studies.md)."
        )
    if not any(entry["digest"] == sha256 for entry in run_ledger.read(runs_dir).of("freeze")):
        raise ConfigError(
            f"launch.until=decided: the plan {word} is not frozen beside these runs: python -m analysis plan "
            f"freeze {path} --runs {runs_dir}"
        )
    try:
        return Schedule(word, path, sha256, tuple(content["seeds"]), tuple(looks["after"]), runs_dir)
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"launch.until=decided: the seeds or looks of {path} cannot be read; python -m analysis plan "
            "check says what is wrong."
        ) from error


def setting(jobs: Sequence[Sequence[str]], key: str, composed: Any) -> str:
    """A setting that all jobs share: what was typed, else what the config says."""
    return _word(jobs[0], key) or str(composed) if jobs else str(composed)


def conduct(jobs: list[list[str]], launch: Launch, runs_dir: Path, multirun: Multirun) -> list[Any]:
    """Run a study's jobs until each of its plans is decided; what became of those that ran.

    Jobs that serve no plan run with the first block. Raises ConfigError before anything starts where no plan
    is served, one has no looks or is not frozen beside the runs, or a seed of it is not among the jobs; and
    where a look cannot be taken.
    """
    plans = _schedules(jobs, runs_dir)
    multirun.in_blocks = True
    if multirun.list_only:
        print("Looked at after these numbers of seeds, and played no further than it takes:")
        print("\n".join(f"  {plan.word}: {', '.join(map(str, plan.after))}" for plan in plans), flush=True)
        return list(launch(jobs))
    batch, results = [job for job in jobs if _word(job, PLAN) is None], list[Any]()
    listed: list[list[str]] = []
    while plans:
        batch += [job for plan in plans for job in _of_seeds(jobs, plan) if job not in listed]
        results += launch(batch)
        listed, batch = listed + batch, []
        plans = [plan for plan in plans if not plan.is_over]
        if plans and multirun.exit_code:
            print("Runs are missing, so nothing was looked at; the same line goes on with them.", flush=True)
            break
        plans = [plan for plan in plans if plan.looks_on()]
    return results


def _schedules(jobs: Sequence[Sequence[str]], runs_dir: Path) -> list[Schedule]:
    words = list(dict.fromkeys(word for job in jobs if (word := _word(job, PLAN)) is not None))
    if not words:
        raise ConfigError(ELSEWHERE)
    plans = [schedule_of(word, runs_dir) for word in words]
    for plan in plans:
        there = {_word(job, SEED) for job in jobs if _word(job, PLAN) == plan.word}
        if lacking := [str(seed) for seed in plan.seeds if str(seed) not in there]:
            raise ConfigError(
                f"launch.until=decided plays the seeds of {plan.word} in its order, and this line leaves out "
                f"{', '.join(lacking)}; leave seed= to the study."
            )
    return plans


def _of_seeds(jobs: Sequence[list[str]], plan: Schedule) -> list[list[str]]:
    """The plan's jobs of the seeds that are due, in the plan's order of seeds."""
    mine = [job for job in jobs if _word(job, PLAN) == plan.word]
    return [job for seed in plan.due() for job in mine if _word(job, SEED) == str(seed)]


def _word(job: Sequence[str], key: str) -> str | None:
    """The value that a job's last override of `key` has; None where it has none."""
    values = [value for name, _, value in (word.partition("=") for word in job) if name == key]
    return values[-1] if values else None
