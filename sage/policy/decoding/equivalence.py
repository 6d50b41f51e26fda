"""What plays is what trains: an engine's incremental decoding against the model's plain forward, measured.

Rows of different lengths are played the way episodes are: a long first prompt, then pieces of an answer,
guessed tokens that are taken back, a row that joins late, one that leaves and is replaced by the last.

Shape suffix: V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from sage.errors import is_out_of_memory, reason_of
from sage.policy.decoding.engines import BuiltName, Engine, build_engine
from sage.policy.models.load import LanguageModel
from sage.policy.models.plain import HEAD, TAIL, Report, reference, within_memory


def engine_error(
    lm: LanguageModel, engine: BuiltName, *, operations: float | None = None, seed: int = 0
) -> Report:
    """Play three ragged rows on `engine` and compare every logit with the plain forward of each row alone.

    What is played, and how long, is `sage.policy.models.plain.reference`'s. Raises ModelError only where the
    plain forward itself fails: an engine that does is a finding. Raises OutOfMemory where the memory does not
    suffice, which is none.
    """

    def compare(lm: LanguageModel, operations: float | None) -> Report:
        return _compared(lm, engine, operations, seed)

    return within_memory(compare, lm, operations)


def _compared(lm: LanguageModel, engine: BuiltName, operations: float | None, seed: int) -> Report:
    with reference(lm, f"engine {engine}", operations=operations, seed=seed) as plain:
        rows = [_Row(ids) for ids in plain.rows]
        try:
            built = build_engine(lm, len(rows), engine)
            _play(built, rows, torch.Generator().manual_seed(seed + 1))
        except Exception as error:  # whatever a model's code raises is the finding
            if is_out_of_memory(error):
                raise
            return replace(plain.blank, failure=reason_of(error))
        return plain.report([torch.cat(row.logits) for row in rows], took_back=built.takes_back)


@dataclass(slots=True)
class _Row:
    """One row on its way: `fed` of its `ids` are in the engine, which gave `logits` [*, V] so far."""

    ids: list[int]
    fed: int = 0
    logits: list[Tensor] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.fed == len(self.ids)


def _play(engine: Engine, rows: list[_Row], generator: torch.Generator) -> None:
    """Feed all rows: a long first prompt each, then a few tokens at a time, with wrong guesses behind them.

    Two begin, the third joins; the first rests now and then; one that is done leaves its place to the last.
    """
    seated: list[_Row] = []
    waiting, step = list(rows), 0
    while waiting or seated:
        coming = 0 if step == 1 else 2 if step == 0 else 1
        seated += waiting[:coming]
        del waiting[:coming]
        takes = [_takes(row, generator) for row in seated]
        if step % 3 == 2 and seated[0].fed:
            takes[0] = 0
        _feed(engine, seated, takes, rows[0].ids[:2] if engine.takes_back else [])
        for place in reversed(range(len(seated))):
            if seated[place].done:
                engine.release(place, len(seated) - 1)
                seated[place] = seated[-1]
                seated.pop()
        step += 1


def _feed(engine: Engine, seated: list[_Row], takes: list[int], guess: list[int]) -> None:
    """Feed each row `takes` tokens; behind them stands the wrong `guess`, which is taken back."""
    wrong = [guess if take else [] for take in takes]
    ids = [r.ids[r.fed : r.fed + n] + w for r, n, w in zip(seated, takes, wrong, strict=True)]
    wanted = [min(n, HEAD) if r.fed == 0 else n for r, n in zip(seated, takes, strict=True)]
    keep = [n + len(w) for n, w in zip(wanted, wrong, strict=True)]
    if not any(ids):
        return
    logits = iter(engine.extend(slice(0, len(seated)), ids, keep).cpu().split(keep))
    for place, row in enumerate(seated):
        row.logits.append(next(logits)[: wanted[place]])
        row.fed += takes[place]
        engine.lengths[place] -= len(wrong[place])


def _takes(row: _Row, generator: torch.Generator) -> int:
    """How many tokens a row is fed next."""
    if row.fed == 0:
        return len(row.ids) - TAIL
    return min(int(torch.randint(1, 4, (), generator=generator)), len(row.ids) - row.fed)
