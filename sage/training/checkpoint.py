"""Complete training checkpoints: weights, optimizer, warm-up, random state, position. Format version 3.

`<folder>/step-000010/student/` is an ordinary model directory (`student.path=` takes it); of a student with
adapters it holds the merged weights, and `adapter/` beside it the adapters. A student that
plays in half precision lies there as its float32 masters: they are what was learnt, and hold more than any
rounding. `step-000010/trainer.pt` holds the rest. Written beside its place and renamed, so that what exists
is complete; the two newest stay. Read by `sage.training.loop` when a run is resumed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from sage.policy.models.load import LanguageModel
from sage.policy.models.lora import is_adapted, load_adapter, merged, save_adapter
from sage.records import owner
from sage.training.seal import ASIDE, seal, steps

ADAPTER = "adapter"
"""Folder of a checkpoint that holds the adapters of a student that has some (peft's format)."""
FORMAT_VERSION = 3
"""Version 2, which can still be resumed, has rounded weights in `student/`, the masters in `trainer.pt`."""
KEPT = 2
"""Newest checkpoints that stay: where one is damaged, the run goes on from the one before
(`sage.training.seal`)."""


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
    """Write the checkpoint of `step` and remove all but the one before; returns its directory.

    `state` has `StudentOptimizer.state_dict()`, whose masters are what is saved of the student.
    """
    final = folder / f"step-{step:06d}"
    if final.exists():
        return final
    partial = folder / f".partial-{step:06d}-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    owner.check(folder.parent)
    rest = {name: value for name, value in state.items() if name != "masters"}
    try:
        partial.mkdir(parents=True)
        _save_weights(student.model, state.get("masters") or (), partial / "student")
        student.tokenizer.save_pretrained(partial / "student")
        torch.save({"format": FORMAT_VERSION, "step": step, **rest}, partial / "trainer.pt")
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


def _save_weights(model: Any, masters: Sequence[Tensor | None], folder: Path) -> None:
    """masters: of the trainable parameters in order, None where the parameter is its own. Of a model with
    adapters the merged weights are written, and the adapters beside them."""
    if is_adapted(model):
        trained = [name for name, p in model.named_parameters() if p.requires_grad]
        named = dict(zip(trained, masters, strict=bool(masters)))
        wider = {name: master for name, master in named.items() if master is not None}
        save_adapter(model, folder.parent / ADAPTER, wider)
        _save_merged(model, merged(model, wider), folder)
        return
    trainable = (p for p in model.parameters() if p.requires_grad)
    wider = {id(p): m for p, m in zip(trainable, masters, strict=bool(masters)) if m is not None}
    if not wider:
        model.save_pretrained(folder)
        return
    of_parameters = {
        name: wider[id(p)] for name, p in model.named_parameters(remove_duplicate=False) if id(p) in wider
    }
    model.save_pretrained(folder, state_dict=model.state_dict() | of_parameters)
    _note_dtype(folder, next(iter(wider.values())).dtype)


def _save_merged(model: Any, weights: Mapping[str, Tensor], folder: Path) -> None:
    """An ordinary model's folder with these weights, all in the widest dtype among them."""
    kinds = {weight.dtype for weight in weights.values() if weight.is_floating_point()}
    widest = max(kinds, key=lambda kind: kind.itemsize)
    ties = getattr(model, "_tied_weights_keys", None) or ()
    tied = set(ties) if model.config.tie_word_embeddings else set()
    whole = {
        name: (w.to(widest) if w.is_floating_point() else w).detach().cpu().contiguous()
        for name, w in weights.items()
        if name not in tied
    }
    folder.mkdir(parents=True)
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    _note_dtype(folder, widest)


def _note_dtype(folder: Path, dtype: torch.dtype) -> None:
    kind = str(dtype).removeprefix("torch.")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(_of_dtype(config, kind), indent=2) + "\n", "utf-8")


def _of_dtype(config: Any, kind: str) -> Any:
    """A model's config whose weights are of `kind`, in its nested configs too."""
    if not isinstance(config, dict):
        return config
    return {key: kind if key == "dtype" else _of_dtype(value, kind) for key, value in config.items()}


def latest(folder: Path) -> Path | None:
    """The newest checkpoint in `folder`, None where there is none; a claim has set damaged ones aside."""
    return next(reversed(steps(folder).values()), None)


def load(path: Path, student: LanguageModel) -> dict[str, Any]:
    """Put the saved weights into `student`, rounded to the nearest where it is narrower, and return the rest:
    what `StudentOptimizer.load_state_dict` takes, masters included. Raises ValueError for another format."""
    state: dict[str, Any] = torch.load(path / "trainer.pt", map_location="cpu", weights_only=True)
    if state["format"] not in (2, FORMAT_VERSION):
        raise ValueError(
            f"{path} has checkpoint format {state['format']}, this version reads 2 and {FORMAT_VERSION}; "
            "start the run anew with launch.on_existing=rerun."
        )
    if is_adapted(student.model):
        saved_adapters = load_adapter(student.model, path / ADAPTER)
        trained = [(name, p) for name, p in student.model.named_parameters() if p.requires_grad]
        state["masters"] = [
            None if p.dtype == saved_adapters[name].dtype else saved_adapters[name] for name, p in trained
        ]
        return state
    whole = torch.promote_types(student.model.dtype, torch.float32)
    saved = type(student.model).from_pretrained(path / "student", dtype=whole)
    student.model.load_state_dict(saved.state_dict())
    if state["format"] == FORMAT_VERSION:
        pairs = zip(student.model.parameters(), saved.parameters(), strict=True)
        state["masters"] = [
            None if p.dtype == whole else master.detach() for p, master in pairs if p.requires_grad
        ]
    return state


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
