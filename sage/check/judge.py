"""The teacher as judge of a few real turns: what of its replies can be read, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sage.check.page import Line, fine, refused, warning

if TYPE_CHECKING:
    from sage.check.pair import Subject

FEW_READ = 0.8
"""A run in which more than a fifth of the turns is FALLBACK is warned of; so is this page."""


def judge(subject: Subject) -> Iterator[Line]:
    """One line: share read, tokens, seconds; and one with a reply where some cannot be read."""
    from sage.objective.intervention.base import TurnContext
    from sage.teacher.trial import try_judge
    from sage.training.judging import make_judge

    query = subject.config.intervention.query
    if query is None or subject.models is None:
        yield fine(f"Not asked: intervention={subject.config.intervention.name} decides without a judge.")
        return
    turns = [TurnContext(episode, turn) for episode, turn in subject.turns()]
    if not turns:
        yield warning("Not looked at: no turn could be played.")
        return
    models = subject.models
    asked = make_judge(subject.config, subject.style, models.teacher, models.dialogue)
    trial = try_judge(asked, turns)
    text = (
        f"{trial.read} of {trial.turns} replies name one label ({trial.share:.0%}); {trial.tokens:,} "
        "tokens, of which "
        f"{trial.reply_tokens:,} replies, in {trial.seconds:.1f} s"
    )
    cut = (
        f"; {trial.cut} replies end at intervention.max_new_tokens={query.max_new_tokens}"
        if trial.cut
        else ""
    )
    if trial.share >= FEW_READ:
        yield fine(f"{text}{cut}.")
        return
    way = (
        "the others count as FALLBACK; raise intervention.max_new_tokens, change the prompt's judge, or "
        "take a "
        "larger teacher"
    )
    yield (warning if trial.read else refused)(f"{text}{cut}: {way}.")
    for reply in trial.unread[:1]:
        yield warning(f"Such a reply: {' '.join(reply.split())[:160]!r}.")
