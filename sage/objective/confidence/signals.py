"""What one distribution of the teacher says about how sure it is: a number per token, 1 for certain.

Shape suffixes: C tokens of a chunk, V vocabulary. Arguments are normalised log-probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Signal = Literal["top1", "entropy", "margin"]


def top1(logprob_CV: Tensor) -> Tensor:
    """max_v π(v), in [1/V, 1]; method.md section 4."""
    return logprob_CV.amax(-1).exp()


def certainty(logprob_CV: Tensor) -> Tensor:
    """1 − H / log V, in [0, 1]: 0 for the uniform distribution, 1 for a single token."""
    entropy_C = -(logprob_CV.exp() * logprob_CV).nan_to_num(0.0).sum(-1)
    return (1 - entropy_C / math.log(logprob_CV.shape[-1])).clamp(0, 1)


def margin(logprob_CV: Tensor) -> Tensor:
    """Probability of the best token less that of the second best, in [0, 1]."""
    best_C2 = logprob_CV.topk(2, dim=-1).values.exp()
    return best_C2[..., 0] - best_C2[..., 1]


def top_k_entropy(logprob_CV: Tensor, k: int) -> Tensor:
    """Entropy in nats of the k likeliest tokens, renormalised among themselves; at most log k."""
    best_CK = logprob_CV.topk(min(k, logprob_CV.shape[-1]), dim=-1).values.log_softmax(-1)
    return -(best_CK.exp() * best_CK).nan_to_num(0.0).sum(-1)


LIKELIEST: dict[Signal, int | None] = {"top1": 1, "entropy": None, "margin": 2}
"""How many of the likeliest tokens a signal is made of; None: of all."""

SIGNALS: dict[str, Callable[[Tensor], Tensor]] = {"top1": top1, "entropy": certainty, "margin": margin}
