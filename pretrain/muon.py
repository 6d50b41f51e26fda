"""Muon in float32: momentum whose matrix updates are orthogonalised by five Newton-Schulz steps.

Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), coefficients
included. torch.optim.Muon, which works in bfloat16 inside, trains a tiny model as well (mean loss of steps
251 to 300 over three seeds 0.703, sd 0.027; here 0.707, sd 0.030). Its update takes 318 ms in place of 88
where a CPU has no bfloat16 units, beside 346 ms of forward and backward: a step half as long again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalise(update_MN: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest semi-orthogonal matrix, roughly: singular values end between about 0.7 and 1.2."""
    tall = update_MN.shape[0] > update_MN.shape[1]
    x = update_MN.T if tall else update_MN
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; step size scaled by sqrt(max(1, rows / columns))."""

    def __init__(
        self, params: Iterable[torch.Tensor], lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalise(p.grad.lerp(buffer, group["momentum"]))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)
