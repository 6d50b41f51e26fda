"""Which model and tokenizer a server has, asked at the start, and whether it is still the same afterwards.

A name says little: a server that was started again under the same name may hold other weights. So a fixed
text is scored at the start (the probe), and its numbers are compared whenever the server may have changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sage.errors import ModelError
from sage.teacher.server.ask import Asker, Refused, TeacherLost
from sage.teacher.server.protocol import BadReply, Engine, read_scores, scoring_request

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = (
    "You are in the middle of a room. Looking quickly around you, you see a desk 1, a drawer 2, a shelf 3.\n"
    "Your task is to: put a clean mug in the drawer.\nThought: I need a mug first.\nAction: go to shelf 3"
)
SAME_PROBABILITY, SAME_LOGPROB = 0.05, 0.25
"""Mean differences, of the probe's probabilities and of their logarithms, up to which it is the same model:
half precision and batches of another shape stay well below both; other weights do not."""
_SAMPLED_IDS = 200
"""Ids whose text is compared, evenly over the vocabulary, beside all special and added ones."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a server says of itself. root: where its weights are from; reach: most tokens of a sequence."""

    engine: Engine
    model: str
    root: str
    reach: int | None

    @property
    def identity(self) -> str:
        """What a cache is keyed by beside the ids."""
        return f"{self.engine}\x1f{self.model}\x1f{self.root}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def who_serves(asker: Asker, model: str | None, *, sure: bool = False) -> Served:
    """The served model of that name (None: the only one). Raises ModelError where there is none such."""
    try:
        answer = asker.ask("/v1/models", sure=sure)
    except Refused as error:
        if error.status in (401, 403):
            raise ModelError(
                f"The teacher's server {asker.shown} wants a key ({error}); put it into the environment "
                "variable that teacher.server.key_env names."
            ) from error
        raise ModelError(
            f"The teacher's server {asker.shown} does not say which model it has ({error});"
            " teacher.server.address is that of a vLLM or SGLang server, as http://host:8000."
        ) from error
    card = _card(asker, answer, model)
    reach = card.get("max_model_len")
    engine: Engine = "sglang" if str(card.get("owned_by")) == "sglang" else "vllm"
    name = str(card["id"])
    root = str(card.get("root") or name)
    return Served(engine, name, root, reach if isinstance(reach, int) and reach > 0 else None)


def _card(asker: Asker, answer: Any, model: str | None) -> dict[str, Any]:
    """What `/v1/models` says of the model of that name, or of the only one. Raises ModelError."""
    cards = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(cards, list) or not all(isinstance(card, dict) and card.get("id") for card in cards):
        raise ModelError(
            f"What answers at {asker.shown}/v1/models is no list of models; teacher.server.address is that of"
            " a vLLM or SGLang server, as http://host:8000."
        )
    named = {str(card["id"]): card for card in cards}
    if model is None and len(named) == 1:
        return next(iter(named.values()))
    if model not in named:
        wanted = "several models" if model is None else f"no model {model!r}"
        raise ModelError(
            f"The teacher's server {asker.shown} has {wanted} (it has {', '.join([*named][:3]) or 'none'});"
            " set teacher.server.model to one of them."
        )
    return named[model]


def check_tokenizer(asker: Asker, served: Served, tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    """Raises ModelError where the server reads or writes a text in other ids than `tokenizer` (of `path`)."""
    ours = list(tokenizer(PROBE, add_special_tokens=False)["input_ids"])
    try:
        answer = asker.ask("/tokenize", {"model": served.model, "prompt": PROBE, "add_special_tokens": False})
        theirs = answer.get("tokens") if isinstance(answer, dict) else None
        if theirs != ours:
            raise ModelError(_other_tokenizer(asker, path, _first_difference(tokenizer, ours, theirs)))
        for ids in _some_ids(tokenizer):
            answer = asker.ask(
                "/detokenize", {"model": served.model, "tokens": ids, "skip_special_tokens": False}
            )
            said = answer.get("prompt", answer.get("text")) if isinstance(answer, dict) else None
            if said != tokenizer.decode(ids):
                raise ModelError(_other_tokenizer(asker, path, f"of the ids {ids[0]} to {ids[-1]}"))
    except Refused as error:
        raise ModelError(
            f"The teacher's server {asker.shown} does not say how it reads a text ({error} at /tokenize"
            " and /detokenize), so that its tokenizer cannot be compared; let it answer there, as vLLM and"
            " SGLang do."
        ) from error


def _some_ids(tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Pieces of the vocabulary, whose texts show where two tokenizers differ."""
    vocabulary = sorted(tokenizer.get_vocab().values())
    step = max(1, len(vocabulary) // _SAMPLED_IDS)
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    chosen = sorted({*vocabulary[::step], *sorted(special)[-_SAMPLED_IDS:]})
    return [chosen[i : i + 50] for i in range(0, len(chosen), 50)]


def _other_tokenizer(asker: Asker, path: str, where: str) -> str:
    return (
        f"The teacher's server {asker.shown} has another tokenizer than teacher.path={path} {where}; set "
        "teacher.path to the files of the model that is served."
    )


def _first_difference(tokenizer: PreTrainedTokenizerBase, ours: list[int], theirs: Any) -> str:
    if not isinstance(theirs, list):
        return "(it gives no ids)"
    for mine, other in zip(ours, theirs, strict=False):
        if mine != other:
            return (
                f"({tokenizer.decode([mine])!r} is {mine} in the files and {str(other)[:12]} on the server)"
            )
    return f"(a text of {len(ours)} tokens has {len(theirs)} on the server)"


@dataclass(frozen=True, slots=True)
class Probe:
    """The likeliest token at each place of `PROBE`, its probability, and that of the token that is there."""

    ids: list[int]
    top1: list[float]
    chosen: list[float]

    def differs(self, other: Probe) -> str:
        """In what way it is another model's, in a few words; empty where it is the same model's."""
        if len(self.top1) != len(other.top1):
            return "a fixed text has another length"
        ours, theirs = np.array([self.top1, self.chosen]), np.array([other.top1, other.chosen])
        gap, log_gap = np.abs(ours - theirs).mean(), np.abs(np.log(ours) - np.log(theirs)).mean()
        if gap <= SAME_PROBABILITY and log_gap <= SAME_LOGPROB:
            return ""
        return f"a fixed text has other probabilities, {log_gap:.2g} nats apart in the mean"


def probe(asker: Asker, served: Served, ids: Sequence[int], *, sure: bool = False) -> Probe:
    """Raises ModelError where the server gives no usable scores, so that no run could."""
    path, body = scoring_request(served.engine, served.model, [ids], 1)
    try:
        answer = asker.ask(path, body, tokens=len(ids) + 1, sure=sure)
        (found,) = read_scores(served.engine, answer, [ids], [range(len(ids) - 1)], 1)
    except (Refused, BadReply) as error:
        raise ModelError(
            f"The teacher's server {asker.shown} gives no log-probabilities of a prompt ({error}); it has to"
            " be vLLM or SGLang, of a version that does."
        ) from error
    top1, chosen = np.exp(found.logprob_TK[:, 0]), np.exp(found.chosen_T)
    return Probe(found.ids_TK[:, 0].tolist(), top1.tolist(), chosen.tolist())


class StillTheSame:
    """Whether a server is what it was: the model it names, and the probe's numbers."""

    def __init__(self, asker: Asker, served: Served, ids: Sequence[int], first: Probe) -> None:
        self.asker, self.served, self.ids, self.first = asker, served, list(ids), first

    def __call__(self) -> None:
        """Raises TeacherLost, which a run can be resumed from, where it is not."""
        try:
            now = who_serves(self.asker, self.served.model, sure=True)
            found = probe(self.asker, self.served, self.ids, sure=True)
        except ModelError as error:
            raise TeacherLost(f"The teacher's server has changed in mid-run: {error}") from error
        if now != self.served:
            raise TeacherLost(_changed(self.asker, f"it was {_named(self.served)} and is {_named(now)}"))
        if difference := self.first.differs(found):
            raise TeacherLost(_changed(self.asker, f"under the same name {difference}"))


def _named(served: Served) -> str:
    return f"{served.model} from {served.root}, reach {served.reach}"


def _changed(asker: Asker, how: str) -> str:
    return (
        f"The teacher's server {asker.shown} has changed in mid-run ({how}); start the first model again,"
        " and the same line goes on from the newest checkpoint."
    )
