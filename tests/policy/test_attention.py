"""The attention that a setting names is used, is part of a run's record, or is refused in one sentence."""

from __future__ import annotations

import pytest
import torch

from sage.config.load import load
from sage.errors import ConfigError, ModelError
from sage.policy.decoding.masks import Masks
from sage.policy.models import attention
from sage.policy.models.attention import check_attention
from sage.policy.models.hidden_states import hidden_states
from sage.policy.models.load import LanguageModel, load_model
from sage.training.passes import prepare


def loaded(*words: str) -> LanguageModel:
    return load_model(load(words).student, role="student", digest=False)


def test_it_is_used_and_gives_the_same_to_rounding() -> None:
    plain, other = loaded(), loaded("student.attn_implementation=eager")
    assert plain.model.config._attn_implementation == "sdpa"
    assert other.model.config._attn_implementation == "eager"
    rows, positions = [[5, 9, 7, 30, 8], [4, 6]], [range(5), range(2)]
    with torch.no_grad():
        same = [hidden_states(lm, rows, positions) for lm in (plain, other)]
    torch.testing.assert_close(*same, rtol=1e-4, atol=1e-4)


def test_it_is_recorded_and_without_it_runs_keep_their_id() -> None:
    fields = load(["teacher.attn_implementation=eager"]).digest_fields()
    assert fields["teacher"]["attn_implementation"] == "eager"
    assert "attn_implementation" not in fields["student"]


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"attn_implementation=sdpe is not one of .*did you mean 'sdpa'"):
        load(["student.attn_implementation=sdpe"])
    with pytest.raises(ConfigError, match="it has a setting of its own, `attn_implementation`"):
        load(["+student.model_kwargs.attn_implementation=eager"])


def test_one_that_is_not_here_is_refused_before_weights_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["student.attn_implementation=flash_attention_2", "student.device=cpu"]
    with pytest.raises(ModelError, match=r"Student: attn_implementation=flash_attention_2 runs on a"):
        load_model(load(words).student, role="student")
    settings = load(["student=hub", "student.attn_implementation=flash_attention_3"]).student
    monkeypatch.setattr(attention, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="needs the package flash-attn-3, which is not installed"):
        check_attention(settings, "cuda")
    with pytest.raises(ModelError, match="takes bfloat16 and float16 alone"):
        check_attention(settings.model_copy(update={"dtype": "float32"}), "cuda")
    monkeypatch.setattr(attention, "find_spec", lambda name: object())
    check_attention(settings, "cuda")


def test_an_engine_or_packing_that_cannot_use_it_says_so() -> None:
    lm = loaded("student.attn_implementation=eager")
    words = ["speed.packing=true"]
    with pytest.raises(ModelError, match=r"speed\.packing=true is not right .* attention is eager"):
        prepare(load(words).speed, lm, [], print)
    lm.model.config._attn_implementation = "flex_attention"
    with pytest.raises(ModelError, match="its attention 'flex_attention' takes no mask"):
        Masks(lm.model.config, torch.float32)  # what `right_engine` says of the engine hf
