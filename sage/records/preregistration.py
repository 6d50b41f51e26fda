"""The frozen plan that a run serves: its hash goes into the run's provenance and from there into reports."""

from __future__ import annotations

import json
from pathlib import Path

from sage.settings import ConfigError


def plan_hash(path: str | None) -> str | None:
    """The SHA-256 of the frozen plan at `path` (`conf/plan/<name>.yaml`); None without a plan.

    Raises ConfigError where there is no such plan or it has not been frozen: a hash that is carried means
    that the hypotheses were fixed before the run began.
    """
    if path is None:
        return None
    plan = Path(path)
    if not plan.exists():
        raise ConfigError(f"launch.plan={path} does not exist; it names a plan such as conf/plan/x.yaml.")
    frozen = plan.with_suffix(".frozen.json")
    if not frozen.exists():
        raise ConfigError(
            f"The plan {path} has not been frozen; freeze it before the first run: "
            f"python -m analysis plan freeze {path}"
        )
    return str(json.loads(frozen.read_text(encoding="utf-8"))["sha256"])
