"""Which words a model is spoken to with."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from sage.config.load import load
from sage.policy.models.folder import resolve_path
from sage.policy.prompts import choose_style


def test_a_checkpoint_of_a_tiny_model_is_spoken_to_as_the_shipped_one_is(tmp_path: Path) -> None:
    prompt = load(["env=scienceworld"]).prompt
    short, react = prompt.styles["short"], prompt.styles["react"]
    assert choose_style(prompt, "sage://tiny-student/scienceworld") == short
    tokenizer = AutoTokenizer.from_pretrained(resolve_path("sage://tiny-student/scienceworld"))
    tokenizer.save_pretrained(tmp_path / "student")
    assert choose_style(prompt, str(tmp_path / "student")) == short
    assert choose_style(prompt, "Qwen/Qwen3-0.6B") == react
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(tmp_path / "other")
    assert choose_style(prompt, str(tmp_path / "other")) == react
    named = prompt.model_copy(update={"style": "react"})
    assert choose_style(named, str(tmp_path / "student")) == react
    with pytest.raises(ValueError, match="is not one of"):
        choose_style(prompt.model_copy(update={"style": "curt"}), "x")
