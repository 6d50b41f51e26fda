"""Distributions of which only the likeliest tokens are known.

A *state* of a served teacher is one row of 2K + 2 numbers: the ids of its k likeliest next tokens, their
log-probabilities, the id that does come next and its log-probability. `LikeliestHead` makes logits of it:
what is known stands there as it is, and the rest of the probability is spread evenly over the other ids. So
what reads no more than the k likeliest, the sampled token and one bucket for all others is exact: the
divergences `top_k` (of at most k), `sampled_token` and `nll`, the top-1 probability, the margin. The spread
keeps the order too: no other token is likelier than the k-th, so the mean of the others is not.

Shape suffixes: C tokens of a chunk, T of a sequence, E = 2K + 2, V vocabulary.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from sage.teacher.server.protocol import Likeliest

RESOLUTION = 1e-6
"""Probability that k log-probabilities in float32, added up, can be wrong by (16 times half a unit of one).
What all other tokens have together is not known below it, and is then what `_power_law` makes of the k
likeliest."""
_STEEPEST = 1.2
"""Least exponent of the power law: at one it would not add up."""


def states_of(known: Likeliest, targets: np.ndarray) -> Tensor:
    """state_TE (float32, which holds every id below 2^24) of the asked positions of one sequence; targets:
    the ids that come next, [T]."""
    columns = [known.ids_TK, known.logprob_TK, targets[:, None], known.chosen_T[:, None]]
    return torch.from_numpy(np.concatenate(columns, axis=1, dtype=np.float32, casting="unsafe"))


class LikeliestHead:
    """`sage.objective.chunked.Projection` of states that `states_of` made."""

    whole: ClassVar[bool] = False
    """Statistics of the whole distribution, as its entropy, cannot be made of it."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        """Ids that the teacher may name."""

    def logits(self, hidden_CD: Tensor, vocabulary: int) -> Tensor:
        """log-probabilities [C, V] in float32, up to what ids beyond V have; a fresh tensor."""
        hidden_CD, k = hidden_CD.double(), hidden_CD.shape[1] // 2 - 1
        ids_CK, logprob_CK = hidden_CD[:, :k].long(), hidden_CD[:, k : 2 * k]
        chosen_C1, chosen_logprob_C1 = hidden_CD[:, 2 * k, None].long(), hidden_CD[:, 2 * k + 1, None]
        outside_C1 = ~(ids_CK == chosen_C1).any(-1, keepdim=True)
        ids_CN = torch.cat([ids_CK, chosen_C1], dim=-1)
        known_CN = torch.cat([ids_CK >= 0, outside_C1], dim=-1)
        logprob_CN = torch.cat([logprob_CK, chosen_logprob_C1], dim=-1).masked_fill(~known_CN, -math.inf)

        shared_CN = known_CN & (ids_CN < vocabulary)
        others_C1 = (vocabulary - shared_CN.sum(-1, keepdim=True)).clamp(min=1)
        least_C1 = logprob_CK.masked_fill(ids_CK < 0, math.inf).amin(-1, keepdim=True)
        rest_C1 = 1 - logprob_CN.exp().sum(-1, keepdim=True)
        faint_C1 = _power_law(logprob_CK, others_C1).clamp(max=math.log(RESOLUTION))
        log_rest_C1 = torch.where(rest_C1 > RESOLUTION, rest_C1.clamp(min=RESOLUTION).log(), faint_C1)
        # No other id is likelier than the k-th.
        even_C1 = (log_rest_C1 - others_C1.log()).minimum(least_C1)
        logits_CV = even_C1.float().expand(-1, vocabulary).contiguous()
        # Ids beyond the vocabulary take no part; they are written to a column that is cut off.
        wide_CV = torch.cat([logits_CV, logits_CV[:, :1]], dim=-1)
        place_CN = torch.where(shared_CN, ids_CN, vocabulary)
        wide_CV.scatter_(-1, place_CN, logprob_CN.float())
        return wide_CV[:, :vocabulary].contiguous()

    def known(self, hidden_CD: Tensor, vocabulary: int) -> Tensor:
        """Likeliest tokens of the shared vocabulary that the server has named, [C]."""
        ids_CK = hidden_CD[:, : hidden_CD.shape[1] // 2 - 1]
        return ((ids_CK >= 0) & (ids_CK < vocabulary)).sum(-1)


def _power_law(logprob_CK: Tensor, others_C1: Tensor) -> Tensor:
    """log of what `others` tokens behind the k likeliest have together, where probability falls with rank as
    it does over the second half of the k: p_i = p_k (i / k)^−a, added up by its integral; [C, 1].

    An estimate, and the only one that is made here. Over 777 tokens of the shipped pair it is 0.5 nats off in
    the mean where it is used, which is a thousandth of a nat of the loss.
    """
    known_C1 = logprob_CK.isfinite().sum(-1, keepdim=True).clamp(min=1)
    half_C1 = (known_C1 // 2).clamp(min=1)
    last_C1 = logprob_CK.gather(-1, known_C1 - 1)
    fall_C1 = logprob_CK.gather(-1, half_C1 - 1) - last_C1
    steps_C1 = (known_C1 / half_C1).log()
    exponent_C1 = torch.where(steps_C1 > 0, fall_C1 / steps_C1.clamp(min=1e-9), 2.0).clamp(min=_STEEPEST)
    less_one_C1 = exponent_C1 - 1
    length_C1 = 1 + others_C1 / known_C1
    return last_C1 + (known_C1 / less_one_C1).log() + torch.log1p(-(length_C1**-less_one_C1))
