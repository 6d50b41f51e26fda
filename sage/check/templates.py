"""Both chat templates on the environment's own messages: what closes an answer, and the way back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sage.check.page import Line, fine, refused, warning

if TYPE_CHECKING:
    from sage.check.pair import Subject
    from sage.episode import Episode
    from sage.policy.dialogue import Dialogue
    from sage.teacher.elsewhere import Teacher


def templates(subject: Subject) -> Iterator[Line]:
    """What each template does, and the played conversations rendered through it and read back."""
    from sage.policy.dialogue import Dialogue

    models: dict[str, Teacher] = {"student": subject.student}
    if subject.models is not None:
        models["teacher"] = subject.models.teacher
    for role, lm in models.items():
        dialogue = Dialogue(lm.tokenizer, lm.thinking)
        yield _described(role, lm, dialogue)
        for episode in subject.episodes[:1]:
            yield _read_back(role, lm, dialogue, episode)


def _described(role: str, lm: Teacher, dialogue: Dialogue) -> Line:
    closing = dialogue.closing
    if closing is None:
        return refused(
            f"Nothing closes an answer of the {role}: neither its template nor its tokenizer's end of "
            f"sequence; give {role}.chat_template."
        )
    ends = ", ".join(repr(lm.tokenizer.decode([i])) for i in sorted(lm.end_ids))
    text = f"The {role}'s template closes an answer with {closing.text.strip()!r}; {ends} end one"
    if dialogue.format.system is None:
        text += "; it has no system role, so that message goes in front of the first user's"
    if dialogue.format.opens_thinking:
        return warning(f"{text}; it opens a thought by itself, which every answer begins in.")
    return fine(f"{text}; thinking is {'on' if lm.thinking else 'off'}.")


def _read_back(role: str, lm: Teacher, dialogue: Dialogue, episode: Episode) -> Line:
    """Every message of the environment is in the text of the rendered ids, once for each time it was said."""
    from sage.policy.dialogue import render

    ids, spans = render(dialogue, episode)
    text = "".join(lm.tokenizer.decode(ids).split())
    messages = [episode.system, *(turn.message for turn in episode.turns)]
    lost = [m for m in messages if "".join(m.split()) not in text]
    if lost:
        return refused(
            f"The {role}'s tokenizer and template do not give back a message of {episode.task.env} as it is "
            f"({lost[0][:80]!r}); use the tokenizer that the model was trained with."
        )
    return fine(
        f"{len(messages)} messages of one game through it: {len(ids):,} tokens, {len(spans)} answers, "
        "every word is there again."
    )
