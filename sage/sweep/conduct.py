"""From the command line of a study to its search, plan or confirmation; called by the sweeper plugin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sage.config.load import load
from sage.config.moved import new_name
from sage.config.schema import RunConfig
from sage.errors import ConfigError
from sage.launch.multirun import LEDGER, without_hydra
from sage.redaction import redact
from sage.sweep.settings import SweepSettings, read


def conduct(section: dict[str, Any], arguments: list[str], launcher: Any, context: Any, config: Any) -> None:
    """Search, list or confirm one study. Raises ConfigError before anything starts."""
    given, seeds = split_arguments(arguments)
    if seeds is not None:
        section = {**section, "seeds": seeds}
    settings = read(section)
    common = [*settings.fixed, *given]

    def composed(overrides: Sequence[str]) -> RunConfig:
        return load(without_hydra(context.config_loader.load_sweep_config(config, list(overrides))))

    base = _checked(settings, common, composed)
    runs_dir = Path(base.launch.runs_dir)
    LEDGER.common = frozenset(common)

    def run_all(jobs: Sequence[list[str]]) -> list[Path | None]:
        # Hydra numbers the jobs only for folders that we do not use.
        returns = launcher.launch([[*common, *job] for job in jobs], initial_job_idx=0)
        return [Path(r.working_dir) if r.working_dir else None for r in returns]

    from sage.locks import LockTimeout, locked
    from sage.sweep import store

    url = store.storage_url(settings, runs_dir)
    study = store.open_study(settings, url, _fields(base, settings))
    if LEDGER.list_only:
        _print_state(settings, study, url)
        return
    runs_dir.mkdir(parents=True, exist_ok=True)
    try:
        with locked(runs_dir / f".{settings.study}.lock", timeout_s=0):
            if LEDGER.confirm:
                from sage.sweep.confirm import confirm

                confirm(settings, study, run_all)
                return
            from sage.sweep.search import Search

            try:
                Search(settings, study, run_all, lambda: bool(LEDGER.stopped_by), _say).run()
            finally:
                _print_state(settings, study, url)
                if base.tracking.mlflow:
                    from sage.sweep.export import export_study

                    export_study(settings, study, base.tracking, runs_dir, _say, _labels(common, base))
    except LockTimeout as error:
        raise ConfigError(
            f"Another process is working on the study {settings.study!r} in {runs_dir}; one sweeper at a "
            "time schedules its trials (launch.workers says how many runs go side by side)."
        ) from error


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[int] | None]:
    """The overrides of every run, and the seeds where `seed=0,1,2` (or one seed) was typed."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    given: list[str] = []
    seeds: list[int] | None = None
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        if override.key_or_group == "seed":
            values = (
                list(override.sweep_string_iterator()) if override.is_sweep_override() else [override.value()]
            )
            if not all(str(value).lstrip("-").isdigit() for value in values):
                raise ConfigError(f"seed={values} are no whole numbers.")
            seeds = [int(str(value)) for value in values]
        elif override.is_sweep_override():
            raise ConfigError(
                f"{override.input_line!r} lists several values, and a study takes its points from its space; "
                f"put {override.key_or_group!r} into hydra.sweeper.space, or give one value."
            )
        else:
            given.append(str(override.input_line))
    return given, seeds


def _checked(settings: SweepSettings, common: list[str], composed: Any) -> RunConfig:
    """The common config; composing one point and each reference shows a wrong name before any run."""
    from sage.sweep.search import point_overrides
    from sage.sweep.settings import Choices

    base: RunConfig = composed(common)
    if base.task != "train":
        raise ConfigError(f"A study trains in each of its runs, and task={base.task}.")
    evaluated = set(base.evaluation.splits)
    for objective in settings.objectives:
        if objective.metric == "success" and objective.split not in evaluated:
            raise ConfigError(
                f"The study reads success on {objective.split}, and its runs evaluate "
                f"{', '.join(sorted(evaluated))}: add it to evaluation.splits."
            )
    lows = {n: p.choices[0] if isinstance(p, Choices) else _low(p) for n, p in settings.space.items()}
    for point in [lows, *settings.baselines]:
        composed([*common, *point_overrides(point)])
    for overrides in settings.references.values():
        composed([*common, *overrides])
    return base


def _low(part: Any) -> float | int:
    return int(part.low) if part.integer else float(part.low)


def _fields(base: RunConfig, settings: SweepSettings) -> dict[str, Any]:
    """What all runs of the study share: the base config without what the space and the seeds vary."""
    from sage.config.plain import flatten

    varied = {"seed", *(new_name(setting) or setting for setting in settings.space)}
    fields = flatten(base.digest_fields())
    return {k: v for k, v in fields.items() if k not in varied and k.split(".")[0] not in varied}


def _labels(common: Sequence[str], base: RunConfig) -> dict[str, str]:
    """What the runs of the study belong to beside it: the budget on its line and the plan."""
    budgets = [word.partition("=")[2] for word in common if word.startswith("budget=")]
    labels = {"budget": budgets[-1] if budgets else "", "plan": base.launch.plan or ""}
    return {name: value for name, value in labels.items() if value}


def _say(line: str) -> None:
    print(line, flush=True)


def _print_state(settings: SweepSettings, study: Any, url: str) -> None:
    """Where the study stands, and how to look at it."""
    from sage.sweep import store
    from sage.sweep.search import show, show_values

    done = store.finished(study)
    pruned = sum(bool(t.user_attrs.get("pruned")) for t in done)
    shown = f" ({pruned} pruned)" if pruned else ""
    _say(f"Study {settings.study}: {len(done)} of {settings.n_trials} trials finished{shown}.")
    if not done:
        return
    best = study.best_trials[:8] if len(settings.objectives) > 1 else [study.best_trial]
    for trial in best:
        _say(f"  best: trial {trial.number}, {show(trial.params)}: {show_values(settings, trial.values)}")
    if len(settings.objectives) == 1:
        seeds = len(settings.seeds)
        _say(
            f"  The best of {len(done)} looks better on {seeds} seed{'s' * (seeds > 1)} than it is: "
            "python -m sage confirm sweep=..."
        )
    _say(f"Dashboard: optuna-dashboard {redact(url.removeprefix('journal:'))}")
