"""A saved view of an experiment: methods side by side, offered under *Views* on MLflow's page of runs.

MLflow (3.17) keeps one as an experiment's tag: a name, a time and the state of the page as JSON. The same
fields beside them make the address with `viewStateShareKey` work too, which takes a tag without a name. One
view an environment, since their splits differ; what a user has changed or made is left alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sage.records.loggers.labels import ARM

TAG = "mlflow.sharedViewState."
LIMIT = 5000
"""Characters that a tag of an experiment may have."""
_ARM = ("method", "intervention", "confidence")


def send_view(client: Any, experiment: str, env: str, metrics: Sequence[str], now_ms: int) -> None:
    """Make the view of an environment's methods where there is none; `metrics` are its success rates."""
    tag = f"{TAG}sage-{env}"
    if not metrics or tag in client.get_experiment(experiment).tags:
        return
    text = view(f"{env}: methods compared", metrics, now_ms)
    if len(text) <= LIMIT:
        client.set_experiment_tag(experiment, tag, text)


def view(name: str, metrics: Sequence[str], now_ms: int) -> str:
    """The tag's text. `metrics`: names of curves, the most wanted first."""
    state = _state(list(metrics))
    text = json.dumps(state, separators=(",", ":"))
    named = {"name": name, "createdAt": now_ms, "updatedAt": now_ms, "state": text}
    return json.dumps(named | state, separators=(",", ":"))


def _state(metrics: list[str]) -> dict[str, Any]:
    section = "sage"
    arm = [f"{ARM}.{part}" for part in _ARM]
    chart = {"deleted": False, "isGenerated": False, "metricSectionId": section, "runsCountToCompare": 100}
    parallel = {
        **chart,
        "uuid": "sage-parallel",
        "type": "PARALLEL",
        "selectedParams": arm,
        "selectedMetrics": metrics[:2],
        "showAllRuns": True,
    }
    lines = [
        {
            **chart,
            "uuid": f"sage-line-{number}",
            "type": "LINE",
            "metricKey": key,
            "selectedMetricKeys": [key],
            "xAxisKey": "step",
            "scaleType": "linear",
            "lineSmoothness": 0,
            "useGlobalXaxisKey": True,
        }
        for number, key in enumerate(("distill/success_rate", "distill/loss", *metrics[:2]))
    ]
    sections = [
        {"uuid": section, "name": "methods compared", "display": True, "isReordered": True, "deleted": False}
    ]
    columns = [f"params.`{name}`" for name in (*arm, "seed")]
    columns += [f"metrics.`{name}`" for name in metrics[:2]]
    return {
        "selectedColumns": columns,
        "compareRunCharts": [parallel, *lines],
        "compareRunSections": sections,
        "isAccordionReordered": True,
    }
