"""A small classifier in the place of the teacher's judgement, or in front of it.

Multinomial logistic regression on `sage.objective.intervention.turn_features`; its numbers are settings, so
that a run's identity holds them. `python -m sage.objective.intervention.fit` fits one on judged turns and
writes the option.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field, model_validator

from sage.config.registry import interventions
from sage.episode import Decision, Failure, Label
from sage.objective.intervention.base import Intervention, JudgeFn, JudgeQuery, Stream, TurnContext, weight_of
from sage.objective.intervention.rates import WORDS
from sage.objective.intervention.turn_features import NAMES, Seen, features


@interventions.register("learned")
class Learned(Intervention):
    """SKIP, WEAK or STRONG, whichever is likeliest; the teacher is asked only where that is less likely than
    `ask_below`. Deterministic failures have full weight as ever.

    The propensity is 1: the rule is deterministic. Which turns were asked shows in `judge_reply`.
    """

    needs_scores: ClassVar[bool] = True

    weak_weight: float = Field(ge=0, le=1)
    """α, the weight of a WEAK turn."""
    ask_below: float = Field(ge=0, le=1)
    """0 never asks; above 1/3 the unsure turns are asked; 1 asks about every turn."""
    sees_feedback: bool
    """See `JudgeQuery.sees_feedback`."""
    max_new_tokens: int = Field(ge=1, le=1_000_000)
    """See `JudgeQuery.max_new_tokens`."""
    turn_budget: int = Field(ge=1, le=10_000)
    """Of the runs it was fitted on: turn positions are shares of it."""
    features: list[str]
    """Must be the names this version computes, in its order."""
    mean: list[float]
    """Mean of each feature, taken off before it is divided by `scale`."""
    scale: list[float]
    """Standardisation of each feature."""
    coefficients: list[list[float]]
    """[3 words × features]: SKIP, WEAK, STRONG."""
    intercepts: list[float]
    """One for each of the 3 words."""

    @model_validator(mode="after")
    def _fits(self) -> Learned:
        if tuple(self.features) != NAMES:
            raise ValueError(
                "intervention.features are not those of this version of sage; fit it again with "
                "python -m sage.objective.intervention.fit."
            )
        sizes = {len(self.mean), len(self.scale), *map(len, self.coefficients)}
        lengths = {len(self.coefficients), len(self.intercepts)}
        if sizes != {len(NAMES)} or lengths != {len(WORDS)}:
            raise ValueError(
                f"intervention=learned needs {len(WORDS)} rows of {len(NAMES)} coefficients; "
                "take a file that python -m sage.objective.intervention.fit wrote."
            )
        return self

    @property
    def query(self) -> JudgeQuery | None:
        if self.ask_below == 0:
            return None
        return JudgeQuery(sees_feedback=self.sees_feedback, max_new_tokens=self.max_new_tokens)

    def probabilities(self, row: Sequence[float]) -> list[float]:
        """Of SKIP, WEAK and STRONG for one row of features."""
        scaled = [(x - m) / s for x, m, s in zip(row, self.mean, self.scale, strict=True)]
        logits = [
            b + sum(w * x for w, x in zip(weights, scaled, strict=True))
            for weights, b in zip(self.coefficients, self.intercepts, strict=True)
        ]
        top = max(logits)
        powers = [math.exp(logit - top) for logit in logits]
        return [power / sum(powers) for power in powers]

    def decide(self, turns: Sequence[TurnContext], ask: JudgeFn, stream: Stream) -> list[Decision]:
        rows = self._rows(turns)
        guesses = [self.probabilities(rows[id(c.turn)]) for c in turns]
        able = [c.turn.failure is Failure.NONE for c in turns]
        unsure = [ok and max(p) < self.ask_below for ok, p in zip(able, guesses, strict=True)]
        asked = [c for c, doubt in zip(turns, unsure, strict=True) if doubt]
        replies = iter(ask(asked) if asked else [])
        decisions = []
        for ok, doubt, guess in zip(able, unsure, guesses, strict=True):
            if not ok:
                decisions.append(Decision(Label.DET_FAIL, 1.0))
            elif doubt:
                reply = next(replies)
                label = reply.label or Label.FALLBACK
                weight = weight_of(label, self.weak_weight)
                decisions.append(
                    Decision(
                        label,
                        weight,
                        reply=reply.text,
                        latency_s=reply.latency_s,
                        cached=reply.cached,
                        judge_tokens=reply.tokens,
                    )
                )
            else:
                label = WORDS[guess.index(max(guess))]
                decisions.append(Decision(label, weight_of(label, self.weak_weight)))
        return decisions

    def _rows(self, turns: Sequence[TurnContext]) -> dict[int, list[float]]:
        """Features of every turn by the identity of its object; each episode is read once, in its own
        order."""
        episodes = {id(c.episode): c.episode for c in turns}
        scores = {id(c.turn): c.score for c in turns}
        rows: dict[int, list[float]] = {}
        for episode in episodes.values():
            seen = []
            for turn in episode.all_turns:
                score = scores.get(id(turn))
                seen.append(
                    Seen(
                        observation=turn.observation,
                        action=turn.action,
                        feedback=turn.feedback,
                        failure=str(turn.failure),
                        answer_tokens=turn.n_tokens,
                        reward=turn.reward,
                        student_entropy=score.student_entropy if score else None,
                        student_logprob=score.student_logprob if score else None,
                    )
                )
            made = features(episode.goal, seen, self.turn_budget)
            rows |= {id(turn): row for turn, row in zip(episode.all_turns, made, strict=True)}
        return rows
