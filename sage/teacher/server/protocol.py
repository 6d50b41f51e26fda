"""What is said to a server and what its answers mean: vLLM's `/v1/completions` and SGLang's `/generate`.

Both take prompts as token ids and answer with the log-probability of every prompt token and of the k
likeliest at its place. vLLM does so in its OpenAI-compatible API by `prompt_logprobs`; SGLang's
OpenAI-compatible API has none for prompts and points to its native one. Every answer is compared with the ids
that were sent: a position that is missing, another token, or numbers that are no distribution are a BadReply.

Shape suffixes: T asked positions, K likeliest tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Engine = Literal["vllm", "sglang"]

IMPOSSIBLE = -9999.0
"""What vLLM writes for −inf, which JSON does not know."""
_ROUNDING = 1e-2
"""How far above one probabilities may add up: a served model may compute in half precision."""


class BadReply(RuntimeError):
    """An answer that is no answer to what was asked; the message is half a sentence."""


@dataclass(frozen=True, slots=True)
class Likeliest:
    """A teacher at the T asked positions of one sequence.

    ids_TK, logprob_TK: its k likeliest next tokens, most likely first; −1 and −inf where there are fewer.
    chosen_T: log-probability of the token that does come next.
    """

    ids_TK: np.ndarray
    logprob_TK: np.ndarray
    chosen_T: np.ndarray


@dataclass(frozen=True, slots=True)
class Said:
    """A greedy reply: its ids where the server gives them, else its text alone."""

    ids: list[int] | None
    text: str
    cut: bool
    """Ended by the token limit."""


def scoring_request(engine: Engine, model: str, rows: Sequence[Sequence[int]], k: int) -> tuple[str, Any]:
    """(path, body) that asks for the log-probabilities of every token of `rows` and of the k likeliest."""
    ids = [list(row) for row in rows]
    if engine == "sglang":
        return "/generate", {
            "input_ids": ids,
            "sampling_params": {"temperature": 0, "max_new_tokens": 0},
            "return_logprob": True,
            "logprob_start_len": 0,
            "top_logprobs_num": k,
            "return_text_in_logprobs": False,
        }
    return "/v1/completions", {
        "model": model,
        "prompt": ids,
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": k,
        "return_token_ids": True,
        "add_special_tokens": False,
    }


def replying_request(
    engine: Engine, model: str, rows: Sequence[Sequence[int]], max_new_tokens: int, end_ids: Sequence[int]
) -> tuple[str, Any]:
    """(path, body) that asks for a greedy reply to each of `rows`, up to one of `end_ids`."""
    ids, ends = [list(row) for row in rows], sorted(end_ids)
    if engine == "sglang":
        return "/generate", {
            "input_ids": ids,
            "sampling_params": {
                "temperature": 0,
                "max_new_tokens": max_new_tokens,
                "stop_token_ids": ends,
                "skip_special_tokens": False,
            },
        }
    return "/v1/completions", {
        "model": model,
        "prompt": ids,
        "max_tokens": max_new_tokens,
        "temperature": 0,
        "stop_token_ids": ends,
        "skip_special_tokens": False,
        "return_token_ids": True,
        "add_special_tokens": False,
    }


def chat_request(
    model: str, messages: Sequence[Mapping[str, str]], max_new_tokens: int, thinking: bool
) -> tuple[str, Any]:
    """(path, body) that asks for a greedy reply under the server's own chat template."""
    return "/v1/chat/completions", {
        "model": model,
        "messages": list(messages),
        "max_tokens": max_new_tokens,
        "temperature": 0,
        "chat_template_kwargs": {"enable_thinking": thinking},
    }


def read_scores(
    engine: Engine,
    answer: Any,
    rows: Sequence[Sequence[int]],
    positions: Sequence[Sequence[int]],
    k: int,
) -> list[Likeliest]:
    """One `Likeliest` per row, at the positions whose next token is asked about. Raises BadReply."""
    entries = _entries(engine, answer, len(rows))
    read = _vllm_row if engine == "vllm" else _sglang_row
    return [
        _likeliest(read(entry, row), row, asked, k)
        for entry, row, asked in zip(entries, rows, positions, strict=True)
    ]


def read_replies(engine: Engine, answer: Any, count: int) -> list[Said]:
    """The reply to each prompt. Raises BadReply."""
    said = []
    for entry in _entries(engine, answer, count):
        if engine == "sglang":
            why = _get(_get(entry, "meta_info", dict), "finish_reason", dict).get("type")
            said.append(Said(_ids(entry, "output_ids"), _get(entry, "text", str), why == "length"))
        else:
            cut = entry.get("finish_reason") == "length"
            said.append(Said(_ids(entry, "token_ids"), _get(entry, "text", str), cut))
    return said


def read_chat(answer: Any) -> tuple[Said, int]:
    """(the reply's text, its tokens as the server counts them). A thought that the server has split off is
    left out. Raises BadReply."""
    (choice,) = _entries("vllm", answer, 1)
    message = _get(choice, "message", dict)
    text = message.get("content")
    if text is not None and not isinstance(text, str):
        raise BadReply(f"a message whose content is {_kind(text)}")
    tokens = (
        answer.get("usage", {}).get("completion_tokens") if isinstance(answer.get("usage"), dict) else None
    )
    count = tokens if isinstance(tokens, int) and tokens >= 0 else 0
    return Said(None, text or "", choice.get("finish_reason") == "length"), count


def _entries(engine: Engine, answer: Any, count: int) -> list[dict[str, Any]]:
    """The parts of an answer in the order of the prompts."""
    if engine == "sglang":
        entries = answer if isinstance(answer, list) else [answer]
    else:
        entries = _get(answer, "choices", list)
    if len(entries) != count:
        raise BadReply(f"{len(entries)} results where {count} were due")
    for entry in entries:
        if not isinstance(entry, dict):
            raise BadReply(f"a result that is {_kind(entry)}")
    if engine == "vllm":
        places = [entry.get("index") for entry in entries]
        if sorted(places, key=str) != sorted(range(count), key=str):
            raise BadReply("results whose indices are not those of the prompts")
        entries = sorted(entries, key=lambda entry: entry["index"])
    return entries


_Row = list[tuple[float, dict[int, float]] | None]
"""For each token of a row its log-probability and those of the likeliest, by id; nothing for the first."""


def _vllm_row(entry: dict[str, Any], row: Sequence[int]) -> _Row:
    read = entry.get("prompt_token_ids")
    if read is not None and read != list(row):
        raise BadReply("the scores of other token ids than were sent")
    listed = entry.get("prompt_logprobs")
    if listed is None:
        raise BadReply("no prompt_logprobs, which vLLM's /v1/completions has")
    if not isinstance(listed, list) or len(listed) != len(row):
        raise BadReply(f"prompt_logprobs that are {_kind(listed)} for {len(row)} tokens")
    found: _Row = []
    for token, place in zip(row, listed, strict=True):
        if place is None:
            found.append(None)
            continue
        if not isinstance(place, dict):
            raise BadReply(f"prompt_logprobs with {_kind(place)} in them")
        by_id = {_token(key): _logprob(_get(value, "logprob")) for key, value in place.items()}
        if token not in by_id:
            raise BadReply("the scores of other tokens than were sent")
        found.append((by_id[token], by_id))
    return found


def _sglang_row(entry: dict[str, Any], row: Sequence[int]) -> _Row:
    meta = _get(entry, "meta_info", dict)
    tokens, tops = _get(meta, "input_token_logprobs", list), _get(meta, "input_top_logprobs", list)
    if len(tokens) != len(row) or len(tops) != len(row):
        raise BadReply(f"log-probabilities of {len(tokens)} tokens where {len(row)} were sent")
    found: _Row = []
    for token, place, top in zip(row, tokens, tops, strict=True):
        if not isinstance(place, list) or len(place) < 2:
            raise BadReply(f"input_token_logprobs with {_kind(place)} in them")
        if place[1] != token:
            raise BadReply("the scores of other token ids than were sent")
        if place[0] is None or top is None:
            found.append(None)
            continue
        if not isinstance(top, list) or any(not isinstance(one, list) or len(one) < 2 for one in top):
            raise BadReply(f"input_top_logprobs with {_kind(top)} in them")
        found.append((_logprob(place[0]), {_token(one[1]): _logprob(one[0]) for one in top}))
    return found


def _likeliest(places: _Row, row: Sequence[int], positions: Sequence[int], k: int) -> Likeliest:
    """The asked positions of one row, checked."""
    ids_TK = np.full((len(positions), k), -1, dtype=np.int64)
    logprob_TK = np.full((len(positions), k), -math.inf)
    chosen_T = np.empty(len(positions))
    for t, position in enumerate(positions):
        # The token that was sent stands beside the k likeliest; it is behind them where it is none of them.
        place = places[position + 1]
        if place is None:
            raise BadReply(f"no log-probability at token {position + 1} of {len(row)}")
        chosen, others = place
        best = sorted(others.items(), key=lambda item: (-item[1], item[0]))[:k]
        best = [(i, p) for i, p in best if p > IMPOSSIBLE]
        if not best:
            raise BadReply("only probabilities of zero (log-probabilities of −inf) at a token")
        if chosen <= IMPOSSIBLE:
            raise BadReply("a probability of zero (a log-probability of −inf) at a token that was sampled")
        if sum(math.exp(p) for _, p in best) > 1 + _ROUNDING:
            raise BadReply("probabilities that add up to more than one")
        ids_TK[t, : len(best)] = [i for i, _ in best]
        logprob_TK[t, : len(best)] = [p for _, p in best]
        chosen_T[t] = chosen
    return Likeliest(ids_TK, logprob_TK, chosen_T)


def _logprob(value: Any) -> float:
    """−inf, however it is written, is `IMPOSSIBLE`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise BadReply(f"a log-probability that is {'no number' if value != value else _kind(value)}")
    if value > _ROUNDING:
        raise BadReply("a log-probability above zero")
    return max(min(float(value), 0.0), IMPOSSIBLE)


def _token(key: Any) -> int:
    try:
        return int(key)
    except (TypeError, ValueError) as error:
        raise BadReply("log-probabilities under something that is no token id") from error


def _ids(entry: dict[str, Any], key: str) -> list[int]:
    ids = _get(entry, key, list)
    if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
        raise BadReply(f"{key} with something in them that is no token id")
    return ids


def _get(mapping: Any, key: str, kind: type | None = None) -> Any:
    if not isinstance(mapping, dict):
        raise BadReply(f"{_kind(mapping)} where a mapping with {key!r} was due")
    if key not in mapping:
        raise BadReply(f"no {key!r}")
    value = mapping[key]
    if kind is not None and not isinstance(value, kind):
        raise BadReply(f"{key!r} that is {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    """What a JSON value is, in a word or two."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    names = {dict: "a mapping", str: "text", type(None): "nothing", bool: "a truth value"}
    return names.get(type(value), "a number")
