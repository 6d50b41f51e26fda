"""Gradient checkpointing: a layer keeps its input alone, and is computed again when its gradient is.

transformers' own is switched on by training mode, which also switches dropout on; here models play and learn
in evaluation mode. The last layer keeps everything: its gradient comes first, so nothing would be saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from sage.policy.models.load import LanguageModel


def layers_of(lm: LanguageModel) -> list[nn.Module]:
    """The layers that can be computed again, in order: those that transformers made for it."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    found: list[nn.Module] = []
    inside: set[int] = set()
    for module in lm.model.modules():
        if isinstance(module, GradientCheckpointingLayer) and id(module) not in inside:
            found.append(module)
            inside |= {id(inner) for inner in module.modules()}
    return found


@contextmanager
def recomputed(
    lm: LanguageModel, around: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Iterator[None]:
    """A forward inside keeps little for its backward, which may come later, in another thread. `around` is
    entered where a layer is computed again, as it was around the forward."""
    layers = layers_of(lm)[:-1]
    try:
        for layer in layers:
            layer.forward = _kept_small(layer.forward, around)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _kept_small(forward: Callable[..., Any], around: Callable[[], AbstractContextManager[None]]) -> Any:
    def again(*args: Any, **kwargs: Any) -> Any:
        with around():
            return forward(*args, **kwargs)

    def small(*args: Any, **kwargs: Any) -> Any:
        # In evaluation mode nothing is drawn, so there is no random state to keep.
        return checkpoint(again, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return small
