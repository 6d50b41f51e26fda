"""Fill the prompt templates: the texts that an agent and a judge read. Templates are data, never code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sage.config.own_model import is_tiny
from sage.config.prompt_texts import FIELD

if TYPE_CHECKING:
    from sage.config.prompt_texts import PromptSettings, PromptStyle

def choose_style(prompt: PromptSettings, student_path: str) -> PromptStyle:
    """The style named in the config; `auto` is `short` for the tiny models, which know no other (those that
    ship, and directories that a run or `task=pretrain` wrote of such a model), and `react` for all others.

    Raises ValueError where no style has that name.
    """
    name = prompt.style
    if name == "auto":
        name = "short" if is_tiny(student_path) else "react"
    if name not in prompt.styles:
        raise ValueError(f"prompt.style={name!r} is not one of {', '.join(sorted(prompt.styles))}.")
    return prompt.styles[name]


def fill(template: str, **fields: str) -> str:
    """Replace each `{field}` once; braces inside values stay. Raises ValueError on an unknown field."""

    def value(match: re.Match[str]) -> str:
        try:
            return fields[match[1]]
        except KeyError:
            raise ValueError(
                f"The prompt template names {{{match[1]}}}; known fields are {', '.join(sorted(fields))}."
            ) from None

    return FIELD.sub(value, template)


def fields(template: str) -> set[str]:
    """Names of the fields of a template (or of one line of it)."""
    return {match[1] for match in FIELD.finditer(template)}


def list_admissible(commands: Sequence[str], count: int) -> str:
    """The admissible commands as one line that starts with a line break; empty for `count` 0."""
    if count <= 0 or not commands:
        return ""
    return "\nAdmissible commands: " + ", ".join(commands[:count]) + "."


def first_message(style: PromptStyle, scene: str, goal: str, admissible: Sequence[str]) -> str:
    return fill(
        style.first_turn,
        demonstration=style.demonstration,
        scene=scene,
        goal=goal,
        observation=scene,
        admissible=list_admissible(admissible, style.admissible),
    )


def turn_message(style: PromptStyle, observation: str, admissible: Sequence[str]) -> str:
    return fill(style.turn, observation=observation, admissible=list_admissible(admissible, style.admissible))


def parse_answer(style: PromptStyle, answer: str) -> tuple[str, str]:
    """(thought, action), each empty where its pattern does not match; the first action counts."""
    thought = re.search(style.thought_pattern, answer)
    action = re.search(style.action_pattern, answer)
    return (thought[1].strip() if thought else ""), (action[1].strip() if action else "")
