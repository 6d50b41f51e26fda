"""The model that learns from expert play: one made after a shape, or the one that `student` names.

It learns in float32 whatever dtype it plays in, so that small steps count.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sage.errors import ModelError
from sage.policy.models.load import LanguageModel, load_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sage.config.pretrain import PretrainSettings
    from sage.config.schema import StudentSettings


@dataclass(frozen=True, slots=True)
class Learner:
    """A model with float32 weights; `half`: its passes multiply in bfloat16 (autocast)."""

    lm: LanguageModel
    half: bool = False

    def save(self, folder: Path) -> None:
        """An ordinary model's folder, with float32 weights and the tokenizer."""
        model: Any = self.lm.model
        model.save_pretrained(folder)
        self.lm.tokenizer.save_pretrained(folder)


def build_model(settings: dict[str, Any], vocab_size: int, seed: int) -> Any:
    """A randomly initialised Qwen3-architecture model with tied embeddings."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=settings["hidden"],
        intermediate_size=settings["feed_forward"],
        num_hidden_layers=settings["layers"],
        num_attention_heads=settings["heads"],
        num_key_value_heads=settings["kv_heads"],
        head_dim=settings["head_dim"],
        max_position_embeddings=settings["context"],
        tie_word_embeddings=True,
        rope_theta=10000.0,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    return Qwen3ForCausalLM(config)


def made(settings: PretrainSettings, tokenizer: PreTrainedTokenizerBase, seed: int) -> Learner:
    """A model of the sizes in `settings`, on the CPU: random, or `init` grown to them.

    Raises ValueError where `init` cannot grow to them.
    """
    from transformers import AutoModelForCausalLM

    from pretrain.grow import grow

    model: Any = build_model(settings.model_dump(), len(tokenizer), seed)
    if settings.init is not None:
        grow(AutoModelForCausalLM.from_pretrained(settings.init, dtype=torch.float32), model)
    return Learner(LanguageModel(model, tokenizer, str(settings.output), "", torch.device("cpu")))


def of_student(student: StudentSettings, longest: int) -> Learner:
    """The model that `student` names, on its device, to learn from sequences of up to `longest` tokens.

    Raises ModelError where it cannot be loaded, where it reaches less far, where its logits are not its
    hidden states times its head, and for what cannot learn here: float16, quantized weights, adapters alone.
    """
    from sage.policy.models.hidden_states import check_head
    from sage.policy.models.layers import reach

    if student.dtype == "float16":
        raise ModelError(
            "student.dtype=float16 cannot be trained: without loss scaling its gradient is wrong; use "
            "bfloat16 (float32 weights are kept) or float32."
        )
    if student.lora is not None:
        raise ModelError(
            "task=pretrain teaches all weights and no adapters; leave student.lora out (student=hub)."
        )
    if "quantization_config" in student.model_kwargs:
        raise ModelError(
            "task=pretrain teaches all weights, and quantized ones cannot learn; leave quantization_config "
            "out of student.model_kwargs."
        )
    lm = load_model(student.model_copy(update={"dtype": "float32"}), role="student", digest=False)
    limit = reach(lm)
    if limit is not None and limit < longest:
        raise ModelError(
            f"pretrain.max_tokens={longest} is more than the {limit} tokens that {student.path!r} reaches; "
            f"lower it to {limit} or less."
        )
    check_head(lm)
    return Learner(lm, half=student.dtype == "bfloat16")
