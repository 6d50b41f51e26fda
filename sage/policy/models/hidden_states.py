"""Last hidden states at chosen positions, and the projection that turns them into logits.

Shape suffixes: B sequences, L padded length, T chosen positions over all sequences, D hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sage.errors import ModelError, is_out_of_memory, reason_of
from sage.objective.chunked import Head
from sage.policy.models.layers import logit_factor, steady_length
from sage.policy.models.load import LanguageModel
from sage.policy.models.packing import packed_arguments, packed_attention
from sage.policy.models.plain import Report, ordinary_ids, plain_logits, reference, within_memory
from sage.policy.models.recompute import recomputed
from sage.policy.models.work import backbone_operations
from sage.records.clock import tally

if TYPE_CHECKING:
    from transformers.cache_utils import Cache


def hidden_states(
    lm: LanguageModel,
    sequences: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    cache: Cache | None = None,
) -> Tensor:
    """hidden_TD at `positions[b]` of `sequences[b]`, in order; keeps the gradient where enabled.

    Sequences are cut behind their last chosen position, and packed where the model `packs`, else padded on
    the right. No mask is given: a causal model never looks at what stands to the right, and what the padding
    gives is not read. What the model multiplies its logits with is in the hidden states already
    (`sage.policy.models.layers.logit_factor`). An empty `cache` takes the keys and values of the rectangle
    that all rows then make, packed or not.
    """
    rows = list(zip(sequences, positions, strict=True))
    tally(operations=backbone_operations(lm, (max(chosen, default=-1) + 1 for chosen in positions)))
    # Where positions depend on the longest row, each row goes alone.
    parts = [rows] if steady_length(lm) is None else [[row] for row in rows]
    if lm.packs and cache is None:
        parts = [[row for row in part if len(row[1])] for part in parts]
    hidden = [_forward(lm, part, cache) for part in parts if any(len(chosen) for _, chosen in part)]
    if not hidden:
        return torch.zeros(0, _width(lm), device=lm.device, dtype=lm.model.dtype)
    hidden_TD = hidden[0] if len(hidden) == 1 else torch.cat(hidden)
    factor = logit_factor(lm.model.config.get_text_config())
    return hidden_TD if factor == 1 else hidden_TD * factor


def _forward(
    lm: LanguageModel, rows: list[tuple[Sequence[int], Sequence[int]]], cache: Cache | None
) -> Tensor:
    """Hidden states [T, D] at the chosen positions of rows in one sequence, or in one rectangle."""
    lengths = [max(chosen, default=-1) + 1 for _, chosen in rows]
    if lm.packs and len(rows) > 1 and cache is None:
        return _packed(lm, rows, lengths)
    ids_BL = torch.full((len(rows), max(lengths)), lm.pad_id, dtype=torch.long)
    for row, ((ids, _), length) in enumerate(zip(rows, lengths, strict=True)):
        ids_BL[row, :length] = torch.as_tensor(ids[:length], dtype=torch.long)
    counts = torch.tensor([len(chosen) for _, chosen in rows])
    rows_T = torch.repeat_interleave(torch.arange(len(rows)), counts)
    columns_T = torch.tensor([column for _, chosen in rows for column in chosen], dtype=torch.long)
    given: dict[str, Any] = {"input_ids": ids_BL.to(lm.device)}
    hidden_BLD = _read(lm, given if cache is None else given | {"past_key_values": cache, "use_cache": True})
    return hidden_BLD[rows_T.to(lm.device), columns_T.to(lm.device)]


def _packed(lm: LanguageModel, rows: list[tuple[Sequence[int], Sequence[int]]], lengths: list[int]) -> Tensor:
    """The same of rows behind one another."""
    given = packed_arguments([ids[:n] for (ids, _), n in zip(rows, lengths, strict=True)], lm.device)
    starts = accumulate(lengths, initial=0)
    columns = [start + column for (_, chosen), start in zip(rows, starts, strict=False) for column in chosen]
    with packed_attention(lm):
        hidden_1ND = _read(lm, given, partial(packed_attention, lm))
    return hidden_1ND[0, torch.tensor(columns, dtype=torch.long, device=lm.device)]


def _read(
    lm: LanguageModel,
    given: dict[str, Any],
    around: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Tensor:
    """Last hidden states; `around` is entered again where a layer is computed again."""
    keeps = lm.recomputes and torch.is_grad_enabled()
    with recomputed(lm, around) if keeps else nullcontext():
        hidden: Tensor = _backbone(lm)(**{"use_cache": False} | given).last_hidden_state
    return hidden


def _backbone(lm: LanguageModel) -> Any:
    """The model without its output layer."""
    base = lm.model.base_model
    # Llama 4's text model names a prefix that it does not have, and is then its own base.
    return base if base is not lm.model else lm.model.model


def _width(lm: LanguageModel) -> int:
    return int(lm.model.get_output_embeddings().weight.shape[1])


def head(lm: LanguageModel) -> Head:
    """The model's vocabulary projection, sharing its parameters; it belongs to `hidden_states`."""
    layer = lm.model.get_output_embeddings()
    return Head(layer.weight, getattr(layer, "bias", None))


@torch.inference_mode()
def training_error(lm: LanguageModel, *, operations: float | None = None, seed: int = 0) -> Report:
    """How far hidden states of ragged rows, times the head, are from the plain forward of each row alone.

    Rows and lengths are those of `sage.policy.models.plain.reference`. Raises OutOfMemory where the memory
    does not suffice.
    """

    def compare(lm: LanguageModel, operations: float | None) -> Report:
        return _compared(lm, operations, seed)

    return within_memory(compare, lm, operations)


def _compared(lm: LanguageModel, operations: float | None, seed: int) -> Report:
    with reference(lm, "the training forward", operations=operations, seed=seed) as plain:
        counts = [len(logits) for logits in plain.logits]
        last = [range(len(ids) - n, len(ids)) for ids, n in zip(plain.rows, counts, strict=True)]
        try:
            hidden_TD = hidden_states(lm, plain.rows, last)
            logits_TV = head(lm).logits(hidden_TD, plain.logits[0].shape[-1])
        except Exception as error:  # whatever a model's code raises is the finding
            if is_out_of_memory(error):
                raise
            return replace(plain.blank, failure=reason_of(error))
        return plain.report(logits_TV.float().split(counts))


def check_head(lm: LanguageModel) -> Report:
    """Raises ModelError where what is trained is not what the model calls its logits; else what was measured.

    Some architectures cap their logits after the output layer; the chunked objective would silently train
    another model than the one that plays.
    """
    report = training_error(lm)
    if not report.failure and not _is_linear(lm):
        raise ModelError(
            f"The model {lm.name!r} ({type(lm.model).__name__}) changes its logits after the output layer,"
            " which the chunked loss does not know; use an architecture that does not (Qwen, Llama and SmolLM"
            " do not)."
        )
    if not report.equal:
        raise ModelError(
            f"The model {lm.name!r} ({type(lm.model).__name__}) cannot be trained as it plays: "
            f"{report.finding()}; take another model."
        )
    return report


LARGE = 100.0
"""Logits that a cap would visibly bend: those in use are 15 to 50."""


@torch.inference_mode()
def _is_linear(lm: LanguageModel) -> bool:
    """Whether hidden state times head is the model's logit, also where that is large: a cap leaves small ones
    nearly as they are. The hidden states that reach the output layer are made large for it."""
    ids = ordinary_ids(lm)[:8]
    hidden_LD = hidden_states(lm, [ids], [range(len(ids))])
    size = float(head(lm).logits(hidden_LD, _rows(lm)).abs().max())
    grow = LARGE / size if size > 0 else 1.0
    seen = []

    def larger(_layer: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(len(inputs))
        return (inputs[0] * grow, *inputs[1:])

    handle = lm.model.get_output_embeddings().register_forward_pre_hook(larger)
    try:
        own_LV = plain_logits(lm, ids, len(ids))
    finally:
        handle.remove()
    if seen:
        hidden_LD = hidden_LD * grow
    ours_LV = head(lm).logits(hidden_LD, own_LV.shape[-1]).float().cpu()
    share = max(1e-3, 4 * torch.finfo(lm.model.dtype).eps)
    return torch.allclose(own_LV, ours_LV, atol=share * float(own_LV.abs().max()), rtol=0)


def _rows(lm: LanguageModel) -> int:
    return int(lm.model.get_output_embeddings().weight.shape[0])
