"""Workbench for selective on-policy distillation of LLM agents (see README.md)."""

__version__ = "0.1.0"

from sage.old_names import install as _install

_install()
