"""What plays is what trains: an engine's incremental decoding against the model's plain forward, measured.

Rows of different lengths are played the way episodes are (a long first prompt, then pieces of an answer,
guessed tokens that are taken back, a row that joins late, one that leaves and is replaced), and every logit
that an answer would be sampled from is compared with `model(input_ids)` of that row alone, without a cache.

Shape suffixes: L tokens of one row, K positions compared, V vocabulary.
"""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sage.policy.engines import BuiltName, Engine, build_engine
from sage.policy.layers import reaches
from sage.policy.model import LanguageModel, ModelError
from sage.reason import reason_of

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
FLOOR = 32
"""The least tolerance, in units of the dtype's epsilon times the largest logit."""
AMPLIFIED = 16
"""How many times what one rounding at the input does an engine may differ by: it rounds in every layer."""
MOST = 0.1
"""No difference above this share of the largest logit is rounding, however unstable the model is."""


@dataclass(frozen=True, slots=True)
class Report:
    """How far decoding is from the plain forward.

    length: tokens of the longest row. window: the widest sliding window or chunk, None where the model has
    none; narrowed: it was set to `NARROW` for the comparison. took_back: guesses were fed and taken back.
    difference: the largest |difference| of a logit; tolerance: the most that is rounding. failure: why the
    engine cannot play at all, in a few words.
    """

    engine: BuiltName
    length: int
    window: int | None
    narrowed: bool
    tolerance: float
    took_back: bool = False
    difference: float = math.inf
    failure: str = ""

    @property
    def equal(self) -> bool:
        """Whether what plays is what trains, to rounding."""
        return not self.failure and self.difference <= self.tolerance

    def finding(self) -> str:
        """What was found, in part of a sentence."""
        if self.failure:
            return f"engine {self.engine} cannot play it ({self.failure[:160]})"
        tried = f"rows of up to {self.length} tokens"
        if self.window is not None:
            tried += f", window {self.window}" + (f" narrowed to {NARROW}" if self.narrowed else "")
        tried += ", guesses taken back" if self.took_back else ", no guesses"
        word = "equals" if self.equal else "differs from"
        return (
            f"engine {self.engine} {word} the plain forward (largest logit difference {self.difference:.2g},"
            f" rounding is up to {self.tolerance:.2g}; {tried})"
        )


def engine_error(
    lm: LanguageModel, engine: BuiltName, *, operations: float | None = None, seed: int = 0
) -> Report:
    """Play three ragged rows on `engine` and compare with the plain forward of each row alone.

    The longest row is 1.5 times the model's widest window. Where that costs more than `operations` (default:
    `OPERATIONS` of the device), the window is narrowed for the comparison, for the engine and the plain
    forward alike. Draws from a generator of its own and leaves the model as it was. Raises ModelError only
    where the plain forward itself fails.
    """
    window = max(reaches(lm), default=None)
    most = operations or OPERATIONS.get(lm.device.type, OPERATIONS["cpu"])
    length = SHORT if window is None else max(SHORT, math.ceil(1.5 * window))
    # Both windowed rows go through twice, a token costs two operations per parameter.
    cost = 8 * length * sum(p.numel() for p in lm.model.parameters())
    narrowed = window is not None and length > SHORT and cost > most
    length = SHORT if narrowed else length
    generator = torch.Generator().manual_seed(seed)
    with _narrow(lm, NARROW if narrowed else None):
        rows = _rows(lm, length, NARROW if narrowed else window, generator)
        wanted = [plain_logits(lm, row.ids, HEAD + TAIL) for row in rows]
        report = Report(engine, length, window, narrowed, _tolerance(lm, rows[1:], wanted))
        try:
            built = build_engine(lm, len(rows), engine)
            _play(built, rows, generator)
        except Exception as error:  # whatever a model's code raises is the finding
            return replace(report, failure=reason_of(error))
    played = [torch.cat(row.logits) for row in rows]
    apart = max(float((a - b).abs().max()) for a, b in zip(played, wanted, strict=True))
    return replace(report, difference=math.inf if math.isnan(apart) else apart, took_back=built.takes_back)


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
        raise ModelError(
            f"The plain forward of {lm.name!r} ({type(lm.model).__name__}) fails: {reason_of(error)}."
        ) from error
    return output.logits[0, -last:].float().cpu()


@dataclass(slots=True)
class _Row:
    """One row on its way: `fed` of its `ids` are in the engine, which gave `logits` [*, V] so far."""

    ids: list[int]
    fed: int = 0
    logits: list[Tensor] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.fed == len(self.ids)


def _rows(lm: LanguageModel, length: int, window: int | None, generator: torch.Generator) -> list[_Row]:
    """Three rows: past the window, across its border, and short."""
    border = 2 * length // 3 if window is None else min(window + TAIL // 2, length - 1)
    ids = torch.tensor(ordinary_ids(lm))
    return [
        _Row(ids[torch.randint(len(ids), (n,), generator=generator)].tolist())
        for n in (length, max(border, HEAD + TAIL), HEAD + TAIL + 1)
    ]


def ordinary_ids(lm: LanguageModel) -> list[int]:
    """Ids that stand for text: special ones may mean padding, or an image to a model that knows any."""
    special = {*lm.tokenizer.all_special_ids, *lm.tokenizer.get_added_vocab().values()}
    rows = min(len(lm.tokenizer), lm.model.config.get_text_config().vocab_size)
    return [i for i in range(rows) if i not in special]


def _play(engine: Engine, rows: list[_Row], generator: torch.Generator) -> None:
    """Feed all rows: a long first prompt each, then a few tokens at a time, with wrong guesses behind them.

    Two begin, the third joins; the first rests now and then; one that is done leaves its place to the last.
    """
    seated: list[_Row] = []
    waiting, step = list(rows), 0
    while waiting or seated:
        if waiting and step != 1:
            seated += waiting[: 2 if step == 0 else 1]
            del waiting[: 2 if step == 0 else 1]
        takes = [_takes(row, generator) for row in seated]
        if step % 3 == 2 and seated[0].fed:
            takes[0] = 0
        wrong = [rows[0].ids[:2] if engine.takes_back and take else [] for take in takes]
        ids = [r.ids[r.fed : r.fed + n] + w for r, n, w in zip(seated, takes, wrong, strict=True)]
        wanted = [min(n, HEAD) if r.fed == 0 else n for r, n in zip(seated, takes, strict=True)]
        keep = [n + len(w) for n, w in zip(wanted, wrong, strict=True)]
        if any(ids):
            logits = iter(engine.extend(slice(0, len(seated)), ids, keep).cpu().split(keep))
            for place, row in enumerate(seated):
                row.logits.append(next(logits)[: wanted[place]])
                row.fed += takes[place]
                engine.lengths[place] -= len(wrong[place])
        for place in reversed(range(len(seated))):
            if seated[place].done:
                engine.release(place, len(seated) - 1)
                seated[place] = seated[-1]
                seated.pop()
        step += 1


def _takes(row: _Row, generator: torch.Generator) -> int:
    """How many tokens a row is fed next."""
    if row.fed == 0:
        return len(row.ids) - TAIL
    return min(int(torch.randint(1, 4, (), generator=generator)), len(row.ids) - row.fed)


def _tolerance(lm: LanguageModel, rows: Sequence[_Row], wanted: Sequence[Tensor]) -> float:
    """The most that is rounding: what rounding at the input does to the logits, several times over.

    `rows` are the last ones of those whose plain logits are `wanted`.
    """
    scale = max(float(logits.abs().max()) for logits in wanted)
    epsilon = torch.finfo(lm.model.dtype).eps
    generator = torch.Generator().manual_seed(2)

    thread = threading.get_ident()

    def nudge(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
        if threading.get_ident() != thread:
            return output
        sign = torch.randint(0, 2, output.shape, generator=generator).to(output.device) * 2 - 1
        return (output.double() * (1 + epsilon * sign)).to(output.dtype)

    handle = lm.model.get_input_embeddings().register_forward_hook(nudge)
    try:
        nudged = [plain_logits(lm, row.ids, HEAD + TAIL) for row in rows]
    finally:
        handle.remove()
    moved = max(float((a - b).abs().max()) for a, b in zip(nudged, wanted[-len(rows) :], strict=True))
    return min(max(FLOOR * epsilon * scale, AMPLIFIED * moved), MOST * scale)


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
