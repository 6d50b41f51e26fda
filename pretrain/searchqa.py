"""SearchQA's corpus: an expert answers questions over fictional encyclopedias that are never repeated.

The expert knows the chain of passages that leads to the answer, and says in its thoughts what it read and
what it looks for. Mistakes are injected so that the model sees what recovery looks like; a mistake's own
tokens carry no loss. Judged turns come from a much sloppier player, who may also answer wrongly, and are
labelled by the oracle. Names are those of the `train` split: the evaluation sets' names are unseen, the
pieces they are made of aside.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pretrain.mistakes import Move, Outcome, Transcript, mistake_rate, play_with_mistakes
from pretrain.plays import Play, PlayedTurn, episode_sample, judge_samples, tokenizer_texts
from pretrain.train import Sample
from sage.envs.searchqa.encyclopedia import ENDS, STARTS, World, word_split
from sage.envs.searchqa.env import SearchqaEnvironment
from sage.envs.searchqa.question import Question
from sage.envs.searchqa.retrieval.bm25 import Bm25
from sage.episode import Failure

if TYPE_CHECKING:
    from sage.config.pretrain import PretrainSettings
    from sage.config.prompt_texts import PromptStyle
    from sage.envs.settings import EnvSettings
    from sage.policy.dialogue import Dialogue

DRILLS = 3
"""Of each kind, between two episodes: they are short, and a third of the tokens."""
WORLD_SIZE = 300
PLAYS_PER_WORLD = 150
OUT_OF_REACH = 99
"""Distance after a wrong answer, so that the oracle's word for that turn is STRONG."""


def answer_text(thought: str, action: str) -> str:
    """One answer. With the space, the thought's first word has the token that it has in a passage."""
    return f"<thought> {thought}</thought>\n<action>{action}</action>"


def command(verb: str, text: str) -> str:
    """`search[ Kavo Renti]`: with the space, a name has the same tokens here as where it was read."""
    return f"{verb}[ {text}]"


def right_move(question: Question, missing: list[str]) -> Move:
    """What the expert thinks and does: the first missing passage is searched for, or the answer given."""
    gold, relations = question.gold, question.relations
    step = gold.index(missing[0]) if missing else len(gold)
    if step == 0:
        return Move(f"find {relations[0]} of {gold[0]}", command("search", gold[0]))
    if step == len(gold):
        return Move(f"{relations[-1]}: {question.answers[0]}", command("answer", question.answers[0]))
    thought = f"{relations[step - 1]}: {gold[step]}, find {relations[step]}"
    return Move(thought, command("search", gold[step]))


class Quiz:
    """A question in front of the expert; see `pretrain.mistakes.Game`. Only a `sloppy` one also gives wrong
    answers."""

    stubborn = 0.3

    def __init__(self, env: SearchqaEnvironment, world: World, question: Question, sloppy: bool) -> None:
        self._env, self._world, self._question, self._sloppy = env, world, question, sloppy
        self.scene, self.goal = env.begin(question).observation, env.goal
        self.task_type = f"{len(question.gold)}hop"

    def distance(self) -> int:
        steps = self._env.expert_distance()
        return OUT_OF_REACH if steps is None else steps

    def right(self) -> Move:
        return right_move(self._question, self._env.missing())

    def wrong(self, right: Move, played: list[PlayedTurn], rng: random.Random) -> Move:
        return _mistake(right, self._world, self._question, self._env.missing(), played, rng, self._sloppy)

    def is_mistaken(self, right: Move, said: Move) -> bool:
        return said != right

    def step(self, action: str) -> Outcome:
        step = self._env.step(action)
        return Outcome(step.observation, step.failure is Failure.NONE, step.done, step.won)


def play(at: Quiz, style: PromptStyle, rng: random.Random, rate: float, turns: int) -> Play:
    """Let the expert answer, with a mistake in a share of the turns."""
    into = Transcript(style, at.scene, at.goal, write=answer_text)
    played, won = play_with_mistakes(at, into, rng, rate=rate, turns=turns)
    return Play(at.goal, at.task_type, played, won)


def _mistake(
    right: Move,
    world: World,
    question: Question,
    missing: list[str],
    played: list[PlayedTurn],
    rng: random.Random,
    sloppy: bool,
) -> Move:
    """A plausible wrong turn: another entity taken from what was read, a slip in a name, a search made
    before, or something that is no action; a sloppy player also answers too early."""
    gold, relations = question.gold, question.relations
    step = gold.index(missing[0]) if missing else len(gold)
    kind = rng.random()
    if sloppy and kind < 0.3:
        pool = [*gold, *world.entities[gold[max(0, step - 1)]].facts.values()]
        wrong = rng.choice([title for title in pool if title not in question.answers] or [gold[0]])
        return Move(f"{relations[-1]}: {wrong}", command("answer", wrong))
    if kind < 0.6 and step > 0:
        read = _read_titles(played, rng)
        facts = list(world.entities[gold[step - 1]].facts.values())
        wrong = rng.choice(facts if rng.random() < 0.6 or not read else read)
        wanted = relations[min(step, len(relations) - 1)]
        return Move(f"{relations[step - 1]}: {wrong}, find {wanted}", command("search", wrong))
    if kind < 0.75:
        searched = [Move(turn.thought, turn.action) for turn in played if turn.action.startswith("search[ ")]
        if searched:
            return rng.choice(searched)
    if kind < 0.9:
        title = missing[0] if missing else question.answers[0]
        return Move(right.thought, command("search", _slip(title, rng)))
    title = missing[0] if missing else question.answers[0]
    return Move(right.thought, rng.choice((f"search {title}", f"find[ {title}]", "search[]", title)))


def _read_titles(played: list[PlayedTurn], rng: random.Random) -> list[str]:
    return re.findall(r"\(Title: ([^)]*)\)", played[-1].feedback) if played else []


_WORD = re.compile(rf"\b({'|'.join(STARTS)})({'|'.join(ENDS)})\b")
"""A word of an invented name, in its two pieces."""


def _slip(title: str, rng: random.Random) -> str:
    """`title` with one piece of one of its invented words changed."""
    spot = rng.choice(list(_WORD.finditer(title)))
    start, end = spot.groups()
    new = rng.choice(STARTS) + end if rng.random() < 0.5 else start + rng.choice(ENDS)
    return title[: spot.start()] + new + title[spot.end() :]


def split_words(text: str) -> str:
    """`text` with a dot inside every invented word: a tokenizer trained on it learns pieces and no name."""
    return _WORD.sub(r"\1·\2", text)


def weigh_repeats(sample: Sample, ends: set[int], weight: float) -> None:
    """Give `weight` to every token without one that is among `ends` and follows what it has followed before.

    A name that was begun is to be finished as it was read: the clearest lesson in copying that there is.
    """
    seen: set[tuple[int, int]] = set()
    for i in range(1, len(sample.ids)):
        pair = (sample.ids[i - 1], sample.ids[i])
        if sample.weights[i] == 0 and pair[1] in ends and pair in seen:
            sample.weights[i] = weight
        seen.add(pair)


def copying_drill(dialogue: Dialogue, rng: random.Random) -> Sample:
    """Names and the same names again in another order; loss on the end of each name that comes again.

    An episode copies a dozen names in 300 tokens, from which a small model learns copying very slowly.
    """
    drawn = (start + rng.choice(ENDS) for start in rng.sample(STARTS, len(STARTS)))
    words = [word for word in drawn if word_split(word) == "train"][:12]
    given = dialogue.open("", "".join(f" {word}" for word in words))
    ids, weights = list(given), [0.0] * len(given)
    for word in rng.sample(words, len(words)):
        pieces = dialogue.tokenizer.encode(f" {word}", add_special_tokens=False)
        ids += pieces
        weights += [0.0] + [1.0] * (len(pieces) - 1)
    return Sample(ids, weights)


def reading_drill(
    world: World, env: SearchqaEnvironment, dialogue: Dialogue, rng: random.Random
) -> Sample:
    """One search, and everything that its passage says, as a thought would say it."""
    entity = world.entities[rng.choice(list(world.entities))]
    relation = next(iter(entity.facts))
    env.begin(Question("drill", "", (entity.facts[relation],), (entity.title,), (relation,)))
    found = env.step(command("search", entity.title)).observation
    move = Move(f"find {relation} of {entity.title}", command("search", entity.title))
    asked = dialogue.encode_answer(answer_text(*move))
    given = dialogue.open("", f"What is the {relation} of {entity.title}?")
    ids = given + asked + dialogue.follow(found, True)
    weights = [0.0] * len(given) + [1.0] * len(asked) + [0.0] * (len(ids) - len(given) - len(asked))
    facts = rng.sample(list(entity.facts.items()), len(entity.facts))
    said = dialogue.tokenizer.encode("<thought>", add_special_tokens=False)
    ids += said
    weights += [1.0] * len(said)
    for name, target in facts:
        label, value = (
            dialogue.tokenizer.encode(f" {text}", add_special_tokens=False) for text in (f"{name}:", target)
        )
        ids += label + value
        weights += [0.0] * len(label) + [1.0] * len(value)
    return Sample(ids, weights)


@dataclass(frozen=True, slots=True)
class SearchqaCorpus:
    """See `pretrain.corpora.Corpus`."""

    topk: int
    max_searches: int

    def samples(
        self, style: PromptStyle, dialogue: Dialogue, settings: PretrainSettings, seed: int
    ) -> Iterator[Sample]:
        """An endless stream over encyclopedias and questions never repeated.

        `observation_weight` is of the ends of names that were read before: all else in a passage is chance.
        """
        pieces = (dialogue.tokenizer.encode(end, add_special_tokens=False) for end in ENDS)
        ends = {ids[0] for ids in pieces if len(ids) == 1}
        for number in itertools.count():
            rng = random.Random(f"sage pretrain searchqa {seed} {number}")
            for world, env, question in self._plays(10_000 + seed, number):
                for _ in range(DRILLS):
                    yield copying_drill(dialogue, rng)
                    yield reading_drill(world, env, dialogue, rng)
                if rng.random() < settings.judged:
                    rate = rng.choice((0.2, 0.5, 0.8))
                    judged = play(Quiz(env, world, question, sloppy=True), style, rng, rate, 6)
                    yield from judge_samples(judged, style, dialogue, rng)
                    continue
                rate = mistake_rate(settings, rng)
                episode = play(Quiz(env, world, question, sloppy=False), style, rng, rate, 12)
                sample = episode_sample(episode, dialogue, 0.0)
                weigh_repeats(sample, ends, settings.observation_weight)
                if episode.won and len(sample.ids) <= settings.max_tokens:
                    yield sample

    def tokenizer_texts(self, style: PromptStyle, seed: int) -> Iterator[str]:
        """Play and judged turns of some questions, names in pieces, then every piece often."""
        rng = random.Random(f"sage tokenizer searchqa {seed}")
        for number in range(8):
            for world, env, question in self._plays(20_000 + seed, number):
                done = play(Quiz(env, world, question, sloppy=True), style, rng, 0.3, 8)
                yield from map(split_words, tokenizer_texts(done, style))
        # More often than any word: the merges that make pieces then come before those that make words, and no
        # name is ever cut elsewhere.
        for start in STARTS:
            yield f" {start}·" * 10_000
        for end in ENDS:
            yield f"·{end}" * 20_000

    def _plays(self, seed: int, number: int) -> Iterator[tuple[World, SearchqaEnvironment, Question]]:
        """One encyclopedia and its questions, of each number of hops in turn."""
        world = World("train", seed * 1_000_000 + number, WORLD_SIZE)
        retriever = Bm25(world.passages(), 1.5, 0.75)
        env = SearchqaEnvironment(lambda: retriever, self.topk, self.max_searches)
        streams = [world.questions(hops, seed) for hops in (1, 2, 3)]
        for index in range(PLAYS_PER_WORLD):
            yield world, env, next(streams[index % 3])


def corpus(env: EnvSettings) -> SearchqaCorpus:
    """Encyclopedias are made anew, whatever questions `env` names; passages and searches are as in `env`."""
    from sage.envs.searchqa.settings import SearchqaSettings

    assert isinstance(env, SearchqaSettings)
    return SearchqaCorpus(env.topk, env.max_searches)
