"""Workbench for selective on-policy distillation of LLM agents (see README.md)."""

import importlib
from typing import Any

from sage.old_names import install as _install

_install()


def __getattr__(name: str) -> Any:
    """`sage.load`, `sage.execute`, `sage.table`: the front door, which stands on top of everything and is
    looked up when it is used, so that `import sage` stays light; and `sage.__version__`, which git's tags
    gave the installed package."""
    if name == "__version__":
        return _version()
    if name in ("execute", "load", "table"):
        return getattr(importlib.import_module("sage.api"), name)
    raise AttributeError(f"module 'sage' has no attribute {name!r}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sage-opd")
    except PackageNotFoundError:  # a source tree on the import path
        return "unknown (not installed)"
