"""The engines by name: rows of a key/value cache that is kept across turns, behind one interface.

`hf` runs a causal LM through transformers, all rows padded into one rectangle; `packed` runs the modules of a
plain Llama or Qwen one after another over packed rows, `static` does so in forwards of fixed shape (CUDA
graphs); `rowwise` runs each row alone and never takes a token back, `stepwise` moreover one token at a time.
Which of them is right for a model is measured (`sage.policy.decoding.equivalence`), never assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from sage.policy.models.load import LanguageModel

BuiltName = Literal["hf", "packed", "static", "rowwise", "stepwise"]
EngineName = BuiltName | Literal["auto"]

FIXED = frozenset[BuiltName]({"static"})
"""Engines whose forwards take every slot, in use or not: there a row's result does not depend on its
neighbours even in 16 bits, as long as the number of slots is the same."""


class Engine(Protocol):
    """Rows of one cache. Rows `0..n-1` are in use; the caller keeps them contiguous."""

    lengths: list[int]
    """Tokens in the cache per row; a caller that lowers one drops that row's newest tokens."""
    shares: bool
    """Whether tokens that are `shared` are computed once."""
    takes_back: bool
    """Whether a caller may lower a row's length; if not, then only to 0, to begin anew."""

    def extend(
        self,
        rows: slice,
        ids: Sequence[Sequence[int]],
        keep: Sequence[int],
        shared: Sequence[tuple[int, int]] | None = None,
    ) -> Tensor:
        """Append `ids[b]` to row b of `rows` (none: it rests); logits [Σ keep, V] after each row's last
        `keep[b]` tokens, float32, row after row.

        shared[b] = (row, n): the first n of `ids[b]` are that earlier row's first n tokens, and row b is
        empty.
        """
        ...

    def release(self, row: int, last: int) -> None:
        """Free `row` by giving its place to row `last`, the last one in use."""
        ...


def build_engine(
    lm: LanguageModel, slots: int, name: BuiltName, *, room: int | None = None, guesses: int = 0
) -> Engine:
    """Room for `slots` rows, of about `room` tokens each (None: not known; it grows where that is not
    enough), which are fed up to `guesses` guessed tokens at a time. Raises ModelError, in a few words, where
    the engine cannot run such a model."""
    from sage.policy.decoding.packed import PackedEngine
    from sage.policy.decoding.padded import PaddedEngine
    from sage.policy.decoding.rowwise import RowEngine
    from sage.policy.decoding.static import StaticEngine

    kinds: dict[BuiltName, Callable[[LanguageModel, int], Engine]] = {
        "packed": PackedEngine,
        "hf": PaddedEngine,
        "static": partial(StaticEngine, room=room, width=1 + guesses),
        "rowwise": RowEngine,
        "stepwise": partial(RowEngine, one_by_one=True),
    }
    return kinds[name](lm, slots)


def candidates(lm: LanguageModel) -> tuple[BuiltName, ...]:
    """The engines that may be right for a model, the fastest first: what `auto` tries."""
    from sage.policy.decoding.packed import knows
    from sage.policy.models.layers import keeps_state, steady_length

    if keeps_state(lm) or steady_length(lm) is not None:
        return ("rowwise", "stepwise")
    if knows(lm):
        fastest: BuiltName = "packed" if lm.device.type == "cpu" else "static"
        return (fastest, "hf", "rowwise", "stepwise")
    return ("hf", "rowwise", "stepwise")
