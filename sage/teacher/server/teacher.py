"""`teacher=server`: the teacher that a vLLM or SGLang server holds, as scoring pass and judge see it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sage.errors import NotFinite
from sage.policy.decoding.generate import Answer, Reply
from sage.policy.models.shape import HeadShape, head_shape
from sage.records.activity import did, expect
from sage.teacher.elsewhere import Part, RemoteTeacher
from sage.teacher.server.ask import LARGE, SMALL, Asker, Patience, Refused, TeacherLost
from sage.teacher.server.cache import ScoreFile
from sage.teacher.server.head import LikeliestHead, states_of
from sage.teacher.server.identity import PROBE, Probe, StillTheSame, check_tokenizer, probe, who_serves
from sage.teacher.server.protocol import (
    BadReply,
    Likeliest,
    chat_request,
    read_chat,
    read_replies,
    read_scores,
    replying_request,
    scoring_request,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sage.config.server import ServerSettings

_PER_ENTRY = 400
"""Most bytes of one token's entry in an answer: its id, log-probability, rank, and its text with escapes."""

Row = tuple[tuple[int, ...], tuple[int, ...]]
"""A sequence, cut behind the last token that is asked about, and the positions that are."""


class ServedTeacher(RemoteTeacher):
    """Opened by `open_teacher`. k: likeliest tokens that are asked for at each position."""

    record = "teacher_server.json"

    def __init__(
        self,
        settings: ServerSettings,
        asker: Asker,
        still: StillTheSame,
        tokenizer: PreTrainedTokenizerBase,
        thinking: bool,
        k: int,
    ) -> None:
        self.settings, self.asker, self.still, self.k = settings, asker, still, k
        self.served = still.served
        self.tokenizer, self.thinking = tokenizer, thinking
        self.name = f"{self.served.model} at {asker.shown}"
        self.digest = _digest(self.served.identity, tokenizer)
        self.device = torch.device("cpu")
        # One place is for the token that vLLM samples after a prompt.
        self.reach = None if self.served.reach is None else self.served.reach - 1
        self.cached = 0
        """Sequences whose scores came from the cache file."""
        self._file = (
            ScoreFile(Path(settings.cache).expanduser(), self.served, still.first) if settings.cache else None
        )
        self._ready: dict[Row, Likeliest] = {}

    def head(self) -> LikeliestHead:
        return LikeliestHead(self.vocabulary)

    def shape(self) -> HeadShape:
        return head_shape(self.vocabulary, 2 * self.k + 2, 4, kept=False)

    def facts(self) -> Mapping[str, object]:
        return {**self.served.to_json(), "address": self.asker.shown, "likeliest": self.k}

    def lasting(self) -> Mapping[str, object]:
        first = self.still.first
        return {"served": self.served.to_json(), "probe": [first.ids, first.top1, first.chosen]}

    def unlike(self, before: Mapping[str, Any]) -> str:
        model, difference = before["served"]["model"], Probe(*before["probe"]).differs(self.still.first)
        if model == self.served.model and not difference:
            return ""
        more = f" ({difference})" if difference else ""
        return f"The run began with the teacher {model!r} and the server has {self.served.model!r}{more}"

    def prepare(self, parts: Sequence[Part]) -> None:
        """Ask about all of them, `batch` in a request and `concurrency` requests at a time."""
        self.still()
        asked = (pair for part in parts for pair in zip(part.sequences, part.positions, strict=True))
        rows = list(dict.fromkeys(_row(ids, at) for ids, at in asked if at))
        self._ready.clear()
        missing = []
        for row in rows:
            kept = self._file.get(*row, self.k) if self._file else None
            if kept is None:
                missing.append(row)
            else:
                self._ready[row] = kept
                self.cached += 1
        missing.sort(key=lambda row: len(row[0]))  # neighbours of one length make even requests
        size = self.settings.batch
        requests = [missing[i : i + size] for i in range(0, len(missing), size)]
        expect(len(missing), "sequences")
        for request, found in zip(requests, self.asker.all(self._score, requests), strict=True):
            for row, known in zip(request, found, strict=True):
                self._ready[row] = known
                if self._file:
                    self._file.put(*row, self.k, known)

    def states(self, sequences: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]) -> Tensor:
        rows = [_row(ids, at) for ids, at in zip(sequences, positions, strict=True) if at]
        if any(row not in self._ready for row in rows):
            self.prepare([Part.of(sequences, positions)])
        parts = [
            states_of(self._ready[ids, at], np.array([ids[position + 1] for position in at]))
            for ids, at in rows
        ]
        return torch.cat(parts) if parts else torch.zeros(0, 2 * self.k + 2, dtype=torch.float64)

    def reply(
        self,
        prompts: Sequence[list[int]],
        messages: Sequence[tuple[str, str]],
        max_new_tokens: int,
        stop: str | None,
    ) -> list[Reply]:
        pattern = re.compile(stop) if stop else None

        def one(index: int) -> Reply:
            prompt = prompts[index]
            if self.settings.judge == "chat":
                told = self._chat(prompt, messages[index], max_new_tokens)
                did(1, tokens=len(prompt) + len(told.ids))
                return told
            path, body = replying_request(
                self.served.engine, self.served.model, [prompt], max_new_tokens, sorted(self.end_ids)
            )
            (said,) = self._usable(
                lambda: read_replies(
                    self.served.engine, self._ask(path, body, len(prompt) + max_new_tokens), 1
                )
            )
            answer = Answer(self.tokenizer, self.end_ids, pattern, max_new_tokens)
            for token in said.ids or ():
                if not answer.live:
                    break
                answer.add(token)
            did(1, tokens=len(prompt) + len(answer.ids))
            return answer.reply()

        return self.asker.all(one, range(len(prompts)))

    def close(self) -> None:
        self.asker.close()
        if self._file:
            self._file.close()

    def _score(self, rows: Sequence[Row]) -> list[Likeliest]:
        engine, k = self.served.engine, self.k
        ids = [row for row, _ in rows]
        path, body = scoring_request(engine, self.served.model, ids, k)
        tokens = sum(len(row) + 1 for row in ids)
        answer = self._ask(path, body, tokens, SMALL + tokens * (k + 2) * _PER_ENTRY)
        did(len(rows), tokens=tokens)
        return self._usable(lambda: read_scores(engine, answer, ids, [at for _, at in rows], k))

    def _chat(self, prompt: list[int], messages: tuple[str, str], max_new_tokens: int) -> Reply:
        system, user = messages
        said = [{"role": "system", "content": system}] if system else []
        path, body = chat_request(
            self.served.model, [*said, {"role": "user", "content": user}], max_new_tokens, self.thinking
        )
        answer = self._ask(path, body, len(prompt) + max_new_tokens)
        reply, _ = self._usable(lambda: read_chat(answer))
        ids = self.tokenizer(reply.text, add_special_tokens=False)["input_ids"]
        return Reply(list(ids), reply.text, reply.cut)

    def _ask(self, path: str, body: Any, tokens: int, max_bytes: int = SMALL) -> Any:
        try:
            answer = self.asker.ask(path, body, tokens=tokens, max_bytes=min(max_bytes, LARGE))
        except Refused as error:
            raise TeacherLost(
                f"The teacher's server {self.asker.shown} refuses a question ({error}); mend it there, and"
                " the same line goes on from the newest checkpoint."
            ) from error
        named = answer.get("model") if isinstance(answer, dict) else None
        if named is not None and named != self.served.model:
            raise TeacherLost(
                f"The teacher's server {self.asker.shown} answers for the model {str(named)[:60]!r}, not for "
                f"{self.served.model!r}; start that one again, and the same line goes on from the newest "
                "checkpoint."
            )
        return answer

    def _usable(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except BadReply as error:
            kind = NotFinite if "−inf" in str(error) else TeacherLost
            raise kind(
                f"The teacher's server {self.asker.shown} gives {error}: it is of no use as it is; mend it,"
                " and the same line goes on from the newest checkpoint."
            ) from error


def open_teacher(
    settings: ServerSettings,
    tokenizer: PreTrainedTokenizerBase,
    *,
    path: str,
    thinking: bool,
    k: int,
    say: Callable[[str], None] = lambda line: None,
) -> ServedTeacher:
    """The teacher at `settings.address`, which has been asked what it is.

    path: where `tokenizer` is from. k: likeliest tokens that the run needs, at least 1. Raises ConfigError or
    ModelError where the server is another than the settings say or cannot be used, TeacherLost where it does
    not answer.
    """
    asker = Asker(
        settings.address,
        Patience(settings.deadline_s, settings.patience_s, settings.wait_s, settings.retries),
        concurrency=settings.concurrency,
        key=os.environ.get(settings.key_env) if settings.key_env else None,
        token_budget=settings.token_budget,
        say=say,
    )
    try:
        served = who_serves(asker, settings.model)
        check_tokenizer(asker, served, tokenizer, path)
        ids = list(tokenizer(PROBE, add_special_tokens=False)["input_ids"])
        first = probe(asker, served, ids)
        still = asker.verify = StillTheSame(asker, served, ids, first)
        return ServedTeacher(settings, asker, still, tokenizer, thinking, max(1, k))
    except BaseException:
        asker.close()
        raise


def _row(ids: Sequence[int], positions: Sequence[int]) -> Row:
    """What has to be read: up to the token that the last asked position predicts."""
    return tuple(ids[: max(positions) + 2]), tuple(positions)


def _digest(identity: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Stands for the served weights, which cannot be read: what the server says of itself, and the ids."""
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()), ensure_ascii=False)
    return hashlib.sha256(f"served\x1f{identity}\x1f{vocabulary}".encode()).hexdigest()
