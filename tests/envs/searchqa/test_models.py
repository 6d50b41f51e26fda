"""The SearchQA models that ship: one vocabulary, and a teacher that answers the judge's prompt."""

from __future__ import annotations

from sage.config.load import load
from sage.policy.decoding.generate import reply
from sage.policy.dialogue import Dialogue
from sage.policy.models.load import load_model
from sage.policy.prompts import fill
from sage.teacher.vocabulary import shared_vocabulary

CONFIG = load(["env=searchqa"])


def test_student_and_teacher_share_their_vocabulary_and_differ() -> None:
    student, teacher = load_model(CONFIG.student), load_model(CONFIG.teacher)
    assert shared_vocabulary(student, teacher) == len(student.tokenizer)
    assert student.digest != teacher.digest
    stop = student.tokenizer.encode("</action>", add_special_tokens=False)
    assert len(stop) == 1


def test_the_teacher_answers_the_judges_prompt_with_one_of_the_three_words() -> None:
    teacher = load_model(CONFIG.teacher)
    prompt = fill(
        CONFIG.prompt.styles["short"].judge,
        goal="What is the employer of Semak Konerk?",
        observation="You can search 8 times.",
        thought="find employer of Semak Konerk",
        action="search[ Semak Konerk]",
        feedback="Doc 1(Title: Semak Konerk) Semak Konerk is a painter. employer: Gumirk Bank. "
        "birthplace: Zonor. spouse: Kiset Muros.",
    )
    answer = reply(teacher, [Dialogue(teacher.tokenizer).open("", prompt)], 8)[0]
    assert answer.text in ("SKIP", "WEAK", "STRONG")
