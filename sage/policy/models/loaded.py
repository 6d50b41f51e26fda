"""What is looked at once a model's weights are in memory: all there, all numbers, and none that looks ahead.

transformers fills what a file lacks with random numbers and goes on; a run would distil noise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from sage.errors import ModelError, some

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")
_WORDS = "Action: go to shelf 1"
"""Plain text that every tokenizer keeps, up to case and spaces."""
_PROBE = 8
"""Tokens of the two forward passes that tell whether the model looks ahead."""


def check_complete(name: str, model: PreTrainedModel, info: dict[str, Any]) -> None:
    """Raises ModelError where the files and the config do not hold the same tensors."""
    misshapen = sorted(
        str(entry[0] if isinstance(entry, tuple) else entry) for entry in info["mismatched_keys"]
    )
    if misshapen:
        raise ModelError(
            f"The weights of {name!r} have other shapes than its config.json says ({some(misshapen)}); "
            "the two "
            "belong to different models."
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(
            f"The weights of {name!r} lack {len(missing)} tensors that its config.json asks for "
            f"({some(missing)}); fetch the model again, or correct its config.json."
        )
    strange = [key for key in sorted(info["unexpected_keys"]) if _belongs(key)]
    if strange:
        raise ModelError(
            f"The weights of {name!r} hold {len(strange)} tensors that its config.json has no place for "
            f"({some(strange)}): it would run without them; correct config.json."
        )


def _belongs(key: str) -> bool:
    """Whether a tensor that found no place is part of the text model that runs: a layer, a bias, another
    head."""
    if key.endswith("rotary_emb.inv_freq"):
        return False
    inside = _LAYER.search(f".{key}") is not None and not re.search(r"vision|visual|audio|mtp", key)
    return inside or bool(
        re.match(r"(score|classifier|qa_outputs|lm_head|model\.(norm|embed_tokens))\b", key)
    )


_NO_WEIGHT = re.compile(r"rotary_emb\.inv_freq|masked_bias|attn(ention)?\.bias$")
"""Constants that old files hold beside the weights."""


def left_out(name: str, model: PreTrainedModel, info: dict[str, Any], held: Iterable[str]) -> str:
    """The sentence about the weights that take no part; empty where there are none.

    They are those of the files that found no place in the model (`info` of transformers, and of `held`, all
    names in the files, what it leaves out without a word), and those of the model that are no part of the
    text model that runs.
    """
    silent = [re.compile(pattern) for pattern in model._keys_to_ignore_on_load_unexpected or ()]
    inside = dict(model.named_parameters())
    lost = {*info["unexpected_keys"], *(key for key in held if any(p.search(key) for p in silent))}
    lost = {key for key in lost if key not in inside and not _NO_WEIGHT.search(key)}
    unused = set(inside) - _of_text(model, inside)
    if not lost | unused:
        return ""
    return (
        f"Of the weights of {name!r} {len(lost | unused)} tensors take no part, for a run reads text only: "
        f"{some(sorted({_module_of(key) for key in lost | unused}))}."
    )


def _of_text(model: PreTrainedModel, inside: dict[str, torch.nn.Parameter]) -> set[str]:
    """Names of the parameters of the decoder and of both ends of the vocabulary; all where none is told."""
    decoder = model.get_decoder()
    if decoder is None or decoder is model:
        return set(inside)
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    used = {id(p) for part in (decoder, *ends) if part is not None for p in part.parameters()}
    return {key for key, parameter in inside.items() if id(parameter) in used}


def _module_of(key: str) -> str:
    """The part of a checkpoint that a tensor belongs to: `visual`, `vision_tower`, `layers.61`."""
    parts = [part for part in key.split(".") if part not in ("model", "language_model")]
    return ".".join(parts[:2] if parts[0] == "layers" else parts[:1])


@torch.inference_mode()
def check_finite(name: str, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Raises ModelError where a weight is NaN or infinite."""
    for key, tensor in tensors:
        if tensor.is_floating_point() and not _looks_finite(tensor):
            bad = int((~torch.isfinite(tensor)).sum())
            if bad:
                raise ModelError(
                    f"The weights of {name!r} are no numbers: {key} has {bad:,} of {tensor.numel():,} "
                    "that are NaN or "
                    "infinite; fetch the model again."
                )


def _looks_finite(tensor: torch.Tensor) -> bool:
    """Whether every number is finite, read once and without a mask; False may also be a sum that is too
    large. The smallest and largest number are NaN where any is, and nine times as fast as a sum in 16 bits;
    8-bit kinds have no such reduction."""
    if tensor.element_size() > 1 and tensor.numel():
        return bool(torch.stack(torch.aminmax(tensor)).isfinite().all())
    return bool(torch.isfinite(tensor.sum(dtype=torch.float32)))


@torch.inference_mode()
def check_speaks(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ModelError where the model has no rows for its tokenizer's ids, says nothing, or looks ahead."""
    layer = model.get_output_embeddings()
    if layer is None or not hasattr(layer, "weight"):
        raise ModelError(
            f"The model {name!r} ({type(model).__name__}) has no output layer over a vocabulary."
        )
    rows = min(int(layer.weight.shape[0]), int(model.get_input_embeddings().weight.shape[0]))
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest < 0:
        raise ModelError(f"The tokenizer of {name!r} is empty; fetch its files again.")
    if rows <= largest:
        raise ModelError(
            f"The model {name!r} has {rows} output rows for a tokenizer of {largest + 1} ids; "
            "resize its embeddings or use the tokenizer it was trained with."
        )
    words = tokenizer.decode(tokenizer(_WORDS, add_special_tokens=False)["input_ids"])
    if "".join(words.split()).lower() != "".join(_WORDS.split()).lower():
        raise ModelError(
            f"The tokenizer of {name!r} reads {_WORDS!r} and writes {words[:40]!r}: files of it are "
            "missing or broken; "
            "fetch them again."
        )
    if not bool(model.get_input_embeddings().weight.any()):
        raise ModelError(
            f"The embeddings of {name!r} are all zero: its weights file was not filled; fetch it again."
        )
    ids = torch.arange(1, _PROBE + 1, device=model.device).remainder(rows)[None]
    other = ids.clone()
    other[0, -1] = 0
    one, two = (model(input_ids=x, use_cache=False).logits[0, :-1].float() for x in (ids, other))
    if not bool(torch.isfinite(one).all()):
        raise ModelError(
            f"The model {name!r} answers with numbers that are NaN or infinite; try dtype=float32."
        )
    # The same shapes through the same code: what only looks back is equal to rounding, mostly to the bit.
    rounding = 1e-5 if model.dtype == torch.float32 else 4e-3
    if not torch.allclose(one, two, atol=rounding * float(one.abs().max()), rtol=0):
        raise ModelError(
            f"The model {name!r} ({type(model).__name__}) reads what comes after a token, too: it is no "
            "causal "
            "language model."
        )
