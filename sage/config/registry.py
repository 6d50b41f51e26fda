"""Names in YAML to settings classes, one registry per config group; a config file is data, not code.

A component (an intervention rule, a confidence, an environment, ...) is one frozen pydantic class whose
fields are its settings. It is registered under the name that its YAML gives in `name:`. Settings classes
must be importable in milliseconds: they import torch, transformers or an environment only inside methods.

A package outside this one adds a component by registering a class in a module that its entry point names
(`sage.config.installed`), or the config's `plugins:` list.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Base of everything validated from YAML: strict about names, frozen, no silent coercion of unknowns."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Component(Settings):
    """A settings class that can be chosen by name. `name` repeats the registered name."""

    name: str


C = TypeVar("C", bound=type[Component])


class Registry:
    """The components of one config group."""

    _all: ClassVar[dict[str, Registry]] = {}

    def __init__(self, group: str) -> None:
        self.group = group
        self._classes: dict[str, type[Component]] = {}
        Registry._all[group] = self

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator. Raises ValueError where another class already has the name."""

        def add(cls: C) -> C:
            known = self._classes.get(name)
            if known is not None and known.__qualname__ != cls.__qualname__:
                raise ValueError(f"{self.group} {name!r} is already registered by {known.__module__}.")
            self._classes[name] = cls
            return cls

        return add

    def names(self) -> list[str]:
        return sorted(self._classes)

    def get(self, name: str) -> type[Component]:
        """The class registered as `name`; raises ValueError that names the nearest known one."""
        if name in self._classes:
            return self._classes[name]
        near = difflib.get_close_matches(str(name), self.names(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"{self.group}.name={name!r} is not known; known are {', '.join(self.names())}.{hint}"
        )

    def build(self, values: Any) -> Component:
        """Validate a mapping with a `name` key into its component."""
        if isinstance(values, Component):
            return values
        if not isinstance(values, dict) or "name" not in values:
            raise ValueError(
                f"{self.group} needs a mapping with a 'name' (one of {', '.join(self.names())})."
            )
        if not isinstance(values["name"], str):
            known = ", ".join(self.names())
            raise ValueError(f"{self.group}.name={values['name']!r} is no name; known are {known}.")
        return self.get(values["name"]).model_validate(values)


environments = Registry("env")
interventions = Registry("intervention")
confidences = Registry("confidence")
normalizations = Registry("normalization")
divergences = Registry("divergence")
curricula = Registry("curriculum")
loggers = Registry("tracking.loggers")
