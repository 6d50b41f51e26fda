"""ScienceWorld's corpus: the recorded gold plays of train variations, with slips that need no simulator.

`scienceworld_plays.json.gz` holds what the simulator said along the gold paths of up to 30 train
variations of each task. A slip is an action whose answer is known without asking: one that names what is not
there (`No known action matches that input.`), a teleport to the wrong room (then the way back is played too),
a second look, or a wrong `focus on`. Their own tokens carry no loss. Judged turns are such plays with many
slips, labelled by the same distance that the environment gives (`gold.Follower`).

A thought is the name of the thing that the next real step is about, so that a teleport has its reason; `look`
where nothing has mentioned that thing yet, so that nobody learns to see what is not there.

A few hundred plays are soon known by heart. So in a share `pretrain.renumbered` of them names are exchanged,
one to one: colours, side rooms, animals, fruits, pot numbers, and the thing that is to be tested.
"""

from __future__ import annotations

import gzip
import itertools
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from pretrain.mistakes import Move, Outcome, Transcript, mistake_rate
from pretrain.plays import Play, episode_sample, judge_samples, tokenizer_texts
from pretrain.train import Sample
from sage.envs.scienceworld import gold
from sage.envs.scienceworld.tasks import parse_id

if TYPE_CHECKING:
    from sage.config.pretrain import PretrainSettings
    from sage.config.prompt_texts import PromptStyle
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
SIDE_ROOMS = ("bathroom", "bedroom", "living room")
"""Rooms in which no task has its equipment."""
BOX_ROOMS = (*SIDE_ROOMS, "art studio", "foundry", "hallway", "kitchen", "workshop")
"""Rooms in which a `find-` task may have its box; what is to be found there needs no equipment."""
ANIMALS = (
    "ant", "beaver", "blue jay", "brown bear", "butterfly", "chameleon", "chipmunk", "crocodile", "dove",
    "dragonfly", "elephant", "frog", "giant tortoise", "hedgehog", "mouse", "parrot", "rabbit", "turtle",
    "wolf", "common toad", "moth", "bee",
)
FRUITS = ("apple", "apricot", "avocado", "banana", "cherry", "grapefruit", "lemon", "orange", "peach")
THINGS = (
    "aluminum foil", "apricot", "brick", "ceramic cup", "chair", "chocolate", "copper wire", "fork",
    "gallium", "glass jar", "gold", "iron block", "lead", "lemon", "marshmallow", "mercury", "metal fork",
    "metal pot", "orange", "paper", "paper cup", "picture", "plastic cup", "platinum", "sodium chloride",
    "spoon", "steel cup", "tin", "tin cup", "titanium", "wax", "white pillow", "wood", "wood cup",
)
_COLOURED = ("box", "light bulb", "wire")
_TESTED = re.compile(
    r"(?:temperature of|melting point of|determine if) (?:the )?(.+?)(?:, which| is electrically)"
    r"|^(?:boil|melt|freeze|change the state of matter of) (?!water|ice)(.+?)\."
)
_POWERED = re.compile(r"turn on the (\w+ light bulb)")
MIXED = {frozenset(("red", "blue")): "violet", frozenset(("red", "yellow")): "orange",
         frozenset(("blue", "yellow")): "green"}  # fmt: skip
"""What two primary colours give."""
_LETTER = re.compile(r"unknown substance ([A-Z])\b")
_STAGE = {"adult", "baby", "egg", "juvenile", "hatchling", "in", "stage", "the"}
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
    data = files(__package__).joinpath("scienceworld_plays.json.gz").read_bytes()
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


def plan(actions: tuple[str, ...], index: int, said: str) -> str:
    """The thought before `actions[index]`: the thing that the next step is about, if `said` mentions it."""
    for action in actions[index:]:
        if gold.room_of(action) is None and action != "look around" and not action.isdigit():
            thing = thing_of(action)
            known = all(word in said for word in thing.split() if word not in _STAGE)
            return thing if known or action == actions[index] else "look"
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
    into = Transcript(style, play.scene, play.goal)
    turns = into.turns
    room: str | None = None
    looked = play.scene
    said = play.goal + play.scene

    def add(thought: str, action: str, feedback: str, mistake: bool) -> None:
        executed = feedback != NOT_UNDERSTOOD
        before = follower.distance or 0
        score = 0  # the path itself says where it is; scores would only jump ahead
        follower.observe(action, executed, score, False)
        after = follower.distance or 0
        if mistake and action.startswith("focus on ") and executed:
            after = before + 5  # the task is lost
        said, outcome = Move(thought, action), Outcome(feedback, executed)
        into.add(said, outcome, mistake=mistake, before=before, after=after)

    for index, action in enumerate(play.actions):
        if len(turns) >= TURNS:
            break
        thought = plan(play.actions, index, said)
        stuck: tuple[str, str, str] | None = None
        while rng.random() < (0.4 if stuck else rate) and len(turns) < TURNS - 2:
            slip = stuck or _slip(play, action, thought, room, looked, rng)
            # A model that was not understood is likely to say it again, so that is practised too.
            stuck = slip if slip[2] == NOT_UNDERSTOOD and rng.random() < 0.6 else None
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
        said += play.texts[index]
        if (went := gold.room_of(action)) is not None:
            room, looked = went, ""
        elif action == "look around":
            looked = play.texts[index]
    return Play(play.goal, play.task, turns, True)


def renamed(play: Recorded, rng: random.Random) -> Recorded:
    """The same play with other names, each for one and throughout, so that they must be read and copied."""
    names: dict[str, str] = {}

    def deal(pool: Sequence[str], form: str = "{}") -> None:
        """`pool` in another order; `form` is the phrase in which its members count."""
        for old, new in zip(pool, rng.sample(pool, len(pool)), strict=True):
            names[form.format(old)] = form.format(new)

    for kind in _COLOURED:
        deal(COLOURS, f"{{}} {kind}")
    deal(BOX_ROOMS if play.task.startswith("find-") else SIDE_ROOMS)
    if play.task in ("find-animal", "find-living-thing") or play.task.startswith("identify-life-stages"):
        deal(ANIMALS)
    if play.task in ("find-plant", "find-living-thing"):
        deal(FRUITS)
    if play.task in ("find-plant", "grow-plant", "grow-fruit"):
        deal([str(n) for n in range(1, 10)], "flower pot {}")
    if letter := _LETTER.search(play.goal):
        names[letter[0]] = f"unknown substance {rng.choice('ABCDEFGHJKLMNOPQRSTUVWXYZ')}"
    elif tested := _TESTED.search(play.goal):
        names[tested[1] or tested[2]] = rng.choice([thing for thing in THINGS if thing not in play.scene])
    if (powered := _POWERED.search(play.goal)) and rng.random() < 0.6:
        names[powered[1]] = rng.choice(("electric buzzer", "electric motor"))
    if "paint" in play.task:
        names = _repainted(rng)
    pattern = re.compile("|".join(rf"\b{re.escape(n)}\b" for n in sorted(names, key=len, reverse=True)))

    def change(text: str) -> str:
        return pattern.sub(lambda found: names[found[0]], text)

    actions = tuple(change(a) for a in play.actions)
    return Recorded(
        play.task, change(play.goal), change(play.scene), actions, tuple(change(t) for t in play.texts),
        gold.Path(actions, play.path.scores, play.path.package),
    )


def _repainted(rng: random.Random) -> dict[str, str]:
    """Primary colours exchanged, and with them what they mix to."""
    primary = ("red", "blue", "yellow")
    new = dict(zip(primary, rng.sample(primary, 3), strict=True))
    for pair, mixed in MIXED.items():
        new[mixed] = MIXED[frozenset(new[colour] for colour in pair)]
    return new | {old.capitalize(): fresh.capitalize() for old, fresh in new.items()}


@dataclass(frozen=True, slots=True)
class ScienceWorldCorpus:
    """See `pretrain.corpora.Corpus`."""

    def samples(
        self, style: PromptStyle, dialogue: Dialogue, settings: PretrainSettings, seed: int
    ) -> Iterator[Sample]:
        """An endless stream: a task, one of its plays, slips of its own."""
        tasks = sorted(recorded())
        # The long ones cannot be won within the turn budget: their beginnings are worth less attention.
        shares = [min(1.0, TURNS / len(recorded()[task][0].actions)) for task in tasks]
        for index in itertools.count():
            rng = random.Random(f"sage pretrain scienceworld {seed} {index}")
            play = rng.choice(recorded()[rng.choices(tasks, shares)[0]])
            if rng.random() < settings.renumbered:
                play = renamed(play, rng)
            if rng.random() < settings.judged:
                sloppy = play_with_slips(play, style, rng, rng.choice((0.2, 0.5)), distances=True)
                yield from judge_samples(sloppy, style, dialogue, rng)
                continue
            episode = play_with_slips(play, style, rng, mistake_rate(settings, rng), distances=False)
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
                done = play_with_slips(play, style, rng, 0.1, distances=True)
                yield from tokenizer_texts(done, style)
        for _ in range(20):
            yield ". ".join((*THINGS, *ANIMALS, *FRUITS, *ROOMS, *(f"{c} box" for c in COLOURS), "look"))
        yield " ".join(f"Judge: number {n}" for n in range(200))


def corpus(env: EnvSettings) -> ScienceWorldCorpus:
    """The recorded plays, whatever variations `env` names; their text is the brief one."""
    return ScienceWorldCorpus()


