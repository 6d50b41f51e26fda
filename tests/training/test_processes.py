"""Which GPU a process of several takes, and what is known of the others before they have met."""

from __future__ import annotations

import pytest
import torch

from sage.errors import ConfigError
from sage.training.processes import launched, take_gpu


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine that says it has two; what is made current is noted, since this one has none."""
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


def test_each_process_of_a_machine_takes_its_own_gpu(
    two_gpus: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    take_gpu()
    assert two_gpus == [], "a process by itself takes what torch takes"
    for place in ("0", "1"):
        monkeypatch.setenv("LOCAL_RANK", place)
        take_gpu()
    assert two_gpus == [0, 1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match=r"Process 3 of this machine has no GPU, since the run sees 2"):
        take_gpu()


def test_without_gpus_nothing_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("LOCAL_RANK", "7")
    take_gpu()


def test_what_was_started_is_known_before_the_processes_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "ACCELERATE_USE_FSDP"):
        monkeypatch.delenv(name, raising=False)
    assert launched() == (1, False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert launched() == (4, False)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert launched() == (4, True)
