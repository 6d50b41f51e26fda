"""Old names of modules, read for one release after the tree of rooms (docs/architecture.md) was built.

`import sage.registry` gives the very module that is `sage.config.registry` now, with a DeprecationWarning
that says so, and `python -m sage.fit_intervention` runs. Nothing of ours may use an old name (a test).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

_ROOMS: dict[str, dict[str, str]] = {
    "sage.": {
        "checkpoint": "sage.training.checkpoint",
        "distill": "sage.training.loop",
        "evaluate": "sage.training.evaluate",
        "not_ok": "sage.training.not_ok",
        "optimization": "sage.training.optimizer",
        "players": "sage.training.players",
        "rounding": "sage.training.rounding",
        "scoring": "sage.training.batch",
        "sharding": "sage.training.sharding",
        "update": "sage.training.gradient",
        "settings": "sage.config.load",
        "explain": "sage.config.explain",
        "names": "sage.config.names",
        "prompt_texts": "sage.config.prompt_texts",
        "registry": "sage.config.registry",
        "display": "sage.console",
        "stopping": "sage.signals",
        "preflight": "sage.check.preflight",
        "fit_intervention": "sage.objective.intervention.fit",
        "oracle": "sage.episode",
        "reason": "sage.errors",
    },
    "sage.objective.": {
        "curriculum": "sage.training.curriculum",
        "controls": "sage.objective.intervention.controls",
        "learned": "sage.objective.intervention.learned",
        "rates": "sage.objective.intervention.rates",
        "turn_features": "sage.objective.intervention.turn_features",
        "trust": "sage.objective.confidence.rivals",
        "certainty": "sage.objective.confidence.signals",
        "estimators": "sage.objective.divergence.estimators",
        "anchored": "sage.objective.divergence.anchored",
        "blend": "sage.objective.divergence.blend",
    },
    "sage.policy.": {
        "model": "sage.policy.models.load",
        "folder": "sage.policy.models.folder",
        "hub": "sage.policy.models.hub",
        "hidden": "sage.policy.models.hidden_states",
        "plain": "sage.policy.models.plain",
        "failures": "sage.policy.models.failures",
        "chat_format": "sage.policy.models.chat_format",
        "cache": "sage.policy.decoding.cache",
        "drafts": "sage.policy.decoding.drafts",
        "engine": "sage.policy.decoding.engine",
        "engines": "sage.policy.decoding.engines",
        "equivalence": "sage.policy.decoding.equivalence",
        "generate": "sage.policy.decoding.generate",
        "masks": "sage.policy.decoding.masks",
        "packed": "sage.policy.decoding.packed",
        "padded": "sage.policy.decoding.padded",
        "rowwise": "sage.policy.decoding.rowwise",
        "vllm_decoder": "sage.policy.decoding.vllm_decoder",
    },
    "sage.envs.alfworld.": {
        "expert": "sage.envs.alfworld.simulator.expert",
        "floorplans": "sage.envs.alfworld.simulator.floorplans",
        "generate": "sage.envs.alfworld.simulator.generate",
        "household": "sage.envs.alfworld.simulator.household",
        "native": "sage.envs.alfworld.simulator.native",
        "parse": "sage.envs.alfworld.simulator.parse",
        "planner": "sage.envs.alfworld.simulator.planner",
        "world": "sage.envs.alfworld.simulator.world",
        "parity": "pretrain.alfworld_parity",
    },
    "sage.envs.scienceworld.": {"make_gold": "pretrain.scienceworld_gold"},
    "sage.records.": {
        "mlflow_export": "sage.records.mlflow.export",
        "export_data": "sage.records.loggers.curves",
        "exporter": "sage.records.mlflow.follow",
        "mlflow_study": "sage.records.mlflow.study",
    },
    "sage.records.mlflow.": {
        "exporter": "sage.records.mlflow.follow",
        "data": "sage.records.loggers.curves",
    },
}
OLD: dict[str, str] = {room + old: new for room, names in _ROOMS.items() for old, new in names.items()} | {
    "sage.pretrain": "pretrain",
    **{
        f"sage.pretrain.{name}": f"pretrain.{name}"
        for name in ("corpora", "plays", "run", "ship", "tokenizer", "train", "transplant", "grow")
    },
}
"""Old dotted name of a module -> its name now."""

ROOMS_OF_NAMES: dict[str, str] = {
    "sage.config": "sage.config.schema",
    "sage.objective.intervention": "sage.objective.intervention.base",
    "sage.objective.confidence": "sage.objective.confidence.base",
    "sage.objective.divergence": "sage.objective.divergence.base",
}
"""Modules that have become rooms of the same name -> where what was in them is now."""

_NAMES: dict[str, dict[str, str]] = {
    "sage.training.batch": {
        "Played": "sage.training.batch:TrainingEpisode",
        "Pair": "sage.training.batch:Models",
        "pair": "sage.training.batch:match_models",
    },
    "sage.config.load": {
        "ConfigError": "sage.errors:ConfigError",
        "compose": "sage.config.compose:compose",
        "validate": "sage.config.validate:validate",
        "conf_dir": "sage.config.components:conf_dir",
        "register_components": "sage.config.components:register_components",
    },
    "sage.policy.models.load": {"ModelError": "sage.errors:ModelError"},
    "sage.records.mlflow.follow": {"view_hint": "sage.records.mlflow.store:view_hint"},
}
"""Module of today -> names that it had under its old name -> where they are."""


_ELSEWHERE: dict[str, dict[str, str]] = {
    "sage.config": {
        "PromptStyle": "sage.config.prompt_texts",
        "PromptSettings": "sage.config.prompt_texts",
        "PretrainSettings": "sage.config.pretrain",
        "VLLM_SPEED": "sage.config.vllm_arguments",
    }
}
"""Room -> names that were in its module and are in another file than the rest -> that file."""

_WORDS: dict[str, dict[str, str]] = {"sage.objective.intervention": {"Ask": "JudgeFn"}}
"""Room -> names that what was in it had -> what they are called now."""


def attribute(room: str, name: str) -> Any:
    """`name` of a module that has become the room `room`: its `__getattr__`. Raises AttributeError."""
    home = _ELSEWHERE.get(room, {}).get(name, ROOMS_OF_NAMES[room])
    if not name.startswith("__"):
        module = importlib.import_module(home)
        today = _WORDS.get(room, {}).get(name, name)
        if hasattr(module, today):
            _warn(f"{room}.{name}", f"{home}.{today}", 4)
            return getattr(module, today)
    raise AttributeError(f"module {room!r} has no attribute {name!r}")


def _warn(old: str, new: str, stacklevel: int) -> None:
    text = f"{old} is {new} now; the old name is read for one release more."
    warnings.warn(text, DeprecationWarning, stacklevel)


class _Alias(InspectLoader):
    """Loads a module of today under its old name: the same object, not a copy of it."""

    def __init__(self, new: str) -> None:
        self._new = new
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._new)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has put the alias's there
        for name, place in _NAMES.get(self._new, {}).items():
            home, _, today = place.partition(":")
            if not hasattr(module, name):
                setattr(module, name, getattr(importlib.import_module(home), today))

    def get_code(self, fullname: str) -> CodeType | None:
        """What `python -m OLD` runs."""
        return self._loader().get_code(self._new)

    def get_source(self, fullname: str) -> str | None:
        return self._loader().get_source(self._new)

    def _loader(self) -> InspectLoader:
        spec = importlib.util.find_spec(self._new)
        loader = spec.loader if spec is not None else None
        assert isinstance(loader, InspectLoader)
        return loader


class _OldNames(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        new = OLD.get(fullname)
        if new is None:
            return None
        _warn(fullname, new, 3)
        return ModuleSpec(fullname, _Alias(new), is_package=fullname == "sage.pretrain")


def install() -> None:
    """Let old names be imported: once, when `sage` is. First, since `pretrain` would find its own files."""
    if not any(isinstance(finder, _OldNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OldNames())
