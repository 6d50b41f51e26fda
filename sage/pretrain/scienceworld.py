"""ScienceWorld's corpus: the recorded gold plays of train variations, with slips that need no simulator.

`sage/envs/scienceworld/plays.json.gz` holds what the simulator said along the gold paths of up to 30 train
variations of each task. A slip is an action whose answer is known without asking: one that names what is not
there (`No known action matches that input.`), a teleport to the wrong room (then the way back is played too),
a second look, or a wrong `focus on`. Their own tokens carry no loss. Judged turns are such plays with many
slips, labelled by the same distance that the environment gives (`gold.Follower`).

A thought is the name of the thing that the next real step is about, so that a teleport has its reason.
"""

from __future__ import annotations

import gzip
import itertools
import json
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from sage.envs.scienceworld import gold
from sage.envs.scienceworld.tasks import parse_id
from sage.policy.prompts import fill, first_message, turn_message
from sage.pretrain.plays import (
    Play,
    PlayedTurn,
    answer_text,
    episode_sample,
    judge_fields,
    judge_samples,
    oracle_word,
)
from sage.pretrain.train import Sample

if TYPE_CHECKING:
    from sage.config import PretrainSettings, PromptStyle
    from sage.envs.settings import EnvSettings
    from sage.policy.dialogue import Dialogue

NOT_UNDERSTOOD = "No known action matches that input."
TURNS = 30
"""Of a play that are learnt from; nothing later is played."""
ROOMS = (
    "art studio", "bathroom", "bedroom", "foundry", "greenhouse", "hallway", "kitchen", "living room",
    "outside", "workshop",
)
COLOURS = ("blue", "green", "orange", "purple", "red", "yellow")
_BOX = re.compile(rf"\b({'|'.join(COLOURS)}) box\b")
_VERB = re.compile(
    r"(?:look around|wait1?|(?:pick up|put down|focus on|look at|look in|go to|teleport to|\w+)(?: |$))"
)
_JOIN = re.compile(r" (?:in|on|to|into|from|containing) ")


@dataclass(frozen=True, slots=True)
class Recorded:
    """One gold play: `texts[i]` answers `actions[i]`."""

    task: str
    goal: str
    scene: str
    actions: tuple[str, ...]
    texts: tuple[str, ...]
    path: gold.Path


@cache
def recorded() -> dict[str, list[Recorded]]:
    """Task -> its recorded plays."""
    data = files("sage.envs.scienceworld").joinpath("plays.json.gz").read_bytes()
    plays: dict[str, list[Recorded]] = {}
    for name, row in json.loads(gzip.decompress(data))["plays"].items():
        path = gold.paths()[name]
        goal = " ".join(row["goal"].split()).removeprefix("Your task is to ").rstrip(". ")
        task = parse_id(name)[0]
        plays.setdefault(task, []).append(
            Recorded(task, goal, row["scene"], path.actions, tuple(row["texts"]), path)
        )
    return plays


def thing_of(action: str) -> str:
    """What an action is about: `pick up metal pot` is about the metal pot."""
    rest = _VERB.sub("", action, count=1)
    return _JOIN.split(f"{rest} in ", maxsplit=1)[0].strip() or action


def plan(actions: tuple[str, ...], index: int) -> str:
    """The thought before `actions[index]`: the thing that the next step with a thing is about."""
    for action in actions[index:]:
        if gold.room_of(action) is None and action != "look around" and not action.isdigit():
            return thing_of(action)
    return "done"


def _slip(
    play: Recorded, upcoming: str, thought: str, room: str | None, looked: str, rng: random.Random
) -> tuple[str, str, str]:
    """(thought, action, feedback) of a plausible wrong turn."""
    kind = rng.random()
    if kind < 0.35:
        other = rng.choice([r for r in ROOMS if r != room and r != gold.room_of(upcoming)])
        return thought, f"teleport to {other}", f"You teleport to the {other}."
    if kind < 0.45 and looked:
        return thought, "look around", looked
    if kind < 0.55 and looked and ": " in looked:
        things = [re.split(r"[,:(]", t)[0].strip() for t in looked.split(": ", 1)[1].split("; ")]
        wrong = [t for t in things if t and t != thing_of(upcoming)]
        if wrong:
            thing = rng.choice(wrong)
            return thing, f"focus on {thing}", f"You focus on the {thing}."
    strange = rng.choice(rng.choice(list(recorded().values())))
    action = rng.choice(strange.actions)
    text = play.goal + play.scene + " ".join(play.texts)
    thing = thing_of(action)
    if thing in text or not action.startswith(("pick up", "focus on", "open", "examine")):
        thing = f"{rng.choice(COLOURS)} {rng.choice(('cup', 'jar', 'crate', 'lamp', 'seed', 'wire'))}"
        action = f"{rng.choice(('pick up', 'focus on', 'open', 'activate'))} {thing}"
    return (thing if rng.random() < 0.5 else thought), action, NOT_UNDERSTOOD


def play_with_slips(
    play: Recorded, style: PromptStyle, rng: random.Random, rate: float, distances: bool
) -> Play:
    """The recorded play with a slip before a share `rate` of its steps, cut after `TURNS` turns."""
    follower = gold.Follower(play.path)
    message, observation = first_message(style, play.scene, play.goal, ()), play.scene
    turns: list[PlayedTurn] = []
    room: str | None = None
    looked = play.scene

    def add(thought: str, action: str, feedback: str, mistake: bool) -> None:
        nonlocal message, observation
        executed = feedback != NOT_UNDERSTOOD
        before = follower.distance or 0
        score = 0  # the path itself says where it is; scores would only jump ahead
        follower.observe(action, executed, score, False)
        after = follower.distance or 0
        if mistake and action.startswith("focus on ") and executed:
            after = before + 5  # the task is lost
        turns.append(
            PlayedTurn(
                message, observation, answer_text(thought, action), thought, action, feedback, mistake,
                executed, before, after,
            )
        )
        observation, message = feedback, turn_message(style, feedback, ())

    for index, action in enumerate(play.actions):
        if len(turns) >= TURNS:
            break
        thought = plan(play.actions, index)
        while rng.random() < rate and len(turns) < TURNS - 2:
            slip = _slip(play, action, thought, room, looked, rng)
            lost = slip[1].startswith("focus on ") and slip[2] != NOT_UNDERSTOOD
            if lost and not distances:
                continue  # nothing can be learnt after it
            add(*slip, True)
            if lost:
                return Play(play.goal, play.task, turns, False)
            if (went := gold.room_of(slip[1])) and gold.room_of(action) is None:
                back = room or play.scene.split(":")[0]
                if room is None or went == back:
                    back = play.scene.split(":")[0] if room is None else room
                add(thought, f"teleport to {back}", f"You teleport to the {back}.", False)
        add(thought, action, play.texts[index], False)
        if (went := gold.room_of(action)) is not None:
            room, looked = went, ""
        elif action == "look around":
            looked = play.texts[index]
    return Play(play.goal, play.task, turns, True)


def recoloured(play: Recorded, rng: random.Random) -> Recorded:
    """The same play with the colours of all boxes exchanged, so that they must be read."""
    new = dict(zip(COLOURS, rng.sample(COLOURS, len(COLOURS)), strict=True))

    def change(text: str) -> str:
        return _BOX.sub(lambda m: f"{new[m[1]]} box", text)

    actions = tuple(change(a) for a in play.actions)
    return Recorded(
        play.task, change(play.goal), change(play.scene), actions, tuple(change(t) for t in play.texts),
        gold.Path(actions, play.path.scores, play.path.package),
    )


@dataclass(frozen=True, slots=True)
class ScienceWorldCorpus:
    """See `sage.pretrain.corpora.Corpus`."""

    def samples(
        self, style: PromptStyle, dialogue: Dialogue, settings: PretrainSettings, seed: int
    ) -> Iterator[Sample]:
        """An endless stream: a task, one of its plays, slips of its own."""
        tasks = sorted(recorded())
        for index in itertools.count():
            rng = random.Random(f"sage pretrain scienceworld {seed} {index}")
            play = rng.choice(recorded()[rng.choice(tasks)])
            if rng.random() < settings.renumbered:
                play = recoloured(play, rng)
            if rng.random() < settings.judged:
                sloppy = play_with_slips(play, style, rng, rng.choice((0.2, 0.5)), distances=True)
                yield from judge_samples(sloppy, style, dialogue, rng)
                continue
            rate = 0.0 if rng.random() < 0.34 else settings.mistakes
            episode = play_with_slips(play, style, rng, rate, distances=False)
            sample = episode_sample(episode, dialogue, settings.observation_weight)
            while len(sample.ids) > settings.max_tokens and len(episode.turns) > 1:
                del episode.turns[-max(1, len(episode.turns) // 8) :]
                sample = episode_sample(episode, dialogue, settings.observation_weight)
            if len(sample.ids) <= settings.max_tokens:
                yield sample

    def tokenizer_texts(self, style: PromptStyle, seed: int) -> Iterator[str]:
        """Every recorded play once, judged turns, and every number to 199."""
        rng = random.Random(f"sage tokenizer scienceworld {seed}")
        for plays in recorded().values():
            for play in plays:
                done = play_with_slips(play, style, rng, 0.2, distances=True)
                for turn in done.turns:
                    yield turn.message
                    yield turn.answer
                    yield oracle_word(turn)
                yield fill(style.judge, **judge_fields(done, done.turns[-1], True))
        yield " ".join(f"Judge: number {n}" for n in range(200))


def corpus(env: EnvSettings) -> ScienceWorldCorpus:
    """The recorded plays, whatever variations `env` names; their text is the brief one."""
    return ScienceWorldCorpus()


