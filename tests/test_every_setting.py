"""No setting without effect: each is changed, and a decision, a weight, a token or the loss changes; or it is
declared to change nothing (`sage.config.schema.NOT_A_RESULT`, `WITHOUT_EFFECT`), and then nothing does.

Here the settings of the five parts, under every preset and every option, on one small batch of real models.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch

from sage.config.components import conf_dir
from sage.config.load import load
from sage.config.schema import WITHOUT_EFFECT, WITHOUT_EFFECT_BESIDE, RunConfig
from sage.episode import Episode, Failure, Label
from sage.errors import ConfigError
from sage.objective.divergence.base import ReverseKL
from sage.objective.intervention.base import JudgeFn, JudgeQuery, JudgeReply, TurnContext, no_judge
from sage.teacher.judge import TeacherJudge
from sage.training.batch import Models, TrainingEpisode, match_models, score_batch
from sage.training.gradient import Objective, accumulate_gradient
from sage.training.judging import decide, turn_streams
from sage.training.loop import episode_streams
from tests.every_setting import (
    COMPONENT_CASES,
    ELSEWHERE,
    PARTS,
    REFUSED,
    changed,
    known_name,
    settings_of,
)
from tests.letters import STYLE
from tests.tiny_models import make_episode, tiny_lm
from tests.training.test_gradient import flat_gradient

OPTIONS = [
    f"{group}={path.stem}"
    for group in ("method", *PARTS)
    for path in sorted((conf_dir() / group).glob("*.yaml"))
]
JUDGE = STYLE.model_copy(update={"judge": "{observation} {action} {feedback}"})


@cache
def models() -> Models:
    return match_models(tiny_lm(1), tiny_lm(2, hidden=48), tiny_lm(3, hidden=24))


def batch() -> list[TrainingEpisode]:
    """Four episodes that a rule can tell something about."""
    made = []
    for number in range(4):
        episode = make_episode(number, 4, failures={number % 4: Failure.NO_EFFECT})
        draw = random.Random(number)
        distance = 6
        for turn in episode.turns:
            turn.expert_distance_before, distance = distance, distance + draw.choice([-1, -1, 0, 1])
            turn.expert_distance_after = distance
            turn.teacher_spoilt = random.Random(f"spoilt {number} {turn.index}").random() < 0.5
            turn.action = draw.choice(["look 1", "take mug 1", "put mug in box"])
        made.append(TrainingEpisode(episode))
    return made


@cache
def judge(query: JudgeQuery) -> JudgeFn:
    """The teacher is asked and answers; as it was never taught, its words are given by what it says."""
    ask = TeacherJudge(models().teacher, JUDGE, query)

    def answered(turns: Sequence[TurnContext]) -> list[JudgeReply]:
        replies = ask(turns)
        words = [Label.SKIP, Label.WEAK, Label.STRONG]
        chosen = []
        for context, reply in zip(turns, replies, strict=True):
            key = f"{reply.text}{context.episode.task.id}{context.turn.index}"
            chosen.append(words[hashlib.sha256(key.encode()).digest()[0] % 3])
        return [JudgeReply(label, reply.text) for label, reply in zip(chosen, replies, strict=True)]

    return answered


def outcome(config: RunConfig) -> dict[str, Any]:
    """What one step makes of the batch."""
    played, rule = batch(), config.intervention
    objective = Objective(
        config.confidence,
        config.normalization,
        config.divergence.sampled_at(config.rollout.temperature, config.rollout.top_p),
    )
    scored = None
    if rule.needs_scores:
        scored = score_batch(models(), objective.confidence, played, micro_batch=4, with_student=True)
    decide(played, rule, judge(rule.query) if rule.query else no_judge, turn_streams(0, 1))
    models().student.model.zero_grad(set_to_none=True)
    loss = accumulate_gradient(
        models(), objective, played, micro_batch=4, scored=scored, stream=episode_streams(0, 1)
    )
    budget = config.env.turn_budget
    return {
        "decisions": [(str(d.label), d.weight, d.propensity, d.reply) for p in played for d in p.decisions],
        "weights": [w for p in played for w in p.effective_weights],
        "loss": loss.loss,
        "gradient": float(flat_gradient(models().student).double().norm()),
        "turns": [
            (config.curriculum.turn_limit(step, budget), config.curriculum.last_turns(step, budget))
            for step in (1, 2, 3)
        ],
    }


@cache
def small(option: str) -> RunConfig:
    """The option, with a judge that says little."""
    config = load([option, "env.games=generated"])
    asked = (name for name, _ in settings_of(config) if name.startswith("intervention."))
    short: dict[str, Any] = {name: 4 for name in asked if name.endswith("max_new_tokens")}
    if config.confidence.name == "threshold":
        short["confidence.tau"] = 0.07  # a random teacher is never half sure
    return changed(config, short)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_setting_of_the_parts_has_an_effect_or_says_that_it_has_none(option: str) -> None:
    config = small(option)
    before = outcome(config)
    wrong = []
    for name, now in settings_of(config):
        if name.partition(".")[0] not in PARTS:
            continue
        what = known_name(config, name)
        if what in ELSEWHERE or what.startswith(_without_effect_beside(config)):
            continue
        if what in REFUSED:
            with pytest.raises(ConfigError):
                changed(config, {name: REFUSED[what].value})
            continue
        if what in WITHOUT_EFFECT:
            other = "trajectory" if name.endswith("scope") else 0.37
            if outcome(changed(config, {name: other})) != before:
                wrong.append(f"{what} is declared to change nothing, and does")
            continue
        if what not in COMPONENT_CASES:
            wrong.append(f"{what} has no case: add one to tests/every_setting.py")
            continue
        if not _reaches(config, name):
            continue
        case = COMPONENT_CASES[what]
        base = outcome(changed(config, case.beside)) if case.beside else before
        other = not now if isinstance(now, bool) else case.value
        if outcome(changed(config, {**case.beside, name: other})) == base:
            wrong.append(f"{what} changes nothing")
    assert not wrong, "; ".join(wrong)


def _without_effect_beside(config: RunConfig) -> tuple[str, ...]:
    chosen = {f"{group}.{getattr(config, group).name}" for group in PARTS}
    if inner := getattr(config.intervention, "rule", None):
        chosen.add(f"intervention.{inner.name}")
    return tuple(begin for choice in chosen for begin in WITHOUT_EFFECT_BESIDE.get(choice, ()))


def _reaches(config: RunConfig, name: str) -> bool:
    """Not the α or temperature inside another rule, whose home is the outer one's."""
    return not (".rule." in name and name.endswith(("weak_weight", "teacher_temperature")))


def test_no_case_is_left_over() -> None:
    configs = [small(option) for option in OPTIONS]
    there = {known_name(config, name) for config in configs for name, _ in settings_of(config)}
    assert {*COMPONENT_CASES, *REFUSED, *ELSEWHERE} <= there
    assert {name for name in WITHOUT_EFFECT if name.partition(".")[0] in PARTS} <= there


# --- the walk itself


def test_an_ignored_setting_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """α that stops at the outer rule, as it did; and a divergence that forgets its setting."""
    from sage.objective.divergence.estimators import Mixture
    from sage.objective.intervention.base import Judge
    from sage.objective.intervention.controls import Wrapper

    walk = test_every_setting_of_the_parts_has_an_effect_or_says_that_it_has_none
    assert issubclass(type(load(["method=random_intervention"]).intervention), Wrapper)
    with monkeypatch.context() as patch:
        patch.setattr(Judge, "weight", lambda self, label: {Label.SKIP: 0.0, Label.WEAK: 0.5}.get(label, 1.0))
        with pytest.raises(AssertionError, match=r"intervention\.permuted\.weak_weight changes nothing"):
            walk("method=random_intervention")
    with monkeypatch.context() as patch:
        patch.setattr(Mixture, "value", lambda self, *given: ReverseKL(name="x").value(*given))
        with pytest.raises(AssertionError, match=r"divergence\.mixture\.forward_weight changes nothing"):
            walk("divergence=mixture")


def test_a_setting_without_a_case_and_a_false_declaration_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    walk = test_every_setting_of_the_parts_has_an_effect_or_says_that_it_has_none
    with monkeypatch.context() as patch:
        patch.delitem(COMPONENT_CASES, "confidence.drift.delta")
        with pytest.raises(AssertionError, match=r"confidence\.drift\.delta has no case"):
            walk("confidence=drift")
    with monkeypatch.context() as patch:
        patch.setitem(WITHOUT_EFFECT, "confidence.top1.teacher_temperature", "")
        with pytest.raises(AssertionError, match=r"declared to change nothing, and does"):
            walk("confidence=top1")


def test_the_episodes_let_every_rule_say_something() -> None:
    assert isinstance(batch()[0].episode, Episode)
    for option in ("intervention=judge", "intervention=oracle"):
        labels = {label for label, *_ in outcome(small(option))["decisions"]}
        assert {"SKIP", "WEAK", "STRONG", "DET_FAIL"} <= labels
    assert torch.isfinite(torch.tensor(outcome(small("method=opd"))["loss"]))
