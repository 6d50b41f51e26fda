"""Last hidden states at chosen positions, and the projection that turns them into logits.

Shape suffixes: B sequences, L padded length, T chosen positions over all sequences, D hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sage.objective.chunked import Head
from sage.policy.model import LanguageModel, ModelError


def hidden_states(
    lm: LanguageModel, sequences: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
) -> Tensor:
    """hidden_TD at `positions[b]` of `sequences[b]`, in order; keeps the gradient where enabled.

    Sequences are padded on the right and cut behind their last chosen position. No mask is given: a causal
    model never looks at what stands to the right, and what the padding gives is not read.
    """
    lengths = [max(chosen, default=-1) + 1 for chosen in positions]
    width = max(lengths, default=0)
    if width == 0:
        return torch.zeros(0, _width(lm), device=lm.device, dtype=lm.model.dtype)
    ids_BL = torch.full((len(sequences), width), lm.pad_id, dtype=torch.long)
    for row, (ids, length) in enumerate(zip(sequences, lengths, strict=True)):
        ids_BL[row, :length] = torch.as_tensor(ids[:length], dtype=torch.long)
    rows_T = torch.repeat_interleave(torch.arange(len(sequences)), torch.tensor([len(p) for p in positions]))
    columns_T = torch.tensor([column for chosen in positions for column in chosen], dtype=torch.long)
    hidden_BLD = lm.model.base_model(input_ids=ids_BL.to(lm.device), use_cache=False).last_hidden_state
    return hidden_BLD[rows_T.to(lm.device), columns_T.to(lm.device)]


def _width(lm: LanguageModel) -> int:
    return int(lm.model.get_output_embeddings().weight.shape[1])


def head(lm: LanguageModel) -> Head:
    """The model's vocabulary projection, sharing its parameters."""
    layer = lm.model.get_output_embeddings()
    return Head(layer.weight, getattr(layer, "bias", None))


@torch.inference_mode()
def check_head(lm: LanguageModel) -> None:
    """Raises ModelError where hidden state times head is not what the model calls its logits.

    Some architectures scale or cap their logits after the projection; the chunked objective would silently
    train another model than the one that plays.
    """
    ids = [i % _rows(lm) for i in range(1, 9)]
    own_LV = lm.model(input_ids=torch.tensor([ids], device=lm.device), use_cache=False).logits[0].float()
    hidden_LD = hidden_states(lm, [ids], [range(len(ids))])
    ours_LV = head(lm).logits(hidden_LD, own_LV.shape[-1]).float()
    if not torch.allclose(own_LV, ours_LV, atol=1e-3 * float(own_LV.abs().max()), rtol=0):
        raise ModelError(
            f"The model {lm.name!r} changes its logits after the output layer, which the chunked loss does"
            " not know; use an architecture that does not (Qwen, Llama and SmolLM do not)."
        )


def _rows(lm: LanguageModel) -> int:
    return int(lm.model.get_output_embeddings().weight.shape[0])
