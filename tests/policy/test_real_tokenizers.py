"""The templates and tokenizers of real models, where `SAGE_TOKENIZERS` names a folder of theirs.

A folder for each model, holding `tokenizer.json` and `tokenizer_config.json` as a hub has them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen3Config, Qwen3ForCausalLM

from sage.check.preflight import check_game
from sage.config.load import load
from sage.launch.execute import execute
from sage.policy.dialogue import Dialogue
from sage.records.tables import read
from tests.check.test_preflight import REACT, game

FOLDER = Path(os.environ.get("SAGE_TOKENIZERS", "no folder"))
CLOSES = {
    "qwen3": "<|im_end|>",
    "llama3_1": "<|eot_id|>",
    "gemma3": "<end_of_turn>",
    "deepseek_v3": "<｜end▁of▁sentence｜>",
}

pytestmark = pytest.mark.filterwarnings("default")


def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    if not (FOLDER / name / "tokenizer.json").is_file():
        pytest.skip(f"SAGE_TOKENIZERS names no folder with {name}/tokenizer.json")
    return AutoTokenizer.from_pretrained(FOLDER / name)


@pytest.mark.parametrize("name", CLOSES)
def test_a_real_template_is_put_together_from_its_pieces(name: str) -> None:
    dialogue = Dialogue(tokenizer_of(name))
    assert check_game(dialogue, "student", REACT, game(), True) == 6
    said = dialogue.encode_answer("Thought: a.\nAction: look")
    assert dialogue.tokenizer.decode(said) == "Thought: a.\nAction: look" + CLOSES[name]
    after = dialogue.tokenizer.decode(dialogue.after(said, f"You read {CLOSES[name]}."))
    assert not after.startswith(CLOSES[name])
    special = dialogue.tokenizer.convert_tokens_to_ids(CLOSES[name])
    plain, nasty = (dialogue.open("", text) for text in ("You read.", f"You read {CLOSES[name]}."))
    assert nasty.count(special) == plain.count(special)


def test_qwen3_thinks_where_it_is_asked_to() -> None:
    tokenizer = tokenizer_of("qwen3")
    off, on = Dialogue(tokenizer), Dialogue(tokenizer, thinking=True)
    assert off.opening_text("", "x").endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert on.opening_text("", "x").endswith("<|im_start|>assistant\n")


def test_with_qwen3s_tokenizer_the_expert_wins_all_of_sixteen_games(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("qwen3")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=151936,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        tie_word_embeddings=True,
        max_position_embeddings=40960,
    )
    Qwen3ForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    games = ["env.games=generated", "env.generated.train=16", "env.generated.valid_seen=2"]
    line = [
        *("method=sft_expert", "student=hub", "teacher=hub", "env.generated.valid_unseen=2", *games),
        *(f"student.path={tmp_path / 'model'}", f"teacher.path={tmp_path / 'model'}"),
        *("trainer.steps=1", "trainer.tasks_per_step=16", "evaluation.before=false"),
        *("evaluation.after=false", "tracking=none", f"launch.runs_dir={tmp_path / 'runs'}"),
        *("student.device=cpu", "teacher.device=cpu"),
    ]
    outcome = execute(load(line), export=False)
    assert outcome.state == "done"
    assert outcome.folder is not None
    rows = read(outcome.folder, "episodes").to_pylist()
    assert [row["status"] for row in rows] == ["won"] * 16
