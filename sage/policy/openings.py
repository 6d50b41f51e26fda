"""Answers that come from elsewhere than the model: an expert's whole play, the beginning of a teacher's, or
commands at random.

Both are ids in the episode like any others, so that what is trained on is what stands in the conversation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sage.envs.pool import EnvFault, EnvPool, FaultKind
from sage.episode import Episode, Status
from sage.errors import ConfigError
from sage.policy.decoding.answer import Reply
from sage.policy.decoding.generate import stream
from sage.policy.dialogue import Dialogue
from sage.policy.prompts import fill, parse_answer
from sage.policy.rollout import Given, Waiting

if TYPE_CHECKING:
    from sage.config.prompt_texts import PromptStyle

JobKey = tuple[str, int]
"""Task id and rollout index."""


class ExpertAnswers:
    """Every answer is the environment's expert's, written in the style's `answer` format; the turns count.

    An expert that knows no move any more has lost; one that never knew any is a fault of the environment.
    """

    counts = True

    def __init__(self, pool: EnvPool, style: PromptStyle, dialogue: Dialogue) -> None:
        self._pool, self._style, self._dialogue = pool, style, dialogue

    def __call__(self, waiting: Sequence[Waiting]) -> list[Given]:
        advice = self._pool.advise_many([one.slot for one in waiting])
        answers: list[Given] = []
        for one in waiting:
            found = advice[one.slot]
            if isinstance(found, EnvFault):
                answers.append(found)
            elif found.move is None and one.turns:
                answers.append(Status.LOST)
            elif found.move is None:
                env = one.job.task.env
                answers.append(EnvFault(FaultKind.RAISED, f"{env} has no expert that plays this task."))
            else:
                answers.append(_written(self._style, self._dialogue, found.move.thought, found.move.action))
        return answers


def _written(style: PromptStyle, dialogue: Dialogue, thought: str, action: str) -> Reply | EnvFault:
    """An action as the style has the agent write it."""
    text = fill(style.answer, thought=thought, action=action)
    if parse_answer(style, text)[1] != action.strip():
        reason = f"The prompt style's answer format does not give the action {action!r} back."
        return EnvFault(FaultKind.RAISED, reason)
    return Reply(dialogue.encode_answer(text), text, truncated=False)


class RandomTurns:
    """The first `turns` commands of an episode are drawn evenly from the admissible ones, so that the model
    finds itself where it would not have gone. They depend on (seed, task, rollout, turn) alone.

    Raises ConfigError where the environment lists no commands.
    """

    counts = False

    def __init__(self, turns: int, style: PromptStyle, dialogue: Dialogue, seed: int) -> None:
        self._turns, self._style, self._dialogue, self._seed = turns, style, dialogue, seed

    def __call__(self, waiting: Sequence[Waiting]) -> list[Given]:
        return [None if one.turns >= self._turns else self._drawn(one) for one in waiting]

    def _drawn(self, one: Waiting) -> Given:
        task = one.job.task
        if not one.admissible:
            raise ConfigError(
                f"rollout.perturb draws among the commands that an environment lists, and {task.env} lists "
                "none; set rollout.perturb=0."
            )
        rng = stream(self._seed, "perturb", task.id, one.job.rollout_index, one.turns)
        action = one.admissible[int(rng.integers(len(one.admissible)))]
        return _written(self._style, self._dialogue, "", action)


class FirstTurns:
    """The first answers of another episode of the same job, up to the last `Job.last_turns` of it.

    Only an episode that was won leads anywhere; where it was not, the model plays from the start. Where it
    broke, so does this one.
    """

    counts = False

    def __init__(self, shown: Sequence[Episode]) -> None:
        self._shown: Mapping[JobKey, Episode] = {
            (episode.task.id, episode.rollout_index): episode
            for episode in shown
            if episode.won or not episode.status.is_ok
        }

    def __call__(self, waiting: Sequence[Waiting]) -> list[Given]:
        return [self._next(one) for one in waiting]

    def _next(self, one: Waiting) -> Given:
        shown = self._shown.get((one.job.task.id, one.job.rollout_index))
        if shown is None or one.job.last_turns is None:
            return None
        if not shown.status.is_ok:
            return shown.status, f"What was to be shown first: {shown.error}"
        if one.turns >= len(shown.turns) - one.job.last_turns:
            return None
        turn = shown.turns[one.turns]
        ids = shown.token_ids[turn.answer_start : turn.answer_end]
        return Reply(ids, turn.answer, turn.truncated)
