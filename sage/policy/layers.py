"""What a model's layers look at, by its config: all of the past, a window, a chunk, or a running state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sage.policy.model import LanguageModel

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
