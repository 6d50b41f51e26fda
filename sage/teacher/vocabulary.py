"""Student and teacher must mean the same by every token id that the student has.

A teacher of the same family may know more: words that were added to its tokenizer behind the student's ids
(tools, images). They take no part: the teacher's distribution is that over the student's ids, renormalised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sage.errors import ModelError
from sage.policy.models.load import LanguageModel
from sage.teacher.elsewhere import RemoteTeacher, Teacher

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHOWN = 3
"""Words that a sentence names."""


def shared_vocabulary(student: LanguageModel, teacher: Teacher) -> int:
    """Size V of the common vocabulary (ids 0..V-1): the student's tokenizer's, not that of padded embeddings.

    Raises ModelError, in one sentence that says what to do, where a token of the student's has another id or
    the teacher has further ones that are not words added behind them, or a model has fewer output rows than
    the vocabulary has ids.
    """
    size = common_ids(student.tokenizer, teacher.tokenizer, (student.name, teacher.name))
    for role, lm in (("student", student), ("teacher", teacher)):
        if isinstance(lm, RemoteTeacher):
            continue
        rows = lm.model.get_output_embeddings().weight.shape[0]
        if rows < size:
            raise ModelError(
                f"The {role} {lm.name!r} has {rows} output rows for a tokenizer of {size} ids; "
                "resize its embeddings or use the tokenizer it was trained with."
            )
    return size


def common_ids(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, names: tuple[str, str]
) -> int:
    """V, from the two tokenizers alone; `names` are the models' in the sentence of a ModelError."""
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    size = max(ours.values()) + 1
    if difference := _difference(ours, theirs, size, teacher.get_added_vocab()):
        raise ModelError(
            f"The student {names[0]!r} ({len(ours)} tokens) and the teacher {names[1]!r} "
            f"({len(theirs)} tokens) have different vocabularies ({difference}), so their "
            "distributions cannot be compared; choose both from one model family, for instance set "
            "teacher.path to a larger model of the student's."
        )
    return size


def added_words(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> list[str]:
    """The words that the teacher has beyond the student's vocabulary, in order of their ids."""
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    return sorted(theirs.keys() - ours.keys(), key=theirs.__getitem__)


def ignored(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, name: str) -> str:
    """The sentence about what the teacher `name` knows and the loss ignores; empty where that is nothing."""
    words = added_words(student, teacher)
    if not words:
        return ""
    named = ", ".join(repr(word) for word in words[:_SHOWN]) + (", …" if words[_SHOWN:] else "")
    ids = f"{len(words)} added token" + ("s" if words[1:] else "")
    return (
        f"The teacher {name!r} knows {ids} that the student does not ({named}): their probability is ignored,"
        " and the teacher's distribution is renormalised over the student's ids."
    )


def _difference(ours: dict[str, int], theirs: dict[str, int], size: int, added: dict[str, int]) -> str:
    """The first token, by the student's id, that the two do not agree on; empty where they agree."""
    for token, number in sorted(ours.items(), key=lambda item: item[1]):
        if theirs.get(token) != number:
            return f"{token!r} is {number} for one and {theirs.get(token, 'unknown')} for the other"
    # A further piece of ordinary text would have the teacher read the same words in other tokens, and an id
    # among the student's would be a row of the student's that means nothing.
    for token, number in sorted(theirs.items(), key=lambda item: item[1]):
        if token not in ours and (number < size or token not in added):
            return f"only the teacher knows {token!r}"
    return ""
