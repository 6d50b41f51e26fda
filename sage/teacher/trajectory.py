"""The judge of `judge.context=trajectory`: the question stands behind what the scoring pass reads anyway.

    states = judge.read(episodes, contexts)   # one forward: states for the scores, replies for the rule
    judge(contexts)                           # knows them

Invariant: what is scored is what would be scored without a judge; `read` gives the states that `states_of`
gives of the same episodes. A turn that was not asked about in `read` is asked apart: the episode up to it is
then read once more, by an engine that reads what queries share once where the model's engine does.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sage.config.prompt_texts import PromptStyle
from sage.episode import Episode
from sage.errors import is_out_of_memory
from sage.objective.intervention.base import JudgeQuery, JudgeReply, TurnContext
from sage.policy.decoding.branches import Branch, Trunk, can_branch
from sage.policy.dialogue import Dialogue
from sage.policy.models.failures import OURS, free_memory
from sage.policy.models.layers import reach
from sage.policy.models.load import LanguageModel
from sage.policy.prompts import fields, fill
from sage.records.activity import did
from sage.records.clock import phase
from sage.teacher.judge import TeacherJudge, judge_message
from sage.teacher.replies import Known
from sage.teacher.score import View, states_of, teacher_view

SAID = frozenset({"goal", "scene", "observation", "admissible", "thought", "answer"})
"""Fields of `PromptStyle.judge` that a conversation has said by then. The action stays: it names the turn."""


FEEDBACK = 256
"""Tokens that are kept free for what a turn itself adds to a question, and for the reply."""


def question_style(style: PromptStyle) -> PromptStyle:
    """The style whose `judge` is the question alone: without lines whose fields the conversation has said. A
    style without a `judge_system` has nothing but `judge` to say what is asked, and keeps all of it."""
    if not style.judge_system:
        return style
    kept = [line for line in style.judge.split("\n") if not fields(line) or fields(line) - SAID]
    return style.model_copy(update={"judge": "\n".join(kept)})


class TrajectoryJudge(TeacherJudge):
    """`reading` renders episodes for the teacher (None: as they were sampled), as its scoring pass does. The
    further arguments are `TeacherJudge`'s."""

    lm: LanguageModel
    shorter = "lower rollout.max_context by as much, or set judge.context=state"

    def __init__(
        self,
        lm: LanguageModel,
        style: PromptStyle,
        query: JudgeQuery,
        reading: Dialogue | None,
        **how: Any,
    ) -> None:
        super().__init__(lm, question_style(style), query, **how)
        self._reading = reading
        self._views: dict[int, tuple[Episode, View]] = {}
        """By episode, as long as one call or reading lasts."""

    def read(self, episodes: Sequence[Episode], contexts: Sequence[TurnContext]) -> list[Tensor]:
        """The teacher's states at all student tokens of each episode, which are read in one forward; about
        `contexts`, turns of theirs, it is asked on the way."""
        views = [self._view(episode) for episode in episodes]
        branches = self._branches([id(episode) for episode in episodes], contexts)
        ids, positions = [view.ids for view in views], [view.positions() for view in views]
        try:
            states_TE = self._read(ids, positions, branches)
        except OURS:
            raise
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            states_TE = None
        if states_TE is None:  # keys and values did not fit beside it: without, and the turns are asked apart
            free_memory()
            states_TE = states_of(self.lm, ids, positions)
        self._views.clear()
        return list(states_TE.split([len(chosen) for chosen in positions]))

    @property
    def room(self) -> int:
        """Tokens that an episode leaves behind its last answer, so that a question fits there."""
        blank = fill(self.style.judge, **dict.fromkeys(fields(self.style.judge), ""))
        return len(self._dialogue.after([], self._with_system(blank))) + FEEDBACK

    def __call__(self, turns: Sequence[TurnContext]) -> list[JudgeReply]:
        try:
            return super().__call__(turns)
        finally:
            self._views.clear()

    def _read(
        self, ids: list[list[int]], positions: list[list[int]], branches: dict[str, Branch]
    ) -> Tensor | None:
        if not branches or not can_branch(self.lm):
            return states_of(self.lm, ids, positions)
        trunk = Trunk(self.lm, ids, positions)
        limit, stop = self.query.max_new_tokens, self._dialogue.stop(None)
        items = list(branches.items())
        with phase("judge"):
            for first in range(0, len(items), self.batch):
                some = items[first : first + self.batch]
                started = time.perf_counter()
                replies = trunk.replies([branch for _, branch in some], limit, stop)
                seconds = (time.perf_counter() - started) / len(some)
                did(len(some))
                for (key, branch), answer in zip(some, replies, strict=True):
                    own = len(branch.ids) + max(0, branch.end - 1 - positions[branch.row][-1])
                    did(tokens=own + len(answer.ids))
                    self._memory[key] = Known(self._text(answer), own + len(answer.ids))
                    self._unpaid[key] = seconds
        return trunk.hidden_TE

    def _branches(self, episodes: list[int], contexts: Sequence[TurnContext]) -> dict[str, Branch]:
        """By the key of the query; those whose reply is known, and those that have no room, are left out."""
        most, branches = reach(self.lm), {}
        for context in contexts:
            prompt = self._prompt(context)
            key = self._key(prompt)
            if self._known_reply(key) is None and (most is None or len(prompt) < most):
                _, end = self._span(context)
                branches[key] = Branch(episodes.index(id(context.episode)), end, prompt[end:])
        return branches

    def _view(self, episode: Episode) -> View:
        if id(episode) not in self._views:
            self._views[id(episode)] = (episode, teacher_view(episode, self._reading))
        return self._views[id(episode)][1]

    def _span(self, context: TurnContext) -> tuple[int, int]:
        """Where the judged answer stands."""
        turns = context.episode.turns
        number = next(i for i, turn in enumerate(turns) if turn is context.turn)
        return self._view(context.episode).spans[number]

    def _prompt(self, context: TurnContext) -> list[int]:
        view, (start, end) = self._view(context.episode), self._span(context)
        question = self._with_system(judge_message(self.style, context, self.query.sees_feedback))
        return view.ids[:end] + self._dialogue.after(view.ids[start:end], question)

    def _with_system(self, question: str) -> str:
        system = self.style.judge_system
        return self._dialogue.joined(system, question) if system else question
