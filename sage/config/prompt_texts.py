"""What may stand in a prompt style's texts: fields that are known, and regular expressions that compile."""

from __future__ import annotations

import re

FIELD = re.compile(r"\{([a-z_]+)\}")
"""A field of a template; other braces are text."""

KNOWN_FIELDS = {
    "first_turn": {"demonstration", "scene", "goal", "observation", "admissible"},
    "turn": {"observation", "admissible"},
    "answer": {"thought", "action"},
    "judge": {
        *("task_type", "goal", "scene", "observation", "admissible"),
        *("answer", "thought", "action", "feedback"),
    },
}
"""The fields of each template of a style."""

PATTERNS = {"stop": 0, "thought_pattern": 1, "action_pattern": 1}
"""The regular expressions of a style, and how many groups each must have."""


def check_text(name: str, text: str) -> None:
    """Raises ValueError where the style's text `name` cannot be used, in one sentence."""
    if name in KNOWN_FIELDS:
        unknown = sorted({match[1] for match in FIELD.finditer(text)} - KNOWN_FIELDS[name])
        if unknown:
            raise ValueError(
                f"The prompt template {name!r} names {{{unknown[0]}}}; its fields are "
                f"{', '.join(sorted(KNOWN_FIELDS[name]))}."
            )
    if name in PATTERNS:
        try:
            groups = re.compile(text).groups
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(
                f"{name}={text[:60]!r} of the prompt style is no regular expression: {error}."
            ) from error
        if groups < PATTERNS[name]:
            raise ValueError(
                f"{name}={text[:60]!r} of the prompt style has no group; what is in its first (...) is taken."
            )
