"""The components that come with the package and those of plugins: where their YAML lies, how they are found.

Nothing heavy is imported here, nor by a component's module.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path

from sage.config import registry
from sage.config.installed import register_installed
from sage.errors import ConfigError

COMPONENTS = (
    "sage.envs.alfworld.settings",
    "sage.envs.scienceworld.settings",
    "sage.envs.searchqa.settings",
    "sage.objective.intervention.base",
    "sage.objective.intervention.controls",
    "sage.objective.intervention.learned",
    "sage.objective.intervention.told",
    "sage.objective.confidence.base",
    "sage.objective.confidence.rivals",
    "sage.objective.normalization",
    "sage.objective.divergence.base",
    "sage.objective.divergence.estimators",
    "sage.objective.divergence.anchored",
    "sage.training.curriculum",
    "sage.records.loggers.settings",
)
"""Modules whose import registers the components that come with the package."""

GROUPS = {
    known.group: known
    for known in (
        registry.environments,
        registry.interventions,
        registry.confidences,
        registry.normalizations,
        registry.divergences,
        registry.curricula,
    )
}
"""The config groups whose options are components, chosen by `name`."""


def conf_dir() -> Path:
    """The folder of config groups: inside the installed package, or beside it in a source checkout."""
    package = Path(__file__).parent.parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def register_components(plugins: Iterable[str] = ()) -> None:
    """Import the built-in components, those of installed packages and the named plugin modules.

    Raises ConfigError.
    """
    for module in COMPONENTS:
        importlib.import_module(module)
    register_installed()
    for module in plugins:
        try:
            importlib.import_module(module)
        except Exception as error:
            raise ConfigError(
                f"The plugin {module!r} cannot be imported ({type(error).__name__}: {error}); "
                "plugins are Python modules on the import path."
            ) from error
