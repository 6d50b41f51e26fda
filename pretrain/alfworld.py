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

from pretrain.plays import (
    Play,
    PlayedTurn,
    answer_text,
    episode_sample,
    judge_fields,
    judge_samples,
    oracle_word,
)
from pretrain.train import Sample
from sage.envs.alfworld.env import scene_of
from sage.envs.alfworld.simulator.expert import Move, SearchingExpert
from sage.envs.alfworld.simulator.generate import sample_game
from sage.envs.alfworld.simulator.native import NativeWorld
from sage.envs.alfworld.simulator.planner import shortest_distance
from sage.envs.alfworld.simulator.world import Game
from sage.policy.prompts import fill, first_message, turn_message

if TYPE_CHECKING:
    from sage.config.pretrain import PretrainSettings
    from sage.config.prompt_texts import PromptStyle
    from sage.envs.settings import EnvSettings
    from sage.policy.dialogue import Dialogue


def play(
    game: Game, style: PromptStyle, rng: random.Random, mistake_rate: float, turns: int, distances: bool
) -> Play:
    """Let the searching expert play `game`, with a random mistake in a share of the turns."""
    world = NativeWorld(game)
    opening = world.reset()
    scene, goal = scene_of(opening.observation), game.task_text
    admissible = opening.admissible
    expert = SearchingExpert(scene, goal, game.goal)
    message = first_message(style, scene, goal, admissible)
    observation = scene
    played: list[PlayedTurn] = []
    previous: list[str] = []
    won = False
    before = shortest_distance(game, world.state) if distances else None
    stuck: tuple[str, str] | None = None
    for _ in range(turns):
        move = expert.move()
        thought, action = move.thought, move.command
        if stuck is not None:
            thought, action = stuck
            stuck = stuck if rng.random() < 0.4 else None
        elif rng.random() < mistake_rate:
            thought, action = _mistake(move, game, expert.here, admissible, previous, rng)
            # A model that has said something wrong is likely to say it again, so that is practised too.
            stuck = (thought, action) if thought != move.thought and rng.random() < 0.5 else None
        mistake = (thought, action) != (move.thought, move.command)
        feedback, admissible, _, done, won, executed = world.step(action)
        expert.observe(action, feedback)
        after = shortest_distance(game, world.state) if distances else None
        played.append(
            PlayedTurn(
                message,
                observation,
                answer_text(thought, action),
                thought,
                action,
                feedback,
                mistake,
                executed,
                -1 if before is None else before,
                -1 if after is None else after,
            )
        )
        previous.append(action)
        observation, before = feedback, after
        message = turn_message(style, feedback, admissible)
        if done:
            break
    return Play(goal, game.goal.task_type, played, won)


def _mistake(
    move: Move,
    game: Game,
    here: list[str],
    admissible: tuple[str, ...],
    previous: list[str],
    rng: random.Random,
) -> tuple[str, str]:
    """A plausible wrong turn, as (thought, command).

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
    wanted = move.command
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
            # A third of the games is played cleanly: the shortest route is worth seeing undisturbed.
            rate = 0.0 if rng.random() < 0.34 else settings.mistakes
            episode = play(game, style, rng, rate, 40, distances=False)
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
            for turn in done.turns:
                yield turn.message
                yield turn.answer
                yield oracle_word(turn)
            yield fill(style.judge, **judge_fields(done, done.turns[-1], True))
            yield " ".join(f"Judge: number {n}" for n in range(200))


def corpus(env: EnvSettings) -> AlfworldCorpus:
    """Games are sampled anew, whatever set `env` names."""
    return AlfworldCorpus()
