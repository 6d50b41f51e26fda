"""An environment's conversations without a model: the expert plays, and its games are kept as texts.

What a run would say to any model can be looked at with them before weights are loaded: by a chat template
(`sage.check.preflight`) and by a tokenizer (`sage.policy.context`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sage.envs.pool import EnvFault, EnvPool
from sage.episode import Episode, Status, Task, Turn
from sage.policy.prompts import fill, first_message, turn_message

if TYPE_CHECKING:
    from sage.config.prompt_texts import PromptStyle


def expert_games(
    pool: EnvPool, style: PromptStyle, tasks: Sequence[Task], turn_budget: int
) -> list[Episode | EnvFault]:
    """Each task as the expert plays it under `style`: an episode whose turns hold texts and no ids.

    Its last turn is the message that nobody answers, with an empty answer, where the expert has no move; for
    an environment without an expert that is the opening.
    """
    return [_game(pool, task, style, turn_budget) for task in tasks]


def _game(pool: EnvPool, task: Task, style: PromptStyle, turn_budget: int) -> Episode | EnvFault:
    reading = pool.reset_many([(0, task)])[0]
    if isinstance(reading, EnvFault):
        return reading
    scene, goal = reading.step.observation, reading.goal
    episode = Episode(task, goal=goal, scene=scene, system=style.system)
    message = first_message(style, scene, goal, reading.step.admissible)
    while len(episode.turns) < turn_budget:
        advice = pool.advise_many([0])[0]
        if isinstance(advice, EnvFault):
            return advice
        before = reading.step
        turn = Turn(len(episode.turns), message, before.observation, "", 0, 0, admissible=before.admissible)
        episode.turns.append(turn)
        if advice.move is None:
            return episode
        turn.thought, turn.action = advice.move
        turn.answer = fill(style.answer, thought=turn.thought, action=turn.action)
        reading = pool.step_many([(0, turn.action)])[0]
        if isinstance(reading, EnvFault):
            return reading
        turn.feedback = reading.step.observation
        if reading.step.done:
            episode.status = Status.WON if reading.step.won else Status.LOST
            return episode
        message = turn_message(style, turn.feedback, reading.step.admissible)
    return episode
