"""What decodes: rows of a key/value cache that is kept across turns, behind one interface (`rollout.engine`).

`hf` runs any causal LM through transformers, all rows padded into one rectangle; `packed` runs the modules of
a plain Llama or Qwen one after another over packed rows (`sage.policy.packed`). Both compute what a plain
forward over each row's tokens computes, to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from sage.policy.model import LanguageModel

EngineName = Literal["auto", "hf", "packed"]
StudentEngine = EngineName | Literal["vllm"]


def local(name: StudentEngine) -> EngineName:
    """The engine for a model that vLLM does not serve: every one but the student."""
    return "auto" if name == "vllm" else name


class Engine(Protocol):
    """Rows of one cache. Rows `0..n-1` are in use; the caller keeps them contiguous."""

    lengths: list[int]
    """Tokens in the cache per row; a caller that lowers one drops that row's newest tokens."""
    shares: bool
    """Whether tokens that are `shared` are computed once."""

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


def make_engine(lm: LanguageModel, slots: int, name: EngineName) -> Engine:
    """Room for `slots` rows. `auto` is `packed` for a model it knows on a CPU, else `hf`.

    Raises ModelError where `packed` is asked for by name and does not know the model.
    """
    from sage.policy.model import ModelError
    from sage.policy.packed import PackedEngine, knows
    from sage.policy.padded import PaddedEngine

    if name == "packed" and not knows(lm):
        raise ModelError(
            f"rollout.engine=packed does not know the architecture of {lm.name!r} "
            f"({type(lm.model).__name__}); use rollout.engine=hf."
        )
    if name == "packed" or (name == "auto" and knows(lm) and lm.device.type == "cpu"):
        return PackedEngine(lm, slots)
    return PaddedEngine(lm, slots)
