"""A command that only its format kept from being admissible is told from a wrong one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import yaml

from sage.config.prompt_texts import PromptStyle
from sage.envs.alfworld.env import AlfworldEnvironment
from sage.envs.pool import EnvPool, PoolStep
from sage.episode import Failure, Task, Turn
from sage.policy.prompts import parse_answer
from sage.policy.slips import format_slip, plain

ROOT = Path(__file__).parents[2]
STYLES = {
    name: PromptStyle(**style)
    for name, style in yaml.safe_load((ROOT / "conf/prompt/alfworld.yaml").read_text(encoding="utf-8"))[
        "styles"
    ].items()
}
REACT = STYLES["react"]
ADMISSIBLE = ("go to fridge 1", "look", "take mug 1 from desk 1")


def turn_of(answer: str, style: PromptStyle = REACT, admissible: tuple[str, ...] = ADMISSIBLE) -> Turn:
    """A turn of a strict environment."""
    action = parse_answer(style, answer)[1]
    failure = Failure.NONE if action in admissible else Failure.NO_EFFECT if action else Failure.UNPARSED
    return Turn(0, "m", "o", answer, 0, 1, action=action, admissible=admissible, failure=failure)


@pytest.mark.parametrize(
    ("answer", "slipped"),
    [
        ("Thought: x\nAction: go to fridge 1", False),
        ("Thought: x\nAction: Go to fridge 1.", True),
        ("Thought: x\nAction: **go to fridge 1**", True),
        ("**Thought:** x\n**Action:** go to fridge 1", True),
        ("Thought: x\nACTION: look", True),
        ("*Action*: look", True),
        ("Action: `take mug 1 from desk 1`", True),
        ('Action: "look"', True),
        ("Action: go to fridge 2.", False),
        ("Action: take the mug", False),
        ("I go to fridge 1.", False),
        ("", False),
    ],
)
def test_a_command_that_is_admissible_once_written_plainly_is_a_slip(answer: str, slipped: bool) -> None:
    assert format_slip(REACT, turn_of(answer)) is slipped


def test_nothing_is_said_where_the_environment_lists_no_commands() -> None:
    assert format_slip(REACT, turn_of("Action: Look.", admissible=())) is None


def test_plain_leaves_the_words() -> None:
    assert plain("**Go  to** `fridge 1`.") == "go to fridge 1"


def test_the_environment_stays_strict_about_what_is_counted(tasks: list[Task]) -> None:
    with EnvPool(partial(AlfworldEnvironment, "native"), 0, 30.0) as pool:
        start = pool.reset_many([(0, tasks[0])])[0]
        assert isinstance(start, PoolStep)
        command = next(c for c in start.step.admissible if c.startswith("go to"))
        answer = f"Thought: x\nAction: {command.capitalize()}."
        turn = turn_of(answer, admissible=start.step.admissible)
        played = pool.step_many([(0, turn.action)])[0]
    assert isinstance(played, PoolStep)
    assert played.step.failure is Failure.NO_EFFECT
    assert format_slip(REACT, turn) is True
