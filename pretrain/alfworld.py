"""ALFWorld's corpus: the searching expert plays generated games that are never repeated.

Mistakes are injected so that the model sees what recovery looks like; a mistake's own tokens carry no loss.
Judged turns come from a much sloppier player and are labelled by the oracle (did the turn bring the goal
nearer?), which is what the tiny teacher's judgement is taught on.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pretrain.mistakes import Move, Outcome, Transcript, mistake_rate, play_with_mistakes
from pretrain.plays import Play, PlayedTurn, episode_sample, judge_samples, tokenizer_texts
from pretrain.train import Sample
from sage.envs.alfworld.env import scene_of
from sage.envs.alfworld.simulator.expert import SearchingExpert
from sage.envs.alfworld.simulator.generate import sample_game
from sage.envs.alfworld.simulator.native import NativeWorld
from sage.envs.alfworld.simulator.planner import shortest_distance
from sage.envs.alfworld.simulator.world import Game

if TYPE_CHECKING:
    from sage.config.pretrain import PretrainSettings
    from sage.config.prompt_texts import PromptStyle
    from sage.envs.settings import EnvSettings
    from sage.policy.dialogue import Dialogue


class Household:
    """A game with the searching expert in it; see `pretrain.mistakes.Game`."""

    stubborn = 0.5

    def __init__(self, game: Game, distances: bool) -> None:
        self._game, self._distances, self._world = game, distances, NativeWorld(game)
        opening = self._world.reset()
        self.scene, self.goal = scene_of(opening.observation), game.task_text
        self.admissible = opening.admissible
        self._expert = SearchingExpert(self.scene, self.goal, game.goal)

    def distance(self) -> int:
        steps = shortest_distance(self._game, self._world.state) if self._distances else None
        return -1 if steps is None else steps

    def right(self) -> Move:
        return Move(*self._expert.move())

    def wrong(self, right: Move, played: list[PlayedTurn], rng: random.Random) -> Move:
        previous = [turn.action for turn in played]
        return Move(*_mistake(right, self._game, self._expert.here, self.admissible, previous, rng))

    def is_mistaken(self, right: Move, said: Move) -> bool:
        return said.thought != right.thought

    def step(self, action: str) -> Outcome:
        feedback, self.admissible, _, done, won, executed = self._world.step(action)
        self._expert.observe(action, feedback)
        return Outcome(feedback, executed, done, won, self.admissible)


def play(
    game: Game, style: PromptStyle, rng: random.Random, rate: float, turns: int, distances: bool
) -> Play:
    """Let the searching expert play `game`, with a random mistake in a share of the turns."""
    at = Household(game, distances)
    into = Transcript(style, at.scene, at.goal, at.admissible)
    played, won = play_with_mistakes(at, into, rng, rate=rate, turns=turns)
    return Play(at.goal, game.goal.task_type, played, won)


def _mistake(
    move: Move,
    game: Game,
    here: list[str],
    admissible: tuple[str, ...],
    previous: list[str],
    rng: random.Random,
) -> tuple[str, str]:
    """A plausible wrong turn, as (thought, action).

    Half of them begin in the thought, like those of a small model: it sees what is not there, walks past what
    is, or misreads a number, and acts on it. The others think right and act wrong.
    """
    if rng.random() < 0.5:
        if move.thought.startswith("take ") and rng.random() < 0.5:
            kind = move.thought.split()[1]
            return f"find {kind}", f"go to {rng.choice(list(game.receptacles))}"
        if move.thought.startswith("find ") and here:
            kind = move.thought.split()[-1]
            name = f"{kind} {rng.randint(1, 4)}"
            if kind == game.goal.lamp:
                return f"use {name}", f"use {name}"
            return f"take {name}", f"take {name} from {rng.choice(here)}"
        number = re.search(r"\d+", move.thought)
        if number:
            other = str(rng.randint(1, 5))
            return tuple(re.sub(rf"\b{number[0]}\b", other, text) for text in move)  # type: ignore[return-value]
    wanted = move.action
    kind_of_slip = rng.random()
    if kind_of_slip < 0.55 and admissible:
        same_verb = [c for c in admissible if c.split()[0] == wanted.split()[0]]
        choices = same_verb if same_verb and rng.random() < 0.5 else list(admissible)
        return move.thought, rng.choice(choices)
    if kind_of_slip < 0.7 and previous:
        return move.thought, rng.choice(previous[-4:])
    numbers = list(re.finditer(r"\d+", wanted))
    if numbers:
        spot = rng.choice(numbers)
        return move.thought, wanted[: spot.start()] + str(rng.randint(1, 9)) + wanted[spot.end() :]
    return move.thought, rng.choice(admissible) if admissible else wanted


_NAMED = re.compile(r"([a-z]+) (\d+)")


def renumber(played: Play, game: Game, rng: random.Random) -> Play:
    """The same episode with the numbers of every kind of thing and receptacle drawn anew, 1 to 9 or more.

    In the games most numbers are 1, and a small model learns to say 1 instead of reading; with numbers that
    say nothing beforehand it has to copy them.
    """
    numbers: dict[str, list[str]] = {}
    for name in (*game.receptacles, *game.things):
        kind, number = name.rsplit(" ", 1)
        numbers.setdefault(kind, []).append(number)
    renamed = {
        (kind, old): str(new)
        for kind, olds in sorted(numbers.items())
        for old, new in zip(olds, rng.sample(range(1, max(9, len(olds)) + 1), len(olds)), strict=True)
    }

    def change(text: str) -> str:
        return _NAMED.sub(lambda m: f"{m[1]} {renamed.get((m[1], m[2]), m[2])}", text)

    texts = ("message", "observation", "answer", "thought", "action", "feedback")
    turns = []
    for turn in played.turns:
        changed: dict[str, Any] = {name: change(getattr(turn, name)) for name in texts}
        turns.append(replace(turn, **changed))
    return replace(played, turns=turns)


TOKENIZER_GAMES = 1500


@dataclass(frozen=True, slots=True)
class AlfworldCorpus:
    """See `pretrain.corpora.Corpus`."""

    def samples(
        self, style: PromptStyle, dialogue: Dialogue, settings: PretrainSettings, seed: int
    ) -> Iterator[Sample]:
        """An endless stream over games never repeated."""
        for index in itertools.count():
            rng = random.Random(f"sage pretrain {seed} {index}")
            game = sample_game("train", 10_000 + seed, index).game
            if rng.random() < settings.judged:
                sloppy = play(game, style, rng, rng.choice((0.2, 0.5, 0.8)), 20, distances=True)
                if rng.random() < settings.renumbered:
                    sloppy = renumber(sloppy, game, rng)
                yield from judge_samples(sloppy, style, dialogue, rng)
                continue
            episode = play(game, style, rng, mistake_rate(settings, rng), 40, distances=False)
            if not episode.won:
                continue
            if rng.random() < settings.renumbered:
                episode = renumber(episode, game, rng)
            sample = episode_sample(episode, dialogue, settings.observation_weight)
            if len(sample.ids) <= settings.max_tokens:
                yield sample

    def tokenizer_texts(self, style: PromptStyle, seed: int) -> Iterator[str]:
        """Expert play and judged turns of some games, and every number to 199."""
        for index in range(TOKENIZER_GAMES):
            rng = random.Random(f"sage tokenizer {seed} {index}")
            done = play(sample_game("train", 20_000 + seed, index).game, style, rng, 0.3, 20, distances=True)
            yield from tokenizer_texts(done, style)
            yield " ".join(f"Judge: number {n}" for n in range(200))


def corpus(env: EnvSettings) -> AlfworldCorpus:
    """Games are sampled anew, whatever set `env` names."""
    return AlfworldCorpus()
