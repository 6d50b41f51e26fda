"""The rule of the positive control: it is told where the teacher is spoilt (`teacher.spoil`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from sage.config.registry import interventions
from sage.episode import Decision, Label
from sage.objective.intervention.base import Intervention, JudgeFn, Stream, TurnContext


@interventions.register("told")
class Told(Intervention):
    """SKIP where the teacher is spoilt, full weight everywhere else; nobody is asked. What a selection can at
    most be worth in that world."""

    needs_spoilt: ClassVar[bool] = True

    def decide(self, turns: Sequence[TurnContext], ask: JudgeFn, stream: Stream) -> list[Decision]:
        if any(context.turn.teacher_spoilt is None for context in turns):
            raise ValueError(
                "intervention=told needs a teacher that is spoilt on known turns; set teacher.spoil."
            )
        return [
            Decision(Label.SKIP, 0.0) if context.turn.teacher_spoilt else Decision(Label.ALWAYS, 1.0)
            for context in turns
        ]
