"""From YAML and command line to one validated `RunConfig`; every refusal is one sentence (`ConfigError`).

    components.py   the folder of options, and the modules that register components; installed.py: of others
    compose.py      Hydra's composition; explain.py: its errors as one sentence, moved.py: old names
    validate.py     plain data to a `RunConfig` (schema.py); known.py: the nearest name of an unknown setting
    names.py        what the run is called; own_model.py: a path alone to the group that fits it

Nothing heavy is imported here: `python -m sage --help` and a config error answer in about a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sage.config.compose import compose
from sage.config.installed import taken_from
from sage.config.names import AUTO, automatic_name
from sage.config.schema import RunConfig
from sage.config.validate import validate
from sage.errors import ConfigError, reason_of

if TYPE_CHECKING:
    from omegaconf import DictConfig


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
        reason = reason_of(error)
        raise ConfigError(f"The config cannot be resolved at {error.full_key!r}: {reason}.") from error
    valid = validate(plain)
    if taken := [module for module in taken_from(valid) if module not in valid.plugins]:
        valid = valid.model_copy(update={"plugins": [*valid.plugins, *taken]})
    if valid.name == AUTO:
        valid = valid.model_copy(update={"name": automatic_name(valid)})
    return valid
