"""Hydra's composition of YAML and overrides, without a command line; its errors become one sentence each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sage.config.components import conf_dir
from sage.config.moved import renamed
from sage.config.own_model import complete
from sage.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def compose(overrides: Sequence[str]) -> DictConfig:
    """Hydra's composition of `conf/config.yaml` with `overrides`, without a command line.

    An old name among them is read as on the command line, and said on stderr. Raises ConfigError.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    overrides, notes = renamed(overrides)
    for note in notes:
        print(note, file=sys.stderr)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        try:
            return hydra_compose("config", complete(overrides)[0])
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            from sage.config.explain import explain

            raise ConfigError(explain(error, overrides)) from error


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
