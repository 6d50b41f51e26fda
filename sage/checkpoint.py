"""Complete training checkpoints: weights, optimizer, warm-up, random state, position. Format version 2.

`<folder>/step-000010/student/` is an ordinary model directory (`student.path=` takes it);
`step-000010/trainer.pt` holds the rest. Written beside its place and renamed, so that what exists is
complete; the two newest stay. Read by `sage.distill` when a run is resumed.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sage.policy.model import LanguageModel
from sage.records import owner
from sage.seal import ASIDE, seal, steps

FORMAT_VERSION = 2
KEPT = 2
"""Newest checkpoints that stay: where one is damaged, the run goes on from the one before (`sage.seal`)."""


def random_state() -> dict[str, Any]:
    """State of the global generators (python, numpy, torch, cuda) as plain data and tensors."""
    legacy: Any = np.random.get_state(legacy=True)
    kind, keys, position, has_gauss, gauss = legacy
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def save(folder: Path, step: int, student: LanguageModel, state: Mapping[str, Any]) -> Path:
    """Write the checkpoint of `step` and remove all but the one before; returns its directory."""
    final = folder / f"step-{step:06d}"
    if final.exists():
        return final
    partial = folder / f".partial-{step:06d}-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    owner.check(folder.parent)
    try:
        partial.mkdir(parents=True)
        student.model.save_pretrained(partial / "student")
        student.tokenizer.save_pretrained(partial / "student")
        torch.save({"format": FORMAT_VERSION, "step": step, **state}, partial / "trainer.pt")
        seal(partial)
        for path in partial.rglob("*"):
            _flush(path)
        with owner.writing(folder.parent):
            partial.rename(final)
            _flush(folder)
            kept = list(steps(folder).values())[-KEPT:]
            for other in folder.iterdir():
                if other not in kept and other.name.startswith(("step-", ".partial-", ASIDE)):
                    shutil.rmtree(other, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return final


def latest(folder: Path) -> Path | None:
    """The newest checkpoint in `folder`, None where there is none; a claim has set damaged ones aside."""
    return next(reversed(steps(folder).values()), None)


def load(path: Path, student: LanguageModel) -> dict[str, Any]:
    """Put the saved weights into `student` and return the rest. Raises ValueError for another format."""
    state: dict[str, Any] = torch.load(path / "trainer.pt", map_location="cpu", weights_only=True)
    if state["format"] != FORMAT_VERSION:
        raise ValueError(
            f"{path} has checkpoint format {state['format']}, this version reads {FORMAT_VERSION}; "
            "start the run anew with launch.on_existing=rerun."
        )
    saved = type(student.model).from_pretrained(path / "student", dtype=student.model.dtype)
    student.model.load_state_dict(saved.state_dict())
    return state


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
