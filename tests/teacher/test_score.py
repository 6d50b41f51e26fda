"""The teacher pass against dense float64 logits; shared vocabularies; head checks."""

from __future__ import annotations

import math

import pytest
import torch

from sage.errors import ModelError
from sage.policy.dialogue import Dialogue
from sage.policy.models.hidden_states import check_head, head, hidden_states
from sage.teacher.score import own_view, score, teacher_dialogue, teacher_view
from sage.teacher.vocabulary import shared_vocabulary
from tests.chunks import chunks_of
from tests.tiny_models import byte_tokenizer, make_episode, tiny_lm

EPISODES = [make_episode(n, turns) for n, turns in enumerate((3, 1, 5))]


def dense_logprobs(lm, ids: list[int], vocabulary: int) -> torch.Tensor:  # type: ignore[no-untyped-def]
    with torch.no_grad():
        return lm.model(input_ids=torch.tensor([ids])).logits[0, :, :vocabulary].log_softmax(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.5, 1.5])
@pytest.mark.parametrize("chunk_tokens", [3, None])
def test_statistics_equal_the_dense_computation(temperature: float, chunk_tokens: int | None) -> None:
    lm = tiny_lm(1, dtype=torch.float64, rows=300)
    V = len(lm.tokenizer)
    views = [own_view(e) for e in EPISODES]
    turns = [range(len(e.turns)) for e in EPISODES]
    with chunks_of(chunk_tokens):
        passes = score(lm, views, turns, vocabulary=V, temperature=temperature)
    for episode, got in zip(EPISODES, passes, strict=True):
        logp_LV = dense_logprobs(lm, episode.token_ids, V)
        positions = [j - 1 for turn in episode.turns for j in range(turn.answer_start, turn.answer_end)]
        targets = [
            i for turn in episode.turns for i in episode.token_ids[turn.answer_start : turn.answer_end]
        ]
        chosen_TV = logp_LV[positions]
        expected = chosen_TV.gather(-1, torch.tensor(targets)[:, None]).squeeze(-1)
        torch.testing.assert_close(got.stats.logprob_T, expected, rtol=1e-9, atol=1e-9)
        entropy = torch.distributions.Categorical(logits=chosen_TV).entropy()
        torch.testing.assert_close(got.stats.entropy_T, entropy, rtol=1e-9, atol=1e-9)
        top1 = (chosen_TV / temperature).softmax(-1).amax(-1)
        torch.testing.assert_close(got.stats.top1_T, top1, rtol=1e-9, atol=1e-9)


def test_turns_that_are_not_asked_for_are_nan_and_change_nothing() -> None:
    lm = tiny_lm(1, dtype=torch.float64)
    views = [own_view(e) for e in EPISODES]
    everything = score(lm, views, [range(3), range(1), range(5)], vocabulary=259, temperature=1.0)
    some = score(lm, views, [[1], [], [0, 3]], vocabulary=259, temperature=1.0)
    for b, (episode, asked) in enumerate(zip(EPISODES, ([1], [], [0, 3]), strict=True)):
        offset = 0
        for t, turn in enumerate(episode.turns):
            part = slice(offset, offset + turn.n_tokens)
            got = some[b].stats.logprob_T[part]
            if t in asked:
                torch.testing.assert_close(got, everything[b].stats.logprob_T[part])
                torch.testing.assert_close(some[b].hidden_TE[part], everything[b].hidden_TE[part])
            else:
                assert got.isnan().all()
            offset += turn.n_tokens


def test_an_id_outside_the_shared_vocabulary_has_no_logprob() -> None:
    lm = tiny_lm(1, rows=300)
    episode = make_episode(0, 1)
    turn = episode.turns[0]
    episode.token_ids[turn.answer_end - 1] = 290
    (got,) = score(lm, [own_view(episode)], [[0]], vocabulary=259, temperature=1.0)
    assert math.isnan(float(got.stats.logprob_T[-1]))
    assert torch.isfinite(got.stats.logprob_T[:-1]).all()
    assert torch.isfinite(got.stats.top1_T).all()


def test_an_answer_needs_something_before_it() -> None:
    episode = make_episode(0, 1)
    episode.turns[0].answer_start = 0
    with pytest.raises(ValueError, match="position 0"):
        score(tiny_lm(1), [own_view(episode)], [[0]], vocabulary=259, temperature=1.0)


def test_hidden_states_do_not_depend_on_the_batch() -> None:
    lm = tiny_lm(2, dtype=torch.float64)
    views = [own_view(e) for e in EPISODES]
    together = hidden_states(lm, [v.ids for v in views], [v.positions() for v in views])
    alone = torch.cat([hidden_states(lm, [v.ids], [v.positions()]) for v in views])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    assert hidden_states(lm, [[1, 2]], [[]]).shape == (0, 32)
    assert hidden_states(lm, [], []).shape == (0, 32)


def test_another_template_moves_the_spans_but_keeps_the_answers() -> None:
    student, teacher = tiny_lm(1), tiny_lm(2)
    assert teacher_dialogue(student, teacher) is None
    teacher.tokenizer.chat_template = teacher.tokenizer.chat_template.replace("assistant", "helper")
    dialogue = teacher_dialogue(student, teacher)
    assert isinstance(dialogue, Dialogue)
    own, other = own_view(EPISODES[0]), teacher_view(EPISODES[0], dialogue)
    assert other.targets() == own.targets()
    assert other.ids != own.ids
    assert "helper" in teacher.tokenizer.decode(other.ids)
    (got,) = score(teacher, [other], [range(3)], vocabulary=259, temperature=1.0)
    logp = dense_logprobs(teacher, other.ids, 259)[other.positions()]
    expected = logp.gather(-1, torch.tensor(other.targets())[:, None]).squeeze(-1)
    torch.testing.assert_close(got.stats.logprob_T, expected, rtol=1e-4, atol=1e-5)


# --- vocabulary and head


def test_padded_embeddings_of_different_sizes_share_the_tokenizers_vocabulary() -> None:
    assert shared_vocabulary(tiny_lm(1, rows=300), tiny_lm(2, rows=272)) == 259


def test_different_vocabularies_are_refused_in_one_sentence() -> None:
    student, teacher = tiny_lm(1), tiny_lm(2, tokenizer=byte_tokenizer(("extra",)))
    with pytest.raises(ModelError, match=r"only the teacher knows 'extra'.*set teacher\.path"):
        shared_vocabulary(student, teacher)
    with pytest.raises(ModelError, match="'extra' is 259 for one and unknown for the other"):
        shared_vocabulary(teacher, student)


def test_too_few_output_rows_are_refused() -> None:
    small = tiny_lm(1)
    small.model.resize_token_embeddings(200)
    with pytest.raises(ModelError, match="student 'tiny-1' has 200 output rows for a tokenizer of 259 ids"):
        shared_vocabulary(small, tiny_lm(2))


def test_a_model_that_caps_its_logits_is_refused_and_one_that_scales_them_is_not() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM, GraniteConfig, GraniteForCausalLM

    sizes = {"vocab_size": 259, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    sizes |= {"num_hidden_layers": 1, "initializer_range": 0.2}
    check_head(tiny_lm(1))
    lm = tiny_lm(1)
    lm.model = GraniteForCausalLM(GraniteConfig(**sizes, logits_scaling=8.0)).eval()
    check_head(lm)
    assert head(lm).weight_VD.shape == (259, 32)
    lm.model = Gemma2ForCausalLM(Gemma2Config(**sizes, num_key_value_heads=1, head_dim=16)).eval()
    with pytest.raises(ModelError, match="after the output layer"):
        check_head(lm)
