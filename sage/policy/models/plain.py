"""The model's plain forward, and what of a difference from it is rounding.

Whatever computes logits some other way (an engine with a cache, the padded forward of the training step) is
compared with `model(input_ids)` of each row alone, without a cache, on rows that go past every window.

Shape suffixes: K positions compared, V vocabulary.
"""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sage.errors import ModelError, OutOfMemory, is_out_of_memory, reason_of
from sage.policy.models.failures import free_memory, without_frames
from sage.policy.models.layers import reaches, steady_length
from sage.policy.models.load import LanguageModel

SHORT = 48
"""Tokens of the longest row where the model has no window."""
NARROW = 16
"""The window that stands in for one whose own length would cost too much."""
TAIL = 16
"""Tokens of each row that are decoded in small pieces, behind its first prompt."""
HEAD = 4
"""Positions at the end of a first prompt that are compared too."""
OPERATIONS = {"cpu": 3e12, "cuda": 1e15}
"""Floating-point operations that one comparison may cost: some tens of seconds."""
_LEAST = 1.0
"""So few operations that every window is narrowed."""
FLOOR = 32
"""The least tolerance, in units of the dtype's epsilon times the largest logit."""
AMPLIFIED = 16
"""How many times what one rounding at the input does an engine may differ by: it rounds in every layer."""
TYPICAL = 3
"""The same for the typical position in 16 bits, where one rounding at the input and the engines' other order
of sums move the logits alike (docs/evidence/results/real_pair.md has both, beside what a lost token does)."""
LEAST_TYPICAL = 2
"""The least of it, in units of the dtype's epsilon times the largest logit: the logits are rounded, too."""
MOST = 0.1
"""No difference above this share of the largest logit is rounding, however unstable the model is."""


@dataclass(frozen=True, slots=True)
class Report:
    """How far something that computes logits its own way (`what`) is from the plain forward.

    length: tokens of the longest row. window: the widest sliding window or chunk, None where the model has
    none; narrowed: it was set to `NARROW` for the comparison. took_back: guesses were fed and taken back.
    difference: the largest |difference| of a logit; typical: that at a median position, of the half row where
    it is largest. half: the weights are of 16 bits; tolerance: the most that is rounding, of the typical
    difference where `half`, else of the largest. failure: why it cannot at all, in a few words.
    """

    what: str
    length: int
    window: int | None
    narrowed: bool
    tolerance: float
    took_back: bool = False
    difference: float = math.inf
    typical: float = math.inf
    half: bool = False
    failure: str = ""

    @property
    def equal(self) -> bool:
        """Whether what plays is what trains, to rounding.

        In 16 bits the typical position decides: rounding sends single tokens of a mixture of experts to
        another expert, which no tolerance covers, while a wrong mask or cache changes all that follows in a
        row. Each half of a row has its own typical position, so that a fault in its last tokens counts, too.
        """
        decisive = self.typical if self.half else self.difference
        return not self.failure and decisive <= self.tolerance

    def finding(self) -> str:
        """What was found, in part of a sentence."""
        if self.failure:
            return f"{self.what} fails ({self.failure[:160]})"
        tried = f"rows of up to {self.length} tokens"
        if self.window is not None:
            tried += f", window {self.window}" + (f" narrowed to {NARROW}" if self.narrowed else "")
        tried += ", guesses taken back" if self.took_back else ""
        word = "equals" if self.equal else "differs from"
        apart = f"largest logit difference {self.difference:.2g}, rounding is up to {self.tolerance:.2g}"
        if self.half:
            apart = (
                f"logits typically {self.typical:.2g} apart, where 16 bits' rounding alone makes up to"
                f" {self.tolerance:.2g}, and {self.difference:.2g} at most"
            )
        return f"{self.what} {word} the plain forward ({apart}; {tried})"


@dataclass(frozen=True, slots=True)
class Reference:
    """Rows of ids, plain logits [K, V] at the last `HEAD + TAIL` positions of each, and a blank report."""

    rows: list[list[int]]
    logits: list[Tensor]
    blank: Report

    def report(self, logits: Sequence[Tensor], *, took_back: bool = False) -> Report:
        """How far these logits are from the plain ones."""
        pairs = zip(logits, self.logits, strict=True)
        apart = [(a.cpu() - b).abs().amax(-1).nan_to_num(math.inf) for a, b in pairs]
        return replace(
            self.blank,
            difference=max(float(row.max()) for row in apart),
            typical=max(map(_typical, apart)),
            took_back=took_back,
        )


def within_memory(
    compare: Callable[[LanguageModel, float | None], Report], lm: LanguageModel, operations: float | None
) -> Report:
    """`compare(lm, operations)`; where its rows do not fit the memory, once more with narrowed windows.

    Too little memory says nothing about what was compared: raises OutOfMemory where that does not fit either.
    """
    failed: Exception | None = None
    for most in (operations, _LEAST):
        try:
            return compare(lm, most)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            failed = without_frames(error)
        free_memory()
    assert failed is not None
    way = "take a smaller model, load it in bfloat16, or use a larger device"
    raise OutOfMemory(f"the comparison of {lm.name!r} with its plain forward", failed, way) from failed


@contextmanager
def reference(
    lm: LanguageModel, what: str, *, operations: float | None = None, seed: int = 0
) -> Iterator[Reference]:
    """Rows for a comparison that is made inside the `with`.

    The longest row is 1.5 times the model's widest window. Where that costs more than `operations` (default:
    `OPERATIONS` of the device), the window is narrowed inside the `with`, for both sides alike. Draws from a
    generator of its own and leaves the model as it was. Raises ModelError where the plain forward fails.
    """
    window = max(reaches(lm), default=None)
    most = operations or OPERATIONS.get(lm.device.type, OPERATIONS["cpu"])
    length = SHORT if window is None else max(SHORT, math.ceil(1.5 * window))
    # Both long rows go through twice, and a token costs two operations a parameter.
    cost = 8 * length * sum(p.numel() for p in lm.model.parameters())
    narrowed = window is not None and length > SHORT and cost > most
    length = min(SHORT if narrowed else length, steady_length(lm) or length)
    with _narrow(lm, NARROW if narrowed else None):
        rows = _rows(lm, length, NARROW if narrowed else window, torch.Generator().manual_seed(seed))
        logits = [plain_logits(lm, ids, HEAD + TAIL) for ids in rows]
        tolerance = _tolerance(lm, rows[1:], logits)
        yield Reference(
            rows, logits, Report(what, length, window, narrowed, tolerance, half=lm.model.dtype.itemsize == 2)
        )


@torch.inference_mode()
def plain_logits(lm: LanguageModel, ids: Sequence[int], last: int) -> Tensor:
    """The model's own logits [last, V] after the last tokens of `ids` alone, without a cache, float32.

    Raises ModelError where the model cannot do that.
    """
    keep: dict[str, Any] = {}
    if "logits_to_keep" in inspect.signature(lm.model.forward).parameters:
        keep["logits_to_keep"] = last
    try:
        output = lm.model(input_ids=torch.tensor([list(ids)], device=lm.device), use_cache=False, **keep)
    except RuntimeError:  # out of memory and the like say it themselves
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"The plain forward of {lm.name!r} ({type(lm.model).__name__}) fails: {reason_of(error)}."
        ) from error
    return output.logits[0, -last:].float().cpu()


def _rows(lm: LanguageModel, length: int, window: int | None, generator: torch.Generator) -> list[list[int]]:
    """Three rows: past the window, across its border, and short."""
    border = 2 * length // 3 if window is None else min(window + TAIL // 2, length - 1)
    ids = torch.tensor(ordinary_ids(lm))
    lengths = (length, max(border, HEAD + TAIL), HEAD + TAIL + 1)
    return [ids[torch.randint(len(ids), (n,), generator=generator)].tolist() for n in lengths]


def ordinary_ids(lm: LanguageModel) -> list[int]:
    """Ids that stand for text: special ones may mean padding, or an image to a model that knows any."""
    special = {*lm.tokenizer.all_special_ids, *lm.tokenizer.get_added_vocab().values()}
    rows = min(len(lm.tokenizer), lm.model.config.get_text_config().vocab_size)
    return [i for i in range(rows) if i not in special]


def _typical(apart_K: Tensor) -> float:
    """The difference at a median position, of the half of a row where it is larger."""
    middle = len(apart_K) // 2
    return max(float(half.median()) for half in (apart_K[:middle], apart_K[middle:]))


def _tolerance(lm: LanguageModel, rows: Sequence[list[int]], wanted: Sequence[Tensor]) -> float:
    """The most that is rounding: what rounding at the input does to the logits, several times over.

    `rows` are the last ones of those whose plain logits are `wanted`. In 16 bits it is the most that is
    rounding at a typical position.
    """
    scale = max(float(logits.abs().max()) for logits in wanted)
    # Parts of most models (norms, rotary angles) are float32 whatever the weights are.
    epsilon = max(torch.finfo(lm.model.dtype).eps, torch.finfo(torch.float32).eps)
    generator = torch.Generator().manual_seed(2)

    thread = threading.get_ident()

    def nudge(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        if threading.get_ident() != thread:
            return output
        sign = torch.randint(0, 2, output.shape, generator=generator).to(output.device) * 2 - 1
        return (output.double() * (1 + epsilon * sign)).to(output.dtype)

    handle = lm.model.get_input_embeddings().register_forward_hook(nudge)
    try:
        nudged = [plain_logits(lm, ids, HEAD + TAIL) for ids in rows]
    finally:
        handle.remove()
    apart = [(a - b).abs().amax(-1) for a, b in zip(nudged, wanted[-len(rows) :], strict=True)]
    if lm.model.dtype.itemsize == 2:
        rounding = max(LEAST_TYPICAL * epsilon * scale, TYPICAL * max(map(_typical, apart)))
    else:
        rounding = max(FLOOR * epsilon * scale, AMPLIFIED * max(float(row.max()) for row in apart))
    return min(rounding, MOST * scale)


@contextmanager
def _narrow(lm: LanguageModel, window: int | None) -> Iterator[None]:
    """Set every sliding window and chunk of the model to `window` tokens for a while (None: leave them)."""
    if window is None:
        yield
        return
    homes = [lm.model.config.get_text_config(), *lm.model.modules()]
    names = ("sliding_window", "attention_chunk_size")
    old = [
        (home, name, value)
        for home in homes
        for name in names
        if isinstance(value := getattr(home, name, None), int) and not isinstance(value, bool)
    ]
    try:
        for home, name, _ in old:
            setattr(home, name, window)
        yield
    finally:
        for home, name, value in old:
            setattr(home, name, value)
