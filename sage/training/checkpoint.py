"""Complete training checkpoints: weights, optimizer, warm-up, random state, position. Format version 3.

`<folder>/step-000010/student/` is an ordinary model directory (`student.path=` takes it); of a student with
adapters it holds the merged weights, and `adapter/` beside it the adapters. A student that
plays in half precision lies there as its float32 masters: they are what was learnt, and hold more than any
rounding. `step-000010/trainer.pt` holds the rest, with `trainer.checkpoint=weights` little of it. Written
beside its place and renamed, so that what exists is complete; the two newest stay. Read by
`sage.training.loop` when a run is resumed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from sage.policy.models.load import LanguageModel
from sage.policy.models.lora import is_adapted, load_adapter, save_adapter
from sage.records import owner
from sage.records.atomic import flush_to_disk
from sage.records.files import read_object
from sage.training.content import Content, content_of
from sage.training.seal import ASIDE, seal, steps

ADAPTER = "adapter"
"""Folder of a checkpoint that holds the adapters of a student that has some (peft's format)."""
CHECKPOINT_FORMAT = 3
"""Version 2, which can still be resumed, has rounded weights in `student/`, the masters in `trainer.pt`."""
Kind = Literal["full", "weights"]
WEIGHTS_ONLY = "weights_only.json"
"""Marks a checkpoint of `trainer.checkpoint=weights`: whether it is of the training's end."""
GOES_ON = ("optimizer", "scheduler", "random", "memories")
"""What such a one lacks in `trainer.pt`."""
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
    """`write` of what `content_of` takes from a training as it is now."""
    return write(folder, content_of(step, student, state))


def write(folder: Path, content: Content, kind: Kind = "full", *, finished: bool = False) -> Path:
    """Write a checkpoint and remove all but the one before; returns its directory. Called in any thread, with
    the copy of a content where the training goes on meanwhile.

    kind `weights` leaves out what a training goes on with; it can be resumed from where it is `finished`.
    """
    final = folder / f"step-{content.step:06d}"
    if final.exists():
        return final
    partial = folder / f".partial-{content.step:06d}-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    owner.check(folder.parent)
    rest = dict(content.rest)
    try:
        partial.mkdir(parents=True)
        _save_weights(content, partial)
        content.student.tokenizer.save_pretrained(partial / "student")
        if kind == "weights":
            rest = {name: value for name, value in rest.items() if name not in GOES_ON}
            (partial / WEIGHTS_ONLY).write_text(json.dumps({"finished": finished}) + "\n", "utf-8")
        torch.save({"format": CHECKPOINT_FORMAT, "step": content.step, **rest}, partial / "trainer.pt")
        seal(partial)
        for path in partial.rglob("*"):
            flush_to_disk(path)
        with owner.writing(folder.parent):
            partial.rename(final)
            flush_to_disk(folder)
            kept = list(steps(folder).values())[-KEPT:]
            for other in folder.iterdir():
                if other not in kept and other.name.startswith(("step-", ".partial-", ASIDE)):
                    shutil.rmtree(other, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return final


def _save_weights(content: Content, folder: Path) -> None:
    """An ordinary model's folder, `student/`, and the adapters beside it where there are some."""
    model: Any = content.student.model
    if content.adapters is not None:
        save_adapter(model, folder / ADAPTER, content.adapters)
        _save_merged(model, content.weights, folder / "student")
        return
    model.save_pretrained(folder / "student", state_dict=dict(content.weights))
    if content.widened is not None:
        _note_dtype(folder / "student", content.widened)


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
    """The newest checkpoint in `folder` that a training goes on from exactly, None where there is none; a
    claim has set damaged ones aside."""
    return next((path for path in reversed(steps(folder).values()) if _goes_on(path)), None)


def _goes_on(path: Path) -> bool:
    said = read_object(path / WEIGHTS_ONLY)
    return said is None or said.get("finished") is True


def _beyond_latest(folder: Path) -> list[Path]:
    """Checkpoints of weights alone that a resumed training makes anew: those after `latest`."""
    newest = latest(folder)
    return [path for path in steps(folder).values() if newest is None or path.name > newest.name]


def drop_beyond_latest(folder: Path) -> None:
    """Remove what `starts_over` speaks of, before a training makes it again."""
    lost = _beyond_latest(folder)
    if lost:
        with owner.writing(folder.parent):
            for path in lost:
                shutil.rmtree(path, ignore_errors=True)


def starts_over(folder: Path) -> str:
    """The sentence about checkpoints that cannot be resumed from; empty where there are none."""
    lost, newest = _beyond_latest(folder), latest(folder)
    if not lost:
        return ""
    start = f"from step {int(newest.name.removeprefix('step-'))}" if newest else "over"
    return (
        f"{lost[-1].name} holds weights alone (trainer.checkpoint=weights), from which no training goes on "
        f"exactly: the run starts {start}, and makes it again. trainer.checkpoint=full keeps what is done."
    )


def load(path: Path, student: LanguageModel) -> dict[str, Any]:
    """Put the saved weights into `student`, rounded to the nearest where it is narrower, and return the rest:
    what `StudentOptimizer.load_state_dict` takes, masters included. Raises ValueError for another format."""
    state: dict[str, Any] = torch.load(path / "trainer.pt", map_location="cpu", weights_only=True)
    if state["format"] not in (2, CHECKPOINT_FORMAT):
        raise ValueError(
            f"{path} has checkpoint format {state['format']}, this version reads 2 and {CHECKPOINT_FORMAT}; "
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
    if state["format"] == CHECKPOINT_FORMAT:
        pairs = zip(student.model.parameters(), saved.parameters(), strict=True)
        state["masters"] = [
            None if p.dtype == whole else master.detach() for p, master in pairs if p.requires_grad
        ]
    return state
