"""The walk of tests/test_every_setting.py over what a whole run reads: games, prompts, models, play,
optimizer, evaluation. With each setting changed, one run of one step on the shipped models.

A setting is a case here, or is declared to change nothing (`NOT_A_RESULT`, `WITHOUT_EFFECT`), and then
nothing does: all of those are changed at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from sage.config.load import load
from sage.config.schema import NOT_A_RESULT, WITHOUT_EFFECT, RunConfig
from sage.errors import ConfigError
from sage.launch.execute import execute
from sage.records.tables import read
from sage.training import checkpoint
from tests.every_setting import PARTS, Case, changed, settings_of

SMALL = (
    *("env.games=generated", "env.generated.train=6", "env.generated.valid_seen=4"),
    *("env.generated.valid_unseen=2", "env.turn_budget=3", "env.evaluation_splits=[valid_seen]"),
    *("trainer.steps=1", "trainer.tasks_per_step=2", "trainer.warmup_steps=0", "evaluation.limit=1"),
    *("evaluation.before=false", "tracking=none", "speed.threads=1", "speed.judge_ahead=false"),
)
STYLE = "prompt.styles.short"
REFUSED = "refused"
TWO_STEPS = {"trainer.steps": 2}
HALF = {"student.dtype": "bfloat16", "trainer.learning_rate": 1e-5}

QUICK: dict[str, Case] = {
    "seed": Case(1),
    "rollout.temperature": Case(1.5),
    "rollout.max_new_tokens": Case(3),
    "trainer.learning_rate": Case(1e-3),
    "trainer.clip_norm": Case(1e-3),
    f"{STYLE}.turn": Case("{observation} "),
    f"{STYLE}.judge": Case("{action}"),
    "judge.context": Case("trajectory"),
    "evaluation.temperature": Case(1.5),
}
"""Looked at in the ordinary tests."""

SLOW: dict[str, Case] = {
    "task": Case("evaluate"),
    "env.turn_budget": Case(2),
    "env.games": Case("official"),
    "env.generated.seed": Case(1),
    "env.generated.train": Case(2),
    "env.generated.valid_seen": Case(3, {"evaluation.limit": None}),
    "env.generated.valid_unseen": Case(
        3, {"evaluation.limit": None, "evaluation.splits": ["valid_unseen"]}
    ),
    "prompt.style": Case("react"),
    f"{STYLE}.system": Case("Be quick."),
    f"{STYLE}.demonstration": Case("look", {f"{STYLE}.first_turn": "{demonstration}{scene} {goal}"}),
    f"{STYLE}.first_turn": Case("{goal}"),
    f"{STYLE}.stop": Case("o"),
    f"{STYLE}.unparsed": Case("What?", {f"{STYLE}.action_pattern": "Zzz(.)"}),
    f"{STYLE}.thought_pattern": Case("(A)ction"),
    f"{STYLE}.action_pattern": Case("Action: ?(go)"),
    f"{STYLE}.answer": Case("Action: {action}\nThought: {thought}", {"rollout.player": "expert"}),
    f"{STYLE}.judge_system": Case("Judge."),
    f"{STYLE}.admissible": Case(3, {f"{STYLE}.first_turn": "{goal}{admissible}"}),
    "student.path": Case("sage://tiny-teacher"),
    "teacher.path": Case("sage://tiny-teacher-strong"),
    "teacher.spoil": Case(1.0, {"teacher.spoil_turns": "drawn"}),
    "teacher.spoil_turns": Case("drawn", {"teacher.spoil": 1.0}),
    "teacher.spoil_share": Case(1.0, {"teacher.spoil": 1.0, "teacher.spoil_turns": "drawn"}),
    "teacher.spoil_with": Case("shuffled", {"teacher.spoil": 1.0, "teacher.spoil_turns": "drawn"}),
    "student.dtype": Case("bfloat16"),
    "teacher.dtype": Case("bfloat16"),
    "rollout.player": Case("teacher"),
    "rollout.demonstration.player": Case(
        "expert", {"rollout.demonstration.weight": 0.5, "env.turn_budget": 30}
    ),
    "rollout.demonstration.weight": Case(
        0.5, {"rollout.demonstration.player": "expert", "env.turn_budget": 30}
    ),
    "rollout.perturb": Case(1),
    "rollout.episodes_per_task": Case(2),
    "rollout.top_p": Case(0.2, {"rollout.temperature": 1.5}),
    "rollout.max_context": Case(150),
    "trainer.steps": Case(2),
    "trainer.tasks_per_step": Case(1),
    "trainer.warmup_steps": Case(4),
    "trainer.weight_decay": Case(0.9),
    "trainer.rounding": Case("nearest", HALF),
    "trainer.teacher_budget": Case(1, TWO_STEPS),
    "evaluation.splits": Case(["valid_unseen"]),
    "evaluation.limit": Case(2),
    "evaluation.before": Case(True),
    "evaluation.after": Case(False),
    "evaluation.every": Case(1, TWO_STEPS),
    "evaluation.during_limit": Case(2, {**TWO_STEPS, "evaluation.every": 1, "evaluation.limit": 2}),
    "evaluation.top_p": Case(0.2, {"evaluation.temperature": 1.5}),
}
"""Looked at in the slow tests."""

ELSEWHERE = {
    "env.evaluation_splits": "a test below: the config file of `evaluation` reads it",
    "student.revision": "tests/policy",
    "teacher.revision": "tests/policy",
    "student.gguf_file": "tests/test_smollm2.py",
    "teacher.gguf_file": "tests/test_smollm2.py",
    "student.chat_template": "tests/policy",
    "teacher.chat_template": "tests/policy",
    "student.thinking": "tests/policy",
    "teacher.thinking": "tests/policy",
    "rollout.decoder": "tests/policy/test_vllm.py",
    "teacher.server": "tests/teacher/server",
    "teacher.ray": "tests/teacher/ray",
    "student.lora": "tests/training/test_lora.py",
    "student.model_kwargs": "tests/policy/test_adapter_folders.py",
    "teacher.model_kwargs": "tests/policy/test_adapter_folders.py",
}
"""What needs a hub, a file or a server of its own, and where it is looked at."""

FASTER = {
    "speed.engine": "hf",
    "speed.draft_tokens": 0,
    "speed.slots": 1,
    "speed.fit_memory": False,
    "speed.judge_batch": 1,
    "speed.judge_ahead": True,
    "speed.micro_batch": 1,
    "speed.gradient_checkpointing": True,
    "speed.packing": True,
    "speed.loss_chunk": 7,
    "speed.checkpoint_every": 1,
    "speed.step_timeout_s": 30.0,
    "speed.checkpoint_background": False,
    "speed.matrix_rate": 1e12,
    "speed.memory_rate": 1e10,
    "trainer.log_skipped": False,
    "trainer.log_tokens": 0,
    "env.distances": False,
    "student.device": "cpu",
    "teacher.device": "cpu",
    "teacher.attn_implementation": "eager",
    "method": "another_name",
    "plugins": ["tests.outside.plugin"],
    "tracking.traces": 7,
    "launch.workers": 3,
    "pretrain.tokens": 12345,
}
"""What is declared to change nothing, changed."""


@cache
def base() -> RunConfig:
    return load(SMALL)


def outcome(values: Mapping[str, Any], folder: Path) -> dict[str, Any] | str:
    """What a run plays, decides, loses and ends with; `refused` where it is not begun."""
    try:
        config = changed(base(), {**values, "launch.runs_dir": str(folder)})
        done = execute(config, export=False)  # which looks at templates and context before it begins
    except ConfigError:
        return REFUSED
    if done.state != "done":
        return f"failed: {done.reason}"
    newest = checkpoint.latest(done.folder / "checkpoints")
    turns, steps = (read(done.folder, table).to_pylist() for table in ("turns", "steps"))
    names = ("phase", "step", "split", "task", "rollout", "turn", "thought", "action", "answer", "label")
    names += ("feedback", "judge_reply", "judge_tokens", "failure")
    weights = torch.load(newest / "trainer.pt", weights_only=True)["optimizer"]["state"] if newest else {}
    return {
        "turns": [tuple(row[name] for name in names) for row in turns],
        "loss": [row["loss"] for row in steps] + [row["demonstration_loss"] for row in steps],
        "norm": [row["grad_norm"] for row in steps],
        "moved": [row["relative_weight_change"] for row in steps],
        "effective": [row["effective_weight"] for row in turns if row["effective_weight"] is not None],
        "moments": [float(state["exp_avg"].double().norm()) for state in weights.values()],
    }


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is waited for on the disk, and the games are made once."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path_factory.getbasetemp() / "games"))
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)


_PLAIN: dict[str, dict[str, Any] | str] = {}
"""What was before, by the settings beside; most cases have the same."""


def changes(name: str, case: Case, folder: Path) -> bool:
    beside = repr(sorted(case.beside.items()))
    if beside not in _PLAIN:
        _PLAIN[beside] = outcome(case.beside, folder / "a")
    plain = _PLAIN[beside]
    assert isinstance(plain, dict), plain
    return outcome({**case.beside, name: case.value}, folder / "b") != plain


@pytest.mark.parametrize("name", QUICK)
def test_a_setting_of_a_run_has_an_effect(name: str, tmp_path: Path) -> None:
    assert changes(name, QUICK[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_every_setting_of_a_run_has_an_effect(name: str, tmp_path: Path) -> None:
    assert changes(name, SLOW[name], tmp_path)


def test_an_environment_s_evaluation_splits_are_those_of_the_evaluation() -> None:
    assert load(["env.evaluation_splits=[valid_unseen]"]).evaluation.splits == ["valid_unseen"]


def test_what_is_declared_to_change_nothing_changes_nothing(tmp_path: Path) -> None:
    plain, other = outcome({}, tmp_path / "a"), outcome(FASTER, tmp_path / "b")
    assert isinstance(plain, dict)
    assert isinstance(other, dict), other
    assert other["turns"] == plain["turns"]
    for name in ("loss", "norm", "moved", "effective", "moments"):
        assert other[name] == pytest.approx(plain[name], rel=1e-4), name


def test_every_setting_of_a_run_is_a_case_or_declared() -> None:
    declared = tuple(f"{name}." for name in NOT_A_RESULT) + NOT_A_RESULT
    missing = [
        name
        for name, _ in settings_of(base())
        if name.partition(".")[0] not in PARTS
        and not name.startswith("prompt.styles.react.")
        and not name.startswith(declared)
        and name not in {*QUICK, *SLOW, *ELSEWHERE, *WITHOUT_EFFECT}
    ]
    assert not missing, f"settings without a case: {missing}"
    there = {name for name, _ in settings_of(base())}
    assert {*QUICK, *SLOW, *ELSEWHERE, *FASTER} <= there
