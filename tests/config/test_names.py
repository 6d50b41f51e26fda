"""A run's name says what it is: its preset, and what differs from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage.config.load import load
from sage.config.names import LONGEST
from tests.config.test_load import sage


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ([], "sage_opd"),
        (["method=opd"], "opd"),
        (["intervention=never", "confidence=none"], "sage_opd+intervention=never+confidence=none"),
        (["confidence=none", "intervention=never"], "sage_opd+intervention=never+confidence=none"),
        (["confidence=threshold", "confidence.tau=0.3"], "sage_opd+confidence=threshold+confidence.tau=0.3"),
        (["confidence=threshold"], "sage_opd+confidence=threshold"),
        (["intervention.weak_weight=0.3"], "sage_opd+intervention.weak_weight=0.3"),
        (["rollout.episodes_per_task=2"], "sage_opd+rollout.episodes_per_task=2"),
        (["method=opd_two_rollouts", "env=searchqa"], "opd_two_rollouts"),
        (["method=sft", "rollout.player=student"], "sft+rollout.player=student"),
        (["budget=smoke", "trainer.steps=3", "env=scienceworld", "seed=7", "speed.slots=2"], "sage_opd"),
        (["name=mine", "intervention=never"], "mine"),
    ],
)
def test_a_run_is_named_by_its_preset_and_what_differs_from_it(line: list[str], name: str) -> None:
    assert load(line).name == name


def test_what_says_the_same_as_the_preset_is_no_difference() -> None:
    assert load(["method=opd", "intervention=always", "confidence=none"]).name == "opd"
    assert load(["intervention.weak_weight=0.5"]).name == "sage_opd"


def test_a_name_that_would_be_too_long_has_a_digest_of_what_differs() -> None:
    line = ["intervention=oracle", "confidence=threshold", "confidence.tau=0.123456", "normalization=none",
            "divergence=jsd", "curriculum=tcod_f2b"]  # fmt: skip
    first, second = load(line).name, load([*line, "confidence.tau=0.2"]).name
    assert first.startswith("sage_opd+6 settings (")
    assert first != second
    assert max(len(first), len(second)) <= LONGEST


def test_a_preset_of_one_s_own_is_held_against_its_own_file(tmp_path: Path) -> None:
    mine = tmp_path / "conf" / "method" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    part = "defaults:\n  - override /intervention: never\n"
    mine.write_text(f"# @package _global_\n# Mine.\n{part}method: mine\n")
    place = ["--config-dir", str(mine.parents[1]), "method=mine", "budget=smoke", "trainer.steps=0"]
    small = ["tracking=none", "evaluation.splits=[valid_seen]", "evaluation.limit=1", "env.turn_budget=1"]
    for more, name in ([], "mine"), (["confidence=none"], "mine+confidence=none"):
        ended = sage(*place, *small, *more, folder=tmp_path)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.startswith(f"{name} on alfworld, seed 0")
