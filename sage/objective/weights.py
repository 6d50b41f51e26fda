"""From decisions and confidences to the token weights of the loss (method.md section 5).

L = (1/N) Σ_t Σ_j Z s_t ℓ_{t,j} with s = i · c. Shape suffix: T student tokens of one episode, its turns one
after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sage.objective.normalization import Normalization, WeightSums

if TYPE_CHECKING:
    from torch import Tensor


def selective_weights(
    intervention: Sequence[float], confidence: Sequence[Tensor | None], lengths: Sequence[int]
) -> Tensor:
    """s_T of one episode, float64: i_t · c for each token of each turn.

    confidence[t] is None where c_t was not computed; that is only allowed where i_t = 0 (ValueError).
    """
    import torch

    parts = []
    for weight, confidence_T, length in zip(intervention, confidence, lengths, strict=True):
        if confidence_T is None:
            if weight != 0:
                raise ValueError(
                    f"A turn of weight {weight} has no confidence; score it with the teacher first."
                )
            parts.append(torch.zeros(length, dtype=torch.float64))
        else:
            parts.append(weight * confidence_T.detach().to("cpu", torch.float64))
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def weight_sums(weights_T: Tensor) -> WeightSums:
    """Token count, active tokens and Σ s of one episode."""
    return WeightSums(float(len(weights_T)), float((weights_T > 0).sum()), float(weights_T.sum()))


def token_weights(
    weights: Sequence[Tensor], batch: WeightSums, normalization: Normalization
) -> tuple[list[Tensor], float | None]:
    """(Z s / N per episode, Z) for the episodes of this process; `batch` sums over every process.

    The second is the Z that is logged: the factor of the whole batch, or with trajectory scope the mean of
    the episodes' factors, each weighted with its Σ s (over this process); None where nothing is supervised.
    """
    if batch.weighted == 0 or batch.tokens == 0:
        return [0.0 * weights_T for weights_T in weights], None
    sums = [weight_sums(weights_T) for weights_T in weights]
    factors = normalization.factors(sums, batch)
    scaled = [
        (weights_T.new_ones(weights_T.shape) if normalization.flat else weights_T) * (z / batch.tokens)
        for weights_T, z in zip(weights, factors, strict=True)
    ]
    here = sum(part.weighted for part in sums)
    if normalization.scope == "batch" or here == 0:
        return scaled, normalization.factor(batch)
    return scaled, sum(z * part.weighted for z, part in zip(factors, sums, strict=True)) / here
