"""AdamW on the student: decay groups, warm-up, clipping, float32 masters, and how far the weights moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sage.config import TrainerSettings

_BUCKET_ELEMENTS = 1 << 24
"""Gradients are added up over processes in buckets of about this size (64 MiB in float32)."""


class StudentOptimizer:
    """AdamW with linear warm-up to a constant rate; matrices decay, norms and biases do not.

    Weights in half precision are updated through float32 masters: at the paper's learning rate of 1e-6 an
    update is smaller than half a bfloat16 step of most weights and would be rounded away.
    """

    def __init__(self, model: nn.Module, settings: TrainerSettings) -> None:
        self.settings = settings
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.masters = [
            p if p.dtype in (torch.float32, torch.float64) else _master(p) for p in self.parameters
        ]
        groups = [
            {"params": [p for p in self.masters if p.ndim >= 2], "weight_decay": settings.weight_decay},
            {"params": [p for p in self.masters if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
        warmup = settings.warmup_steps
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda done: min(1.0, (done + 1) / warmup) if warmup else 1.0
        )

    @property
    def learning_rate(self) -> float:
        """The rate that the next step uses."""
        return float(self.scheduler.get_last_lr()[0])

    def clear(self) -> None:
        for p in (*self.parameters, *self.masters):
            p.grad = None

    def step(self) -> float:
        """Clip, step, advance the warm-up and clear; returns the gradient norm before clipping.

        Raises FloatingPointError, before anything is changed, where the gradient is not finite.
        """
        for p, master in zip(self.parameters, self.masters, strict=True):
            if master is not p and p.grad is not None:
                master.grad = p.grad.float()
        norm = float(torch.nn.utils.clip_grad_norm_(self.masters, self.settings.clip_norm))
        if norm != norm or norm == float("inf"):
            raise FloatingPointError(
                "The gradient is not finite; lower trainer.learning_rate or load the models in float32."
            )
        self.optimizer.step()
        self.scheduler.step()
        self.publish()
        self.clear()
        return norm

    @torch.no_grad()
    def publish(self) -> None:
        """Copy the masters into the model."""
        for p, master in zip(self.parameters, self.masters, strict=True):
            if master is not p:
                p.copy_(master)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the model's own weights."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "masters": [
                None if m is p else m.detach() for p, m in zip(self.parameters, self.masters, strict=True)
            ],
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        for master, saved in zip(self.masters, state["masters"], strict=True):
            if saved is not None:
                master.copy_(saved)


def _master(p: Tensor) -> Tensor:
    return p.detach().float().clone().requires_grad_()


def add_up_gradients(parameters: Iterable[Tensor], add_up: Callable[[Tensor], Tensor]) -> None:
    """Replace every `.grad` by its sum over all processes (`add_up` sums one tensor); a missing one is 0."""
    bucket: list[Tensor] = []

    def flush() -> None:
        if not bucket:
            return
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket])
        for p, part in zip(bucket, add_up(flat).split([p.numel() for p in bucket]), strict=True):
            p.grad = part.view_as(p).clone()
        bucket.clear()

    for p in parameters:
        if bucket and (p.dtype != bucket[0].dtype or sum(b.numel() for b in bucket) > _BUCKET_ELEMENTS):
            flush()
        bucket.append(p)
    flush()


class WeightChange:
    """‖θ − θ₀‖ / ‖θ₀‖ of the trainable weights since this was made; keeps a copy of θ₀ in main memory."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._start = [p.detach().to("cpu", copy=True) for p in self._parameters]
        self.start_norm = _norm(self._start)

    def value(self) -> float:
        moved = (
            p.detach().cpu().float() - start.float()
            for p, start in zip(self._parameters, self._start, strict=True)
        )
        return _norm(moved) / self.start_norm


def _norm(tensors: Iterable[Tensor]) -> float:
    return sum(float(t.detach().float().norm().double()) ** 2 for t in tensors) ** 0.5
