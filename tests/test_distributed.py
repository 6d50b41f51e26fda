"""Several processes of one run do what one does, with whole optimizers and with cut ones (gloo, CPU)."""

from __future__ import annotations

import copy
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sage.errors import ConfigError
from sage.training import checkpoint
from sage.training.optimizer import StudentOptimizer
from sage.training.processes import check_launch
from tests.distill_run import TRAINER, complete, fresh_models
from tests.distributed_run import PARTS, STEPS, parts, steps_of_parts

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "conf" / "accelerate"
ITS_OWN = {"judge_queries", "judge_cached", "judge_tokens"}
"""Columns that depend on how many processes there are: each has its own cache of the judge's replies."""


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    result = complete(tmp_path_factory.mktemp("one"), STEPS)
    assert result is not None
    return result


@pytest.fixture(scope="module", params=["ddp_cpu", "fsdp_cpu"])
def launched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """`tests.distributed_run` in two processes: its folder and result."""
    folder = tmp_path_factory.mktemp(request.param)
    complete(folder / "alone", 2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = CONFIGS / f"{request.param}.yaml"
    launch = ["accelerate.commands.launch", "--config_file", str(config), "--main_process_port", str(port)]
    done = subprocess.run(
        [sys.executable, "-m", *launch, "-m", "tests.distributed_run", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, torch.load(folder / "result.pt")


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / a.norm())


def assert_same(one: dict[str, Any], other: dict[str, Any], steps: slice = slice(None)) -> None:
    """Those `steps` of `one` are all that `other` reports, and both end with the same weights."""
    for a, b in zip(one["ids"][steps], other["ids"], strict=True):
        assert sorted(a) == sorted(b)  # the very same episodes
    for a, b in zip(one["gradients"][steps], other["gradients"], strict=True):
        assert relative(a, b) < 1e-5
    assert relative(one["weights"], other["weights"]) < 1e-5
    for row, same in zip(one["rows"][steps], other["rows"], strict=True):
        assert set(row) == set(same)
        for name in set(row) - ITS_OWN:
            assert same[name] == pytest.approx(row[name], rel=1e-5, abs=1e-12), name


def test_two_processes_do_what_one_does(one: dict[str, Any], launched: tuple[Path, Any]) -> None:
    _, result = launched
    two = result["whole"]
    assert two["processes"] == 2
    assert one["stepped"] == two["stepped"] == STEPS
    assert_same(one, two)
    assert max(row["grad_norm"] for row in two["rows"]) > TRAINER.clip_norm  # something was clipped


def test_two_processes_resume_as_if_they_had_not_stopped(launched: tuple[Path, Any]) -> None:
    _, result = launched
    whole, resumed = result["whole"], result["resumed"]
    assert resumed["rows"] == whole["rows"][2:]
    assert torch.equal(resumed["weights"], whole["weights"])


def test_two_processes_go_on_with_the_checkpoint_of_one(
    one: dict[str, Any], launched: tuple[Path, Any]
) -> None:
    _, result = launched
    assert_same(one, result["taken_over"], slice(2, None))


def test_one_process_goes_on_with_the_checkpoint_of_two(
    one: dict[str, Any], launched: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, _ = launched
    shutil.copytree(folder / "half", tmp_path / "half")
    resumed = complete(tmp_path / "half", STEPS)
    assert resumed is not None
    assert_same(one, resumed, slice(2, None))


def test_the_checkpoint_of_two_has_the_form_of_one_s(launched: tuple[Path, Any]) -> None:
    folder, _ = launched
    student = fresh_models().student
    alone, half = (
        checkpoint.load(next((folder / name / "checkpoints").iterdir()), student)
        for name in ("alone", "whole")
    )
    assert set(alone) == set(half)
    assert alone["masters"] == half["masters"] == [None] * len(half["masters"])
    assert [group["params"] for group in alone["optimizer"]["param_groups"]] == [
        group["params"] for group in half["optimizer"]["param_groups"]
    ]
    for number, of_weight in alone["optimizer"]["state"].items():
        for name, value in of_weight.items():
            other = half["optimizer"]["state"][number][name]
            assert type(other) is torch.Tensor
            assert (other.shape, other.dtype) == (value.shape, value.dtype)


@pytest.mark.parametrize("name", PARTS)
def test_the_optimizer_steps_as_one_with_the_sum_of_the_gradients(
    launched: tuple[Path, Any], name: str
) -> None:
    """Weights of all kinds of shapes, float32 and with masters; norm, weights, moments and masters."""
    _, result = launched
    found, model = result["parts"][name], parts(getattr(torch, name))
    optimizer = StudentOptimizer(model, TRAINER)
    norms = steps_of_parts(optimizer, range(2), range(2))
    state = copy.deepcopy(optimizer.state_dict())
    norms += steps_of_parts(optimizer, range(2, 3), range(2))
    assert min(norms) > TRAINER.clip_norm
    assert found["norms"] == pytest.approx(norms, rel=1e-6)
    torch.testing.assert_close(found["weights"], [p.detach() for p in model])
    torch.testing.assert_close(found["state"]["optimizer"]["state"][0], state["optimizer"]["state"][0])
    for number, of_weight in state["optimizer"]["state"].items():
        torch.testing.assert_close(found["state"]["optimizer"]["state"][number], of_weight)
    assert [m is None for m in found["state"]["masters"]] == [m is None for m in state["masters"]]
    for mine, master in zip(found["state"]["masters"], state["masters"], strict=True):
        torch.testing.assert_close(mine, master)


@pytest.mark.parametrize("name", PARTS)
def test_each_process_holds_its_rows_alone(launched: tuple[Path, Any], name: str) -> None:
    folder, result = launched
    held = result["parts"][name]["held"]
    if folder.name.startswith("ddp"):
        assert held == [[15, 16, 7, 1, 1, 4]] * 2
        assert result["parts"][name]["keeps"] == [True, True]
    else:  # of 5 rows 3 and 2, of 7 numbers 4 and 3, of 1 one and none; a scalar is everybody's
        assert held == [[9, 8, 4, 1, 1, 2], [6, 8, 3, 0, 1, 2]]
        assert result["parts"][name]["keeps"] == [True, False]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_shipped_launch_configs_are_accelerate_s(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.commands.config import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.distributed_type == ("FSDP" if path.stem.startswith("fsdp") else "MULTI_GPU")
    assert config.num_processes > 1
    if config.distributed_type == "FSDP":
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
        assert len(config.fsdp_config) == 5
        for name, value in config.fsdp_config.items():
            monkeypatch.setenv(name.upper(), str(value))
        check_launch()


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "true", "set to DeepSpeed"),
        ("ACCELERATE_USE_MEGATRON_LM", "true", "set to Megatron_LM"),
        ("ACCELERATE_MIXED_PRECISION", "bf16", "mixed_precision: bf16.*student.dtype=bfloat16"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "gradient_accumulation_steps: 4.*tasks_per_step"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "dynamo_backend: INDUCTOR"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "a parallelism_config"),
        ("FSDP_VERSION", "1", "fsdp_version: 1, and only 2"),
        ("FSDP_RESHARD_AFTER_FORWARD", "true", "fsdp_reshard_after_forward: true, and only false"),
        ("FSDP_CPU_RAM_EFFICIENT_LOADING", "true", "fsdp_cpu_ram_efficient_loading: true"),
    ],
)
def test_what_is_not_known_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    check_launch()
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=sentence):
        check_launch()
