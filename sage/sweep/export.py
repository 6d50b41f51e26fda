"""A study as one parent run in MLflow, a child per trial, and its plots; sent by a process of its own.

The plots and the request are files below `<runs_dir>/studies/<study>/`. `sage.records.mlflow.study` sends
them, and can be called again at any time: it finds what it made before by tags.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sage.config.schema import TrackingSettings
from sage.records.mlflow.store import SHORT_RETRIES, resolve_uri
from sage.sweep import store
from sage.sweep.search import show
from sage.sweep.settings import SweepSettings


def export_study(
    settings: SweepSettings,
    study: Any,
    tracking: TrackingSettings,
    runs_dir: Path,
    say: Callable[[str], None],
    labels: dict[str, str],
) -> None:
    """Plots and MLflow; what cannot be done is one sentence, and the study's store is not touched.

    `labels` (budget, plan) become tags of every trial and of the runs of its seeds.
    """
    folder = runs_dir / "studies" / settings.study
    folder.mkdir(parents=True, exist_ok=True)
    plots = draw(settings, study, folder, say)
    request = {
        "study": settings.study,
        "experiment": tracking.experiment,
        "definition": settings.definition(),
        "labels": labels,
        "plots": [str(path) for path in plots],
        "trials": [_trial(settings, trial) for trial in study.get_trials(deepcopy=False)],
    }
    (folder / "study.json").write_text(json.dumps(request, indent=1), encoding="utf-8")
    command = [sys.executable, "-m", "sage.records.mlflow.study", str(folder / "study.json")]
    # The URI goes through the environment: it may hold a password.
    environment = {**SHORT_RETRIES, **os.environ, "SAGE_TRACKING_URI": resolve_uri(tracking.uri)}
    with (folder / "mlflow.log").open("ab") as log:
        code = subprocess.run(command, stdout=log, stderr=log, env=environment, check=False).returncode
    if code:
        say(f"The study could not be sent to MLflow ({folder / 'mlflow.log'}); the same line tries again.")


def _trial(settings: SweepSettings, trial: Any) -> dict[str, Any]:
    figures = dict(zip([o.metric for o in settings.objectives], trial.values or [], strict=False))
    return {
        "number": trial.number,
        "name": f"trial {trial.number}: {show(trial.params)}",
        "state": trial.state.name.lower(),
        "params": trial.params,
        "figures": figures,
        "runs": trial.user_attrs.get("runs", {}),
        "pruned": bool(trial.user_attrs.get("pruned")),
        "start": trial.datetime_start.timestamp() if trial.datetime_start else None,
        "end": trial.datetime_complete.timestamp() if trial.datetime_complete else None,
    }


def draw(settings: SweepSettings, study: Any, folder: Path, say: Callable[[str], None]) -> list[Path]:
    """Slice, importance, history (or the front of two objectives) as PNG, where there are enough trials."""
    if len({json.dumps(t.params, sort_keys=True) for t in store.finished(study)}) < 2:
        return []
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        say("No plots of the study: pip install 'sage-opd[sweep]'.")
        return []
    import optuna
    from optuna.visualization import matplotlib as drawn

    made: list[Path] = []
    for index, objective in enumerate(settings.objectives):
        figure = {"target": partial(_figure, index), "target_name": objective.metric}
        kinds: dict[str, Callable[..., Any]] = {
            "slice": drawn.plot_slice,
            "history": drawn.plot_optimization_history,
        }
        if len(settings.space) > 1:
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            kinds["importance"] = partial(drawn.plot_param_importances, evaluator=evaluator)
        for kind, plot in kinds.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Optuna calls its matplotlib plots experimental
                try:
                    axes = plot(study, **figure)
                except (ValueError, RuntimeError) as error:  # too few trials that differ
                    say(f"No plot {kind} of {objective.metric}: {error}")
                    continue
            drawing = axes.flat[0].figure if hasattr(axes, "flat") else axes.figure
            path = folder / f"{kind}_{objective.metric}.png"
            drawing.savefig(path, dpi=110, bbox_inches="tight")
            pyplot.close(drawing)
            made.append(path)
    return made


def _figure(index: int, trial: Any) -> float:
    return float(trial.values[index])
