"""Intervention, confidence, normalization, curriculum and the weights they make: numbers and properties."""

from __future__ import annotations

import importlib
import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sage.config.components import COMPONENTS
from sage.config.load import load
from sage.config.registry import Registry
from sage.episode import Decision, Failure, Label
from sage.objective.confidence.base import Confidence, Threshold, TokenStats, Top1, Unweighted
from sage.objective.intervention.base import (
    Always,
    Intervention,
    Judge,
    JudgeQuery,
    JudgeReply,
    Never,
    TurnContext,
    no_judge,
)
from sage.objective.normalization import ActiveToken, AllToken, Normalization, Unnormalized, WeightSums
from sage.objective.weights import selective_weights, token_weights, weight_sums
from sage.training.curriculum import Full
from tests.tiny_models import make_episode

CONF = Path(__file__).parents[2] / "conf"
# Nothing here is about speed: a busy machine must not fail a property.
calmly = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])

JUDGE = Judge(name="judge", weak_weight=0.5, sees_feedback=True, max_new_tokens=1028)


def stream(context: TurnContext) -> random.Random:
    return random.Random(context.turn.index)


def stats(*top1: float) -> TokenStats:
    values = torch.tensor(top1, dtype=torch.float64)
    return TokenStats(values, -values.log(), values.log(), values)


def norm(kind: str, **fields: object) -> Normalization:
    classes = {"none": Unnormalized, "all_token": AllToken, "active_token": ActiveToken}
    settings = {"scope": "batch", "epsilon": 1e-8, "z_max": None, **fields}
    return classes[kind].model_validate({"name": kind, **settings})


# --- every YAML of these groups builds, and names the class it is registered under


@pytest.mark.parametrize("group", ["intervention", "confidence", "normalization", "divergence", "curriculum"])
def test_every_yaml_builds_and_every_rule_has_one(group: str) -> None:
    for module in COMPONENTS:
        importlib.import_module(module)
    registry = Registry._all[group]
    files = {path.stem: path for path in (CONF / group).glob("*.yaml")}
    assert set(registry.names()) <= set(files)
    for name, path in files.items():
        assert path.read_text().startswith("# ")
        # Composed, because a rule may name another one in its defaults list.
        assert getattr(load([f"{group}={name}"]), group).name in registry.names()


def test_a_rule_from_outside_the_package_needs_only_its_class() -> None:
    registry = Registry("test-intervention")

    @registry.register("every_other")
    class EveryOther(Intervention):
        def decide(self, turns, ask, stream):  # type: ignore[no-untyped-def]
            return [Decision(Label.ALWAYS, float(c.turn.index % 2)) for c in turns]

    rule = registry.build({"name": "every_other"})
    episode = make_episode(0, 3)
    turns = [TurnContext(episode, turn) for turn in episode.turns]
    assert [d.weight for d in rule.decide(turns, no_judge, stream)] == [0, 1, 0]
    del Registry._all["test-intervention"]


# --- intervention


@pytest.mark.parametrize(
    ("old", "new"), [("memory", "state_dict"), ("recall", "load_state_dict"), ("asks", "always_judged")]
)
def test_a_rule_whose_hooks_nobody_would_call_is_refused(old: str, new: str) -> None:
    """A rule written for an earlier version: resumed, it would begin anew without a word."""
    with pytest.raises(TypeError, match=rf"Counting\.{old} is called `{new}` now"):
        type("Counting", (Always,), {"__module__": __name__, old: lambda self, *_: {}})


def test_always_and_never_ask_nobody() -> None:
    episode = make_episode(0, 3, failures={1: Failure.EMPTY})
    turns = [TurnContext(episode, turn) for turn in episode.turns]
    always = Always(name="always").decide(turns, no_judge, stream)
    never = Never(name="never").decide(turns, no_judge, stream)
    assert [(d.label, d.weight) for d in always] == [(Label.ALWAYS, 1.0)] * 3
    assert [(d.label, d.weight) for d in never] == [(Label.NEVER, 0.0)] * 3
    assert Always(name="always").query is None


@pytest.mark.parametrize("failure", [f for f in Failure if f is not Failure.NONE])
def test_a_deterministic_failure_has_full_weight_without_a_query(failure: Failure) -> None:
    episode = make_episode(0, 1, failures={0: failure})
    (decision,) = JUDGE.decide([TurnContext(episode, episode.turns[0])], no_judge, stream)
    assert decision == Decision(Label.DET_FAIL, 1.0)


def test_the_judge_rule_by_hand() -> None:
    episode = make_episode(0, 6, failures={0: Failure.NO_EFFECT, 4: Failure.UNPARSED})
    turns = [TurnContext(episode, turn) for turn in episode.turns]
    answers = [Label.SKIP, Label.WEAK, Label.STRONG, None]
    asked: list[int] = []

    def ask(contexts: Sequence[TurnContext]) -> list[JudgeReply]:
        asked.extend(c.turn.index for c in contexts)
        return [JudgeReply(a, str(a), 0.25, False, 7) for a in answers]

    decisions = JUDGE.decide(turns, ask, stream)
    assert asked == [1, 2, 3, 5]
    assert [(d.label, d.weight) for d in decisions] == [
        (Label.DET_FAIL, 1.0),
        (Label.SKIP, 0.0),
        (Label.WEAK, 0.5),
        (Label.STRONG, 1.0),
        (Label.DET_FAIL, 1.0),
        (Label.FALLBACK, 1.0),
    ]
    assert decisions[1].latency_s == 0.25
    assert decisions[1].judge_tokens == 7
    assert JUDGE.query == JudgeQuery(sees_feedback=True, max_new_tokens=1028)


def test_asking_without_a_query_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="declares no `query`"):
        no_judge([])


# --- confidence


def test_confidences_by_hand() -> None:
    turn = stats(0.9, 0.5, 0.1)
    assert Unweighted(name="none", teacher_temperature=1).weigh(turn).tolist() == [1, 1, 1]
    top1 = Top1(name="top1", per="turn", teacher_temperature=1)
    assert top1.weigh(turn).tolist() == pytest.approx([0.5] * 3)


def threshold(tau: float, kind: str = "hard", softness: float = 0.1) -> Confidence:
    return Threshold(
        name="threshold",
        signal="top1",
        per="turn",
        tau=tau,
        kind=kind,
        softness=softness,
        teacher_temperature=1,
    )


def test_hard_threshold_lets_the_boundary_pass() -> None:
    turn = stats(0.75, 0.25)
    assert threshold(0.5).weigh(turn).tolist() == [1, 1]
    assert threshold(0.5000001).weigh(turn).tolist() == [0, 0]
    assert threshold(0.0).weigh(turn).tolist() == [1, 1]


def test_soft_threshold_by_hand() -> None:
    # x = 0.6, tau = 0.5, softness 0.1: sigmoid(1)
    assert threshold(0.5, "soft").weigh(stats(0.6)).tolist() == pytest.approx([1 / (1 + math.exp(-1))])
    assert threshold(0.5, "soft", 1e-9).weigh(stats(0.6)).tolist() == [1.0]


@pytest.mark.parametrize(
    ("signal", "expected"),
    # q = (0.7, 0.2, 0.1): best 0.7, margin 0.5, certainty 1 − 0.8018 / ln 3 = 0.2701
    [
        ("top1", [(0.69, 1), (0.71, 0)]),
        ("margin", [(0.49, 1), (0.51, 0)]),
        ("entropy", [(0.27, 1), (0.271, 0)]),
    ],
)
@pytest.mark.parametrize("per", ["turn", "token"])
def test_a_gate_on_any_signal_by_hand(signal: str, expected: list[tuple[float, float]], per: str) -> None:
    logprob = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64).log()
    for tau, weight in expected:
        rule = Threshold.model_validate(
            {
                "name": "threshold",
                "signal": signal,
                "per": per,
                "tau": tau,
                "kind": "hard",
                "softness": 1.0,
                "teacher_temperature": 1.0,
            }
        )
        turn = TokenStats(logprob[:, 0].exp(), logprob[:, 0], logprob[:, 0], rule.read(logprob))
        assert rule.weigh(turn).tolist() == [weight]


def test_a_gate_per_token_gates_each_by_itself() -> None:
    rule = Threshold.model_validate(
        {
            "name": "threshold",
            "signal": "top1",
            "per": "token",
            "tau": 0.5,
            "kind": "hard",
            "softness": 1.0,
            "teacher_temperature": 1.0,
        }
    )
    assert rule.weigh(stats(0.75, 0.25, 0.5)).tolist() == [1, 0, 1]


@calmly
@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=9), st.floats(0, 1), st.floats(0.001, 10))
def test_confidences_lie_in_the_unit_interval_and_keep_the_shape(
    top1: list[float], tau: float, softness: float
) -> None:
    for rule in (
        Unweighted(name="none", teacher_temperature=1),
        Top1(name="top1", per="turn", teacher_temperature=1),
        Top1(name="top1", per="token", teacher_temperature=1),
        threshold(tau),
        threshold(tau, "soft", softness),
    ):
        weights = rule.weigh(stats(*top1))
        assert weights.shape == (len(top1),)
        assert ((weights >= 0) & (weights <= 1 + 1e-12)).all()
        (batched,) = rule.weigh_episode([stats(*top1)], [1.0], random.Random(0))
        assert torch.equal(batched, weights)


# --- normalization

SUMS = WeightSums(tokens=10, active=4, weighted=2.5)


def test_factors_by_hand() -> None:
    assert norm("none").factor(SUMS) == 1
    assert norm("all_token").factor(SUMS) == 4
    assert norm("active_token").factor(SUMS) == 1.6
    assert norm("all_token", z_max=3.0).factor(SUMS) == 3
    assert norm("all_token", epsilon=5.0).factor(SUMS) == 2


def test_scopes_by_hand() -> None:
    parts = [WeightSums(4, 4, 1), WeightSums(6, 3, 1.5)]
    batch = WeightSums.total(parts)
    assert batch == WeightSums(10, 7, 2.5)
    assert norm("all_token").factors(parts, batch) == [4, 4]
    assert norm("all_token", scope="trajectory").factors(parts, batch) == [4, 4]
    assert norm("active_token", scope="trajectory").factors(parts, batch) == [4, 2]


weights_strategy = st.lists(
    st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0.01, 1), st.integers(1, 5)), min_size=1),
    min_size=1,
    max_size=5,
)


def episode_weights(spec: list[list[tuple[float, float, int]]]) -> list[torch.Tensor]:
    return [
        selective_weights(
            [i for i, _, _ in turns],
            [torch.full((n,), c, dtype=torch.float64) for _, c, n in turns],
            [n for _, _, n in turns],
        )
        for turns in spec
    ]


@calmly
@given(weights_strategy, st.sampled_from(["batch", "trajectory"]))
def test_the_effective_weight_averages_to_one(spec: list[list[tuple[float, float, int]]], scope: str) -> None:
    weights = episode_weights(spec)
    batch = WeightSums.total([weight_sums(w) for w in weights])
    scaled, z = token_weights(weights, batch, norm("all_token", scope=scope))
    total = sum(float(w.sum()) for w in scaled)
    if batch.weighted == 0:
        assert z is None
        assert total == 0
    elif scope == "batch":
        assert total == pytest.approx(1)  # Σ Z s / N
        assert z == pytest.approx(batch.tokens / batch.weighted)
    else:
        alive = sum(len(w) for w in weights if w.sum() > 0)
        assert total == pytest.approx(alive / batch.tokens)
    active, _ = token_weights(weights, batch, norm("active_token"))
    if batch.weighted:
        assert sum(float(w.sum()) for w in active) == pytest.approx(batch.active / batch.tokens)


@calmly
@given(weights_strategy, st.sampled_from(["none", "all_token", "active_token"]), st.booleans())
def test_all_strong_without_confidence_is_opd(
    spec: list[list[tuple[float, float, int]]], kind: str, per_trajectory: bool
) -> None:
    weights = episode_weights([[(1.0, 1.0, n) for _, _, n in turns] for turns in spec])
    batch = WeightSums.total([weight_sums(w) for w in weights])
    scaled, z = token_weights(weights, batch, norm(kind, scope="trajectory" if per_trajectory else "batch"))
    assert z == pytest.approx(1)
    for w in scaled:
        torch.testing.assert_close(w, torch.full_like(w, 1 / batch.tokens))


@calmly
@given(weights_strategy, st.integers(0, 5))
def test_splitting_the_batch_over_processes_changes_no_weight(
    spec: list[list[tuple[float, float, int]]], cut: int
) -> None:
    weights = episode_weights(spec)
    batch = WeightSums.total([weight_sums(w) for w in weights])
    rule = norm("all_token", z_max=7.0)
    whole, _ = token_weights(weights, batch, rule)
    parts = [token_weights(part, batch, rule)[0] for part in (weights[:cut], weights[cut:])]
    for a, b in zip(whole, [*parts[0], *parts[1]], strict=True):
        assert torch.equal(a, b)


def test_a_supervised_turn_needs_a_confidence() -> None:
    assert selective_weights([0.0], [None], [3]).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="no confidence"):
        selective_weights([0.5], [None], [3])


def test_the_loss_by_hand() -> None:
    # One episode, turns of 2 and 3 tokens, i = (1, 1/2), c = (0.8, 0.4): s = .8 .8 .2 .2 .2, sum 2.2, N 5
    weights = selective_weights(
        [1.0, 0.5],
        [torch.full((2,), 0.8, dtype=torch.float64), torch.full((3,), 0.4, dtype=torch.float64)],
        [2, 3],
    )
    (scaled,), z = token_weights([weights], weight_sums(weights), norm("all_token"))
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)
    assert z == pytest.approx(5 / 2.2)
    # (1/5) (5/2.2) (0.8·3 + 0.2·12)
    assert float((scaled * losses).sum()) == pytest.approx(4.8 / 2.2)


def test_full_curriculum() -> None:
    assert Full(name="full").turn_limit(1, 30) == 30
