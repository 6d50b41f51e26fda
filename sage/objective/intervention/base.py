"""Which turns are supervised, and how strongly: the weight i_t of method.md section 3.

A rule decides over a batch of turns at once, so that rules which compare turns, ask the teacher for some of
them only, or match label rates fit without touching the training loop. Nothing here knows a model: the
teacher is the callable `ask`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from sage.config.registry import Component, Settings, interventions
from sage.episode import Decision, Episode, Failure, Label, Turn, TurnScore


class TurnContext(NamedTuple):
    """One turn and the episode it belongs to; `score` is there where the rule `needs_scores`."""

    episode: Episode
    turn: Turn
    score: TurnScore | None = None


@dataclass(frozen=True, slots=True)
class JudgeReply:
    """The teacher's answer about one turn.

    `label` is SKIP, WEAK or STRONG, None where the reply is none of the three words. `latency_s` is the share
    of a batched query's wall time in seconds; `tokens` counts prompt and reply tokens (0 where cached).
    """

    label: Label | None
    text: str
    latency_s: float = 0.0
    cached: bool = False
    tokens: int = 0


class JudgeFailure(RuntimeError):
    """The teacher could not be run on some turns; what it says about the others is known from now on.

    episodes: those with such a turn, each once, and why.
    """

    def __init__(self, episodes: Sequence[tuple[Episode, str]]) -> None:
        super().__init__(f"The judge failed on {len(episodes)} episodes: {episodes[0][1]}")
        self.episodes = list(episodes)


class JudgeQuery(Settings):
    """What a rule wants the teacher to be asked like; `sage.teacher.judge` reads it."""

    sees_feedback: bool
    """The judge is shown the environment's reply to the answer it judges (method.md section 3, open).
    Where it is not, the template's line for it is left out."""
    max_new_tokens: int = Field(ge=1, le=1_000_000)
    """Length limit of one greedy reply."""


JudgeFn = Callable[[Sequence[TurnContext]], list[JudgeReply]]
"""Asks the teacher about turns, one reply each, in order. Raises JudgeFailure where it cannot be run on some:
their episodes are taken out, and the rule is called again with the others."""

Stream = Callable[[TurnContext], random.Random]
"""The random stream of one turn. It depends on the turn alone (run seed, step, task, rollout, turn), never on
the order or the process in which turns are decided."""


def no_judge(turns: Sequence[TurnContext]) -> list[JudgeReply]:
    """The `ask` of a run whose rule has no query; raises RuntimeError when it is used all the same."""
    raise RuntimeError(
        f"The rule asked about {len(turns)} turns but declares no `query`; return one from it."
    )


def weight_of(label: Label, weak_weight: float) -> float:
    """i_t of a label: 0 for SKIP and NEVER, α for WEAK, 1 for everything else (method.md section 3)."""
    return {Label.SKIP: 0.0, Label.NEVER: 0.0, Label.WEAK: weak_weight}.get(label, 1.0)


_RENAMED = {"memory": "state_dict", "recall": "load_state_dict", "asks": "always_judged"}
"""Hooks by the names of an earlier version."""


class Intervention(Component):
    """Base class of the rules: a name and settings, and one decision per turn."""

    needs_scores: ClassVar[bool] = False
    """The rule reads what both models say about the turn (`TurnContext.score`), which is then computed
    first."""
    needs_distances: ClassVar[bool] = False
    """The rule reads the expert's distances around the turn (`Turn.expert_distance_before`); a run in an
    environment that does not give them is refused."""

    needs_spoilt: ClassVar[bool] = False
    """The rule reads where the teacher is spoilt (`teacher.spoil`); without that a run is refused."""

    @classmethod
    def __pydantic_init_subclass__(cls, **settings: Any) -> None:
        """Raises TypeError for a rule with the hooks of an earlier version, which nobody would call."""
        for old, new in _RENAMED.items():
            if callable(cls.__dict__.get(old)):
                raise TypeError(
                    f"{cls.__name__}.{old} is called `{new}` now; rename it, or nobody would call it."
                )

    @property
    def query(self) -> JudgeQuery | None:
        """How the teacher has to be asked; None (the default) where the rule never asks."""
        return None

    def always_judged(self, turn: Turn) -> bool:
        """Whether `decide` will ask about the turn whatever else is in the batch: the teacher may then be
        asked as soon as the turn was played. False (the default) where that is open."""
        return False

    def decide(self, turns: Sequence[TurnContext], ask: JudgeFn, stream: Stream) -> list[Decision]:
        """One decision per turn, in order; weights i_t in [0, 1]."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """What the rule has learnt from earlier steps, in plain data: it goes into the checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave, in a resumed run."""


@interventions.register("always")
class Always(Intervention):
    """Standard OPD: every turn at full weight, failed or not; nobody is asked."""

    def decide(self, turns: Sequence[TurnContext], ask: JudgeFn, stream: Stream) -> list[Decision]:
        return [Decision(Label.ALWAYS, 1.0) for _ in turns]


@interventions.register("never")
class Never(Intervention):
    """No turn is supervised: the loop plays and records, and never steps."""

    def decide(self, turns: Sequence[TurnContext], ask: JudgeFn, stream: Stream) -> list[Decision]:
        return [Decision(Label.NEVER, 0.0) for _ in turns]


@interventions.register("judge")
class Judge(Intervention):
    """Method.md section 3: a deterministic failure has full weight, about the rest the teacher is asked."""

    weak_weight: float = Field(ge=0, le=1)
    """α, the weight of a WEAK turn."""
    sees_feedback: bool
    """See `JudgeQuery.sees_feedback`."""
    max_new_tokens: int = Field(ge=1, le=1_000_000)
    """See `JudgeQuery.max_new_tokens`."""

    @property
    def query(self) -> JudgeQuery | None:
        return JudgeQuery(sees_feedback=self.sees_feedback, max_new_tokens=self.max_new_tokens)

    def weight(self, label: Label) -> float:
        """i_t of a label: 0 for SKIP, α for WEAK, 1 for everything else."""
        return weight_of(label, self.weak_weight)

    def always_judged(self, turn: Turn) -> bool:
        return turn.failure is Failure.NONE

    def decide(self, turns: Sequence[TurnContext], ask: JudgeFn, stream: Stream) -> list[Decision]:
        asked = [context for context in turns if self.always_judged(context.turn)]
        replies = iter(ask(asked) if asked else [])
        decisions = []
        for context in turns:
            if context.turn.failure is not Failure.NONE:
                decisions.append(Decision(Label.DET_FAIL, 1.0))
                continue
            reply = next(replies)
            label = reply.label or Label.FALLBACK
            decisions.append(
                Decision(
                    label,
                    self.weight(label),
                    reply=reply.text,
                    latency_s=reply.latency_s,
                    cached=reply.cached,
                    judge_tokens=reply.tokens,
                )
            )
        return decisions
