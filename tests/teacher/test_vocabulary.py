"""Teachers whose tokenizer is the student's with words added behind it: taken, and what is ignored is
said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from sage.check.command import check
from sage.config.load import load
from sage.envs.pool import EnvPool
from sage.errors import ConfigError, ModelError
from sage.objective.chunked import Projected, chunked_divergence
from sage.objective.divergence.base import ReverseKL
from sage.policy.models.hidden_states import head
from sage.policy.rollout import PlaySettings, Sampling
from sage.teacher.score import own_view, score
from sage.teacher.vocabulary import ignored, shared_vocabulary
from sage.training.batch import match_models
from sage.training.players import training_play
from tests.tiny_models import byte_tokenizer, make_episode, tiny_lm


def with_words(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """The tests' tokenizer with words added behind its 259 ids."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(list(words))
    return tokenizer


WORDS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")


def test_words_added_behind_the_students_ids_are_taken_and_said_to_be_ignored() -> None:
    student, teacher = tiny_lm(1), tiny_lm(2, tokenizer=with_words(WORDS))
    assert shared_vocabulary(student, teacher) == 259
    sentence = ignored(student.tokenizer, teacher.tokenizer, teacher.name)
    assert "knows 4 added tokens that the student does not ('<tool_call>', '</tool_call>'" in sentence
    assert "their probability is ignored" in sentence
    assert ignored(student.tokenizer, student.tokenizer, "itself") == ""
    one = ignored(student.tokenizer, with_words(["<a>"]), "it")
    assert "knows 1 added token that the student does not ('<a>')" in one


def test_a_smaller_teacher_a_moved_word_and_a_new_piece_of_text_are_refused_by_name() -> None:
    larger = tiny_lm(1, tokenizer=with_words(["<first>", "<second>"]))
    with pytest.raises(ModelError, match="'<first>' is 259 for one and unknown for the other"):
        shared_vocabulary(larger, tiny_lm(2))
    moved = tiny_lm(2, tokenizer=with_words(["<other>", "<first>", "<second>"]))
    with pytest.raises(ModelError, match="'<first>' is 259 for one and 260 for the other"):
        shared_vocabulary(larger, moved)
    pieces = tiny_lm(2, tokenizer=byte_tokenizer(("ing",)))
    with pytest.raises(ModelError, match="only the teacher knows 'ing'"):
        shared_vocabulary(tiny_lm(1), pieces)


def test_the_loss_is_that_of_the_distribution_renormalised_over_the_students_ids() -> None:
    student, teacher = tiny_lm(1), tiny_lm(2, tokenizer=with_words(WORDS))
    models = match_models(student, teacher)
    episode = make_episode(1, 3)
    view = own_view(episode)
    (done,) = score(teacher, [view], [range(3)], vocabulary=models.vocabulary, temperature=1.0)
    with torch.no_grad():
        ids = torch.tensor([view.ids])
        theirs = teacher.model(input_ids=ids).logits[0].double()[view.positions()]
        ours = student.model(input_ids=ids).logits[0].double()[view.positions()].log_softmax(-1)
        hidden = student.model.base_model(input_ids=ids).last_hidden_state[0][view.positions()]
    whole = theirs.softmax(-1)
    kept = whole[:, :259] / whole[:, :259].sum(-1, keepdim=True)
    assert float(whole[:, 259:].sum(-1).max()) > 1e-3, "nothing would be ignored"
    want = (ours.exp() * (ours - kept.log())).sum(-1)
    got = chunked_divergence(
        ReverseKL(name="reverse_kl"),
        hidden,
        head(student),
        Projected(done.hidden_TE, head(teacher)),
        torch.tensor(view.targets()),
        torch.ones(len(want)),
        vocabulary=models.vocabulary,
    )
    torch.testing.assert_close(got.divergence_T.double(), want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(done.stats.top1_T.double(), kept.amax(-1), rtol=1e-4, atol=1e-5)


def test_a_teacher_that_could_say_what_the_student_cannot_read_does_not_play() -> None:
    config = load(["rollout.player=teacher", "method=sft"])
    models = match_models(tiny_lm(1), tiny_lm(2, tokenizer=with_words(WORDS)))
    settings = PlaySettings(Sampling(0.0, 1.0, 4), config.prompt.styles["short"], 0, "t", 2, 500, 1)
    with (
        EnvPool(config.env.make, 0, 60.0) as pool,
        pytest.raises(ConfigError, match="could say '<tool_call>', which the student cannot read"),
    ):
        training_play(config, models, pool, settings)


def test_the_page_about_a_pair_says_what_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "games"))
    for name, lm in {"s": tiny_lm(1), "t": tiny_lm(2, tokenizer=with_words(WORDS))}.items():
        lm.model.save_pretrained(tmp_path / name)
        lm.tokenizer.save_pretrained(tmp_path / name)
    line = ["tracking=none", "env.games=generated", "env.turn_budget=2", "intervention.max_new_tokens=4"]
    line += [f"env.generated.{split}=4" for split in ("train", "valid_seen", "valid_unseen")]
    page = check(load([*line, f"student.path={tmp_path / 's'}", f"teacher.path={tmp_path / 't'}"]))
    assert any("knows 4 added tokens" in line.text for line in page.lines["Vocabulary"])
