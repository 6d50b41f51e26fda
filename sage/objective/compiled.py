"""`at_chunk` as one compiled function: on a GPU few passes over the logits in place of fifteen.

The arithmetic of any divergence is traced as it runs (torch's `make_fx`), its autograd included, and
compiled once for chunks of any number of tokens. Invariant: what was compiled has given the plain function's
numbers at the first rows that it met, or is not used, and a sentence says so.

Shape suffixes: C tokens of a chunk, V shared vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sage.errors import is_out_of_memory, short_reason
from sage.objective.divergence.base import Divergence
from sage.objective.elementwise import Made, at_chunk

TRIED = 64
"""Rows of the first chunk that both ways compute, to be compared."""
OFF = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float16: 4e-3}
"""How far apart they may be, as a share of the largest number: sums of V terms in another order."""

Function = Callable[..., tuple[Tensor, ...]]


class Compiled:
    """An `Elementwise`. The first chunk of a kind (loss, dtypes, with a slope or without) pays for compiling;
    `say` is told how long that took, or why chunks are computed uncompiled from then on.

    rows: tokens of most chunks, which the compiler then plans its kernels for (0: those of the first).
    """

    def __init__(self, say: Callable[[str], None], *, rows: int = 0, backend: str = "inductor") -> None:
        self._say, self._rows, self._backend = say, rows, backend
        self._made: dict[tuple[object, ...], Function] = {}
        self._seconds = 0.0
        self._known: list[Divergence] = []
        """Keeps what `_made` knows by its id alive."""
        self.failed = False

    def __call__(
        self,
        divergence: Divergence,
        student_CV: Tensor,
        teacher_CV: Tensor,
        target_C: Tensor,
        weight_C: Tensor | None,
        read: bool,
    ) -> Made:
        # A single row would be compiled anew: torch takes a length of one for a constant.
        if self.failed or len(target_C) < 2:
            return at_chunk(divergence, student_CV, teacher_CV, target_C, weight_C, read)
        given = [student_CV, teacher_CV, target_C, *([] if weight_C is None else [weight_C])]
        kind = (id(divergence), read, *((t.dtype, t.device, t.shape[1:]) for t in given))
        try:
            if kind not in self._made:
                self._made[kind] = self._make(divergence, given, read)
            made = self._made[kind](*given)
        except Exception as error:  # whatever tracing or a compiler makes of a divergence
            if is_out_of_memory(error):
                raise
            self._give_up(short_reason(error))
            return at_chunk(divergence, student_CV, teacher_CV, target_C, weight_C, read)
        value_C, logprob_C, entropy_C, *slope = made
        return value_C, logprob_C, entropy_C, slope[0] if slope else None

    def _make(self, divergence: Divergence, given: list[Tensor], read: bool) -> Function:
        """The compiled function of a kind. Raises whatever compiling does, and ArithmeticError where its
        numbers are others."""

        def plain(*rows: Tensor) -> tuple[Tensor, ...]:
            student_CV, teacher_CV, target_C = rows[:3]
            made = at_chunk(divergence, student_CV, teacher_CV, target_C, rows[3] if rows[3:] else None, read)
            return tuple(part for part in made if part is not None)

        from torch.fx.experimental.proxy_tensor import make_fx

        started = time.perf_counter()
        few = [t[:TRIED] for t in given]
        want = plain(*(t.clone() for t in few))
        function: Any = make_fx(plain, tracing_mode="symbolic")(*(t.clone() for t in few))
        compiled: Function = torch.compile(function, backend=self._backend)
        count = len(given[2])
        example_N = torch.arange(max(count, self._rows), device=given[2].device) % count
        example = [t[example_N] for t in given]
        for t in example:
            torch._dynamo.mark_dynamic(t, 0)
        _compare(want, compiled(*example))
        self._known.append(divergence)
        self._seconds += time.perf_counter() - started
        self._say(
            f"the loss {divergence.name} was compiled ({'with' if given[3:] else 'without'} a gradient); "
            f"compiling has taken {self._seconds:.1f} s of this run"
        )
        return compiled

    def _give_up(self, reason: str) -> None:
        self.failed = True
        self._made.clear()
        self._say(
            f"the loss could not be compiled ({reason}): it is computed uncompiled, which is slower and the "
            "same; speed.compile_loss=false says so from the start"
        )


def _compare(want: tuple[Tensor, ...], got: tuple[Tensor, ...]) -> None:
    """Raises ArithmeticError where the first rows of `got` differ from `want` by more than rounding."""
    for a, b in zip(want, (part[: len(want[0])] for part in got), strict=True):
        off = float((a.double() - b.double()).nan_to_num().abs().max())
        size = float(a.double().nan_to_num().abs().max())
        if off > OFF[a.dtype] * max(size, 1e-3) or not torch.equal(a.isnan(), b.isnan()):
            raise ArithmeticError(f"compiled it is off by {off:.1e} of {size:.1e}")
