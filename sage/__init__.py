"""Workbench for selective on-policy distillation of LLM agents (see README.md)."""

__version__ = "0.1.0"
