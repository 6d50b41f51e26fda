"""Ask the teacher about a turn: build the query, decode greedily, read one of three words, remember it.

A query depends on what the agent saw and did, never on batch mates; equal queries are asked once, within a
batch, within a run (memory) and, with a cache file, across runs of the same teacher weights. The teacher can
be asked about turns while others are still played (`begin`).

Where the teacher fails on a batch, its queries are asked again in smaller ones. A query that fails alone has
no reply: neither a label nor FALLBACK, but a JudgeFailure that names its episode.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sage.config.prompt_texts import PromptStyle
from sage.objective.intervention.base import JudgeFailure, JudgeQuery, JudgeReply, TurnContext
from sage.policy.decoding.answer import Reply
from sage.policy.decoding.engine import EngineName
from sage.policy.decoding.generate import reply
from sage.policy.dialogue import Dialogue
from sage.policy.models.failures import OURS, Patience, failure_of, free_memory, without_frames
from sage.records.activity import counted_as, expect
from sage.teacher.elsewhere import RemoteTeacher, Teacher, reach_of
from sage.teacher.prefetch import Prefetch
from sage.teacher.question import judge_message
from sage.teacher.reading import ends_thinking, opens_thinking, parse_reply
from sage.teacher.replies import Known, ReplyFile

CACHE_VERSION = 1
"""Version of the cache key: sha256 of the JSON of (this, teacher's weight digest, prompt ids, token limit).
It leaves out library versions and hardware, whose rounding may turn a close call."""


class _Answered(NamedTuple):
    new: dict[str, Known]
    seconds: float
    """Share of each query."""
    failed: dict[str, str]
    """Why the model could not be run on a query."""


class TeacherJudge:
    """The `ask` of an intervention rule, answered by the teacher.

    `query` comes from the rule (`Intervention.query`); `cache_file` keeps raw replies across runs.
    """

    shorter = "shorten the style's `judge`, or its `admissible`"
    """The way out where a query is longer than the teacher reaches."""

    def __init__(
        self,
        lm: Teacher,
        style: PromptStyle,
        query: JudgeQuery,
        *,
        batch: int = 64,
        cache_file: Path | None = None,
        engine: EngineName = "auto",
        draft_tokens: int = 10,
    ) -> None:
        self.lm, self.style, self.query, self.batch, self.engine = lm, style, query, batch, engine
        self.draft_tokens = draft_tokens
        self.queries = 0
        """Queries that reached the model."""
        self.cached = 0
        """Queries that did not."""
        self.tokens = 0
        """Prompt and reply tokens of the queries that reached the model."""
        self._dialogue = Dialogue(lm.tokenizer, lm.thinking)
        self._memory: dict[str, Known] = {}
        self._unpaid: dict[str, float] = {}
        """Seconds of the replies in memory that no turn has been given yet."""
        self._prefetched: Prefetch[_Answered] = Prefetch()
        self._waiting: dict[str, list[int]] = {}
        """Prompts of turns that were begun and do not fill a batch yet."""
        self._under_way: set[str] = set()
        self._file = ReplyFile(cache_file) if cache_file else None
        self._messages: dict[tuple[int, ...], tuple[str, str]] = {}
        """For a teacher elsewhere, which may be asked by messages: those of each prompt, (system, user)."""

    def prefetch(self, turns: Sequence[TurnContext]) -> None:
        """Ask about these turns in a thread of its own while others are still played, whenever they fill a
        batch. `__call__` waits for the replies and asks about what is left; it says the same without this."""
        for context in turns:
            prompt = self._prompt(context)
            key = self._key(prompt)
            if key not in self._under_way and self._known_reply(key) is None:
                self._waiting.setdefault(key, prompt)
        if len(self._waiting) >= self.batch:
            batch, self._waiting = self._waiting, {}
            self._under_way.update(batch)
            self._prefetched.start(partial(self._query_model, batch))

    def __call__(self, turns: Sequence[TurnContext]) -> list[JudgeReply]:
        """One reply per turn, in order. The first of several equal queries pays, the others are `cached`."""
        expect(None, "queries")
        for asked in self._prefetched.results():
            self._learn(asked)
        self._waiting, self._under_way = {}, set()
        prompts = [self._prompt(context) for context in turns]
        thinking = bool(prompts) and self._opens_thinking(prompts[0])
        keys = [self._key(prompt) for prompt in prompts]
        missing = {
            key: prompt for key, prompt in zip(keys, prompts, strict=True) if self._known_reply(key) is None
        }
        expect(len(missing), "queries")
        asked = self._query_model(missing)
        self._learn(asked)
        _refuse_failed(turns, keys, asked.failed)
        judged, paid = [], {}
        for key in keys:
            known = self._memory[key]
            label = parse_reply(known.text, thinking=thinking)
            seconds = self._unpaid.pop(key, None)
            if seconds is None:
                judged.append(JudgeReply(label, known.text, cached=True))
                continue
            paid[key] = known
            judged.append(JudgeReply(label, known.text, seconds, False, known.tokens))
        if self._file and paid:
            self._file.put(paid)
        # Turns that were begun and then came to nothing (their environment failed) leave no trace.
        for key in self._unpaid:
            del self._memory[key]
        self._unpaid.clear()
        self._messages.clear()
        self.queries += len(paid)
        self.cached += len(turns) - len(paid)
        self.tokens += sum(answer.tokens for answer in judged)
        return judged

    def _query_model(self, prompts: dict[str, list[int]]) -> _Answered:
        """What the model says to prompts, by key, and the seconds that each took."""
        started = time.perf_counter()
        new, failed = {}, {}
        most = reach_of(self.lm)
        for key in [key for key, prompt in prompts.items() if most is not None and len(prompt) >= most]:
            failed[key] = (
                f"As a judge: the query takes {len(prompts[key]):,} tokens and the teacher reaches {most:,}, "
                f"so that no reply fits; {self.shorter}."
            )
        prompts = {key: prompt for key, prompt in prompts.items() if key not in failed}
        with counted_as("judge"):
            answers = self._answers(list(prompts.values()), self.batch, Patience())
        for (key, prompt), answer in zip(prompts.items(), answers, strict=True):
            if isinstance(answer, Reply):
                new[key] = Known(self._text(answer), len(prompt) + len(answer.ids))
            else:
                failed[key] = f"As a judge: {answer}"
        return _Answered(new, (time.perf_counter() - started) / max(1, len(new)), failed)

    def _answers(self, prompts: list[list[int]], batch: int, patience: Patience) -> list[Reply | str]:
        """The reply to each prompt, or why there is none."""
        failed: Exception | None = None
        try:
            done = self._replies(prompts, batch)
        except OURS:
            raise
        except Exception as error:  # whatever a model raises, it says nothing about the turn
            failed = without_frames(error)
        if failed is None:
            patience.answered()
            return list(done)
        free_memory()
        if len(prompts) == 1:
            patience.failed_alone(failed)
            return [failure_of(failed)]
        size = max(1, min(batch, len(prompts)) // 2)
        parts = [prompts[i : i + size] for i in range(0, len(prompts), size)]
        return [answer for part in parts for answer in self._answers(part, size, patience)]

    def _replies(self, prompts: list[list[int]], batch: int) -> list[Reply]:
        limit, stop = self.query.max_new_tokens, self._dialogue.stop(None)
        if isinstance(self.lm, RemoteTeacher):
            messages = [self._messages[tuple(prompt)] for prompt in prompts]
            return self.lm.reply(prompts, messages, limit, stop)
        return reply(
            self.lm,
            prompts,
            limit,
            stop,
            batch=batch,
            engine=self.engine,
            draft_tokens=self.draft_tokens,
        )

    def _learn(self, asked: _Answered) -> None:
        self._memory.update(asked.new)
        self._unpaid.update(dict.fromkeys(asked.new, asked.seconds))

    def prompt_tokens(self, context: TurnContext) -> int:
        """Tokens of the query about a turn."""
        return len(self._prompt(context))

    def state_dict(self) -> dict[str, Any]:
        """Every reply so far, for a checkpoint: a resumed run then asks what the uninterrupted one asks."""
        return {key: list(known) for key, known in self._memory.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self._memory.update({key: Known(*known) for key, known in state.items()})

    def close(self) -> None:
        """Stop asking, and close the cache file, if any."""
        self._prefetched.close()
        if self._file:
            self._file.close()

    def _prompt(self, context: TurnContext) -> list[int]:
        message = judge_message(self.style, context, self.query.sees_feedback)
        prompt = self._dialogue.open(self.style.judge_system, message)
        if isinstance(self.lm, RemoteTeacher):
            self._messages[tuple(prompt)] = (self.style.judge_system, message)
        return prompt

    def _opens_thinking(self, prompt: list[int]) -> bool:
        return opens_thinking(str(self.lm.tokenizer.decode(prompt[-16:])))

    def _text(self, answer: Reply) -> str:
        """What was said; with its special tokens where only those show the end of the thinking."""
        whole = str(self.lm.tokenizer.decode(answer.ids))
        return whole if ends_thinking(whole) and not ends_thinking(answer.text) else answer.text

    def _key(self, prompt: list[int]) -> str:
        identity = [CACHE_VERSION, self.lm.digest, prompt, self.query.max_new_tokens]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    def _known_reply(self, key: str) -> Known | None:
        if key not in self._memory and self._file is not None:
            found = self._file.get(key)
            if found is not None:
                self._memory[key] = found
        return self._memory.get(key)


def _refuse_failed(turns: Sequence[TurnContext], keys: Sequence[str], failed: dict[str, str]) -> None:
    """Raises JudgeFailure with the episodes of the queries in `failed` (key -> why), each once."""
    of_turns = zip(turns, keys, strict=True)
    broken = {id(c.episode): (c.episode, failed[key]) for c, key in of_turns if key in failed}
    if broken:
        raise JudgeFailure(list(broken.values()))
