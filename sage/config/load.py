"""From YAML and command line to one validated `RunConfig`; every refusal is one sentence (`ConfigError`).

Nothing heavy is imported here: `python -m sage --help` and a config error answer in about a second.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin

from pydantic import BaseModel, ValidationError

from sage.config import registry
from sage.config.moved import new_name, renamed
from sage.config.names import AUTO, automatic_name
from sage.config.schema import RunConfig
from sage.errors import ConfigError as ConfigError
from sage.redaction import learn

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pydantic_core import ErrorDetails

COMPONENTS = (
    "sage.envs.alfworld.settings",
    "sage.envs.scienceworld.settings",
    "sage.envs.searchqa.settings",
    "sage.objective.intervention.base",
    "sage.objective.intervention.controls",
    "sage.objective.intervention.learned",
    "sage.objective.confidence.base",
    "sage.objective.confidence.rivals",
    "sage.objective.normalization",
    "sage.objective.divergence.base",
    "sage.objective.divergence.estimators",
    "sage.objective.divergence.anchored",
    "sage.training.curriculum",
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


def load(source: DictConfig | Sequence[str]) -> RunConfig:
    """The validated config of a composed DictConfig, or of command-line overrides such as `["seed=1"]`.

    Raises ConfigError.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    config = source if isinstance(source, DictConfig) else compose(source)
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"The config cannot be resolved at {error.full_key!r}: {reason}.") from error
    valid = validate(plain)
    if valid.name == AUTO:
        valid = valid.model_copy(update={"name": automatic_name(valid)})
    return valid


def compose_beside(overrides: Sequence[str]) -> Any:
    """Plain data of a config beside the one that is being loaded, from the same folders of options.

    Raises ConfigError.
    """
    from hydra import compose as hydra_compose
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        inside = GlobalHydra.instance().is_initialized()  # then it knows --config-dir
        config = hydra_compose("config", list(overrides)) if inside else compose(overrides)
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(str(error)) from error


def compose(overrides: Sequence[str]) -> DictConfig:
    """Hydra's composition of `conf/config.yaml` with `overrides`, without a command line.

    An old name among them is read as on the command line, and said on stderr. Raises ConfigError.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from sage.config.own_model import complete

    overrides, notes = renamed(overrides)
    for note in notes:
        print(note, file=sys.stderr)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        try:
            return hydra_compose("config", complete(overrides)[0])
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            from sage.config.explain import explain

            raise ConfigError(explain(error, overrides)) from error


def validate(plain: Any) -> RunConfig:
    """`RunConfig` of plain data, its plugins imported first. Raises ConfigError."""
    if not isinstance(plain, Mapping):
        raise ConfigError(f"A config is a mapping of settings, not {type(plain).__name__}.")
    learn(plain)
    register_components(plain.get("plugins") or ())
    try:
        return RunConfig.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from error


def register_components(plugins: Iterable[str] = ()) -> None:
    """Import the built-in components and then the named plugin modules. Raises ConfigError."""
    for module in COMPONENTS:
        importlib.import_module(module)
    for module in plugins:
        try:
            importlib.import_module(module)
        except Exception as error:
            raise ConfigError(
                f"The plugin {module!r} cannot be imported ({type(error).__name__}: {error}); "
                "plugins are Python modules on the import path."
            ) from error


def unknown_setting(key: str, known: Iterable[str]) -> str:
    """The sentence about a key that is none of the `known` dotted names: the nearest one, or who has it."""
    if moved := new_name(key):
        return f"{key!r} is {moved!r} now"
    parent = key.rpartition(".")[0]
    if _takes_any_key(parent):
        return f"{key!r} is not there yet; {parent!r} takes any key, put in with a plus: +{key}=..."
    group, _, field = key.partition(".")
    owners = (
        [name for name in GROUPS[group].names() if field in GROUPS[group].get(name).model_fields]
        if group in GROUPS
        else []
    )
    if owners:
        has_it = " and ".join(f"{group}={owner}" for owner in owners)
        return f"{key!r} is not a setting of the chosen {group}; {has_it} has it"
    return f"{key!r} is not a setting{nearest(key, known)}"


def _takes_any_key(name: str) -> bool:
    """Whether the setting of this dotted name is a mapping that names no keys of its own."""
    kind: Any = RunConfig
    for part in name.split("."):
        fields = getattr(kind, "model_fields", {})
        if part not in fields:
            return False
        kind = fields[part].annotation
    return get_origin(kind) is dict


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known dotted name, else what there is beside it."""
    names = sorted(set(known))
    head, _, tail = word.rpartition(".")
    # The last part decides among its siblings: a long common prefix would make any two of them look alike.
    siblings = {name.rpartition(".")[2]: name for name in names if name.rpartition(".")[0] == head}
    anywhere = {name.rpartition(".")[2]: name for name in reversed(names)}
    close = [siblings[t] for t in difflib.get_close_matches(tail, siblings, n=1, cutoff=0.6)]
    if not close and not siblings:
        close = difflib.get_close_matches(word, names, n=1, cutoff=0.75)
    if not close:
        close = [anywhere[t] for t in difflib.get_close_matches(tail, anywhere, n=1, cutoff=0.75)]
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; {head} has {', '.join(sorted(siblings))}" if head and siblings else ""


def known_settings(model: type[BaseModel] = RunConfig, prefix: str = "") -> list[str]:
    """Dotted names of all settings; of a component group, those of all its registered components."""
    names: list[str] = []
    for field, info in model.model_fields.items():
        names.append(prefix + field)
        inner = [info.annotation]
        if not prefix and field in GROUPS:
            inner = [GROUPS[field].get(name) for name in GROUPS[field].names()]
        for kind in inner:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                names += known_settings(kind, f"{prefix}{field}.")
    return names


def _sentence(error: ValidationError) -> str:
    """The first problem of a validation error in one sentence, and how many there are."""
    problems = error.errors()
    # An unknown key often explains a missing one, so it is told first.
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    more = f" ({len(problems) - 1} more after that.)" if len(problems) > 1 else ""
    text = _problem(first)
    return text + ("" if text.endswith(("?", ".")) else ".") + more


def _problem(problem: ErrorDetails) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    kind, value = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        return unknown_setting(where, known_settings())
    if kind == "missing":
        return f"The setting {where!r} is missing"
    if kind == "literal_error":
        expected = str(problem.get("ctx", {}).get("expected", ""))
        words = [w.strip("' ") for w in expected.replace(" or ", ",").split(",")]
        return f"{where}={value} is not one of {', '.join(words)}{nearest(str(value), words)}"
    if kind == "value_error":
        return str(problem.get("ctx", {}).get("error", problem["msg"]))
    return f"{where}={value!r} is refused: {problem['msg'][:1].lower()}{problem['msg'][1:]}"
