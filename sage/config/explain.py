"""Hydra's and OmegaConf's errors as one sentence each, naming the nearest right key or value.

Only imported once composition has failed. Hydra states what is wrong in its messages alone, so the patterns
below are of hydra-core 1.3; an unknown message is passed on with its first line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from sage.config.components import conf_dir, register_components
from sage.config.known import known_settings, nearest, unknown_setting
from sage.config.moved import new_option
from sage.errors import reason_of

_COULD_NOT = re.compile(r"Could not override '([^']+)'|Could not delete from config\. '([^']+)'")
_NO_GROUP = re.compile(r"config group '([^']+)' does not|Could not override '([^']+)'\.\s*No match in the")
_AMBIGUOUS = re.compile(r"Ambiguous value for argument '([^']+)'")


def explain(error: Exception, overrides: Sequence[str]) -> str:
    """One sentence about why composing `overrides` failed."""
    text, first = str(error), reason_of(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing_option(error.missing_cfg_file, list(error.options or ()), first)
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if match := _AMBIGUOUS.search(text):
        return (
            f"{match[1]!r} names several values: put -m in front to run each of them, or write a list as "
            f"{match[1].partition('=')[0]}=[...]."
        )
    if match := _NO_GROUP.search(text):
        group = match[1] or match[2]
        return _end(f"{group!r} is not a config group{nearest(group, _groups())}")
    if match := _COULD_NOT.search(text):
        return _no_such_key(match[1] or match[2], overrides)
    if "Config group override must be a string" in text:
        return _not_an_option(overrides, first)
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return _end(f"The config cannot be resolved at {error.full_key!r}: {first}")
    return _end(first)


def _no_such_key(key: str, overrides: Sequence[str]) -> str:
    register_components(_plugins(overrides))
    known = [*known_settings(), *_groups()]
    if key in known and any(override.startswith(f"{key}={{") for override in overrides):
        return f"{key!r} does not have the keys of the given value yet; add them with +{key}=..."
    return _end(unknown_setting(key, known))


def _missing_option(file: str, options: list[str], reason: str) -> str:
    path = PurePosixPath(file)
    group, name = path.parent.as_posix(), path.name
    if not options:
        return _end(f"There is no config file {file!r} ({reason})")
    if new := new_option(group, name):
        return f"{group}={name} is {group}={new} now; write it so in the file that names it."
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.4)
    hint = f"did you mean {group}={near[0]}?" if near else f"it is one of {', '.join(options)}."
    return f"{group}={name} is not known; {hint}"


def _unreadable(error: OverrideParseException) -> str:
    override, reason = error.override, ""
    for line in error.message.splitlines():
        if not line.startswith(("Error parsing", "See http")):
            reason = line.split(" expecting ")[0]
            break
    if "=" not in override:
        return _end(f"The argument {override!r} is not understood; settings are changed by key=value")
    return _end(f"The argument {override!r} is not understood ({reason}); quote special characters")


def _not_an_option(overrides: Sequence[str], reason: str) -> str:
    for override in overrides:
        group, _, value = override.lstrip("+").partition("=")
        if group in _groups():
            options = sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
            if value not in options:
                return _end(f"{group}={value} is not known; it is one of {', '.join(options)}")
    return _end(reason)


def _plugins(overrides: Sequence[str]) -> list[str]:
    """Plugins named on the command line: their components count when the nearest name is looked for."""
    lists = [o.partition("=")[2] for o in overrides if o.lstrip("+").startswith("plugins=")]
    return [name.strip("'\" ") for text in lists for name in text.strip("[]").split(",") if name.strip()]


def _groups() -> list[str]:
    return sorted(path.name for path in conf_dir().iterdir() if path.is_dir() and path.name != "hydra")


def _end(text: str) -> str:
    return text if text.endswith(("?", ".")) else f"{text}."
