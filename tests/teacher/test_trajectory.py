"""Questions behind a conversation that was read once: replies, scores and costs against those asked apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from sage.config.load import load
from sage.episode import Episode, Failure
from sage.errors import ConfigError
from sage.objective.intervention.base import JudgeFailure, JudgeQuery, JudgeReply, TurnContext
from sage.policy.decoding.branches import Branch, Trunk, can_branch
from sage.policy.models.load import LanguageModel
from sage.policy.models.plain import plain_logits
from sage.teacher import trajectory
from sage.teacher.score import own_view, states_of
from sage.teacher.trajectory import TrajectoryJudge, question_style
from sage.training.setup import read_by, training_settings
from tests.distill_run import STYLE, TRAINER, fresh_models, plain, train
from tests.families import family
from tests.policy.test_generate import random_ids
from tests.tiny_models import make_episode, tiny_lm

QUERY = JudgeQuery(sees_feedback=True, max_new_tokens=6)


def contexts(episodes: Sequence[Episode]) -> list[TurnContext]:
    return [TurnContext(e, t) for e in episodes for t in e.turns if t.failure is Failure.NONE]


def played() -> list[Episode]:
    return [make_episode(n, turns, failures={1: Failure.NO_EFFECT}) for n, turns in ((1, 5), (2, 2), (3, 4))]


def greedy(lm: LanguageModel, ids: list[int], most: int) -> list[int]:
    """By the model's plain forward, token by token."""
    said: list[int] = []
    while len(said) < most and not (said and said[-1] in lm.end_ids):
        said.append(int(plain_logits(lm, ids + said, 1)[0, : lm.vocabulary].argmax()))
    return said


@pytest.mark.parametrize(
    "name",
    [
        "Llama",
        "Qwen3",
        "Gemma 3",
        "Gemma 4, text",
        "gpt-oss",
        "Mistral, windowed",
        "Llama 4, text",
        "DeepSeek V3",
    ],
)
def test_a_branch_says_what_is_said_to_its_conversation_and_question_alone(name: str) -> None:
    lm = family(name)
    assert can_branch(lm)
    size = min(lm.vocabulary, 250)
    sequences = [[i % size for i in random_ids(n, length)] for n, length in ((0, 70), (1, 31), (2, 50))]
    positions = [[10, 68], [3, 29], [20, 21, 40]]
    chosen = [
        Branch(row, end, [i % size for i in random_ids(20 + end, 3 + end % 5)])
        for row, ends in enumerate(([70, 12, 33], [31, 4], [41, 22]))
        for end in ends
    ]
    trunk = Trunk(lm, sequences, positions)
    got = trunk.replies(chosen, 5, None)
    want = [greedy(lm, sequences[b.row][: b.end] + b.ids, 5) for b in chosen]
    assert [r.ids for r in got] == want
    assert len({tuple(r.ids) for r in got}) > 3
    again = trunk.replies(chosen[::-1], 5, None)  # the branches before have left nothing behind
    assert [r.ids for r in again[::-1]] == want
    with torch.no_grad():
        assert torch.equal(trunk.hidden_TE, states_of(lm, sequences, positions))


def test_the_judge_s_reading_gives_the_scoring_pass_its_states_to_the_bit() -> None:
    lm, episodes = tiny_lm(2), played()
    views = [own_view(e) for e in episodes]
    with torch.no_grad():
        want = states_of(lm, [v.ids for v in views], [v.positions() for v in views])
    judge = TrajectoryJudge(lm, STYLE, QUERY, None)
    assert torch.equal(torch.cat(judge.read(episodes, contexts(episodes))), want)
    assert torch.equal(torch.cat(judge.read(episodes, [])), want)


def test_replies_on_the_way_are_those_asked_apart_and_cost_their_own_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm, episodes = tiny_lm(2, spread=0.5), played()
    turns = contexts(episodes)
    apart = TrajectoryJudge(lm, STYLE, QUERY, None)
    want = apart(turns)
    judge = TrajectoryJudge(lm, STYLE, QUERY, None, batch=3)
    judge.read(episodes, turns)
    monkeypatch.setattr("sage.teacher.judge.reply", None)  # nobody is asked any more
    got = judge(turns)
    assert [r.text for r in got] == [r.text for r in want]
    assert len({r.text for r in got}) > 3
    for context, one, alone in zip(turns, got, want, strict=True):
        prompt = judge._prompt(context)
        answered = alone.tokens - len(prompt)
        end = context.turn.answer_end
        last = end == len(context.episode.token_ids)  # its last token is not read by the scoring pass
        assert prompt[:end] == context.episode.token_ids[:end]
        assert one.tokens == len(prompt) - end + last + answered
        assert one.latency_s > 0
    assert judge.queries == len(turns)
    assert all(r.cached for r in judge(turns))


def test_a_conversation_that_leaves_no_memory_for_its_keys_is_scored_and_asked_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm, episodes = tiny_lm(2), played()
    turns = contexts(episodes)
    want = TrajectoryJudge(lm, STYLE, QUERY, None)
    states = want.read(episodes, turns)
    replies = [r.text for r in want(turns)]

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trajectory, "Trunk", full)
    judge = TrajectoryJudge(lm, STYLE, QUERY, None)
    assert torch.equal(torch.cat(judge.read(episodes, turns)), torch.cat(states))
    assert [r.text for r in judge(turns)] == replies


def test_a_model_with_a_running_state_is_asked_apart() -> None:
    lm = family("LFM2")
    assert not can_branch(lm)
    episodes = [make_episode(1, 2, vocabulary=200)]
    judge = TrajectoryJudge(lm, STYLE, QUERY, None)
    (states,) = judge.read(episodes, contexts(episodes))
    assert len(states) == sum(turn.n_tokens for turn in episodes[0].turns)
    assert len(judge(contexts(episodes))) == 2


Ask = Callable[[Sequence[TurnContext]], list[JudgeReply]]


@pytest.mark.parametrize("log_skipped", [True, False])
def test_a_training_is_the_same_whether_its_questions_are_asked_on_the_way_or_apart(
    tmp_path: Path, log_skipped: bool
) -> None:
    trainer = TRAINER.model_copy(update={"steps": 2, "log_skipped": log_skipped})
    runs = []
    for name in ("on the way", "apart"):
        models = fresh_models()
        query = JudgeQuery(sees_feedback=True, max_new_tokens=4)
        judge = TrajectoryJudge(models.teacher, STYLE, query, models.dialogue)  # type: ignore[arg-type]

        def apart(turns: Sequence[TurnContext], judge: TrajectoryJudge = judge) -> list[JudgeReply]:
            return judge(turns)

        ask = judge if name == "on the way" else apart
        runs.append(train(tmp_path / name, models=models, trainer=trainer, ask=ask))
    (_, one, ours), (_, other, theirs) = runs
    for a, b in zip(plain(one), plain(other), strict=True):
        cheaper, dearer = a.pop("judge_tokens"), b.pop("judge_tokens")
        assert 0 < cheaper < dearer
        if not log_skipped:  # the judge has read whole episodes; the scores are of those turns that count
            assert a.pop("teacher_tokens") >= 0
            b.pop("teacher_tokens")
        assert a == b
    for report, twin in zip(one, other, strict=True):
        scores = [[s for one in r.batch for s in one.scores] for r in (report, twin)]
        assert scores[0] == scores[1]
        assert any(score.confidence is not None for score in scores[0])
    for p, q in zip(ours.student.model.parameters(), theirs.student.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_the_question_has_the_lines_that_the_conversation_does_not_say() -> None:
    styles = load([]).prompt.styles
    assert question_style(styles["short"]) == styles["short"]
    assert question_style(styles["react"]).judge.split("\n") == [
        "Task type: {task_type}",
        "The agent's action: {action}",
        "What happened then: {feedback}",
        "One word, SKIP, WEAK or STRONG:",
    ]


def test_it_is_part_of_a_run_s_identity_only_where_it_is_chosen() -> None:
    before = load([]).digest_fields()
    assert "judge" not in before
    chosen = load(["judge.context=trajectory"]).digest_fields()
    assert chosen.pop("judge") == {"context": "trajectory"}
    assert {**chosen, "name": before["name"]} == before


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["teacher=server", "teacher.server.address=http://h:1", "divergence=top_k"], "elsewhere"),
        (["speed.judge_ahead=true"], "speed.judge_ahead"),
    ],
)
def test_what_it_cannot_do_is_refused_in_one_sentence(words: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=f"judge.context=trajectory.*{why}") as refused:
        load(["judge.context=trajectory", *words])
    assert len(str(refused.value)) < 400


def test_an_episode_leaves_room_for_a_question_and_one_that_has_none_says_the_way_out() -> None:
    lm = tiny_lm(2)
    settings = training_settings(load([]), STYLE, lm)
    judge = TrajectoryJudge(lm, STYLE, QUERY, None)
    (context,) = contexts([make_episode(1, 1)])
    view = judge._view(context.episode)
    assert judge.room >= len(judge._prompt(context)) - view.spans[0][1]
    lm.model.config.max_position_embeddings = 900
    assert read_by(lm, settings, judge.room).max_context == 900 - judge.room
    assert read_by(lm, settings).max_context == 900
    lm.model.config.max_position_embeddings = 12
    with pytest.raises(JudgeFailure) as failed:
        judge([context])
    ((_, why),) = failed.value.episodes
    assert "the teacher reaches 12, so that no reply fits; lower rollout.max_context" in why
