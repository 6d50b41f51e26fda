"""A teacher that is spoilt on purpose, on turns that are known: a world in which selecting turns must help.

    teacher.spoil=0.5 teacher.spoil_turns=after_mistake teacher.spoil_with=untrained

On a spoilt turn the logits that the student learns from, and that the confidence reads, are
(1 − dose) · the teacher's + dose · another's: those of the same architecture with random weights, or the
teacher's own of shuffled words, which are as confident and mean nothing. What the teacher judges, and on all
other turns what it scores, is untouched to the bit. Which turns are spoilt does not depend on the dose.

Shape suffixes: C tokens of a chunk, T of an episode, E teacher width, V vocabulary.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from sage.episode import Effect, Episode, Failure, Turn, effect_of
from sage.objective.chunked import Head
from sage.policy.models.hidden_states import head, hidden_states
from sage.policy.models.load import LanguageModel

if TYPE_CHECKING:
    from sage.config.schema import TeacherSettings


def is_mistake(turn: Turn) -> bool:
    """Whether the turn could not be executed, or led away from the goal by the environment's expert (where it
    has none, only the former is seen)."""
    harm = effect_of(turn.expert_distance_before, turn.expert_distance_after) is Effect.HARM
    return turn.failure is not Failure.NONE or harm


def mark(episodes: Sequence[Episode], step: int, *, settings: TeacherSettings, seed: int) -> None:
    """Say of every turn whether the teacher is spoilt there (`Turn.teacher_spoilt`); nothing where
    `settings.spoil` is null. `drawn` depends on (seed, step, task, rollout, turn) alone."""
    if settings.spoil is None:
        return
    for episode in episodes:
        before: list[Turn] = list(episode.given)
        for turn in episode.turns:
            if settings.spoil_turns == "drawn":
                key = (seed, "spoil", step, episode.task.id, episode.rollout_index, turn.index)
                drawn = random.Random("/".join(map(str, key))).random()
                turn.teacher_spoilt = drawn < settings.spoil_share
            elif settings.spoil_turns == "after_mistake":
                turn.teacher_spoilt = bool(before) and is_mistake(before[-1])
            else:
                turn.teacher_spoilt = any(map(is_mistake, before))
            before.append(turn)


@lru_cache(maxsize=4)
def shuffled_words(vocabulary: int, seed: int) -> Tensor:
    """Which word's logit stands in the place of each, order_V: a permutation."""
    return torch.randperm(vocabulary, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True, slots=True)
class SpoiltHead:
    """The projection of states [C, E + F + 1]: the teacher's, the other model's (F = 0 where words are
    shuffled), and whether the token is spoilt."""

    own: Head
    other: Head | None
    """None: the teacher's own logits, of shuffled words."""
    dose: float
    seed: int
    whole: ClassVar[bool] = True

    @property
    def rows(self) -> int:
        return self.own.rows

    def logits(self, hidden_CD: Tensor, vocabulary: int) -> Tensor:
        """Logits [C, V], at least in float32; always a fresh tensor."""
        width = self.own.weight_VD.shape[1]
        logits_CV = self.own.logits(hidden_CD[:, :width], vocabulary)
        spoilt_C = hidden_CD[:, -1] != 0
        if not bool(spoilt_C.any()):
            return logits_CV
        own_SV = logits_CV[spoilt_C]
        if self.other is None:
            other_SV = own_SV[:, shuffled_words(vocabulary, self.seed).to(own_SV.device)]
        else:
            other_SV = self.other.logits(hidden_CD[spoilt_C][:, width:-1], vocabulary)
        logits_CV[spoilt_C] = (1 - self.dose) * own_SV + self.dose * other_SV
        return logits_CV

    def known(self, hidden_CD: Tensor, vocabulary: int) -> Tensor:
        """All of them, [C]."""
        return self.own.known(hidden_CD, vocabulary)


@dataclass
class SpoiltTeacher(LanguageModel):
    """A teacher in this process that says something else on spoilt turns. It plays and judges as it would.

    other: the model with random weights; None where words are shuffled.
    """

    dose: float = 0.0
    seed: int = 0
    other: LanguageModel | None = None

    @classmethod
    def of(cls, teacher: LanguageModel, settings: TeacherSettings, seed: int) -> LanguageModel:
        """`teacher` as `settings` spoil it; itself at dose 0, where nothing is changed."""
        if not settings.spoil:
            return teacher
        own = {field.name: getattr(teacher, field.name) for field in fields(teacher)}
        other = untrained(teacher, seed) if settings.spoil_with == "untrained" else None
        return cls(**own, dose=settings.spoil, seed=seed, other=other)

    def head(self) -> SpoiltHead:
        """What makes logits of `states`."""
        return SpoiltHead(head(self), head(self.other) if self.other else None, self.dose, self.seed)

    @torch.no_grad()
    def states(
        self,
        own_TE: Tensor,
        sequences: Sequence[Sequence[int]],
        positions: Sequence[Sequence[int]],
        spoilt_T: Tensor,
    ) -> Tensor:
        """`own_TE`, what the teacher has at `positions[b]` of `sequences[b]`, with what its head needs."""
        parts = [own_TE]
        if self.other is not None:
            flags = spoilt_T.split([len(chosen) for chosen in positions])
            chosen = [
                [position for position, is_spoilt in zip(row, of_row.tolist(), strict=True) if is_spoilt]
                for row, of_row in zip(positions, flags, strict=True)
            ]
            other_TF = own_TE.new_zeros(len(own_TE), self.other.model.get_output_embeddings().weight.shape[1])
            if any(chosen):
                other = replace(self.other, packs=self.packs)
                other_TF[spoilt_T.to(own_TE.device)] = hidden_states(other, sequences, chosen)
            parts.append(other_TF)
        parts.append(spoilt_T.to(own_TE).unsqueeze(1))
        return torch.cat(parts, dim=1)


def untrained(model: LanguageModel, seed: int) -> LanguageModel:
    """The same architecture with weights that nobody has trained, drawn from `seed`."""
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(model.model.config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = AutoModelForCausalLM.from_config(config, attn_implementation=config._attn_implementation)
    drawn = drawn.to(device=model.device, dtype=model.model.dtype).eval().requires_grad_(False)
    return LanguageModel(
        drawn, model.tokenizer, f"{model.name} untrained", f"untrained-{seed}", model.device, model.thinking
    )
