"""`python -m sage check [overrides]`: the page about one pair of models."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sage.check.before import before_weights, trains
from sage.check.page import Line, Page, fine, warning

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sage.check.pair import Subject
    from sage.config.schema import RunConfig


def check(
    config: RunConfig,
    say: Callable[[str], None] = print,
    *,
    card_gib: float | None = None,
    processes: int = 1,
) -> Page:
    """Print the page about the config's models; raises nothing about them. card_gib: only the memory that a
    run would take on a device of that size, from shapes alone, each of `processes` having one."""
    started = time.perf_counter()
    page = Page(say)
    say(f"Student {config.student.path}" + (f", teacher {config.teacher.path}" if trains(config) else ""))
    if card_gib is not None:
        from sage.check.memory import memory

        page.part(f"Memory on a device of {card_gib:g} GiB", lambda: memory(config, card_gib, processes))
        page.end(time.perf_counter() - started)
        return page
    found = _Found()
    if page.part("Before any weights are read", lambda: before_weights(config)) and page.part(
        "Vocabulary", lambda: _vocabulary(config, found)
    ):
        page.part("Templates and context", lambda: _spoken_to(config, found))
        if page.part("Numbers", lambda: _loaded(config, found)):
            assert found.subject is not None
            for heading, part in _parts(found.subject):
                page.part(heading, part)
    page.end(time.perf_counter() - started)
    return page


@dataclass
class _Found:
    """What one part leaves to the next."""

    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase | None] | None = None
    subject: Subject | None = None


def _vocabulary(config: RunConfig, found: _Found) -> Iterator[Line]:
    """Both tokenizers: do they mean the same by every token?"""
    from sage.check.preflight import tokenizers
    from sage.teacher.vocabulary import ignored

    student, teacher = found.tokenizers = tokenizers(config)
    size = max(student.get_vocab().values()) + 1
    if teacher is None:
        yield fine(f"The student's tokenizer has {size:,} ids; no other model is compared with it.")
        return
    yield fine(f"Student and teacher mean the same by every token ({size:,} ids).")
    if sentence := ignored(student, teacher, config.teacher.path):
        yield fine(sentence)


def _spoken_to(config: RunConfig, found: _Found) -> Iterator[Line]:
    """What both chat templates make of the environment's prompts, and the tokens that its games take."""
    from sage.check.preflight import look_ahead
    from sage.policy.context import refuse_unless_it_fits

    ahead = look_ahead(config, config.env.tasks, found.tokenizers)
    yield fine(f"{ahead.prompts} prompts and answers of the environment are what both chat templates say.")
    for split in ahead.context:
        yield warning(split.line()) if split.problem or not split.fits else fine(split.line())
    refuse_unless_it_fits(ahead.context, config.rollout.max_context)


def _loaded(config: RunConfig, found: _Found) -> Iterator[Line]:
    """Load the models the way a run does, and say what they are."""
    from sage.check.checkpoint import checkpoint_line, size_of_loaded
    from sage.check.numbers import numbers
    from sage.check.pair import Subject
    from sage.policy.models.load import load_model
    from sage.policy.prompts import choose_style
    from sage.training.setup import load_models

    if config.speed.threads:
        import torch

        torch.set_num_threads(config.speed.threads)
    started = time.perf_counter()
    style = choose_style(config.prompt, config.student.path)
    own, others = found.tokenizers or (None, None)
    student = load_model(config.student, role="student", tokenizer=own, digest=False)
    models = load_models(config, student, others) if trains(config) else None
    subject = Subject(config, style, student, models)
    yield from numbers(subject)
    if models is not None:
        yield checkpoint_line(config, size_of_loaded(config, student))
    yield fine(f"Loaded in {time.perf_counter() - started:.1f} s.")
    found.subject = subject


def _parts(subject: Subject) -> list[tuple[str, Callable[[], Iterable[Line]]]]:
    """The parts in order; the step is last, because it changes the student."""
    from sage.check.engine import engine
    from sage.check.judge import judge
    from sage.check.step import step
    from sage.check.templates import templates

    return [
        ("Engine", lambda: engine(subject)),
        ("Real turns", subject.play),
        ("Templates", lambda: templates(subject)),
        ("Judge", lambda: judge(subject)),
        ("A step", lambda: step(subject)),
    ]
