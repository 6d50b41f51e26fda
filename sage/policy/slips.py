"""Tell a format problem from a wrong decision: would the command have been admissible, written plainly?"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sage.episode import Failure, Turn
from sage.policy.prompts import parse_answer

if TYPE_CHECKING:
    from sage.config.prompt_texts import PromptStyle

_MARKDOWN = re.compile(r"[*_`#>~]+|^\s*[-+]\s+|^\s*\d+[.)]\s+", re.MULTILINE)


def plain(text: str) -> str:
    """Without markdown, capitals, the full stops (and quotes) around it, and doubled spaces."""
    text = " ".join(_MARKDOWN.sub("", text).lower().split())
    return text.strip(" .\"'“”‘’")


def format_slip(style: PromptStyle, turn: Turn) -> bool | None:
    """Whether a turn failed only by its format: its command is none of `Turn.admissible`, but is one once
    both are `plain`. An answer without an action is searched again without markdown, in any case.

    None where the environment did not list its admissible commands. The environment itself stays strict: this
    changes nothing that is played.
    """
    if not turn.admissible:
        return None
    if turn.failure is Failure.NONE or turn.action in turn.admissible:
        return False
    action = turn.action
    if not action:
        bare = style.model_copy(update={"action_pattern": f"(?i){style.action_pattern}"})
        action = parse_answer(bare, re.sub(r"[*_`#]+", "", turn.answer))[1]
    said = plain(action)
    return bool(said) and any(said == plain(command) for command in turn.admissible)
