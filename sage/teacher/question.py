"""The text of the judge's question about a turn; imports no model, so that who reads records can show it."""

from __future__ import annotations

from sage.config.prompt_texts import PromptStyle
from sage.objective.intervention.base import TurnContext
from sage.policy.prompts import fields, fill, list_admissible


def judge_message(style: PromptStyle, context: TurnContext, sees_feedback: bool) -> str:
    """The judge's user message. Where the judge must not see the environment's reply, a line of the template
    that holds nothing else from the turn is left out, and elsewhere the field is empty."""
    episode, turn = context.episode, context.turn
    return fill(
        style.judge if sees_feedback else _without_feedback(style.judge),
        task_type=episode.task.task_type,
        goal=episode.goal,
        scene=episode.scene,
        observation=turn.observation,
        admissible=list_admissible(_lasting_first(context, style.admissible), style.admissible),
        answer=turn.answer,
        thought=turn.thought,
        action=turn.action,
        feedback=turn.feedback if sees_feedback else "",
    )


def _without_feedback(template: str) -> str:
    kept = [line for line in template.split("\n") if fields(line) != {"feedback"}]
    return "\n".join(kept)


def _lasting_first(context: TurnContext, count: int) -> list[str]:
    """The first `count` admissible commands of the turn, those that the episode's first turn had in front.

    They come back at nearly every turn, so that the queries about one episode begin alike for longer; the
    rest is decided by nothing after the turn.
    """
    listed = context.turn.admissible[:count]
    played = context.episode.all_turns
    place = {command: i for i, command in enumerate(played[0].admissible)} if played else {}
    return sorted(listed, key=lambda command: place.get(command, len(place)))
