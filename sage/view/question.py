"""The question that the judge was asked about a recorded turn, written again from the run's config.

The records hold the reply and every part of the question, not its text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sage.episode import Episode, Task, Turn


class Questions:
    """Of one run; `config` is its config.yaml, None where that cannot be used."""

    def __init__(self, config: Mapping[str, Any] | None) -> None:
        self._style = _style(config or {})
        self._sees_feedback = _setting((config or {}).get("intervention"), "sees_feedback")

    def of(self, episode: Mapping[str, Any], first: Mapping[str, Any], turn: Mapping[str, Any]) -> str | None:
        """The user message about `turn` (rows of the tables, `first` the episode's first turn); None where
        the judge was not asked, or the config does not tell what it was asked."""
        if turn.get("judge_cached") is None or self._style is None or self._sees_feedback is None:
            return None
        from sage.objective.intervention.base import TurnContext
        from sage.teacher.question import judge_message

        task = Task(
            *(_text(episode, name) for name in ("task", "env", "split", "task_type", "source")),
        )
        played = Episode(task, goal=_text(episode, "goal"), scene=_text(episode, "scene"))
        played.turns = [_turn(first)]
        return judge_message(self._style, TurnContext(played, _turn(turn)), bool(self._sees_feedback))


def _style(config: Mapping[str, Any]) -> Any:
    from pydantic import ValidationError

    from sage.config.prompt_texts import PromptSettings
    from sage.policy.prompts import choose_style

    student = config.get("student")
    try:
        prompt = PromptSettings.model_validate(config.get("prompt"))
        return choose_style(prompt, str(student.get("path", "")) if isinstance(student, Mapping) else "")
    except (ValidationError, ValueError, OSError):
        return None


def _setting(rule: Any, name: str) -> Any:
    """Of a rule, or of the rule inside it."""
    while isinstance(rule, Mapping):
        if name in rule:
            return rule[name]
        rule = rule.get("rule")
    return None


def _turn(row: Mapping[str, Any]) -> Turn:
    return Turn(
        index=int(row.get("turn") or 0),
        message="",
        observation=_text(row, "observation"),
        answer=_text(row, "answer"),
        answer_start=0,
        answer_end=0,
        thought=_text(row, "thought"),
        action=_text(row, "action"),
        feedback=_text(row, "feedback"),
        admissible=tuple(_text(row, "admissible").split("\n")) if row.get("admissible") else (),
    )


def _text(row: Mapping[str, Any], name: str) -> str:
    return str(row.get(name) or "")
