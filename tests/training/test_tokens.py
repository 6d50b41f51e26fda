"""Tokens that are recorded one by one: they agree with their turns, and nobody is asked twice for them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from sage.episode import TokenScores
from sage.objective.chunked import Head
from sage.objective.divergence.estimators import SampledToken
from sage.policy.models.hidden_states import hidden_states
from sage.policy.models.load import LanguageModel
from sage.records.rows import RunKey, episode_rows, token_rows
from sage.records.tables import Tables, read
from sage.teacher.score import Wanted, token_stats
from sage.teacher.server.head import LikeliestHead, states_of
from sage.teacher.server.protocol import Likeliest
from sage.training.batch import Models, TrainingEpisode
from sage.training.jobs import jobs_of_step
from sage.training.tokens import texts, wanted, word
from tests.distill_run import TRAINER, plain, train
from tests.letters import tasks
from tests.tiny_models import byte_tokenizer

from .test_gradient import make_batch, models, objective, run

KEY = RunKey("0123456789ab", "sage_opd", "test", "generated", 0)
SAME = {
    "student_logprob": "student_logprob",
    "student_entropy": "student_entropy",
    "teacher_logprob": "teacher_logprob",
    "teacher_entropy": "teacher_entropy",
    "divergence": "divergence",
    "confidence": "confidence",
    "top1": "top1",
    "weight": "effective_weight",
}
"""Column of the tokens table -> the turn's column that is its mean."""


def with_tokens(count: int = 5) -> list[TrainingEpisode]:
    batch = make_batch(count)
    for one in batch:
        one.tokens = TokenScores()
    return batch


@pytest.mark.parametrize("chunk_tokens", [None, 3])
@pytest.mark.parametrize(
    "choice",
    [{}, {"temperature": 0.5}, {"confidence": "gate"}, {"scope": "trajectory"}, {"divergence": "k3"}],
)
def test_the_mean_over_a_turns_tokens_is_what_the_turn_records(
    choice: dict[str, object], chunk_tokens: int | None
) -> None:
    if choice.get("divergence") == "k3":
        choice = {"divergence": SampledToken(name="sampled_token", estimator="k3", gradient="loss")}
    batch = with_tokens()
    run(models(), objective(**choice), batch, chunk_tokens)  # type: ignore[arg-type]
    for one in batch:
        turns, _ = episode_rows(
            KEY,
            [one.episode],
            phase="train",
            step=0,
            scores=[one.scores],
            effective_weights=[one.effective_weights],
        )
        rows = token_rows(KEY, one, step=0)
        assert [row["token"] for row in rows] == [
            i for t in one.episode.turns for i in one.episode.token_ids[t.answer_start : t.answer_end]
        ]
        for turn in turns:
            mine = [row for row in rows if row["turn"] == turn["turn"]]
            assert [row["position"] for row in mine] == list(range(turn["answer_tokens"]))
            for name, of_turn in SAME.items():
                mean = math.fsum(row[name] for row in mine) / len(mine)
                assert mean == pytest.approx(turn[of_turn], rel=0, abs=1e-6), name


def test_the_teachers_three_words_are_its_likeliest_and_their_own_probabilities() -> None:
    both = models()
    batch = with_tokens(2)
    run(both, objective(temperature=0.3), batch)
    one = batch[0]
    ids = torch.tensor([one.episode.token_ids])
    teacher = both.teacher
    assert isinstance(teacher, LanguageModel)
    with torch.no_grad():
        logits = teacher.model(input_ids=ids).logits[0, :, : both.vocabulary].double()
    best = logits.softmax(-1).topk(3)
    rows = token_rows(KEY, one, step=0)
    at = [j - 1 for turn in one.episode.turns for j in range(turn.answer_start, turn.answer_end)]
    for row, place in zip(rows, at, strict=True):
        for rank in range(3):
            assert row[f"word_{rank + 1}"] == word(teacher.tokenizer, int(best.indices[place, rank]))
            assert row[f"word_{rank + 1}_p"] == pytest.approx(float(best.values[place, rank]), abs=1e-9)


def test_what_was_not_computed_is_null() -> None:
    batch = with_tokens()
    run(models(), objective(), batch, log_skipped=False)
    skipped = 0
    for one in batch:
        for row in token_rows(KEY, one, step=0):
            decision = one.decisions[row["turn"]]
            missing = [name for name in ("divergence", "teacher_logprob", "word_1") if row.get(name) is None]
            assert len(missing) == (3 if decision.weight == 0 else 0)
            assert row["weight"] == pytest.approx(one.effective_weights[row["turn"]])
            skipped += decision.weight == 0
    assert skipped > 0


def test_recording_tokens_changes_no_number_and_asks_no_model_again(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[str] = []

    def counted(lm: LanguageModel, *rest: Any) -> torch.Tensor:
        passes.append(lm.name)
        return hidden_states(lm, *rest)

    for module in ("sage.training.gradient", "sage.teacher.score"):
        monkeypatch.setattr(f"{module}.hidden_states", counted)
    without, gradient = run(models(), objective(), make_batch())
    asked, passes[:] = list(passes), []
    loss, same = run(models(), objective(), with_tokens())
    assert (loss, passes) == (without, asked)
    assert {"tiny-1", "tiny-2"} <= set(passes)
    assert torch.equal(gradient, same)


@pytest.mark.parametrize("projected", [64, 8])
def test_a_server_that_names_two_words_leaves_the_third_unknown(projected: int) -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(20, 64, generator=generator, dtype=torch.float64).mul(3).log_softmax(-1)
    target = torch.full((20,), 5)
    best = teacher.topk(2)
    chosen = teacher[:, 5]
    states = states_of(Likeliest(best.indices.numpy(), best.values.numpy(), chosen.numpy()), target.numpy())
    asked = torch.ones(20, dtype=torch.bool)
    stats = token_stats(states, LikeliestHead(64), target, asked, projected, Wanted(likeliest=3))
    assert stats.likeliest_TK is not None
    assert stats.likeliest_logprob_TK is not None
    shared = (best.indices < projected).sum(-1)
    for row, logprobs, n in zip(stats.likeliest_TK, stats.likeliest_logprob_TK, shared, strict=True):
        assert int((row >= 0).sum()) == int(n) == int(logprobs.isfinite().sum())
    if projected == 64:
        assert torch.equal(stats.likeliest_TK[:, :2], best.indices)
        torch.testing.assert_close(stats.likeliest_logprob_TK[:, :2].double(), best.values, rtol=0, atol=1e-5)


def test_a_vocabulary_of_two_has_two_words() -> None:
    head = Head(torch.eye(2, dtype=torch.float64))
    stats = token_stats(
        torch.tensor([[0.0, 3.0]], dtype=torch.float64),
        head,
        torch.tensor([0]),
        torch.tensor([True]),
        2,
        Wanted(likeliest=3),
    )
    assert stats.likeliest_TK is not None
    assert stats.likeliest_TK.tolist() == [[1, 0]]


def test_the_pieces_of_an_answer_joined_are_the_answer() -> None:
    tokenizer = byte_tokenizer(extra=("Ġmug",))
    for text in ("go to shelf 1\n", "naïve 日本 🙂 ok", "", " ", "<b>&amp;</b>"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert "".join(texts(ids, tokenizer)) == text
        assert len(texts(ids, tokenizer)) == len(ids)
    end = tokenizer.eos_token_id
    assert texts([*tokenizer("ok")["input_ids"], end], tokenizer) == ["o", "k", "<|im_end|>"]
    cut = tokenizer("a日")["input_ids"][:-1]
    assert "".join(texts(cut, tokenizer)) == tokenizer.decode(cut)
    assert texts(tokenizer("日", add_special_tokens=False)["input_ids"], tokenizer) == ["", "", "日"]


def test_the_same_games_are_chosen_whatever_is_done_with_them() -> None:
    jobs = jobs_of_step(tasks(6), 2, 4, 1, seed=3)
    chosen = wanted(jobs, 2)
    assert chosen == {(job.task.id, job.rollout_index) for job in jobs[:2]}
    assert wanted(jobs, 0) == frozenset()
    assert len(wanted(jobs, 100)) == 4


def test_a_run_records_the_tokens_of_as_many_episodes_as_it_was_told(tmp_path: Path) -> None:
    _, reports, both = train(tmp_path / "two")
    for report in reports:
        kept = [one for one in report.batch if one.tokens is not None]
        assert len(kept) == 2
        for one in kept:
            rows = token_rows(KEY, one, step=report.step - 1)
            assert len(rows) == sum(turn.n_tokens for turn in one.episode.turns)
            for turn in one.episode.turns:
                said = [row for row in rows if row["turn"] == turn.index]
                specials = both.student.tokenizer.all_special_tokens
                answer = "".join(row["text"] for row in said if row["text"] not in specials)
                assert answer == turn.answer
    _, without, _ = train(tmp_path / "none", trainer=TRAINER.model_copy(update={"log_tokens": 0}))
    assert plain(without) == plain(reports)
    assert all(one.tokens is None for report in without for one in report.batch)


def one_step(folder: Path, both: Models) -> TrainingEpisode:
    """A step with the tokens of one episode, recorded."""
    batch = with_tokens(2)
    batch[1].tokens = None
    run(both, objective(), batch)
    turns, episodes = episode_rows(KEY, [one.episode for one in batch], phase="train", step=0)
    rows = [row for one in batch for row in token_rows(KEY, one, step=0)]
    tables = Tables(folder)
    tables.resume(0)
    row = {"run": KEY.run, "method": KEY.method, "env": KEY.env, "source": KEY.source, "seed": 0, "step": 1}
    tables.append_step(1, turns=turns, episodes=episodes, row=row, tokens=rows)
    tables.append_evaluation(1, "valid", turns=[], episodes=[])
    return batch[0]


def test_tokens_lie_beside_their_step_and_come_back(tmp_path: Path) -> None:
    one = one_step(tmp_path, models())
    expected = read(tmp_path, "tokens").to_pylist()
    assert [row["token"] for row in expected] == one.tokens.ids  # type: ignore[union-attr]
    tables = Tables(tmp_path)
    tables.consolidate()
    assert pq.ParquetFile(tmp_path / "tokens.parquet").metadata.num_rows == len(expected)
    assert read(tmp_path, "tokens").to_pylist() == expected
    tables.resume(1)
    assert read(tmp_path, "tokens").to_pylist() == expected
    tables.resume(0)
    assert read(tmp_path, "tokens").num_rows == 0


def test_records_from_before_there_were_tokens_are_read_and_gone_on_with(tmp_path: Path) -> None:
    one_step(tmp_path, models())
    (tmp_path / "parts" / "00000001-0-train" / "tokens.parquet").unlink()
    assert read(tmp_path, "tokens").num_rows == 0
    tables = Tables(tmp_path)
    tables.consolidate()
    (tmp_path / "tokens.parquet").unlink()
    assert read(tmp_path, "tokens").num_rows == 0
    turns = read(tmp_path, "turns").num_rows
    tables.resume(1)
    assert (read(tmp_path, "turns").num_rows, read(tmp_path, "tokens").num_rows) == (turns, 0)
