"""One optimizer batch before it is weighed: both models, the episodes, and what the models say about each
turn.

Shape suffixes: T student tokens of one episode or turn, C tokens of a chunk, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from sage.episode import Episode, TrainingEpisode, TurnScore
from sage.objective.confidence.base import Confidence, TokenStats
from sage.policy.dialogue import Dialogue
from sage.policy.models.failures import memory_for, smaller_passes
from sage.policy.models.hidden_states import check_head
from sage.policy.models.load import LanguageModel
from sage.records.activity import did, expect
from sage.records.clock import phase
from sage.teacher.elsewhere import Part, RemoteTeacher, Teacher
from sage.teacher.score import TeacherPass, View, own_view, score, teacher_dialogue, teacher_view
from sage.teacher.vocabulary import shared_vocabulary
from sage.training.passes import PLAIN, Passes
from sage.training.tokens import likeliest_wanted, note_teacher


@dataclass(frozen=True, slots=True)
class Models:
    """Student and teacher that share a vocabulary of ids 0..vocabulary-1; made by `match_models`.

    `dialogue` re-renders conversations for the teacher, None where its template is the student's.
    """

    student: LanguageModel
    teacher: Teacher
    vocabulary: int
    dialogue: Dialogue | None
    reference: LanguageModel | None = None
    """π_ref of a divergence that has an `anchor`; it reads the student's own ids."""
    passes: Passes = PLAIN


def match_models(
    student: LanguageModel, teacher: Teacher, reference: LanguageModel | None = None
) -> Models:
    """Raises ModelError, in one sentence, where the models cannot be compared token by token."""
    others = [teacher] if reference is None else [teacher, reference]
    vocabulary = min(shared_vocabulary(student, other) for other in others)
    for lm in (student, *others):
        if not isinstance(lm, RemoteTeacher):
            check_head(lm)
    return Models(student, teacher, vocabulary, teacher_dialogue(student, teacher), reference)


@dataclass(frozen=True, slots=True)
class Scored:
    """The teacher pass of a batch, micro-batch by micro-batch.

    groups: the episodes of each micro-batch. passes: the teacher at them. stats: per episode the statistics
    of each turn (float64, CPU), NaN where the teacher was not asked. teacher_tokens: through the scoring
    pass.
    """

    groups: list[list[TrainingEpisode]]
    passes: list[list[TeacherPass]]
    stats: list[list[list[TokenStats]]]
    teacher_tokens: int


def score_batch(
    models: Models,
    confidence: Confidence,
    batch: Sequence[TrainingEpisode],
    *,
    micro_batch: int,
    only_supervised: bool = False,
    with_student: bool = False,
    states: Mapping[int, Tensor] | None = None,
) -> Scored:
    """Ask the teacher about every turn (or only those of weight > 0), and start `scores` of each episode.

    `with_student`, or a confidence that `needs_student`, adds one forward pass of the student without a
    gradient. states: what the teacher has read already, by `id` of the episode, at all of its student tokens.
    Raises OutOfMemory where a pass does not fit, and NotFinite where its logits are no numbers.
    """
    with_student = with_student or confidence.needs_student
    groups = groups_of(batch, micro_batch, models)
    with phase("teacher"):
        if isinstance(models.teacher, RemoteTeacher):
            _prepare(models.teacher, models.dialogue, groups, only_supervised)
        expect(len(batch), "episodes")
    passes, stats = [], []
    way = smaller_passes(micro_batch)
    teacher_tokens = 0
    for group in groups:
        turns = [_turns_to_score(sample, only_supervised) for sample in group]
        with phase("teacher"), memory_for("the teacher's scoring pass", way):
            views = [_view(sample.episode, models, states) for sample in group]
            done = score(
                models.teacher,
                views,
                turns,
                vocabulary=models.vocabulary,
                temperature=confidence.teacher_temperature,
                read=confidence.read,
                likeliest=[likeliest_wanted(sample) for sample in group],
                chunk=models.passes.chunking.most,
            )
            tokens = sum(max(v.positions(t), default=-1) + 1 for v, t in zip(views, turns, strict=True))
            did(len(group), tokens=tokens)
        teacher_tokens += tokens
        students: Sequence[TeacherPass | None] = [None] * len(group)
        if with_student:
            with phase("student"), memory_for("the student's scoring pass", way):
                students = score(
                    models.student,
                    [own_view(sample.episode) for sample in group],
                    turns,
                    vocabulary=models.vocabulary,
                    temperature=1.0,
                    chunk=models.passes.chunking.most,
                )
        passes.append(done)
        stats.append([_by_turn(*three) for three in zip(group, done, students, strict=True)])
        for sample, of_teacher in zip(group, done, strict=True):
            note_teacher(sample, of_teacher.stats, models.student.tokenizer)
    return Scored(groups, passes, stats, teacher_tokens)


def _view(episode: Episode, models: Models, states: Mapping[int, Tensor] | None) -> View:
    """What the teacher reads, with what it has read."""
    view = teacher_view(episode, models.dialogue)
    spoilt = tuple(bool(turn.teacher_spoilt) for turn in episode.turns)
    return replace(view, spoilt=spoilt, read_TE=None if states is None else states[id(episode)])


def _prepare(
    teacher: RemoteTeacher,
    dialogue: Dialogue | None,
    groups: Sequence[Sequence[TrainingEpisode]],
    only_supervised: bool,
) -> None:
    """Have a teacher elsewhere read all micro-batches side by side, each as it will be asked for."""
    parts = []
    for group in groups:
        views: list[View] = [teacher_view(sample.episode, dialogue) for sample in group]
        turns = [_turns_to_score(sample, only_supervised) for sample in group]
        asked = [view.positions(chosen) for view, chosen in zip(views, turns, strict=True)]
        parts.append(Part.of([view.ids for view in views], asked))
    teacher.prepare(parts)


def groups_of(
    batch: Sequence[TrainingEpisode], micro_batch: int, models: Models
) -> list[list[TrainingEpisode]]:
    """Episodes of similar length together, so that little is padded: `micro_batch` of them, or where the
    student packs as many as have the tokens of `micro_batch` longest ones."""
    ordered = sorted(batch, key=lambda sample: len(sample.episode.token_ids), reverse=True)
    if not ordered or not models.student.packs:
        return [ordered[i : i + micro_batch] for i in range(0, len(ordered), micro_batch)]
    most = models.passes.tokens or micro_batch * len(ordered[0].episode.token_ids)
    # A model that pads them, as one elsewhere does, holds a rectangle, which may not be much more.
    others = [lm for lm in (models.teacher, models.reference) if lm is not None]
    all_pack = all(isinstance(lm, LanguageModel) and lm.packs for lm in others)
    return _filled(ordered, most, padded=None if all_pack else 2 * most)


def _filled(
    ordered: Sequence[TrainingEpisode], most: int, *, padded: int | None
) -> list[list[TrainingEpisode]]:
    """Groups of at most `most` tokens, and `padded` as a rectangle (None: any), or of one episode; the
    longest first."""
    groups: list[list[TrainingEpisode]] = [[ordered[0]]]
    for sample in ordered[1:]:
        group = groups[-1]
        tokens = sum(len(other.episode.token_ids) for other in (*group, sample))
        rectangle = (len(group) + 1) * len(group[0].episode.token_ids)
        if tokens > most or (padded is not None and rectangle > padded):
            groups.append([])
        groups[-1].append(sample)
    return groups


def lengths_of(sample: TrainingEpisode) -> list[int]:
    return [turn.n_tokens for turn in sample.episode.turns]


def _turns_to_score(sample: TrainingEpisode, only_supervised: bool) -> list[int]:
    """Indices of the turns that the models are asked about."""
    if not only_supervised:
        return list(range(len(sample.episode.turns)))
    return [t for t, decision in enumerate(sample.decisions) if decision.weight > 0]


def _by_turn(sample: TrainingEpisode, teacher: TeacherPass, student: TeacherPass | None) -> list[TokenStats]:
    """The statistics of each turn; their means become the episode's turn scores."""
    lengths = lengths_of(sample)

    def split(stats: TokenStats) -> list[TokenStats]:
        columns = [x.cpu().double() for x in (stats.top1_T, stats.entropy_T, stats.logprob_T, stats.signal_T)]
        return [TokenStats(*parts) for parts in zip(*(c.split(lengths) for c in columns), strict=True)]

    turns = split(teacher.stats)
    if student is not None:
        turns = [
            replace(own, student_logprob_T=other.logprob_T, student_entropy_T=other.entropy_T)
            for own, other in zip(turns, split(student.stats), strict=True)
        ]
    sample.scores = [
        TurnScore(
            top1=mean_of(stats.top1_T),
            teacher_entropy=mean_of(stats.entropy_T),
            teacher_logprob=mean_of(stats.logprob_T),
            student_logprob=None if student is None else mean_of(stats.student_logprob_T),
            student_entropy=None if student is None else mean_of(stats.student_entropy_T),
        )
        for stats in turns
    ]
    return turns


def mean_of(values_T: Tensor | None) -> float | None:
    """Mean over the tokens that have a value; None where none has."""
    mean = float(values_T.nanmean()) if values_T is not None and len(values_T) else math.nan
    return None if math.isnan(mean) else mean
