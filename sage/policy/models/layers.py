"""What a model's layers look at, by its config: all of the past, a window, a chunk, or a running state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sage.policy.models.load import LanguageModel

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
"""transformers' names of the kinds of attention that look back on keys and values, position by position."""
_WINDOWS = {SLIDING: "sliding_window", CHUNKED: "attention_chunk_size"}
_OTHER_WINDOWS = ("window_size", "attention_window_size", "local_attention")
"""What single architectures call theirs."""


def kinds(config: Any) -> tuple[str, ...]:
    """The kinds of layers of a text config, each once, in order of first use.

    As transformers' own `create_masks_for_generate`: where no layer has a kind of its own, all have one, and
    which is said by the window or chunk that is set.
    """
    listed = getattr(config, "layer_types", None)
    if listed:
        return tuple(dict.fromkeys(listed))
    for kind, window in _WINDOWS.items():
        if getattr(config, window, None) is not None:
            return (kind,)
    return (FULL,)


def window(config: Any, kind: str) -> int:
    """Tokens of a sliding layer's window or of a chunk."""
    return int(getattr(config, _WINDOWS[kind]))


def reaches(lm: LanguageModel) -> list[int]:
    """Every window and chunk of the model, in tokens; none where all layers see everything."""
    config = lm.model.config.get_text_config()
    found = [window(config, kind) for kind in kinds(config) if kind in _WINDOWS]
    others = (getattr(config, name, None) for name in _OTHER_WINDOWS)
    return found + [size for size in others if isinstance(size, int)]


def keeps_state(lm: LanguageModel) -> bool:
    """Whether some layer keeps a running state (Mamba, gated delta nets, short convolutions): tokens that
    went in cannot be taken back out, and padding between tokens would be remembered."""
    model = lm.model
    own = set(kinds(model.config.get_text_config())) - {FULL, SLIDING, CHUNKED}
    return bool(own) or bool(getattr(model, "_is_stateful", False))


def steady_length(lm: LanguageModel) -> int | None:
    """Tokens up to which a position means the same whatever the row's length; None where it always does.

    Rotary frequencies of the kinds `dynamic` and `longrope` depend on the longest row of a forward: beyond
    this length keys in a cache are of another frequency than the next query's, and rows change each other.
    """
    config = lm.model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    each = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    limits = []
    for parameters in each:
        kind = parameters.get("rope_type", "default")
        if kind == "longrope":
            limits.append(parameters.get("original_max_position_embeddings"))
        elif "dynamic" in kind:
            limits.append(config.max_position_embeddings)
    return min((int(limit) for limit in limits if limit), default=None)


def reach(lm: LanguageModel) -> int | None:
    """Tokens of the longest conversation that is trained on as it was played; None without a limit."""
    position = getattr(lm.model.config.get_text_config(), "max_position_embeddings", None)
    limits = [limit for limit in (position, steady_length(lm)) if limit]
    return min(limits, default=None)


def logit_factor(config: Any) -> float:
    """What a model multiplies its logits with after the output layer: Cohere's `logit_scale`, Falcon-H1's
    `lm_head_multiplier`, and 1 / `logits_scaling` of Granite."""
    factor = 1.0
    for name in ("logit_scale", "lm_head_multiplier"):
        factor *= getattr(config, name, None) or 1.0
    return factor / (getattr(config, "logits_scaling", None) or 1.0)
