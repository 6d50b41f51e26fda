"""What a checkpoint holds, in memory: a training's own tensors, or copies that it no longer changes.

Invariant: a copy is made between two steps and shares no storage with anything that a step writes to, so it
may be written while the training goes on. Tensors that were one (tied weights) stay one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sage.policy.models.load import LanguageModel
from sage.policy.models.lora import is_adapted, merged


@dataclass(frozen=True, slots=True)
class Content:
    """Of the checkpoint of `step`.

    weights: of an ordinary model (merged where the student has adapters), the float32 masters in place of
    what is rounded. adapters: by parameter name, None without any. rest: what `trainer.pt` holds.
    """

    step: int
    student: LanguageModel
    weights: Mapping[str, Tensor]
    adapters: Mapping[str, Tensor] | None
    rest: Mapping[str, Any]
    widened: torch.dtype | None = None
    """Dtype of the masters that stand in place of narrower weights; None where none do."""

    def copied(self) -> Content:
        """The same in main memory of its own. Frozen weights are no copies: nothing writes to them."""
        frozen = {_place(p) for p in self.student.model.parameters() if not p.requires_grad}
        done: dict[Any, Tensor] = {}

        def copy(value: Any) -> Any:
            if isinstance(value, Tensor):
                place = _place(value)
                if place not in frozen and place not in done:
                    done[place] = value.detach().to("cpu", copy=True)
                return done.get(place, value)
            if isinstance(value, Mapping):
                return {key: copy(one) for key, one in value.items()}
            if isinstance(value, list | tuple):
                return type(value)(copy(one) for one in value)
            return value

        return replace(self, weights=copy(self.weights), adapters=copy(self.adapters), rest=copy(self.rest))


def content_of(step: int, student: LanguageModel, state: Mapping[str, Any]) -> Content:
    """`state` has `StudentOptimizer.state_dict()`, whose masters (of the trainable parameters in order, None
    where a parameter is its own) are what is saved of the student, and whatever else is to be kept."""
    model: Any = student.model
    masters: Sequence[Tensor | None] = state.get("masters") or ()
    rest = {name: value for name, value in state.items() if name != "masters"}
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    named = dict(zip([name for name, _ in trained], masters, strict=bool(masters)))
    wider = {name: master for name, master in named.items() if master is not None}
    if is_adapted(model):
        adapters = {name: p.detach() for name, p in trained if ".lora_" in name} | wider
        return Content(step, student, merged(model, wider), adapters, rest)
    widened = next(iter(wider.values())).dtype if wider else None
    return Content(step, student, _with_masters(model, wider), None, rest, widened)


def _with_masters(model: Any, wider: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's state dict with these values of parameters in place of its own."""
    by_parameter = {id(p): wider[name] for name, p in model.named_parameters() if name in wider}
    weights = dict(model.state_dict())
    for name, p in model.named_parameters(remove_duplicate=False):  # a tied weight has two names
        if id(p) in by_parameter:
            weights[name] = by_parameter[id(p)]
    return weights


def _place(tensor: Tensor) -> tuple[Any, ...]:
    """What two tensors share that are the same numbers in the same memory."""
    storage = tensor.untyped_storage().data_ptr()
    where = (tensor.device, storage, tensor.storage_offset())
    # Of no bytes: such tensors share nothing.
    return (*where, tuple(tensor.shape), tensor.stride(), tensor.dtype) if storage else (id(tensor),)
