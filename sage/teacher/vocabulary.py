"""Student and teacher must mean the same by every token id."""

from __future__ import annotations

from sage.policy.model import LanguageModel, ModelError


def shared_vocabulary(student: LanguageModel, teacher: LanguageModel) -> int:
    """Size V of the common vocabulary (ids 0..V-1): the tokenizers', not that of the padded embeddings.

    Raises ModelError, in one sentence that says what to do, where a token has two ids or a model has fewer
    output rows than the tokenizer has ids.
    """
    ours, theirs = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    if ours != theirs:
        raise ModelError(
            f"The student {student.name!r} ({len(ours)} tokens) and the teacher {teacher.name!r} "
            f"({len(theirs)} tokens) have different vocabularies ({_difference(ours, theirs)}), so their "
            "distributions cannot be compared; choose both from one model family, for instance set "
            "teacher.path to a larger model of the student's."
        )
    size = max(ours.values()) + 1
    for role, lm in (("student", student), ("teacher", teacher)):
        rows = lm.model.get_output_embeddings().weight.shape[0]
        if rows < size:
            raise ModelError(
                f"The {role} {lm.name!r} has {rows} output rows for a tokenizer of {size} ids; "
                "resize its embeddings or use the tokenizer it was trained with."
            )
    return size


def _difference(ours: dict[str, int], theirs: dict[str, int]) -> str:
    """The first token, by the student's id, that the two do not agree on."""
    for token, number in sorted(ours.items(), key=lambda item: item[1]):
        if theirs.get(token) != number:
            return f"{token!r} is {number} for one and {theirs.get(token, 'unknown')} for the other"
    extra = next(token for token in theirs if token not in ours)
    return f"only the teacher knows {extra!r}"
