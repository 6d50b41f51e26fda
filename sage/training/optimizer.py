"""AdamW on the student: decay groups, warm-up, clipping, float32 masters, and how far the weights moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sage.config.schema import TrainerSettings
from sage.errors import NotFinite
from sage.policy.models.lora import is_adapted, relative_change
from sage.training.first_weights import FirstWeights
from sage.training.rounding import dithered, key_of
from sage.training.sharding import full_tensor, gather_to_cpu, map_rows, reduce_scatter, shard, shard_like

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_BUCKET_ELEMENTS = 1 << 24
"""Gradients are added up over processes in buckets of about this size (64 MiB in float32)."""


class StudentOptimizer:
    """AdamW with linear warm-up to a constant rate; matrices decay, norms and biases do not.

    Weights in half precision are updated through float32 masters: at the paper's learning rate of 1e-6 an
    update is smaller than half a bfloat16 step of most weights and would be rounded away. What plays are the
    masters rounded as `settings.rounding` says; `seed` (the run's) draws the thresholds of a dither. With a
    `mesh` every weight has a master, of which each process keeps its rows, and so it does of gradient and
    moments; `step` adds the gradient up over the processes, and what says `collective` every process has to
    call.
    """

    def __init__(
        self, model: nn.Module, settings: TrainerSettings, mesh: DeviceMesh | None = None, *, seed: int = 0
    ) -> None:
        """Raises ValueError for a dither of weights in float16, which are not rounded so here."""
        self.settings = settings
        self.mesh = mesh
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.parameters = [p for _, p in named]
        self._keys: list[int | None] = [None] * len(named)
        """Of the dither's thresholds; None for weights that are rounded to the nearest, or not at all."""
        if settings.rounding == "dither":
            if any(p.dtype == torch.float16 for p in self.parameters):
                raise ValueError(
                    "trainer.rounding=dither rounds to bfloat16 and the student is float16; "
                    "set student.dtype=bfloat16, or trainer.rounding=nearest."
                )
            self._keys = [key_of(seed, name) if p.dtype == torch.bfloat16 else None for name, p in named]
        self.masters = [_master(p, mesh) for p in self.parameters]
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
    def rounds(self) -> bool:
        """Whether what plays is narrower than what is updated."""
        return any(m.dtype != p.dtype for p, m in zip(self.parameters, self.masters, strict=True))

    @property
    def learning_rate(self) -> float:
        """The rate that the next step uses."""
        return float(self.scheduler.get_last_lr()[0])

    def clear(self) -> None:
        for p in (*self.parameters, *self.masters):
            p.grad = None

    def step(self) -> float:
        """Clip, step, advance the warm-up and clear; returns the gradient norm before clipping.

        With a mesh the gradient is the sum over all processes, and this is collective. Raises
        NotFinite (a FloatingPointError), before weights or moments are changed, where the gradient is not
        finite.
        """
        for p, master in zip(self.parameters, self.masters, strict=True):
            if master is p:
                continue
            if self.mesh is not None:
                here = torch.zeros_like(p) if p.grad is None else p.grad
                master.grad = reduce_scatter(here.to(master.dtype), master)
            elif p.grad is not None:
                master.grad = p.grad.float()
            p.grad = None
        gradients = [master.grad for master in self.masters if master.grad is not None]
        total = full_tensor(torch.nn.utils.get_total_norm(gradients))
        norm = float(total)
        if norm != norm or norm == float("inf"):
            raise NotFinite(
                "The gradient is not finite; lower trainer.learning_rate or load the models in float32."
            )
        torch.nn.utils.clip_grads_with_norm_(self.masters, self.settings.clip_norm, total)
        self.optimizer.step()
        self.scheduler.step()
        self.publish()
        self.clear()
        return norm

    @torch.no_grad()
    def publish(self) -> None:
        """Copy the masters into the model, rounded; with a mesh, from all processes (collective)."""
        for p, master, key in zip(self.parameters, self.masters, self._keys, strict=True):
            if master is p:
                continue
            if key is None:
                p.copy_(full_tensor(master.detach().to(p.dtype)))
            else:
                p.copy_(full_tensor(map_rows(partial(_dithered_rows, key=key), master.detach())))

    def state_dict(self, keep: bool = True) -> dict[str, Any]:
        """Everything but the model's own weights: the same, sharded or not, for any number of processes.

        With a mesh it is collective, and processes that do not `keep` get None for tensors.
        """
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {
            number: {name: gather_to_cpu(value, keep) for name, value in of_master.items()}
            for number, of_master in optimizer["state"].items()
        }
        return {
            "optimizer": optimizer,
            "scheduler": self.scheduler.state_dict(),
            "masters": [
                None if m.dtype == p.dtype else gather_to_cpu(m.detach(), keep)
                for p, m in zip(self.parameters, self.masters, strict=True)
            ],
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave, here or in another number of processes, and publish it; weights
        of the model that have no master have to be loaded before. With a mesh it is collective."""
        in_order = [master for group in self.optimizer.param_groups for master in group["params"]]
        moments = {
            number: {
                name: value if name == "step" else shard_like(value, in_order[number])
                for name, value in of_master.items()
            }
            for number, of_master in state["optimizer"]["state"].items()
        }
        self.optimizer.load_state_dict(state["optimizer"] | {"state": moments})
        self.scheduler.load_state_dict(state["scheduler"])
        self.load_masters(state["masters"])

    @torch.no_grad()
    def load_masters(self, masters: Sequence[Tensor | None]) -> None:
        """Of `load_state_dict` the weights alone, and publish them. With a mesh it is collective."""
        for p, master, saved in zip(self.parameters, self.masters, masters, strict=True):
            if master is not p:
                master.copy_(shard_like(p if saved is None else saved.to(p.device), master))
        self.publish()


def _dithered_rows(rows: Tensor, before: int, *, key: int) -> Tensor:
    return dithered(rows, key, before)


def _master(p: Tensor, mesh: DeviceMesh | None) -> Tensor:
    """What AdamW updates for `p`: itself, or a copy (of this process's rows) in float32 or better."""
    kind = torch.promote_types(p.dtype, torch.float32)
    if mesh is not None:
        return shard(p, mesh, kind).requires_grad_()
    return p if p.dtype == kind else p.detach().to(kind).requires_grad_()


def all_reduce_gradients(parameters: Iterable[Tensor], all_reduce: Callable[[Tensor], Tensor]) -> None:
    """Replace every `.grad` by its sum over all processes (`all_reduce` sums one tensor); a missing one is 0.
    Collective."""
    bucket: list[Tensor] = []

    def flush() -> None:
        if not bucket:
            return
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket])
        for p, part in zip(bucket, all_reduce(flat).split([p.numel() for p in bucket]), strict=True):
            p.grad = part.view_as(p).clone()
        bucket.clear()

    for p in parameters:
        if bucket and (p.dtype != bucket[0].dtype or sum(b.numel() for b in bucket) > _BUCKET_ELEMENTS):
            flush()
        bucket.append(p)
    flush()


class WeightChange:
    """‖θ − θ₀‖ / ‖θ₀‖ of the trainable weights since this was made: of what plays (`value`), and of the
    masters behind it (`of_masters`). Of a model with adapters it is ‖ΔW‖ / ‖W‖ of the weights that these
    change.

    Keeps a copy of θ₀ (`FirstWeights`, in `folder` where they fill main memory), and sends it to the weights,
    one after the other: what comes back is a number for each.
    """

    def __init__(self, model: nn.Module, folder: Path | None = None) -> None:
        self._adapted = model if is_adapted(model) else None
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._start = FirstWeights(self._parameters, folder)
        self.start_norm = _norm(self._start)

    @torch.no_grad()
    def value(self) -> float:
        if self._adapted is not None:
            return relative_change(self._adapted)
        moved = (
            p.detach().float() - start.to(p.device, non_blocking=True).float()
            for p, start in zip(self._parameters, self._start, strict=True)
        )
        return _norm(moved) / self.start_norm

    @torch.no_grad()
    def of_masters(self, masters: Sequence[Tensor]) -> float:
        """The same of `StudentOptimizer.masters`, which are θ₀ in the beginning. Collective where they are
        shards."""
        if self._adapted is not None:
            return relative_change(self._adapted)
        total = 0.0
        for start, master in zip(self._start, masters, strict=True):
            moved = master.detach() - shard_like(start.to(master.device, master.dtype), master)
            total += float(full_tensor(torch.linalg.vector_norm(moved))) ** 2
        return float(total**0.5 / self.start_norm)


def _norm(tensors: Iterable[Tensor]) -> float:
    """‖·‖ of all of them together; each is let go before the next is made, and nobody waits for its norm."""
    norms = [t.detach().float().norm().double() for t in tensors]
    return sum(float(norm) ** 2 for norm in norms) ** 0.5
