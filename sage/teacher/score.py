"""The teacher pass: one forward per trajectory, and what it says about the student's tokens.

Keeps the teacher's hidden states at the positions that predict student tokens; distributions are made from
them a chunk at a time, here for the confidence and again in the loss, so that no [tokens × vocabulary]
matrix is held. Shape suffixes: T student tokens of one episode, E teacher width, C tokens of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sage.episode import Episode
from sage.errors import NotFinite
from sage.objective.chunked import Projection, chunks_of
from sage.objective.confidence.base import TokenStats
from sage.objective.confidence.signals import top1
from sage.objective.elementwise import chosen_logprob, entropy
from sage.policy.dialogue import Dialogue, render
from sage.policy.models.hidden_states import head, hidden_states
from sage.policy.models.load import LanguageModel
from sage.policy.models.work import head_operations
from sage.records.clock import tally
from sage.teacher.elsewhere import RemoteTeacher, Teacher
from sage.teacher.spoil import SpoiltTeacher


@dataclass(frozen=True, slots=True)
class View:
    """An episode as one model reads it: its ids and where each turn's answer stands in them."""

    ids: list[int]
    spans: list[tuple[int, int]]
    read_TE: Tensor | None = None
    """The model's states at all student tokens, where it has read the view already."""
    spoilt: tuple[bool, ...] = ()
    """Of each turn, whether a spoilt teacher is spoilt there; empty for nowhere."""

    def positions(self, turns: Sequence[int] | None = None) -> list[int]:
        """Positions whose next token is a student token of `turns` (None: of all), in order."""
        chosen = range(len(self.spans)) if turns is None else turns
        return [j - 1 for t in chosen for j in range(*self.spans[t])]

    def spoilt_tokens(self, turns: Sequence[int]) -> Tensor:
        """Of each token of `turns`, whether a spoilt teacher is spoilt there."""
        flags = [bool(self.spoilt) and self.spoilt[t] for t in turns for _ in range(*self.spans[t])]
        return torch.tensor(flags, dtype=torch.bool)

    def targets(self) -> list[int]:
        """Ids of all student tokens."""
        return [i for start, end in self.spans for i in self.ids[start:end]]


def own_view(episode: Episode) -> View:
    """The conversation exactly as it was sampled."""
    return View(episode.token_ids, [(turn.answer_start, turn.answer_end) for turn in episode.turns])


def teacher_view(episode: Episode, dialogue: Dialogue | None) -> View:
    """The conversation under the teacher's own template; None where it is the student's."""
    return own_view(episode) if dialogue is None else View(*render(dialogue, episode))


def teacher_dialogue(student: LanguageModel, teacher: Teacher) -> Dialogue | None:
    """Its own dialogue; None where its template is the student's and the sampled ids serve as they are."""
    # It reads what the student has said, so it is asked for a thought where the student is.
    theirs = Dialogue(teacher.tokenizer, student.thinking)
    return None if theirs.format == Dialogue(student.tokenizer, student.thinking).format else theirs


def states_of(
    teacher: Teacher, sequences: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
) -> Tensor:
    """state_TE at `positions[b]` of `sequences[b]`, which `head_of` the same teacher makes logits of: hidden
    states, or what a teacher elsewhere has in their place."""
    if isinstance(teacher, RemoteTeacher):
        return teacher.states(sequences, positions)
    return hidden_states(teacher, sequences, positions)


def head_of(teacher: Teacher) -> Projection:
    """What makes logits of the teacher's states."""
    return teacher.head() if isinstance(teacher, RemoteTeacher | SpoiltTeacher) else head(teacher)


@dataclass(frozen=True, slots=True)
class TeacherPass:
    """The teacher at all T student tokens of one episode; NaN at tokens that were not asked for.

    hidden_TE: what `states_of` gave."""

    hidden_TE: Tensor
    stats: TokenStats


@torch.no_grad()
def score(
    teacher: Teacher,
    views: Sequence[View],
    turns: Sequence[Sequence[int]],
    *,
    vocabulary: int,
    temperature: float,
    read: Callable[[Tensor], Tensor] = top1,
    likeliest: Sequence[int] | None = None,
    chunk: int = 0,
) -> list[TeacherPass]:
    """One forward over `views`, unless they have been `read`; statistics at the student tokens of `turns[b]`
    of each.

    temperature and `read` are the confidence rule's: what it makes of each scaled distribution, [C, V] to
    [C]. likeliest: how many of the likeliest tokens are kept of each view (None: of none). chunk: tokens
    whose logits are held at a time (0: `sage.objective.chunked.chunk_size`).

    Raises ValueError for an answer that stands at the very beginning, where nothing predicts it, and
    NotFinite where the model's logits at a token that was asked for are.
    """
    if any(start < 1 for view in views for start, _ in view.spans):
        raise ValueError("An answer starts at position 0; an episode needs a prompt before its first answer.")
    positions = [view.positions(chosen) for view, chosen in zip(views, turns, strict=True)]
    passes = []
    parts = _states(teacher, views, turns, positions)
    kept = likeliest or [0] * len(views)
    for view, chosen, part_TE, most in zip(views, turns, parts, kept, strict=True):
        asked_T = torch.zeros(
            sum(end - start for start, end in view.spans), dtype=torch.bool, device=teacher.device
        )
        offset = 0
        for t, (start, end) in enumerate(view.spans):
            asked_T[offset : offset + end - start] = t in chosen
            offset += end - start
        all_TE = part_TE
        if not bool(asked_T.all()):
            all_TE = part_TE.new_zeros(len(asked_T), part_TE.shape[-1])
            all_TE[asked_T] = part_TE
        target_T = torch.tensor(view.targets(), dtype=torch.long, device=teacher.device)
        wanted = Wanted(temperature, read, most, chunk)
        stats = token_stats(all_TE, head_of(teacher), target_T, asked_T, vocabulary, wanted)
        # Further on NaN means that nobody asked.
        if not bool(stats.top1_T[asked_T].isfinite().all()):
            raise NotFinite(
                f"The logits of {teacher.name!r} are not finite (NaN or infinite) at tokens that it was to "
                "score; load it in float32 or bfloat16."
            )
        passes.append(TeacherPass(all_TE, stats))
    return passes


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is made of each distribution: `read` and the top-1 probability at a temperature, and so many of
    the likeliest tokens; `chunk` tokens at a time (0: `sage.objective.chunked.chunk_size`)."""

    temperature: float = 1.0
    read: Callable[[Tensor], Tensor] = top1
    likeliest: int = 0
    chunk: int = 0


def _states(
    teacher: Teacher,
    views: Sequence[View],
    turns: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
) -> list[Tensor]:
    """[*, E] of each view, at the student tokens of `turns[b]`."""
    parts = _own_states(teacher, views, turns, positions)
    if not isinstance(teacher, SpoiltTeacher):
        return parts
    spoilt_T = torch.cat([view.spoilt_tokens(chosen) for view, chosen in zip(views, turns, strict=True)])
    states_TE = teacher.states(torch.cat(parts), [view.ids for view in views], positions, spoilt_T)
    return list(states_TE.split([len(part) for part in parts]))


def _own_states(
    teacher: Teacher,
    views: Sequence[View],
    turns: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
) -> list[Tensor]:
    """The same of a teacher as it is."""
    found = [view.read_TE for view in views]
    if any(read_TE is None for read_TE in found):
        hidden_TE = states_of(teacher, [view.ids for view in views], positions)
        return list(hidden_TE.split([len(chosen) for chosen in positions]))
    parts = []
    for view, chosen, read_TE in zip(views, turns, found, strict=True):
        assert read_TE is not None
        of_turns = read_TE.split([end - start for start, end in view.spans])
        parts.append(torch.cat([read_TE[:0], *(of_turns[t] for t in chosen)]))
    return parts


@torch.no_grad()
def token_stats(
    hidden_TE: Tensor,
    projection: Projection,
    target_T: Tensor,
    asked_T: Tensor,
    vocabulary: int,
    wanted: Wanted,
) -> TokenStats:
    """Top-1 probability and what is `wanted`, entropy and log-probability of `target_T`; NaN where not asked.
    The entropy is NaN throughout where the projection is not `whole`."""
    dtype = torch.promote_types(hidden_TE.dtype, torch.float32)
    top1_T, entropy_T, logprob_T, signal_T = hidden_TE.new_full((4, len(hidden_TE)), math.nan, dtype=dtype)
    best = _Likeliest.none(top1_T, min(wanted.likeliest, vocabulary)) if wanted.likeliest else None
    for index_C in chunks_of(asked_T.nonzero().squeeze(-1), vocabulary, wanted.chunk):
        logits_CV = projection.logits(hidden_TE[index_C], vocabulary)
        tally(operations=head_operations(vocabulary, hidden_TE.shape[-1], len(index_C)))
        logprob_CV = logits_CV.log_softmax(-1)
        if projection.whole:
            entropy_T[index_C] = entropy(logprob_CV)
        logprob_T[index_C] = chosen_logprob(logprob_CV, target_T[index_C])
        if best is not None:
            best.note(index_C, logprob_CV, projection.known(hidden_TE[index_C], vocabulary))
        if wanted.temperature != 1.0:
            logprob_CV = logits_CV.div_(wanted.temperature).log_softmax(-1)
        top1_T[index_C] = top1(logprob_CV)
        signal_T[index_C] = wanted.read(logprob_CV)
    stats = TokenStats(top1_T, entropy_T, logprob_T, signal_T)
    if best is None:
        return stats
    return replace(stats, likeliest_TK=best.ids_TK, likeliest_logprob_TK=best.logprob_TK)


@dataclass(frozen=True, slots=True)
class _Likeliest:
    """The K likeliest tokens at each of T, most likely first; −1 and NaN where they are not known."""

    ids_TK: Tensor
    logprob_TK: Tensor

    @classmethod
    def none(cls, like_T: Tensor, k: int) -> _Likeliest:
        """Before anything is known."""
        logprob_TK = like_T.new_full((len(like_T), k), math.nan)
        return cls(torch.full_like(logprob_TK, -1, dtype=torch.long), logprob_TK)

    def note(self, index_C: Tensor, logprob_CV: Tensor, known_C: Tensor) -> None:
        """Those of one chunk; behind the `known_C` that the model has named nothing is known."""
        k = self.ids_TK.shape[1]
        logprob_CK, ids_CK = logprob_CV.topk(k)
        beyond_CK = torch.arange(k, device=known_C.device) >= known_C[:, None]
        self.ids_TK[index_C] = ids_CK.masked_fill(beyond_CK, -1)
        self.logprob_TK[index_C] = logprob_CK.masked_fill(beyond_CK, math.nan)
