"""The texts around an environment, and what may stand in them: fields that are known, and regular expressions
that compile."""

from __future__ import annotations

import re

from pydantic import Field, ValidationInfo, field_validator, model_validator

from sage.config.registry import Settings

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


class PromptStyle(Settings):
    """One complete set of prompts for one environment."""

    system: str
    """System message; empty for none."""
    demonstration: str
    """One worked example, put in front of the first observation; empty for none."""
    first_turn: str
    """Template of the first user message; fields: demonstration, scene, goal, observation, admissible."""
    turn: str
    """Template of each later user message; fields: observation, admissible."""
    stop: str
    """Regular expression that ends an answer when it matches its text (kept in the answer); empty: only
    the model's own end token ends it."""
    unparsed: str
    """What the agent is told when its answer holds no action; the environment is not asked."""
    thought_pattern: str
    """Regular expression whose group 1 is the thought."""
    action_pattern: str
    """Regular expression whose group 1 is the action."""
    answer: str
    """Template of a written answer (an expert's), which the two patterns read back; fields: thought,
    action."""
    judge_system: str
    """Judge's system message; empty for none."""
    judge: str
    """Judge's user message; fields: task_type, goal, scene, observation, admissible, answer, thought,
    action, feedback."""
    admissible: int = Field(ge=0, le=100_000)
    """How many admissible commands the student's and the judge's prompts list; 0 lists none."""

    @field_validator(*KNOWN_FIELDS, *PATTERNS)
    @classmethod
    def _can_be_used(cls, text: str, info: ValidationInfo) -> str:
        check_text(str(info.field_name), text)
        return text


class PromptSettings(Settings):
    """The texts around the environment: filled with str.format-like `{name}` fields, never with code."""

    style: str
    """Which entry of `styles` is used; `auto` takes `short` for tiny models, shipped or made by
    `task=pretrain`, else `react`."""
    styles: dict[str, PromptStyle]

    @model_validator(mode="after")
    def _the_style_is_there(self) -> PromptSettings:
        if self.style != "auto" and self.style not in self.styles:
            known = ", ".join(sorted(self.styles))
            raise ValueError(f"prompt.style={self.style!r} is not one of auto, {known}.")
        return self
