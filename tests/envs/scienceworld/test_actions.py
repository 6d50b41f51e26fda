"""What counts as not executed, and what `brief` leaves out."""

from __future__ import annotations

import pytest

from sage.envs.scienceworld import jvm
from sage.envs.scienceworld.actions import brief, failure_of, is_crash
from sage.episode import Failure

KITCHEN = (
    "This room is called the kitchen. In it, you see: \n\tthe agent\n\ta substance called air\n"
    "\ta counter. On the counter is: a bowl (containing a red apple, a banana), a drawer.\n"
    "\ta cupboard. The cupboard door is closed. \n"
    "\ta glass jar (containing a substance called sodium chloride)\n"
    "\ta sink, which is turned off. In the sink is: nothing.\n\ta table. On the table is: a glass cup "
    "(containing nothing).\nYou also see:\n\tA door to the bathroom (that is open)\n"
    "\tA door to the hallway (that is closed)\n"
)


def test_brief_keeps_what_matters() -> None:
    assert brief(KITCHEN) == (
        "kitchen: counter: bowl (red apple, banana), drawer; cupboard, closed; glass jar (sodium chloride); "
        "sink, turned off; table: glass cup; door to hallway (that is closed)"
    )
    assert brief("You move the thermometer to the inventory.") == "You move the thermometer to the inventory."


def test_not_understood_is_a_failure_and_says_which_kind(simulator: jvm.Simulator) -> None:
    session = simulator.open()
    simulator.load(session, "find-animal", 225, "easy")

    def failure(action: str) -> Failure:
        return failure_of(action, simulator.step(session, action)[0])

    assert failure("look around") is Failure.NONE
    assert failure("dance with the wolves") is Failure.SCHEMA
    assert failure("pick up unicorn") is Failure.NO_EFFECT
    assert failure("open door to hallway") is Failure.NONE  # executed, and refused in words
    assert failure("teleport to kitchen") is Failure.NONE


def test_a_question_is_no_failure(simulator: jvm.Simulator) -> None:
    session = simulator.open()
    simulator.load(session, "grow-plant", 0, "easy")
    for action in ("teleport to kitchen", "pick up seed jar", "teleport to greenhouse"):
        simulator.step(session, action)
    asked = simulator.step(session, "move apple seed in seed jar to flower pot 3")[0]
    assert asked.startswith("Ambiguous request:")
    assert failure_of("move apple seed in seed jar to flower pot 3", asked) is Failure.NONE
    answered = simulator.step(session, "0")[0]
    assert answered == "You move the apple seed to the flower pot 3."
    assert failure_of("0", answered) is Failure.NONE


@pytest.mark.parametrize(
    ("text", "crashed"),
    [
        ("scala.MatchError: None (of class scala.None$)", True),
        ("java.lang.NullPointerException", True),
        ("a book about java", False),
    ],
)
def test_an_exception_of_the_simulator_is_told_from_its_words(text: str, crashed: bool) -> None:
    assert is_crash(text) is crashed
