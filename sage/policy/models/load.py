"""Load a causal LM with its tokenizer, from the package, a directory, a GGUF file or a hub, all one way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage.digests import weights_digest
from sage.errors import ModelError, short_reason
from sage.policy.models.attention import check_attention
from sage.policy.models.chat_format import chat_format
from sage.policy.models.folder import Source, device_of, look
from sage.policy.models.gguf import read_once
from sage.policy.models.weights import held_in

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from sage.config.schema import ModelSettings


@dataclass
class LanguageModel:
    """A model ready to run: `digest` identifies its weights, `device` is where they are."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    digest: str
    device: torch.device
    thinking: bool = False
    """Whether its chat template is asked for a thought before the answer."""
    left_out: str = ""
    """The sentence about weights of its files that take no part; empty where all do."""
    packs: bool = False
    """Whether rows that are read together stand in one sequence (`sage.policy.models.packing`)."""
    most_rows: int | None = None
    """Rows that are played side by side at most, after more have run out of memory."""
    recomputes: bool = False
    """Whether what is differentiated keeps little (`sage.policy.models.recompute`)."""

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end an answer: what closes one in the chat template, and the tokenizer's and the
        generation config's end-of-sequence tokens."""
        ids = set(chat_format(self.tokenizer, self.thinking).end_ids)
        for value in (
            self.tokenizer.eos_token_id,
            getattr(self.model.generation_config, "eos_token_id", None),
        ):
            ids.update(value if isinstance(value, list | tuple) else [] if value is None else [value])
        return frozenset(ids)

    @cached_property
    def vocabulary(self) -> int:
        """Ids that the tokenizer has: 0 to this. A model may have more output rows, which mean nothing."""
        return max(self.tokenizer.get_vocab().values()) + 1

    @property
    def pad_id(self) -> int:
        """Any valid id: padded positions are masked and overwritten, never read."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else next(iter(self.end_ids), 0)


def load_tokenizer(settings: ModelSettings, *, role: str = "") -> PreTrainedTokenizerBase:
    """The tokenizer that `load_model` would give it, with its chat template, and no weights.

    Raises ModelError as `load_model` does.
    """
    try:
        with read_once() if settings.gguf_file else nullcontext():
            return _tokenizer(settings, look(settings))
    except ModelError as error:
        raise ModelError(f"{role.capitalize()}: {error}" if role else str(error)) from error


def _tokenizer(settings: ModelSettings, source: Source) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    with _in_one_sentence(f"The tokenizer of {settings.path!r} could not be loaded"):
        own = source.adapter and (source.adapter / "tokenizer_config.json").is_file()
        path = str(source.adapter) if own else source.path
        tokenizer = AutoTokenizer.from_pretrained(path, **source.arguments)
    _give_template(tokenizer, settings)
    return tokenizer


def load_model(
    settings: ModelSettings,
    *,
    role: str = "",
    tokenizer: PreTrainedTokenizerBase | None = None,
    digest: bool = True,
) -> LanguageModel:
    """Weights in evaluation mode on their device; every one of them from its file, finite, and causal.

    Raises ModelError, in one sentence, where the path or hub name cannot be loaded or has no chat template.
    `role` (student, teacher) goes in front of it. `tokenizer`: the model's, where it has been loaded before.
    Without `digest` that is empty: a second for every gigabyte, for a model that nothing is recorded of.
    """
    try:
        with read_once() if settings.gguf_file else nullcontext():
            return _load(settings, tokenizer, digest)
    except ModelError as error:
        raise ModelError(f"{role.capitalize()}: {error}" if role else str(error)) from error


def _load(settings: ModelSettings, tokenizer: PreTrainedTokenizerBase | None, digest: bool) -> LanguageModel:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from sage.policy.models.loaded import check_complete, check_finite, check_speaks, left_out

    logging.disable_progress_bar()  # the terminal belongs to the run's own display
    source, device = look(settings), device_of(settings.device)
    check_attention(settings, device.type)
    named = repr(settings.path)
    tokenizer = tokenizer or _tokenizer(settings, source)
    asked = settings.attn_implementation
    beside = "" if asked is None else f" with attn_implementation={asked}"
    with _in_one_sentence(f"The model {named} could not be loaded{beside}"):
        model, info = AutoModelForCausalLM.from_pretrained(
            source.path,
            dtype=getattr(torch, settings.dtype),
            output_loading_info=True,
            **({} if settings.gguf_file else {"use_safetensors": True}),
            **source.arguments,
            **_further(settings),
        )
    check_complete(settings.path, model, info)
    if source.adapter is not None:
        from sage.policy.models.adapter import merge_adapter

        model = merge_adapter(model, source.adapter)
    check_finite(settings.path, model.named_parameters())
    if settings.gguf_file:
        # transformers has unpacked the weights, but still calls the model quantized and will not save it.
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
    with _in_one_sentence(f"The model {named} cannot be moved to {device}"):
        if PLACED & settings.model_kwargs.keys():
            device = model.device  # where `device_map` or the quantisation has put its first layer
            model.eval()
        else:
            model.to(device).eval()
    with _in_one_sentence(f"The model {named} cannot read eight tokens"):
        check_speaks(settings.path, model, tokenizer)
    return LanguageModel(
        model,
        tokenizer,
        settings.path,
        weights_digest(model) if digest else "",
        device,
        settings.thinking,
        left_out(settings.path, model, info, held_in(source.path)),
    )


PLACED = {"device_map", "quantization_config"}
"""Arguments of `from_pretrained` that place the weights themselves."""


def _further(settings: ModelSettings) -> dict[str, Any]:
    """`attn_implementation` and `model_kwargs` as transformers takes them."""
    arguments = dict(settings.model_kwargs)
    if settings.attn_implementation is not None:
        arguments["attn_implementation"] = settings.attn_implementation
    if isinstance(plain := arguments.get("quantization_config"), dict):
        from transformers.quantizers import AutoQuantizationConfig

        arguments["quantization_config"] = AutoQuantizationConfig.from_dict(plain)
    return arguments


def _give_template(tokenizer: PreTrainedTokenizerBase, settings: ModelSettings) -> None:
    if settings.chat_template:
        with _in_one_sentence(f"The chat template {settings.chat_template!r} cannot be read"):
            tokenizer.chat_template = Path(settings.chat_template).read_text(encoding="utf-8")
    if not tokenizer.chat_template:
        raise ModelError(
            f"The tokenizer of {settings.path!r} has no chat template; point `chat_template` at a Jinja file."
        )


@contextmanager
def _in_one_sentence(what: str) -> Iterator[None]:
    """Whatever a library makes of a broken file is a ModelError."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{what} ({type(error).__name__}: {short_reason(error)}); its files may be broken, or of two "
            "models."
        ) from error
