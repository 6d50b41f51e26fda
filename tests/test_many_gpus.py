"""docs/guide/many_gpus.md: every command is read by the program that it starts; the plan is the code's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from transformers import Qwen3Config

from sage.config.load import load
from sage.launch import cli
from sage.policy.models.shape import head_shape, shape_of
from sage.training.memory import fitted, need_of, over_processes

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "guide" / "many_gpus.md").read_text(encoding="utf-8")
COMMANDS = [line.strip() for line in PAGE.splitlines() if line.startswith("    ")]


def words_of(command: str) -> list[str]:
    """Without the variables in front."""
    words = shlex.split(command)
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    return words


def composed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As `python -m sage` reads them."""
    monkeypatch.setattr(cli, "_Single", type("Single", (cli._Single,), {}))
    words, refusal = cli._of_command([word for word in words if word != "-m"])
    assert refusal == ""
    many = [word for word in words if re.fullmatch(r"\w+=[^\[]*,.*", word)]
    config = load([word for word in words if word not in many])
    assert config.teacher.path == "Qwen/Qwen3-8B"
    assert config.student.path.startswith(("Qwen/Qwen3-", "sage://"))


def test_the_page_has_commands_for_every_number_of_gpus() -> None:
    assert re.findall(r"^## (.*GPUs?)$", PAGE, re.MULTILINE) == [
        *("1 GPU", "2 GPUs", "4 GPUs", "8 GPUs", "Two machines of 8 GPUs"),
    ]
    assert len(COMMANDS) > 14


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_is_read_by_what_it_starts(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = words_of(command)
    if words[:3] == ["python", "-m", "sage"]:
        composed(words[3:], monkeypatch)
    elif words[:2] == ["accelerate", "launch"]:
        from accelerate.commands.launch import _validate_launch_command, launch_command_parser

        monkeypatch.chdir(ROOT)
        asked = launch_command_parser().parse_args(words[2:])
        assert (asked.module, asked.training_script) == (True, "sage")
        gpus = command.split()[0].removeprefix("CUDA_VISIBLE_DEVICES=").split(",")
        assert asked.num_processes == len(gpus) * int(asked.num_machines or 1)
        read, _, _ = _validate_launch_command(asked)
        assert read.use_fsdp
        assert read.fsdp_reshard_after_forward in (False, "false")
        composed(asked.training_script_args, monkeypatch)
    else:
        assert words[:2] == ["ray", "start"]
        scripts = pytest.importorskip("ray.scripts.scripts", reason="pip install 'sage-opd[ray]'")
        scripts.start.make_context("start", words[2:])


def test_the_memory_on_the_page_is_what_check_says() -> None:
    def shape(width: int, feed_forward: int, layers: int, heads: int, tied: bool) -> Qwen3Config:
        return Qwen3Config(
            vocab_size=151_936, hidden_size=width, intermediate_size=feed_forward, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=8, head_dim=128, tie_word_embeddings=tied,
        )  # fmt: skip

    student = shape_of(shape(2048, 6144, 28, 16, True), 2)
    here = shape_of(shape(4096, 12_288, 36, 32, False), 2)
    there = head_shape(151_936, 4_096, 2)
    config = load(["student=hub", "env.games=generated", "rollout.max_context=8192"])
    rows = re.findall(r"^\| [\d ×]+ \| (\d+) \| ([\w ]+) \| ([\d.]+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 5
    for count, where, always, most in rows:
        need = over_processes(need_of(config, []), int(count), int(count) > 1)
        plan = fitted(student, here if where == "the same" else there, need, 80 << 30)
        assert plan.fits
        assert f"{sum(plan.always.values()) / 2**30:.1f}" == always
        assert f"{plan.peak / 2**30:.1f}" == most
    assert f"its weights ({here.weights / 2**30:.1f} GiB)" in PAGE
