"""`teacher=ray`: the teacher that actors of a Ray cluster hold, as scoring pass and judge see it.

Exact: an actor reads the very rectangle of ids that a teacher in this process would read, and its hidden
states meet the same head here. The questions of a batch go round the replicas and are answered side by side;
Ray asks a restarted actor again what was under way when it died.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sage.errors import ConfigError, ModelError, TeacherLost, short_reason
from sage.objective.chunked import Head
from sage.policy.decoding.answer import Reply
from sage.policy.models.folder import device_of
from sage.policy.models.shape import HeadShape, head_shape
from sage.records.activity import did
from sage.teacher.elsewhere import Part, RemoteTeacher
from sage.teacher.ray.cluster import LOOK, connect, listening, replicas
from sage.teacher.ray.identity import Identity, check
from sage.teacher.ray.wire import Answered, Failed, unpack

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sage.config.schema import SpeedSettings, TeacherSettings

_PIECE = 32 << 20
"""Bytes of the head that are fetched at a time: the cluster's shared memory need not hold it whole."""
_LOOK_S = 5.0
"""An answer is waited for so long before the cluster is looked at."""
_GONE = 4
"""Looks in a row that find nobody, and the cluster is gone."""
GO_ON = "the same line goes on from the newest checkpoint"


class Actors:
    """The replicas of one teacher, asked in turn."""

    def __init__(self, ray: Any, name: str, patience_s: float) -> None:
        self.ray, self.name, self.patience_s = ray, name, patience_s
        self.address = str(ray.get_runtime_context().gcs_address)
        self._handles = replicas(ray, name)
        # Runs and ranks begin at different ones.
        self._next = os.getpid() % len(self._handles)

    def __len__(self) -> int:
        return len(self._handles)

    def ask(self, method: str, *arguments: object) -> Any:
        """A reference to the answer of the next replica."""
        self._next = (self._next + 1) % len(self._handles)
        return getattr(self._handles[self._next], method).remote(*arguments)

    def identities(self) -> list[Identity]:
        """What each says of itself. Raises ModelError with the sentence of one that could not be loaded,
        TeacherLost where one does not answer."""
        asked = [handle.identity.options(concurrency_group=LOOK).remote() for handle in self._handles]
        said = [self.wait(reference) for reference in asked]
        for one in said:
            if isinstance(one, Failed):
                raise ModelError(f"The teacher {self.name!r} on Ray could not be loaded: {one.reason}")
        return said

    def wait(self, reference: Any) -> Any:
        """The answer. Raises TeacherLost where there is none within `patience_s`, its actor is gone for good,
        or the cluster is."""
        errors = self.ray.exceptions
        ends, gone = time.monotonic() + self.patience_s, 0
        try:
            while True:
                left = ends - time.monotonic()
                try:
                    return self.ray.get(reference, timeout=max(0.0, min(left, _LOOK_S)))
                except errors.GetTimeoutError as error:
                    if left <= _LOOK_S:
                        raise TeacherLost(
                            f"The teacher {self.name!r} on Ray has not answered within "
                            f"teacher.ray.patience_s={self.patience_s:g}; look at python -m sage teacher "
                            f"status, and {GO_ON}."
                        ) from error
                    gone = 0 if listening(self.address) else gone + 1
                    if gone >= _GONE:
                        raise TeacherLost(
                            f"The Ray cluster at {self.address} does not listen any more; start it and the "
                            f"teacher on it again, and {GO_ON}."
                        ) from error
        except (errors.RayError, ConnectionError) as error:
            raise TeacherLost(
                f"The teacher {self.name!r} on Ray is lost ({type(error).__name__}: {short_reason(error)}); "
                f"start it again (python -m sage teacher start), and {GO_ON}."
            ) from error


class RayTeacher(RemoteTeacher):
    """Opened by `open_teacher`. how: what its replies are made with (`batch`, `engine`, `draft_tokens`)."""

    record = "teacher_ray.json"

    def __init__(
        self,
        actors: Actors,
        identity: Identity,
        settings: TeacherSettings,
        tokenizer: PreTrainedTokenizerBase,
        how: Mapping[str, Any],
    ) -> None:
        assert settings.ray is not None
        self.actors, self.identity, self.tokenizer, self._how = actors, identity, tokenizer, dict(how)
        self.thinking = settings.thinking
        self.name = f"{settings.path} on Ray"
        self.digest, self.reach, self.left_out = identity.digest, identity.reach, identity.left_out
        self.device = device_of(settings.device)
        self._dtype = None if settings.ray.transfer == "as_is" else settings.ray.transfer
        self._model_dtype: torch.dtype = getattr(torch, settings.dtype)
        self._head = self._fetch_head()
        self._asked: dict[Part, Any] = {}

    def head(self) -> Head:
        return self._head

    def shape(self) -> HeadShape:
        return head_shape(self.identity.rows, self.identity.width, self._model_dtype.itemsize)

    def facts(self) -> Mapping[str, object]:
        return {**self.identity.to_json(), "name": self.actors.name, "replicas": len(self.actors)}

    def lasting(self) -> Mapping[str, object]:
        return self.facts()

    def unlike(self, before: Mapping[str, Any]) -> str:
        if before["digest"] == self.digest:
            return ""
        return (
            f"The run began with a teacher of the digest {before['digest'][:16]}… and {self.actors.name!r} on"
            f" Ray has {self.digest[:16]}…"
        )

    def prepare(self, parts: Sequence[Part]) -> None:
        self._asked = {}
        for part in parts:
            if part.asks and part not in self._asked:
                self._asked[part] = self._ask(part)

    def states(self, sequences: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]) -> Tensor:
        part = Part.of(sequences, positions)
        if not part.asks:
            return torch.zeros(0, self.identity.width, dtype=self._model_dtype, device=self.device)
        reference = self._asked.pop(part, None)
        hidden_TD = unpack(self._answer(reference if reference is not None else self._ask(part)))
        return hidden_TD.to(self.device, self._model_dtype)

    def reply(
        self,
        prompts: Sequence[list[int]],
        messages: Sequence[tuple[str, str]],
        max_new_tokens: int,
        stop: str | None,
    ) -> list[Reply]:
        """One replica gets all prompts, several get `batch` at a time."""
        size = len(prompts) if len(self.actors) == 1 else int(self._how["batch"])
        parts = [list(prompts[i : i + size]) for i in range(0, len(prompts), max(1, size))]
        asked = [self.actors.ask("reply", part, max_new_tokens, stop, self._how) for part in parts]
        replies: list[Reply] = []
        for part, reference in zip(parts, asked, strict=True):
            new = [Reply(*said) for said in self._answer(reference)]
            did(len(part), tokens=sum(map(len, part)) + sum(len(reply.ids) for reply in new))
            replies += new
        return replies

    def close(self) -> None:
        """Leave the cluster; the actors stay."""
        self._asked = {}
        self.actors.ray.shutdown()

    def _ask(self, part: Part) -> Any:
        pairs = zip(part.sequences, part.positions, strict=True)
        rows = [ids[: max(at, default=-1) + 1] for ids, at in pairs]
        return self.actors.ask("states", rows, part.positions, self._dtype)

    def _answer(self, reference: Any) -> Any:
        """The content of an answer. Raises TeacherLost, and as a model in this process would MemoryError or
        RuntimeError."""
        said = self.actors.wait(reference)
        if isinstance(said, Answered):
            if said.digest != self.digest:
                raise TeacherLost(
                    f"The teacher {self.actors.name!r} on Ray has other weights than at the start (digest "
                    f"{said.digest[:16]}… for {self.digest[:16]}…); start the first ones again, and {GO_ON}."
                )
            return said.content
        assert isinstance(said, Failed)
        if said.kind == "memory":
            raise MemoryError(f"on the teacher's actor: {said.reason}")
        if said.kind == "refused":
            raise TeacherLost(f"The teacher {self.actors.name!r} on Ray cannot be used: {said.reason}")
        raise RuntimeError(f"on the teacher's actor: {said.reason}")

    def _fetch_head(self) -> Head:
        rows, width = self.identity.rows, self.identity.width
        dtype, device = self._model_dtype, self.device
        weight_VD = torch.empty(rows, width, dtype=dtype, device=device)
        bias_V = torch.empty(rows, dtype=dtype, device=device) if self.identity.bias else None
        step = max(1, _PIECE // (width * dtype.itemsize))
        for start in range(0, rows, step):
            weight, bias = self._answer(self.actors.ask("head", start, min(rows, start + step)))
            weight_VD[start : start + step] = unpack(weight).to(device)
            if bias_V is not None:
                bias_V[start : start + step] = unpack(bias).to(device)
        return Head(weight_VD, bias_V)


def open_teacher(
    settings: TeacherSettings, tokenizer: PreTrainedTokenizerBase, speed: SpeedSettings
) -> RayTeacher:
    """The teacher that `settings.ray` names, which has said what it is.

    Raises ConfigError where there is no cluster, no such teacher, or another one than the settings say,
    ModelError where its actors could not load it, TeacherLost where they do not answer.
    """
    assert settings.ray is not None
    ray = connect(settings.ray.address)
    try:
        actors = Actors(ray, settings.ray.name, settings.ray.patience_s)
        said = actors.identities()
        for one in said:
            check(one, settings, tokenizer)
            if one.digest != said[0].digest:
                raise ConfigError(
                    f"The replicas of the teacher {settings.ray.name!r} on Ray have different weights"
                    f" (digests {said[0].digest[:16]}… and {one.digest[:16]}…); stop it and start it again."
                )
        how = {"batch": speed.judge_batch, "engine": speed.engine, "draft_tokens": speed.draft_tokens}
        return RayTeacher(actors, said[0], settings, tokenizer, how)
    except BaseException:
        ray.shutdown()
        raise
