"""The loop of a study: ask for points, run them on every seed, tell what they were worth, until the total.

Invariant: a point's runs are ordinary runs with identities of their own, so whatever was finished before a
crash is found done, and the study's store says only what the records say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.trial import Trial, TrialState

from sage.launch.study import literal
from sage.records.rundir import RunDir
from sage.sweep import store
from sage.sweep.settings import SweepSettings
from sage.sweep.value import RunValue, value_of

MAX_FAILURES = 3
"""Trials that fail one after another before the study stops: then it is not the point that is at fault."""

Overrides = list[str]
RunAll = Callable[[Sequence[Overrides]], Sequence[Path | None]]
"""Runs a batch of jobs through the launcher; each run's folder, None where it never got one."""


@dataclass(slots=True)
class _Live:
    """A trial being run. `values`: by seed."""

    trial: Trial
    values: dict[int, RunValue] = field(default_factory=dict)
    failed: bool = False
    pruned: bool = False


@dataclass(slots=True)
class Search:
    """One invocation of a study. `stopped` says whether a signal asked us to end."""

    settings: SweepSettings
    study: optuna.Study
    run_all: RunAll
    stopped: Callable[[], bool]
    say: Callable[[str], None]
    failures: int = 0

    def run(self) -> None:
        """Go on until `n_trials` are finished, a signal comes, or trials keep failing."""
        total = self.settings.n_trials
        cut_off = store.tidy(self.study)
        store.queue_given_points(self.study, self.settings)
        before = len(store.finished(self.study))
        if before or cut_off:
            again = f", {cut_off} cut off and tried again" if cut_off else ""
            self.say(f"Study {self.settings.study}: {before} of {total} trials finished before{again}.")
        while (missing := total - len(store.finished(self.study))) > 0:
            batch = self._ask(min(self.settings.parallel, missing))
            if not batch:
                self.say("Every point of the grid has been tried.")
                return
            self._run(batch)
            for live in batch:
                self._tell(live)
            if self.stopped() or self.failures >= MAX_FAILURES:
                return

    def _ask(self, count: int) -> list[_Live]:
        space = store.distributions(self.settings)
        batch = []
        for _ in range(count):
            if self.settings.sampler.name == "grid" and not store.waits(self.study):
                break
            number = len(self.study.get_trials(deepcopy=False))
            self.study.sampler = store.make_sampler(self.settings, number)
            batch.append(_Live(self.study.ask(space)))
        return batch

    def _run(self, batch: list[_Live]) -> None:
        """All seeds at once, or with pruning one seed after another."""
        seeds = self.settings.seeds
        for group in [[seed] for seed in seeds] if self.settings.pruning else [list(seeds)]:
            self._run_seeds([live for live in batch if not live.failed and not live.pruned], group)
            if self.stopped():
                for live in batch:
                    live.failed = live.failed or len(live.values) < len(seeds)
                return
            if self.settings.pruning and group[0] != seeds[-1]:
                for live in batch:
                    live.pruned = live.pruned or (not live.failed and self._is_worse(live, group[0]))

    def _run_seeds(self, batch: list[_Live], seeds: Sequence[int]) -> None:
        wanted = [(live, seed) for live in batch for seed in seeds]
        folders = self._settled([self._overrides(live, seed) for live, seed in wanted])
        for (live, seed), folder in zip(wanted, folders, strict=True):
            value = value_of(folder, self.settings.objectives) if folder is not None else None
            if value is None:
                live.failed = True
            else:
                live.values[seed] = value

    def _settled(self, jobs: Sequence[Overrides]) -> list[Path | None]:
        """Folders of the jobs' runs; one that a dying process still holds is waited for and run again."""
        folders = list(self.run_all(jobs))
        while not self.stopped():
            held = [i for i, folder in enumerate(folders) if folder is not None and _is_held(folder)]
            if not held:
                break
            time.sleep(2.0)
            for i, folder in zip(held, self.run_all([jobs[i] for i in held]), strict=True):
                folders[i] = folder
        return folders

    def _overrides(self, live: _Live, seed: int) -> Overrides:
        return [*point_overrides(live.trial.params), f"seed={seed}"]

    def _is_worse(self, live: _Live, seed: int) -> bool:
        """Report the games of `seed` and ask the pruner; game i of the k-th seed is step k × games + i."""
        games = sorted(live.values[seed].games.items())
        start = self.settings.seeds.index(seed) * len(games)
        for i, (_, won) in enumerate(games):
            live.trial.report(won, start + i)
        return bool(live.trial.should_prune())

    def _tell(self, live: _Live) -> None:
        trial, runs = live.trial, {str(seed): value.run for seed, value in live.values.items()}
        trial.set_user_attr("runs", runs)
        name = f"trial {trial.number}: {show(trial.params)}"
        if live.failed or not live.values:
            self.study.tell(trial, state=TrialState.FAIL)
            again = self.stopped() or "again" not in trial.user_attrs
            if again:
                store.queue_again(self.study, self.study.trials[trial.number])
            self.failures += 0 if self.stopped() else 1
            self.say(f"{name}: no value{', to be tried again' if again else ''}")
            return
        self.failures = 0
        figures = [fmean(column) for column in zip(*(v.figures for v in live.values.values()), strict=True)]
        trial.set_user_attr("by_seed", {str(s): list(v.figures) for s, v in live.values.items()})
        trial.set_user_attr("pruned", live.pruned)
        # Told as complete with the mean so far, as Optuna's guide to this pruner has it: a pruned state would
        # keep the last game's 0 or 1 as the trial's value.
        self.study.tell(trial, figures)
        seeds = f"{len(live.values)} of {len(self.settings.seeds)} seeds, pruned" if live.pruned else ""
        self.say(f"{name}: {show_values(self.settings, figures)}{f' ({seeds})' if seeds else ''}")


def point_overrides(params: dict[str, Any]) -> Overrides:
    """Hydra overrides of one point of the space."""
    return [f"{name}={literal(value)}" for name, value in params.items()]


def show(params: dict[str, Any]) -> str:
    """A point for people: `confidence.tau=0.412`."""
    shown = {k: f"{v:.4g}" if isinstance(v, float) else literal(v) for k, v in params.items()}
    return " ".join(f"{name}={value}" for name, value in shown.items())


def show_values(settings: SweepSettings, figures: Sequence[float]) -> str:
    """The objectives of a trial for people."""
    words = []
    for objective, figure in zip(settings.objectives, figures, strict=True):
        if objective.metric == "success":
            words.append(f"{100 * figure:.1f} % of {objective.split}")
        else:
            words.append(f"{figure:,.0f} teacher tokens")
    return ", ".join(words)


def _is_held(folder: Path) -> bool:
    return folder.name.startswith("attempt_") and RunDir(folder).is_at_work()
