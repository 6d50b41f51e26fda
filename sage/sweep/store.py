"""The Optuna study in its store: opened, checked, and cleared of what a dead sweeper left.

Invariant: a trial counts as finished only when its value (or its pruning) was told; one that was cut off is
marked failed and its point is tried again before any new one.
"""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from sage.config.moved import modern
from sage.config.plain import flatten
from sage.errors import ConfigError, reason_of
from sage.redaction import learn, redact
from sage.sweep.settings import Choices, Range, SweepSettings

_DEFINITION = "sage.definition"
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def storage_url(settings: SweepSettings, runs_dir: Path) -> str:
    """Where the study lives, as optuna and optuna-dashboard name it."""
    if settings.storage is not None:
        return settings.storage
    return f"sqlite:///{(runs_dir / 'studies.db').resolve()}"


def open_storage(url: str) -> Any:
    """An Optuna storage. Raises ConfigError where it cannot be reached."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    learn(url)
    try:
        if url.startswith("journal:"):
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend

            path = Path(url.removeprefix("journal:"))
            path.parent.mkdir(parents=True, exist_ok=True)
            return JournalStorage(JournalFileBackend(str(path)))
        if url.startswith("sqlite:///"):
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        return optuna.storages.RDBStorage(url)
    except Exception as error:
        reason = reason_of(error)
        raise ConfigError(
            f"The study's storage {redact(url)} cannot be opened ({reason}); hydra.sweeper.storage is null "
            "(SQLite beside the runs), journal:<file>, or the URL of a database that is up."
        ) from error


def open_study(settings: SweepSettings, url: str, base: Mapping[str, Any]) -> optuna.Study:
    """The study, new or gone on with. `base` is what all of its runs have in common.

    Raises ConfigError where it was defined otherwise before, naming what differs.
    """
    storage = open_storage(url)
    study = optuna.create_study(
        study_name=settings.study,
        storage=storage,
        sampler=make_sampler(settings, 0),
        pruner=_pruner(settings),
        directions=[objective.direction for objective in settings.objectives],
        load_if_exists=True,
    )
    definition = json.loads(json.dumps({**settings.definition(), "config": base}))
    known = study.user_attrs.get(_DEFINITION)
    if known is None or not study.get_trials(deepcopy=False):
        study.set_user_attr(_DEFINITION, definition)
    elif (theirs := _as_today(known)) != (mine := _as_today(definition)):
        mine, theirs = flatten(mine), flatten(theirs)
        differ = sorted(k for k in mine | theirs if mine.get(k, KeyError) != theirs.get(k, KeyError))
        shown = ", ".join(differ[:6]) + (f" and {len(differ) - 6} more" if len(differ) > 6 else "")
        raise ConfigError(
            f"The study {settings.study!r} in {redact(url)} was begun with other settings ({shown}), so its "
            "trials cannot be compared with new ones: restore them, or name another hydra.sweeper.study."
        )
    return study


def _as_today(definition: Mapping[str, Any]) -> dict[str, Any]:
    """With the common settings as they are called now; a study may have been begun before."""
    return {**definition, "config": modern(definition.get("config", {}))[0]}


def tidy(study: optuna.Study) -> int:
    """Mark trials that a dead sweeper left running as failed and queue their points again; how many."""
    stale = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.RUNNING]
    for trial in stale:
        study.tell(trial.number, state=TrialState.FAIL)
        queue_again(study, trial)
    return len(stale)


def queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """The point of a trial that gave no value is tried once more."""
    if trial.params:
        study.enqueue_trial(trial.params, user_attrs={"again": trial.number}, skip_if_exists=False)


def queue_given_points(study: optuna.Study, settings: SweepSettings) -> None:
    """The baselines, and for `grid` every point of it; those that the study has seen already are left out.

    Optuna's own grid sampler wants to end the study itself, which only its own loop allows.
    """
    seen = [t.system_attrs.get("fixed_params", t.params) for t in study.get_trials(deepcopy=False)]
    points: list[dict[str, Any]] = list(settings.baselines)
    if settings.sampler.name == "grid":
        values = grid(settings)
        points += [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]
    for point in points:
        if point not in seen:
            study.enqueue_trial(point)
            seen.append(point)


def waits(study: optuna.Study) -> bool:
    """True where a queued point has not been tried."""
    return any(t.state == TrialState.WAITING for t in study.get_trials(deepcopy=False))


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that count toward `n_trials`, in order."""
    return [t for t in study.get_trials(deepcopy=False) if t.state in FINISHED]


def distributions(settings: SweepSettings) -> dict[str, Any]:
    """The space as Optuna's distributions."""
    return {name: _distribution(part) for name, part in settings.space.items()}


def _distribution(part: Range | Choices) -> Any:
    if isinstance(part, Choices):
        return optuna.distributions.CategoricalDistribution(part.choices)
    if part.integer:
        step = int(part.step or 1)
        return optuna.distributions.IntDistribution(int(part.low), int(part.high), log=part.log, step=step)
    return optuna.distributions.FloatDistribution(part.low, part.high, log=part.log, step=part.step)


def grid(settings: SweepSettings) -> dict[str, list[Any]]:
    """Every value of every setting, for the sampler `grid`."""
    values: dict[str, list[Any]] = {}
    for name, part in settings.space.items():
        if isinstance(part, Choices):
            values[name] = list(part.choices)
        else:
            step = part.step or 1.0
            count = int((part.high - part.low) / step + 1e-9) + 1
            made = [round(part.low + i * step, 12) for i in range(count)]
            values[name] = [int(v) for v in made] if part.integer else made
    return values


def make_sampler(settings: SweepSettings, number: int) -> Any:
    """The sampler for the draw of trial `number`. Raises ConfigError where a package is missing.

    Seeded by the study's seed and the number, so that a study that was interrupted neither draws its first
    points again nor draws others than an undisturbed one.
    """
    how = settings.sampler
    seed = int(np.random.SeedSequence([how.seed, number]).generate_state(1)[0])
    makers: dict[str, Callable[[], Any]] = {
        "tpe": lambda: optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=how.startup_trials, multivariate=True, constant_liar=True
        ),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        "grid": lambda: optuna.samplers.RandomSampler(seed=seed),  # all of its points are queued
        "cmaes": lambda: optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=how.startup_trials),
        "nsga2": lambda: optuna.samplers.NSGAIISampler(seed=seed, population_size=max(2, how.startup_trials)),
    }
    try:
        if how.name == "cmaes":
            import cmaes  # noqa: F401  (Optuna would look for it in the middle of the study)
        return makers[how.name]()
    except ImportError as error:
        raise ConfigError(
            f"The sampler {how.name} needs the package {error.name!r}: pip install 'sage-opd[sweep]'."
        ) from error


def _pruner(settings: SweepSettings) -> Any:
    if settings.pruning is None:
        return optuna.pruners.NopPruner()
    try:
        import scipy.stats  # noqa: F401
    except ImportError as error:
        raise ConfigError("Pruning needs scipy: pip install 'sage-opd[sweep]'.") from error
    return optuna.pruners.WilcoxonPruner(p_threshold=settings.pruning.p)
