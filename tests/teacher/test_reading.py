"""Replies as real models write them, and the label that each gives."""

from __future__ import annotations

import pytest

from sage.episode import Label
from sage.teacher.reading import opens_thinking, parse_reply

SKIP, WEAK, STRONG = Label.SKIP, Label.WEAK, Label.STRONG

READ = [
    # The word alone.
    ("SKIP", SKIP),
    ("skip", SKIP),
    (" Weak.\n", WEAK),
    ("**STRONG**", STRONG),
    ("`STRONG`", STRONG),
    ("_weak_", WEAK),
    ('"Skip"', SKIP),
    ("'Strong'.", STRONG),
    ("### WEAK", WEAK),
    ("[[WEAK]]", WEAK),
    ("> skip!", SKIP),
    ("STRONG STRONG", STRONG),
    ("```\nWEAK\n```", WEAK),
    # Numbers and options.
    ("1. STRONG", STRONG),
    ("2) weak", WEAK),
    ("(B) WEAK", WEAK),
    ("Answer: (B) WEAK", WEAK),
    ("Label: 2 - STRONG", STRONG),
    # Headings.
    ("Label: STRONG", STRONG),
    ("**Verdict:** weak", WEAK),
    ("**Decision: SKIP**", SKIP),
    ("## Verdict\n\nWEAK", WEAK),
    ("The answer is SKIP.", SKIP),
    ("My answer would be SKIP", SKIP),
    ("Final answer: SKIP", SKIP),
    ("I think the best label here is WEAK.", WEAK),
    ("Assessment of this turn: WEAK", WEAK),
    ("label: strong\nreason: weak grip", STRONG),
    ("Answer → WEAK", WEAK),
    # JSON, LaTeX, tags.
    ('{"label": "STRONG"}', STRONG),
    ('```json\n{"verdict": "weak", "why": "It should not skip the drawer."}\n```', WEAK),
    ('{"reason": "It moves on, no need to be strong.", "final_label": "SKIP"}', SKIP),
    ('{"xyz": "SKIP"}', SKIP),
    ("{'label': 'STRONG'}", STRONG),
    ('{"label": "SKIP", "confidence": "STRONG"}', SKIP),
    ('{"SKIP": false, "WEAK": true, "STRONG": false}', WEAK),
    ('{"label": "STRONG", "reason": "it was cut he', STRONG),
    (r"\boxed{SKIP}", SKIP),
    (r"The mug is found, so nothing is WEAK here. $\boxed{\text{SKIP}}$", SKIP),
    ("<decision>SKIP</decision>", SKIP),
    ("<answer>\nWEAK\n</answer>\n<why>A strong agent would skip it.</why>", WEAK),
    # A label, then the others as ordinary words.
    ("STRONG. The agent should not skip this drawer.", STRONG),
    ("SKIP — the move has only a weak effect", SKIP),
    ("weak because the shelf had been seen", WEAK),
    ("WEAK (a strong agent would have skipped it)", WEAK),
    ("STRONG, not WEAK", STRONG),
    ("WEAK rather than STRONG", WEAK),
    ("SKIP. WEAK would be too harsh.", SKIP),
    ("WEAK: the turn is not clearly wrong (STRONG), but not ideal either.", WEAK),
    # The last line, and prose.
    ("The agent goes in circles.\n\n**STRONG**", STRONG),
    ("At first it looks WEAK, but it finds the mug.\nSKIP", SKIP),
    ("- SKIP: no, it failed\n- WEAK: perhaps\n- STRONG: yes, it repeats\n\nLabel: STRONG", STRONG),
    ("Initial label: WEAK\nBut it finds the mug.\nFinal label: SKIP", SKIP),
    ("It repeats itself, so the label is STRONG.", STRONG),
    ("I would say WEAK.", WEAK),
    ("I'd go with **weak** here.", WEAK),
    ("This is not STRONG but WEAK.", WEAK),
    ("WEAK? No. STRONG.", STRONG),
    # The question repeated before the answer.
    ("One word, SKIP, WEAK or STRONG: WEAK", WEAK),
    ("A) SKIP\nB) WEAK\nC) STRONG\n\nAnswer: (B) WEAK", WEAK),
    # Thinking.
    ("<think>\nmaybe weak, maybe strong\n</think>\n\nSKIP", SKIP),
    ("Hm. Is it STRONG or WEAK? It takes what it needs.\n</think>\n\nSKIP", SKIP),
    ("I say </think> WEAK, no, wait </think>\nSTRONG", STRONG),
    ("<thought>STRONG would be too much.</thought>\nWEAK", WEAK),
    ("Is it WEAK?\n</thought>\n\nSKIP", SKIP),
    ("<|begin_of_thought|>\n\nWEAK\n\n<|end_of_thought|>\n\nSTRONG", STRONG),
    ("analysisWe decide between SKIP and WEAK.assistantfinalWEAK", WEAK),
]

UNREADABLE = [
    "",
    "   ",
    "yes",
    "SKIPPED",
    "STRONGLY agree",
    # Several.
    "SKIP or WEAK",
    "SKIP/WEAK",
    "SKIP (or WEAK)",
    "WEAK to STRONG",
    "WEAK\nSTRONG",
    "1. STRONG\n2. WEAK",
    "Label: SKIP or WEAK",
    "WEAK\nLabel: STRONG",
    "STRONG. It repeats itself.\n\nWEAK",
    "Final answer: SKIP\n\nWEAK",
    "Could be SKIP, could be WEAK.",
    "I cannot decide between WEAK and STRONG.",
    '{"a": "SKIP", "b": "WEAK"}',
    '{"SKIP": 0.1, "WEAK": 0.8, "STRONG": 0.1}',
    '{"label": ["SKIP", "WEAK"]}',
    # The question alone.
    "SKIP/WEAK/STRONG",
    "One word, SKIP, WEAK or STRONG:",
    "SKIP, WEAK, STRONG, SKIP, WEAK",
    "SKIP: the turn is acceptable. WEAK: possibly suboptimal. STRONG: clearly wrong.",
    # Negated, compared, asked.
    "not STRONG",
    "not STRONG, rather weak",
    "Answer: not STRONG",
    "Neither SKIP nor WEAK.",
    "It would be STRONG if the mug had been dropped.",
    "Do not SKIP this turn.",
    "Is it WEAK? Hard to say.",
    # Ordinary words.
    "You should not skip this one.",
    "Skip the drawer and open the fridge.",
    "Decision: skip the drawer",
    "A strong move.",
    "THE ACTION HAS A WEAK EFFECT",
    # Thinking that is not finished, or nothing after it.
    "<think>SKIP",
    "SKIP</think>",
    "Well.</think><think>SKIP",
    "analysisWe must decide. SKIP is",
]


@pytest.mark.parametrize(("text", "label"), READ)
def test_a_reply_that_gives_one_label_is_read(text: str, label: Label) -> None:
    assert parse_reply(text) is label


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_reply_that_gives_none_or_several_is_not(text: str) -> None:
    assert parse_reply(text) is None


@pytest.mark.parametrize("label", [SKIP, WEAK, STRONG])
@pytest.mark.parametrize("form", ["{}", "Label: {}", "The answer is {}.", "{}: it is.", "1. {}", "x\n\n{}"])
def test_every_label_is_read_alike_in_every_case_of_its_letters(form: str, label: Label) -> None:
    for word in (label.upper(), label.lower(), label.title()):
        assert parse_reply(form.format(word)) is label


def test_thinking_that_the_prompt_opened_has_to_end() -> None:
    assert parse_reply("SKIP", thinking=True) is None
    assert parse_reply("WEAK, maybe.</think>SKIP", thinking=True) is SKIP
    assert opens_thinking("<|im_start|>assistant\n<think>\n")
    assert not opens_thinking("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert opens_thinking("[|assistant|]<thought>\n")
    assert not opens_thinking("Say <think> first.<|im_start|>assistant\n")
