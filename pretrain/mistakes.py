"""How an expert plays with mistakes: the one loop of the environments that are played, and how every play is
written down.

Mistakes are injected so that a model sees what recovery looks like. The order of the draws makes the shipped
models again; drawn otherwise it would be another corpus.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pretrain.plays import PlayedTurn, answer_text
from sage.policy.prompts import first_message, turn_message

if TYPE_CHECKING:
    from sage.config.pretrain import PretrainSettings
    from sage.config.prompt_texts import PromptStyle


class Move(NamedTuple):
    """What is said in a turn."""

    thought: str
    action: str


class Outcome(NamedTuple):
    """What a game answers to an action, and what may be done next."""

    feedback: str
    executed: bool
    done: bool = False
    won: bool = False
    admissible: tuple[str, ...] = ()


class Game(Protocol):
    """One game and who knows how to win it."""

    stubborn: float
    """Probability with which a mistake that is one is said again."""

    def distance(self) -> int:
        """Full-information steps to the goal."""
        ...

    def right(self) -> Move:
        """What the expert says now."""
        ...

    def wrong(self, right: Move, played: list[PlayedTurn], rng: random.Random) -> Move:
        """A plausible mistake in its place."""
        ...

    def is_mistaken(self, right: Move, said: Move) -> bool:
        """Whether what was drawn as a mistake is likely to be said again."""
        ...

    def step(self, action: str) -> Outcome: ...


class Transcript:
    """A play while it is written down: each turn with the message that it answers."""

    def __init__(
        self,
        style: PromptStyle,
        scene: str,
        goal: str,
        admissible: tuple[str, ...] = (),
        write: Callable[[str, str], str] = answer_text,
    ) -> None:
        """write: an answer's text, of thought and action."""
        self.turns: list[PlayedTurn] = []
        self._style, self._write = style, write
        self._message, self._observation = first_message(style, scene, goal, admissible), scene

    def add(self, said: Move, outcome: Outcome, *, mistake: bool, before: int, after: int) -> None:
        """One turn, `before` and `after` it the distance to the goal."""
        self.turns.append(
            PlayedTurn(
                self._message,
                self._observation,
                self._write(*said),
                *said,
                outcome.feedback,
                mistake,
                outcome.executed,
                before,
                after,
            )
        )
        self._observation = outcome.feedback
        self._message = turn_message(self._style, outcome.feedback, outcome.admissible)


def play_with_mistakes(
    game: Game, into: Transcript, rng: random.Random, *, rate: float, turns: int
) -> tuple[list[PlayedTurn], bool]:
    """The turns of the expert's play, a share `rate` of them mistakes, and whether it was won."""
    stuck: Move | None = None
    before, won = game.distance(), False
    for _ in range(turns):
        right = said = game.right()
        if stuck is not None:
            said = stuck
            stuck = stuck if rng.random() < 0.4 else None
        elif rng.random() < rate:
            said = game.wrong(right, into.turns, rng)
            # A model that has said something wrong is likely to say it again, so that is practised too.
            stuck = said if game.is_mistaken(right, said) and rng.random() < game.stubborn else None
        outcome = game.step(said.action)
        after = game.distance()
        into.add(said, outcome, mistake=said != right, before=before, after=after)
        before, won = after, outcome.won
        if outcome.done:
            break
    return into.turns, won


def mistake_rate(settings: PretrainSettings, rng: random.Random) -> float:
    """A third of the games is played cleanly: the shortest route is worth seeing undisturbed."""
    return 0.0 if rng.random() < 0.34 else settings.mistakes
