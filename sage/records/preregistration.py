"""The frozen plan that a run serves: its hash goes into the run's provenance and from there into reports."""

from __future__ import annotations

from pathlib import Path

from sage.config.components import conf_dir
from sage.errors import ConfigError
from sage.records.files import Unreadable, read_object


def plan_file(path: str) -> Path:
    """The plan at `path`, or the one in `conf/plan/` of that name. Raises ConfigError where there is none."""
    plan = Path(path)
    if plan.suffix != ".yaml":
        plan = conf_dir() / "plan" / f"{path}.yaml"
    if not plan.exists():
        known = ", ".join(sorted(p.stem for p in (conf_dir() / "plan").glob("*.yaml")))
        raise ConfigError(f"launch.plan={path} does not exist; it is a plan's file, or one of {known}.")
    return plan


def plan_hash(path: str | None) -> str | None:
    """The SHA-256 of the frozen plan at `path`, or of the one in `conf/plan/` of that name; None without one.

    Raises ConfigError where there is no such plan or it has not been frozen: a hash that is carried means
    that the hypotheses were fixed before the run began.
    """
    if path is None:
        return None
    plan = plan_file(path)
    frozen = plan.with_suffix(".frozen.json")
    if not frozen.exists():
        raise ConfigError(
            f"The plan {path} has not been frozen; freeze it before the first run: "
            f"python -m analysis plan freeze {plan}"
        )
    try:
        found = (read_object(frozen) or {}).get("sha256")
    except Unreadable as error:
        raise ConfigError(f"launch.plan={path} cannot be used: {error}") from error
    if not isinstance(found, str):
        raise ConfigError(f"launch.plan={path} cannot be used: {frozen} has no sha256.")
    return found
