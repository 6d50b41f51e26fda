"""Intervention rules that settle what causes an effect: chance, inversion, the oracle, no judge, no query.

Each leaves deterministic failures as they are (label DET_FAIL, full weight): what is under test is the
teacher's decision about the turns that could be executed. A rule that wraps another one is named in YAML by
its own file and takes the other as `rule` (`intervention@intervention.rule=always` on the command line).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, PrivateAttr, SerializeAsAny, model_validator

from sage.config.registry import interventions
from sage.episode import Decision, Failure, Label, Turn, effect_of
from sage.objective.intervention.base import Intervention, JudgeFn, JudgeQuery, Stream, TurnContext, weight_of
from sage.objective.intervention.rates import LabelRates

NestedIntervention = Annotated[SerializeAsAny[Intervention], BeforeValidator(interventions.build)]


class Wrapper(Intervention):
    """Base of the rules that change another rule's decisions."""

    rule: NestedIntervention
    """The rule that decides first. It has the same α: a YAML file takes it over by
    `rule: {weak_weight: ${..weak_weight}}` behind its `defaults`, whether the inner rule has one or not."""
    weak_weight: float = Field(ge=0, le=1)
    """α, the weight of a WEAK turn, of this rule and of every rule inside it."""

    @model_validator(mode="before")
    @classmethod
    def _drop_needless_alpha(cls, values: Any) -> Any:
        """An inner rule that knows no WEAK of its own is handed none."""
        inner = values.get("rule") if isinstance(values, dict) else None
        if not isinstance(inner, dict) or inner.get("name") not in interventions.names():
            return values
        takes_it = "weak_weight" in interventions.get(inner["name"]).model_fields
        if takes_it or inner.get("weak_weight", values.get("weak_weight")) != values.get("weak_weight"):
            return values
        return values | {"rule": {key: value for key, value in inner.items() if key != "weak_weight"}}

    @model_validator(mode="after")
    def _one_alpha(self) -> Wrapper:
        inner = getattr(self.rule, "weak_weight", self.weak_weight)
        if inner != self.weak_weight:
            raise ValueError(
                f"The rule {self.rule.name!r} inside {self.name!r} has weak_weight {inner:g} and the outer "
                f"one {self.weak_weight:g}; a run has one, so set intervention.weak_weight alone."
            )
        return self

    @property
    def query(self) -> JudgeQuery | None:
        return self.rule.query

    @property
    def needs_scores(self) -> bool:  # type: ignore[override]
        return self.rule.needs_scores

    @property
    def needs_distances(self) -> bool:  # type: ignore[override]
        return self.rule.needs_distances

    @property
    def needs_spoilt(self) -> bool:  # type: ignore[override]
        return self.rule.needs_spoilt

    def always_judged(self, turn: Turn) -> bool:
        return self.query is not None and self.rule.always_judged(turn)

    def state_dict(self) -> dict[str, Any]:
        return self.rule.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rule.load_state_dict(state)


@interventions.register("inverted")
class Inverted(Wrapper):
    """SKIP and STRONG swapped, WEAK and everything else left as it is."""

    def decide(self, turns: Sequence[TurnContext], ask: JudgeFn, stream: Stream) -> list[Decision]:
        swapped = {Label.SKIP: Label.STRONG, Label.STRONG: Label.SKIP}
        decisions = []
        for decision in self.rule.decide(turns, ask, stream):
            label = swapped.get(decision.label)
            if label is None:
                decisions.append(decision)
            else:
                decisions.append(replace(decision, label=label, weight=weight_of(label, self.weak_weight)))
        return decisions


@interventions.register("permuted")
class Permuted(Wrapper):
    """The decisions of another rule, permuted among the turns of the batch: its rates exactly, by chance.

    With `by_turn` only among turns at the same position. The judge is asked as always, so the price is the
    same; `randomized` with ε = 1 and counted rates needs no query. With several processes each permutes its
    share of the batch. The propensity is the share of the label among them.
    """

    by_turn: bool
    """Permute among equal turn positions only."""

    def decide(self, turns: Sequence[TurnContext], ask: JudgeFn, stream: Stream) -> list[Decision]:
        decisions = self.rule.decide(turns, ask, stream)
        groups: dict[int, list[int]] = defaultdict(list)
        for index, (context, decision) in enumerate(zip(turns, decisions, strict=True)):
            if decision.label is not Label.DET_FAIL:
                groups[context.turn.index if self.by_turn else 0].append(index)
        for group in groups.values():
            # Each turn draws its own number, so the permutation does not depend on the order of the turns.
            order = sorted(group, key=lambda index: stream(turns[index]).random())
            labels = Counter(decisions[index].label for index in group)
            permuted = [
                replace(
                    decisions[target],
                    label=decisions[giver].label,
                    weight=decisions[giver].weight,
                    propensity=labels[decisions[giver].label] / len(group),
                )
                for target, giver in zip(group, order, strict=True)
            ]
            for target, decision in zip(group, permuted, strict=True):
                decisions[target] = decision
        return decisions


@interventions.register("rate_matched")
class RateMatched(Wrapper):
    """Labels drawn at another rule's own rates, estimated over every turn it has decided so far, this batch
    included.

    Where `permuted` keeps the rates of each batch exactly, this keeps those of the whole run on average; a
    label may appear at a turn position that had none of it in this batch. The rule is asked as always. With
    several processes each estimates from its share. The estimate is part of the checkpoint; the propensity is
    the estimated rate.
    """

    by_turn: bool
    """Estimate a rate for each turn position; else one for all."""

    _counts: dict[int, Counter[str]] = PrivateAttr(default_factory=dict)
    """Labels given so far at each turn position (at 0 for all)."""

    def state_dict(self) -> dict[str, Any]:
        counts = [[turn, dict(labels)] for turn, labels in sorted(self._counts.items())]
        return {"counts": counts, "rule": self.rule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._counts.clear()
        self._counts.update({turn: Counter(labels) for turn, labels in state["counts"]})
        self.rule.load_state_dict(state["rule"])

    def decide(self, turns: Sequence[TurnContext], ask: JudgeFn, stream: Stream) -> list[Decision]:
        decisions = self.rule.decide(turns, ask, stream)
        places = [context.turn.index if self.by_turn else 0 for context in turns]
        for place, decision in zip(places, decisions, strict=True):
            if decision.label is not Label.DET_FAIL:
                self._counts.setdefault(place, Counter())[str(decision.label)] += 1
        drawn = []
        for context, place, decision in zip(turns, places, decisions, strict=True):
            if decision.label is Label.DET_FAIL:
                drawn.append(decision)
                continue
            counts = sorted(self._counts[place].items())
            (name,) = stream(context).choices([label for label, _ in counts], [n for _, n in counts])
            label = Label(name)
            share = self._counts[place][name] / sum(n for _, n in counts)
            weight = weight_of(label, self.weak_weight)
            drawn.append(replace(decision, label=label, weight=weight, propensity=share))
        return drawn


@interventions.register("randomized")
class Randomized(Wrapper):
    """With probability ε a decision is replaced by a draw from `rates`; the propensity is logged.

    The propensity of the label that was given, over a rule that decides for certain (p = 1):
    (1 − ε) p 1[the rule says so] + ε rate(label). With ε = 1 the inner rule is not asked at all.
    """

    epsilon: float = Field(ge=0, le=1)
    """ε, the probability that a decision is drawn anew."""
    rates: LabelRates

    @property
    def query(self) -> JudgeQuery | None:
        return None if self.epsilon == 1 else self.rule.query

    def decide(self, turns: Sequence[TurnContext], ask: JudgeFn, stream: Stream) -> list[Decision]:
        if self.epsilon == 1:
            inner = [
                Decision(Label.DET_FAIL, 1.0)
                if context.turn.failure is not Failure.NONE
                else Decision(Label.NEVER, 0.0, propensity=0.0)
                for context in turns
            ]
        else:
            inner = self.rule.decide(turns, ask, stream)
        decisions = []
        for context, decision in zip(turns, inner, strict=True):
            if decision.label is Label.DET_FAIL:
                decisions.append(decision)
                continue
            turn, rng = context.turn.index, stream(context)
            kept = rng.random() >= self.epsilon
            label = decision.label if kept else self.rates.draw(turn, rng)
            agrees = label is decision.label
            propensity = (1 - self.epsilon) * decision.propensity * agrees
            propensity += self.epsilon * self.rates.share(label, turn)
            weight = decision.weight if kept else weight_of(label, self.weak_weight)
            decisions.append(replace(decision, label=label, weight=weight, propensity=propensity))
        return decisions


@interventions.register("oracle")
class Oracle(Intervention):
    """Labels from the environment's own expert: SKIP where the turn made progress, WEAK where it changed
    nothing, STRONG where it moved away from the goal (`sage.episode.Effect`). The ceiling of selection;
    nobody is asked.

    A turn about which the oracle cannot tell gets FALLBACK and full weight.
    """

    needs_distances: ClassVar[bool] = True

    weak_weight: float = Field(ge=0, le=1)
    """α, the weight of a WEAK turn."""

    def decide(self, turns: Sequence[TurnContext], ask: JudgeFn, stream: Stream) -> list[Decision]:
        known = [c for c in turns if c.turn.expert_distance_before is not None]
        if turns and not known:
            raise ValueError(
                "intervention=oracle needs the expert's distances, which "
                f"{turns[0].episode.task.env} does not give; choose an environment with an oracle (alfworld)."
            )
        decisions = []
        for context in turns:
            turn = context.turn
            effect = effect_of(turn.expert_distance_before, turn.expert_distance_after)
            label = Label.DET_FAIL if turn.failure is not Failure.NONE else effect.label if effect else None
            label = label or Label.FALLBACK
            decisions.append(Decision(label, weight_of(label, self.weak_weight)))
        return decisions


@interventions.register("feedback_only")
class FeedbackOnly(Intervention):
    """Deterministic failures at full weight, nothing else: what the environment says for free."""

    def decide(self, turns: Sequence[TurnContext], ask: JudgeFn, stream: Stream) -> list[Decision]:
        return [
            Decision(Label.DET_FAIL, 1.0) if c.turn.failure is not Failure.NONE else Decision(Label.SKIP, 0.0)
            for c in turns
        ]


@interventions.register("disagreement")
class Disagreement(Intervention):
    """Labels from d_t, the mean over the turn's tokens of log π_θ − log π_φ: no query, only the scoring pass.

    STRONG from `strong_at` nats on, WEAK from `weak_at` on, else SKIP.
    """

    needs_scores: ClassVar[bool] = True

    weak_weight: float = Field(ge=0, le=1)
    """α, the weight of a WEAK turn."""
    weak_at: float = Field(ge=0, le=1_000)
    """Nats per token."""
    strong_at: float = Field(ge=0, le=1_000)
    """Nats per token."""

    def decide(self, turns: Sequence[TurnContext], ask: JudgeFn, stream: Stream) -> list[Decision]:
        decisions = []
        for context in turns:
            label = Label.DET_FAIL if context.turn.failure is not Failure.NONE else self._label(context)
            decisions.append(Decision(label, weight_of(label, self.weak_weight)))
        return decisions

    def _label(self, context: TurnContext) -> Label:
        score = context.score
        if score is None or score.student_logprob is None or score.teacher_logprob is None:
            return Label.FALLBACK
        gap = score.student_logprob - score.teacher_logprob
        return Label.STRONG if gap >= self.strong_at else Label.WEAK if gap >= self.weak_at else Label.SKIP
