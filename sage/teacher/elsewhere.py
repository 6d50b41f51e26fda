"""A teacher that lives elsewhere: what the student's process knows of it, and what it may ask.

The scoring pass asks for *states*, one vector per student token, and makes distributions of them with the
teacher's head, a chunk at a time. For a local model these are hidden states and its vocabulary projection
(`sage.teacher.score`); an exact teacher elsewhere sends hidden states, a server its likeliest tokens.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

from sage.errors import ConfigError
from sage.policy.models.chat_format import chat_format
from sage.policy.models.layers import reach
from sage.records.atomic import write_atomic
from sage.records.files import Unreadable, read_object

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from sage.objective.chunked import Projection
    from sage.policy.decoding.generate import Reply
    from sage.policy.models.load import LanguageModel
    from sage.policy.models.shape import Shape


class Part(NamedTuple):
    """What is read in one rectangle: sequences of ids, and the positions of each that are asked about."""

    sequences: tuple[tuple[int, ...], ...]
    positions: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]) -> Part:
        return cls(tuple(map(tuple, sequences)), tuple(map(tuple, positions)))

    @property
    def asks(self) -> bool:
        """Whether it asks about anything."""
        return any(self.positions)


class RemoteTeacher(ABC):
    """Base class. Its tokenizer is here; `digest` stands for its weights, which are not.

    name: what sentences call it. device: where its states arrive. reach: most tokens of a sequence.
    """

    name: str
    digest: str
    tokenizer: PreTrainedTokenizerBase
    thinking: bool
    device: torch.device
    reach: int | None
    record: ClassVar[str]
    """File of a run's attempt that keeps what it said of itself when the run began."""
    left_out: str = ""
    """Part of its weights that is not used, in a sentence; what a server leaves out is its own business."""

    @cached_property
    def vocabulary(self) -> int:
        """Ids that the tokenizer has: 0 to this."""
        return max(self.tokenizer.get_vocab().values()) + 1

    @property
    def end_ids(self) -> frozenset[int]:
        """Ids that end a reply: what closes one in the chat template, and the tokenizer's own."""
        ids = set(chat_format(self.tokenizer, self.thinking).end_ids)
        if self.tokenizer.eos_token_id is not None:
            ids.add(int(self.tokenizer.eos_token_id))
        return frozenset(ids)

    @abstractmethod
    def head(self) -> Projection:
        """What makes logits of `states`."""

    @abstractmethod
    def shape(self) -> Shape:
        """What of it is here, for the plan of memory."""

    @abstractmethod
    def prepare(self, parts: Sequence[Part]) -> None:
        """All that `states` will be asked in this batch, call by call: it is fetched side by side. Raises
        RunFailure where the teacher cannot be reached."""

    @abstractmethod
    def states(self, sequences: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]) -> Tensor:
        """[T, E] at `positions[b]` of `sequences[b]`, in order, as `sage.policy.hidden.hidden_states`."""

    @abstractmethod
    def reply(
        self,
        prompts: Sequence[list[int]],
        messages: Sequence[tuple[str, str]],
        max_new_tokens: int,
        stop: str | None,
    ) -> list[Reply]:
        """One greedy reply to each prompt; order is kept. messages: the same as (system, user). `stop` as in
        `Sampling`."""

    def facts(self) -> Mapping[str, object]:
        """What provenance says of it."""
        return {}

    @abstractmethod
    def lasting(self) -> Mapping[str, object]:
        """What a resumed run has to find again."""

    @abstractmethod
    def unlike(self, before: Mapping[str, Any]) -> str:
        """How it differs from the one whose `lasting` was `before`, in a clause; empty where it does not."""

    def same_as_before(self, folder: Path) -> None:
        """Compare it with what the attempt in `folder` says of the teacher that it began with, or write that.

        Raises ConfigError where a resumed run would go on with another teacher.
        """
        file = folder / self.record
        try:
            before = read_object(file)
        except Unreadable as error:
            raise ConfigError(f"{error} It says which teacher the run began with.") from error
        if before is None:
            write_atomic(file, json.dumps(dict(self.lasting())))
        elif difference := self.unlike(before):
            raise ConfigError(f"{difference}; start the first one, or use launch.on_existing=rerun.")

    @abstractmethod
    def close(self) -> None:
        """Let it go."""


def reach_of(teacher: Teacher) -> int | None:
    """Tokens of the longest sequence that it reads; None without a limit."""
    return teacher.reach if isinstance(teacher, RemoteTeacher) else reach(teacher)


Teacher: TypeAlias = "LanguageModel | RemoteTeacher"
"""In this process, or elsewhere."""
