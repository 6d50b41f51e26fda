"""The one exception of this package: a refusal says in one sentence what is wrong and what the ways out
are."""

from __future__ import annotations


class Refusal(ValueError):
    """The records cannot answer the question that was asked. The command line prints it and exits with 2."""
