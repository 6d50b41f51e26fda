"""Controls and rivals: rates, inversion, the oracle, permuted confidences; by hand and as properties."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from sage.config.components import conf_dir
from sage.config.load import load
from sage.episode import Decision, Failure, Label, TurnScore
from sage.errors import ConfigError
from sage.objective.confidence.base import Entropy, Margin, TokenStats, Top1
from sage.objective.confidence.rivals import (
    DisagreementUncertainty,
    Drift,
    EntropyAware,
    Shuffled,
    TurnBalanced,
)
from sage.objective.intervention.base import (
    Always,
    Intervention,
    Judge,
    JudgeReply,
    TurnContext,
    no_judge,
    weight_of,
)
from sage.objective.intervention.controls import (
    Disagreement,
    FeedbackOnly,
    Inverted,
    Oracle,
    Permuted,
    Randomized,
    RateMatched,
)
from sage.objective.intervention.rates import WORDS, LabelRates
from sage.objective.normalization import MatchedScale, Unnormalized, WeightSums
from sage.objective.weights import selective_weights, token_weights, weight_sums
from sage.training.curriculum import BackToFront, ForwardToBack
from tests.tiny_models import make_episode

calmly = settings(deadline=None, max_examples=50)
JUDGE = Judge(name="judge", weak_weight=0.5, sees_feedback=True, max_new_tokens=8)
labels_strategy = st.lists(st.sampled_from(WORDS), min_size=1, max_size=40)


def contexts(count: int, failures: dict[int, Failure] | None = None, number: int = 0) -> list[TurnContext]:
    episode = make_episode(number, count, failures=failures)
    return [TurnContext(episode, turn) for turn in episode.turns]


def stream(seed: int = 0):  # type: ignore[no-untyped-def]
    return lambda c: random.Random(f"{seed}/{c.episode.task.id}/{c.turn.index}")


def answering(labels: Sequence[Label]):  # type: ignore[no-untyped-def]
    """An `ask` that knows the label of each turn index."""
    return lambda turns: [JudgeReply(labels[c.turn.index], "word", tokens=3) for c in turns]


def decide(rule: Intervention, labels: Sequence[Label], seed: int = 0) -> list[Decision]:
    return rule.decide(contexts(len(labels)), answering(labels), stream(seed))


def inverted(rule: Intervention) -> Inverted:
    return Inverted(name="inverted", rule=rule, weak_weight=0.5)


def randomized(epsilon: float, rule: Intervention = JUDGE, **rates: object) -> Randomized:
    shares = LabelRates.model_validate({"skip": 0.2, "weak": 0.5, "strong": 0.3, "by_turn": None} | rates)
    return Randomized(name="randomized", rule=rule, weak_weight=0.5, epsilon=epsilon, rates=shares)


# --- inverted


def test_inversion_by_hand() -> None:
    found = decide(inverted(JUDGE), [Label.SKIP, Label.WEAK, Label.STRONG])
    assert [(d.label, d.weight) for d in found] == [(Label.STRONG, 1), (Label.WEAK, 0.5), (Label.SKIP, 0)]
    assert found[0].judge_tokens == 3


@calmly
@given(labels_strategy)
def test_the_inverse_of_the_inverse_is_the_rule(labels: list[Label]) -> None:
    assert decide(inverted(inverted(JUDGE)), labels) == decide(JUDGE, labels)


def test_failures_and_fallbacks_are_not_inverted() -> None:
    turns = contexts(2, failures={0: Failure.EMPTY})
    found = inverted(JUDGE).decide(turns, lambda asked: [JudgeReply(None, "hm")] * len(asked), stream())
    assert [d.label for d in found] == [Label.DET_FAIL, Label.FALLBACK]


# --- permuted


@calmly
@given(labels_strategy, st.integers(0, 99))
def test_a_deal_keeps_the_rates_exactly(labels: list[Label], seed: int) -> None:
    rule = Permuted(name="permuted", rule=JUDGE, weak_weight=0.5, by_turn=False)
    found = decide(rule, labels, seed)
    assert Counter(d.label for d in found) == Counter(labels)
    assert sum(d.weight for d in found) == sum(weight_of(label, 0.5) for label in labels)
    for decision in found:
        assert decision.propensity == labels.count(decision.label) / len(labels)


def test_a_deal_by_turn_stays_at_its_position_and_leaves_failures() -> None:
    turns = [c for n in range(40) for c in contexts(3, failures={1: Failure.NO_EFFECT}, number=n)]

    def ask(asked: Sequence[TurnContext]) -> list[JudgeReply]:
        # Turn 0 is always SKIP; turn 2 is STRONG in even episodes, WEAK in odd ones.
        def word(c: TurnContext) -> Label:
            odd = int(c.episode.task.id.split("-")[1]) % 2
            return Label.SKIP if c.turn.index == 0 else (Label.WEAK if odd else Label.STRONG)

        return [JudgeReply(word(c), "word") for c in asked]

    rule = Permuted(name="permuted", rule=JUDGE, weak_weight=0.5, by_turn=True)
    found = rule.decide(turns, ask, stream())
    pairs = list(zip(turns, found, strict=True))
    by_turn = [Counter(d.label for c, d in pairs if c.turn.index == t) for t in range(3)]
    assert by_turn == [{Label.SKIP: 40}, {Label.DET_FAIL: 40}, {Label.STRONG: 20, Label.WEAK: 20}]
    own = JUDGE.decide(turns, ask, stream())
    assert [d.label for d in found] != [d.label for d in own]
    # The order in which turns are decided changes nothing.
    backwards = rule.decide(turns[::-1], ask, stream())
    assert Counter(d.label for d in backwards) == Counter(d.label for d in found)


# --- rate_matched


def rate_matched(by_turn: bool = False) -> RateMatched:
    return RateMatched(name="rate_matched", rule=JUDGE, weak_weight=0.5, by_turn=by_turn)


def test_a_running_estimate_by_hand() -> None:
    rule = rate_matched()
    first = decide(rule, [Label.SKIP] * 3)
    assert [(d.label, d.propensity) for d in first] == [(Label.SKIP, 1.0)] * 3
    # Three SKIP and one STRONG so far: the rates of all four turns, not of the last batch.
    (second,) = decide(rule, [Label.STRONG])
    assert second.propensity == {Label.SKIP: 0.75, Label.STRONG: 0.25}[second.label]
    assert second.judge_tokens == 3


def test_a_running_estimate_draws_at_the_rules_rates_and_leaves_failures() -> None:
    rule = rate_matched()
    turns = [c for n in range(800) for c in contexts(4, failures={3: Failure.EMPTY}, number=n)]
    labels = [Label.SKIP, Label.SKIP, Label.WEAK, Label.STRONG]
    found = rule.decide(turns, answering(labels), stream())
    counts = Counter(d.label for d in found)
    assert counts[Label.DET_FAIL] == 800
    for label, rate in ((Label.SKIP, 2 / 3), (Label.WEAK, 1 / 3)):
        assert abs(counts[label] / 2400 - rate) < 5 * math.sqrt(rate * (1 - rate) / 2400)
    assert {d.label: d.propensity for d in found} == pytest.approx(
        {Label.SKIP: 2 / 3, Label.WEAK: 1 / 3, Label.DET_FAIL: 1}
    )
    assert {d.weight for d in found if d.label is Label.WEAK} == {0.5}


def test_a_running_estimate_by_turn_position_and_its_memory() -> None:
    rule = rate_matched(by_turn=True)
    labels = [Label.SKIP, Label.WEAK, Label.STRONG]
    assert [d.label for d in decide(rule, labels)] == labels
    again = rate_matched(by_turn=True)
    again.load_state_dict(rule.state_dict())
    later = [Label.STRONG] * 3
    assert decide(again, later, seed=5) == decide(rule, later, seed=5)
    assert again.state_dict() == rule.state_dict() != rate_matched(by_turn=True).state_dict()


# --- randomized


@calmly
@given(labels_strategy, st.integers(0, 99))
def test_no_exploration_is_the_rule(labels: list[Label], seed: int) -> None:
    assert decide(randomized(0.0), labels, seed) == decide(JUDGE, labels, seed)


def test_full_exploration_has_the_stated_rates_and_asks_nobody() -> None:
    rule = randomized(1.0)
    assert rule.query is None
    turns = [c for n in range(600) for c in contexts(5, failures={4: Failure.EMPTY}, number=n)]
    found = rule.decide(turns, no_judge, stream())
    drawn = [d for d in found if d.label is not Label.DET_FAIL]
    assert len(drawn) == 2400
    counts = Counter(d.label for d in drawn)
    for label, rate in zip(WORDS, (0.2, 0.5, 0.3), strict=True):
        # Five standard errors.
        assert abs(counts[label] / 2400 - rate) < 5 * math.sqrt(rate * (1 - rate) / 2400)
    stated = dict(zip(WORDS, (0.2, 0.5, 0.3), strict=True))
    assert {d.label: d.propensity for d in drawn} == pytest.approx(stated)
    assert {d.weight for d in drawn if d.label is Label.WEAK} == {0.5}


def test_propensities_of_partial_exploration_by_hand() -> None:
    # ε = 0.4 over a judge that says SKIP: 0.6 + 0.4 · 0.2 = 0.68; WEAK 0.2; STRONG 0.12
    rule, expected = randomized(0.4), {Label.SKIP: 0.68, Label.WEAK: 0.2, Label.STRONG: 0.12}
    turns = [c for n in range(2000) for c in contexts(1, number=n)]
    found = rule.decide(turns, lambda asked: [JudgeReply(Label.SKIP, "SKIP")] * len(asked), stream())
    assert {d.label: d.propensity for d in found} == pytest.approx(expected)
    counts = Counter(d.label for d in found)
    for label, rate in expected.items():
        assert abs(counts[label] / 2000 - rate) < 5 * math.sqrt(rate * (1 - rate) / 2000)
    # Inverse propensity weighting recovers what no exploration would have given: every label once.
    assert sum(1 / d.propensity for d in found if d.label is Label.SKIP) / 2000 == pytest.approx(1, abs=0.1)


def test_rates_by_turn_position() -> None:
    rates = LabelRates(skip=0, weak=0, strong=1, by_turn=[(1, 0, 0), (0, 1, 0)])
    assert [rates.draw(t, random.Random(0)) for t in range(4)] == [
        Label.SKIP,
        Label.WEAK,
        Label.STRONG,
        Label.STRONG,
    ]
    with pytest.raises(ValidationError, match=r"0\.5, 0\.2, 0\.2 add up to 0\.9"):
        LabelRates(skip=0.5, weak=0.2, strong=0.2, by_turn=None)


# --- oracle, feedback only, disagreement


def test_the_oracle_by_hand() -> None:
    turns = contexts(5, failures={3: Failure.NO_EFFECT})
    distances = [(5, 4), (4, 4), (4, 6), (6, 6), (None, None)]
    for context, (before, after) in zip(turns, distances, strict=True):
        context.turn.expert_distance_before, context.turn.expert_distance_after = before, after
    found = Oracle(name="oracle", weak_weight=0.25).decide(turns, no_judge, stream())
    assert [(d.label, d.weight) for d in found] == [
        (Label.SKIP, 0),
        (Label.WEAK, 0.25),
        (Label.STRONG, 1),
        (Label.DET_FAIL, 1),
        (Label.FALLBACK, 1),
    ]


def test_the_oracle_needs_an_environment_that_has_one() -> None:
    with pytest.raises(ValueError, match="which test does not give; choose an environment with an oracle"):
        Oracle(name="oracle", weak_weight=0.5).decide(contexts(2), no_judge, stream())


def test_feedback_only() -> None:
    found = FeedbackOnly(name="feedback_only").decide(
        contexts(2, failures={1: Failure.UNPARSED}), no_judge, stream()
    )
    assert [(d.label, d.weight) for d in found] == [(Label.SKIP, 0), (Label.DET_FAIL, 1)]


def test_disagreement_by_hand() -> None:
    episode = make_episode(0, 4)
    scores = [TurnScore(student_logprob=-0.1, teacher_logprob=gap - 0.1) for gap in (0.0, -0.2, -0.5)] + [
        TurnScore()
    ]
    turns = [TurnContext(episode, turn, score) for turn, score in zip(episode.turns, scores, strict=True)]
    rule = Disagreement(name="disagreement", weak_weight=0.5, weak_at=0.2, strong_at=0.5)
    assert rule.needs_scores
    found = rule.decide(turns, no_judge, stream())
    assert [d.label for d in found] == [Label.SKIP, Label.WEAK, Label.STRONG, Label.FALLBACK]


# --- confidences


def stats(
    *top1: float, student: float | None = None, teacher: float = -1.0, entropy: float = 0.5
) -> TokenStats:
    values = torch.tensor(top1, dtype=torch.float64)
    constant = torch.full_like(values, teacher)
    if student is None:
        return TokenStats(values, constant, constant, values)
    return TokenStats(
        values, constant, constant, values, torch.full_like(values, student), torch.full_like(values, entropy)
    )


def means(rule, turns: list[TokenStats], weights: Sequence[float] | None = None, seed: int = 0):  # type: ignore[no-untyped-def]
    chosen = weights or [1.0] * len(turns)
    return [float(c.mean()) for c in rule.weigh_episode(turns, chosen, random.Random(seed))]


def test_signals_per_token_and_per_turn() -> None:
    turn = stats(0.9, 0.5, 0.1)
    for kind, name in ((Top1, "top1"), (Entropy, "entropy"), (Margin, "margin")):
        per_token = kind(name=name, per="token", teacher_temperature=1).weigh(turn)
        per_turn = kind(name=name, per="turn", teacher_temperature=1).weigh(turn)
        assert per_token.tolist() == [0.9, 0.5, 0.1]
        assert per_turn.tolist() == pytest.approx([0.5] * 3)
    logprob = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log()
    rules = [kind(name="x", per="turn", teacher_temperature=1) for kind in (Top1, Margin)]
    read = {type(rule): rule.read(logprob).item() for rule in rules}
    assert read == {Top1: pytest.approx(0.5), Margin: pytest.approx(0.2)}


@calmly
@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=12),
    st.integers(0, 99),
)
def test_shuffling_keeps_the_values_of_the_supervised_turns(
    spec: list[tuple[float, float]], seed: int
) -> None:
    inner = Top1(name="top1", per="turn", teacher_temperature=1)
    rule = Shuffled(name="shuffled", rule=inner, teacher_temperature=1)
    turns, weights = [stats(c, c) for c, _ in spec], [w for _, w in spec]
    found = means(rule, turns, weights, seed)
    supervised = [t for t, w in enumerate(weights) if w > 0]
    assert sorted(found[t] for t in supervised) == pytest.approx(sorted(spec[t][0] for t in supervised))
    for t in set(range(len(spec))) - set(supervised):
        assert found[t] == pytest.approx(spec[t][0])


def test_shuffling_moves_something() -> None:
    rule = Shuffled(
        name="shuffled", rule=Top1(name="top1", per="turn", teacher_temperature=1), teacher_temperature=1
    )
    turns = [stats(c / 10) for c in range(1, 10)]
    assert means(rule, turns, seed=1) != means(rule, turns, seed=2)


def test_entropy_aware_by_hand() -> None:
    rule = EntropyAware(name="entropy_aware", bonus=1.0, tau=0.8, top_k=16, teacher_temperature=1)
    assert rule.weigh(stats(0.5, 0.8, 0.9)).tolist() == [1, 1, 2]


def test_sods_step_weight_by_hand() -> None:
    rule = Drift(name="drift", epsilon=1e-6, delta=0.2, teacher_temperature=1)
    # d = 0.5, 1.0, 2.0, 0.5, 0.1: the student is surer than the teacher, or less sure; both are drift.
    turns = [stats(0.5, 0.5, student=s) for s in (-0.5, 0.0, -3.0, -1.5, -1.1)]
    assert means(rule, turns) == pytest.approx([1, 0.5, 0.25, 1, 1.2], rel=1e-5)
    with pytest.raises(ValueError, match="needs_student"):
        means(rule, [stats(0.5)])


def test_sods_weight_is_the_product_of_its_ratios() -> None:
    """Equation 7 as it is written, on the numbers of its source's third case (rounded there)."""
    drifts, epsilon = [0.30, 0.41, 0.54, 0.73, 0.39, 0.27, 0.24], 1e-6
    expected, product = [1.0], 1.0
    for earlier, later in pairwise(drifts):
        product *= (earlier + epsilon) / (later + epsilon)
        expected.append(min(product, 1.2))
    rule = Drift(name="drift", epsilon=epsilon, delta=0.2, teacher_temperature=1)
    assert means(rule, [stats(0.5, student=-1.0 + d) for d in drifts]) == pytest.approx(expected)


def test_atods_turn_weight_by_hand() -> None:
    rule = DisagreementUncertainty(name="x", teacher_temperature=1)
    # log π_θ = -1, -2, -3 against -1, -1.5, -4: d = 0, 0.5, 1 and h = 1, 2, 3
    pairs = [(-1.0, -1.0), (-2.0, -1.5), (-3.0, -4.0)]
    turns = [stats(0.5, student=s, teacher=t) for s, t in pairs]
    assert means(rule, turns) == pytest.approx([0, 0.75, 1])
    # Nothing to tell the turns apart: 1 - 1/2 · 1/2.
    assert means(rule, [turns[1], turns[1]]) == pytest.approx([0.75, 0.75])
    # Confidently wrong: no doubt, but the largest disagreement.
    sure = [stats(0.5, student=s, teacher=t) for s, t in [(-0.1, -2.0), (-0.2, -0.2), (-0.3, -0.3)]]
    assert means(rule, sure) == pytest.approx([1, 0.5, 1])


@calmly
@given(st.lists(st.tuples(st.floats(-9, 0), st.floats(-9, 0)), min_size=1, max_size=12))
def test_weights_of_the_rivals_stay_in_range(spec: list[tuple[float, float]]) -> None:
    turns = [stats(0.5, student=s, teacher=t) for s, t in spec]
    drift = means(Drift(name="drift", epsilon=1e-6, delta=0.2, teacher_temperature=1), turns)
    assert drift[0] == 1
    assert all(0 < c <= 1.2 + 1e-12 for c in drift)
    doubt = means(DisagreementUncertainty(name="x", teacher_temperature=1), turns)
    assert all(-1e-12 <= c <= 1 + 1e-12 for c in doubt)


def test_turn_balance_by_hand() -> None:
    rule = TurnBalanced(name="turn_balanced", teacher_temperature=1)
    turns = [stats(0.5), stats(0.5, 0.5, 0.5)]
    assert means(rule, turns) == pytest.approx([2.0, 2 / 3])
    totals = [float(c.sum()) for c in rule.weigh_episode(turns, [1.0, 1.0], random.Random(0))]
    assert totals == pytest.approx([2.0, 2.0])


# --- normalization and curriculum


def test_matched_scale_by_hand() -> None:
    settings = {"scope": "batch", "epsilon": 1e-8, "z_max": None}
    flat = MatchedScale.model_validate({"name": "matched_scale", **settings})
    plain = Unnormalized.model_validate({"name": "none", **settings})
    weights = selective_weights(
        [1.0, 0.0], [torch.full((2,), 0.8, dtype=torch.float64), torch.ones(3, dtype=torch.float64)], [2, 3]
    )
    batch = weight_sums(weights)
    assert batch == WeightSums(5, 2, 1.6)
    (scaled,), z = token_weights([weights], batch, flat)
    assert z == pytest.approx(0.32)
    # Every token 0.32 / 5; in all as much as the selective rule without normalization.
    assert scaled.tolist() == pytest.approx([0.064] * 5)
    (selective,), _ = token_weights([weights], batch, plain)
    assert float(scaled.sum()) == pytest.approx(float(selective.sum()))


def test_matched_scale_of_opd_is_opd() -> None:
    flat = MatchedScale(name="matched_scale", scope="batch", epsilon=1e-8, z_max=None)
    weights = torch.ones(7, dtype=torch.float64)
    (scaled,), z = token_weights([weights], weight_sums(weights), flat)
    assert z == 1
    assert scaled.tolist() == pytest.approx([1 / 7] * 7)


def test_forward_to_back_by_hand() -> None:
    rule = ForwardToBack(name="tcod_f2b", k_start=1, eta=1)
    assert [rule.turn_limit(step, 5) for step in (1, 2, 4, 5, 9)] == [1, 2, 4, 5, 5]
    slow = ForwardToBack(name="tcod_f2b", k_start=3, eta=0.5)
    assert [slow.turn_limit(step, 30) for step in (1, 2, 3, 4)] == [3, 3, 4, 4]


def test_back_to_front_by_hand() -> None:
    rule = BackToFront(name="tcod_b2f", k_start=1, eta=0.5)
    assert [rule.last_turns(step, 4) for step in (1, 2, 3, 5, 6, 7)] == [1, 1, 2, 3, 3, None]
    assert rule.turn_limit(1, 4) == 4
    assert ForwardToBack(name="tcod_f2b", k_start=1, eta=1).last_turns(1, 4) is None


def test_always_under_a_wrapper_keeps_its_label() -> None:
    found = decide(inverted(Always(name="always")), [Label.SKIP] * 2)
    assert [d.label for d in found] == [Label.ALWAYS] * 2


@pytest.mark.parametrize("option", sorted(path.stem for path in (conf_dir() / "intervention").glob("*.yaml")))
@pytest.mark.parametrize("epsilon", [None, 0.0, 1.0])
def test_a_rule_asks_about_the_turns_that_it_says_it_will(option: str, epsilon: float | None) -> None:
    rule = load([f"intervention={option}"]).intervention
    if epsilon is not None:
        rates = LabelRates(skip=0.5, weak=0.5, strong=0.0, by_turn=None)
        rule = Randomized(name="randomized", rule=rule, weak_weight=0.5, epsilon=epsilon, rates=rates)
    turns = contexts(6, {1: Failure.EMPTY, 4: Failure.UNPARSED})
    score = TurnScore(student_logprob=-1.0, teacher_logprob=-1.5, student_entropy=0.3)
    turns = [c._replace(score=score if rule.needs_scores else None) for c in turns]
    for context in turns:
        context.turn.expert_distance_before, context.turn.expert_distance_after = 3, 2
        context.turn.teacher_spoilt = False
    asked: list[int] = []

    def ask(some: Sequence[TurnContext]) -> list[JudgeReply]:
        asked.extend(c.turn.index for c in some)
        return [JudgeReply(Label.WEAK, "WEAK") for _ in some]

    rule.decide(turns, ask, stream())
    sure = [c.turn.index for c in turns if rule.always_judged(c.turn)]
    assert set(sure) <= set(asked)
    if option in ("judge", "inverted", "permuted", "rate_matched") and epsilon != 1.0:
        assert sure == [0, 2, 3, 5]


# --- one α


def composed(*overrides: str) -> Intervention:
    return load([*overrides, "intervention.weak_weight=0.35"]).intervention


@pytest.mark.parametrize(
    "overrides",
    [
        *([f"intervention={one}"] for one in ("judge", "permuted", "rate_matched", "randomized", "inverted")),
        ["intervention=inverted", "intervention@intervention.rule=permuted"],
        ["intervention=randomized", "intervention.epsilon=1", "intervention@intervention.rule=never"],
        [
            *("intervention=permuted", "intervention@intervention.rule=inverted"),
            "intervention@intervention.rule.rule=randomized",
        ],
    ],
    ids=" ".join,
)
def test_a_weak_turn_weighs_what_the_run_says_however_deep_the_rule(overrides: list[str]) -> None:
    turns = contexts(40)
    decisions = composed(*overrides).decide(turns, answering([Label.WEAK] * len(turns)), stream())
    weak = {d.weight for d in decisions if d.label is Label.WEAK}
    assert weak == {0.35}


def test_an_inner_rule_with_an_alpha_of_its_own_is_refused_and_one_that_knows_none_needs_none() -> None:
    with pytest.raises(ConfigError, match=r"'judge' inside 'permuted' has weak_weight 0.2 and the outer"):
        load(["intervention=permuted", "intervention.rule.weak_weight=0.2"])
    with pytest.raises(ValidationError, match=r"set intervention.weak_weight alone"):
        Permuted(name="permuted", rule=JUDGE, weak_weight=0.1, by_turn=True)
    rule = composed("intervention=inverted", "intervention@intervention.rule=always")
    assert rule.model_dump() == {"name": "inverted", "rule": {"name": "always"}, "weak_weight": 0.35}
