"""Packages of others that bring parts: found by their entry point, so that no line needs `plugins=`.

    [project.entry-points."sage_opd.parts"]
    own_parts = "own_parts"

names a module that registers components when it is imported; the folder `conf/` of its package is one of
config groups. Invariant: what is installed changes no run that takes nothing of it; a run that does has the
module in its `plugins`, and so in its id and in the digest of its code.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sage.config.registry import Component
from sage.errors import ConfigError

if TYPE_CHECKING:
    from sage.config.schema import RunConfig

GROUP = "sage_opd.parts"


class Installed(NamedTuple):
    """The entry point of one package."""

    package: str
    """As pip calls it."""
    module: str

    @property
    def root(self) -> str:
        return self.module.partition(".")[0]


@cache
def installed() -> tuple[Installed, ...]:
    """Every entry point of the group, by name; found once a process."""
    found = {Installed(e.dist.name if e.dist else e.name, e.value) for e in entry_points(group=GROUP)}
    return tuple(sorted(found))


def register_installed() -> None:
    """Import their modules. Raises ConfigError that names the package where one cannot be imported."""
    for part in installed():
        try:
            importlib.import_module(part.module)
        except Exception as error:
            raise ConfigError(
                f"The package {part.package!r} brings parts of its own in {part.module!r}, which cannot be "
                f"imported ({type(error).__name__}: {error}); mend it, or `pip uninstall {part.package}`."
            ) from error


def folders() -> list[tuple[str, Path]]:
    """(package, folder of its config groups) of each that has one; nothing is imported."""
    found = []
    for part in installed():
        try:
            spec = importlib.util.find_spec(part.root)
        except (ImportError, ValueError):
            continue  # `register_installed` says so
        for place in (spec.submodule_search_locations if spec else None) or ():
            if (conf := Path(place) / "conf").is_dir():
                found.append((part.package, conf))
    return found


def taken_from(config: RunConfig) -> list[str]:
    """Modules of installed packages that a component of `config` is of."""
    roots = {type(part).__module__.partition(".")[0] for part in _components(config)}
    return [part.module for part in installed() if part.root in roots]


def _components(thing: object) -> Iterator[Component]:
    fields = getattr(type(thing), "model_fields", None) or ()
    if isinstance(thing, Component):
        yield thing
    for name in fields:
        yield from _components(getattr(thing, name))
