"""`python -m sage check [overrides]`: the page about one pair of models."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from sage.check.before import before_weights, trains
from sage.check.page import Line, Page, fine, warning

if TYPE_CHECKING:
    from sage.check.pair import Subject
    from sage.config.schema import RunConfig


def check(config: RunConfig, say: Callable[[str], None] = print) -> Page:
    """Print the page about the config's models; raises nothing about them."""
    started = time.perf_counter()
    page = Page(say)
    say(f"Student {config.student.path}" + (f", teacher {config.teacher.path}" if trains(config) else ""))
    box: list[Subject] = []
    if page.part("Before any weights are read", lambda: before_weights(config)):
        page.part("Templates and context", lambda: _spoken_to(config))
        if not page.part("Numbers", lambda: _loaded(config, box)):
            page.end(time.perf_counter() - started)
            return page
        for heading, part in _parts(box[0]):
            page.part(heading, part)
    page.end(time.perf_counter() - started)
    return page


def _spoken_to(config: RunConfig) -> Iterator[Line]:
    """What both chat templates make of the environment's prompts, and the tokens that its games take."""
    from sage.check.preflight import look_ahead
    from sage.policy.context import refuse_unless_it_fits

    found = look_ahead(config, config.env.tasks)
    yield fine(f"{found.prompts} prompts and answers of the environment are what both chat templates say.")
    for split in found.context:
        yield warning(split.line()) if split.problem or not split.fits else fine(split.line())
    refuse_unless_it_fits(found.context, config.rollout.max_context)


def _loaded(config: RunConfig, box: list[Subject]) -> Iterator[Line]:
    """Load the models the way a run does, and say what they are."""
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
    student = load_model(config.student, role="student")
    models = load_models(config, student) if trains(config) else None
    subject = Subject(config, style, student, models)
    yield from numbers(subject)
    yield fine(f"Loaded in {time.perf_counter() - started:.1f} s.")
    box.append(subject)


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
