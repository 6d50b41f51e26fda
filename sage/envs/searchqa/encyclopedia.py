"""A fictional encyclopedia: people, towns, companies, books and provinces with invented names and facts.

Nothing in it can be known without reading it: every name is put together from random pieces and every fact is
drawn at random. Each word of a name belongs to one split (a hash decides): train, validation and test share
no word of a name. An entity's facts stand in its own passage only, so a question over n facts needs n
passages.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

from sage.envs.searchqa.question import Question
from sage.envs.searchqa.retrieval.passage import Passage

GENERATOR_VERSION = 3
"""Part of the cache folder's name; raise it when the same seed would give other questions."""

SPLITS = ("train", "valid", "test")
_SHARES = {"train": range(6), "valid": range(6, 8), "test": range(8, 10)}
"""Tenths of all words that belong to each split."""

_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"
_CLUSTERS = ("nd", "rk", "st", "ld", "rn", "nt", "lm", "rs", "sk", "lt")
STARTS = tuple(random.Random("sage names").sample(
    [(a + v + b).capitalize() for a in _CONSONANTS for v in _VOWELS for b in _CONSONANTS if a != b], 240
))
ENDS = tuple(v + c for v in _VOWELS for c in (*"dklmnrstvz", *_CLUSTERS))
"""An invented word is a start and an end: `Kav` + `orn`. A tokenizer that knows these pieces can write every
name, and still has to read each one, for which pieces belong together is chance."""

PROFESSIONS = ("painter", "farmer", "pilot", "singer", "doctor", "baker", "sailor", "poet")
_COMPANIES = ("Works", "Mills", "Bank", "Press")
_BOOKS = ("Letters", "Song", "Garden", "Tower")


RELATIONS: dict[str, dict[str, str]] = {
    "person": {"birthplace": "town", "spouse": "person", "teacher": "person", "employer": "company"},
    "town": {"province": "province", "mayor": "person", "twin": "town"},
    "company": {"founder": "person", "seat": "town", "owner": "person"},
    "book": {"author": "person", "setting": "town", "publisher": "company"},
    "province": {"capital": "town", "governor": "person", "rival": "province"},
}
"""What may be said of an entity of each kind, and the kind of what it leads to; a passage states three."""

FACTS = 3
_PARTS = {"person": 0.5, "town": 0.2, "company": 0.12, "book": 0.1, "province": 0.08}


def word_split(word: str) -> str:
    """The one split in whose names `word` may occur."""
    tenth = hashlib.sha256(word.lower().encode()).digest()[0] % 10
    return next(split for split, share in _SHARES.items() if tenth in share)


@dataclass(frozen=True, slots=True)
class Entity:
    title: str
    kind: str
    facts: dict[str, str]
    """Title of the related entity by relation name, in the order of the text."""
    text: str

    @property
    def passage(self) -> Passage:
        return Passage(self.title, self.text)


class World:
    """The encyclopedia of one split: `entities` by title. Deterministic in (split, seed, size).

    Raises ValueError where the split has too few words for that many names (beyond about 6,000 entities of an
    evaluation split, three times as many of train).
    """

    def __init__(self, split: str, seed: int, size: int) -> None:
        self.split = split
        rng = random.Random(f"sage encyclopedia {GENERATOR_VERSION} {split} {seed} {size}")
        titles = _titles(split, size, rng)
        self.entities: dict[str, Entity] = {}
        for kind, names in titles.items():
            for name in names:
                self.entities[name] = _entity(name, kind, titles, rng)

    def passages(self) -> list[Passage]:
        return [entity.passage for entity in self.entities.values()]

    def questions(self, hops: int, seed: int) -> Iterator[Question]:
        """Different questions over `hops` facts, without end: asking for more than exist waits forever."""
        rng = random.Random(f"sage questions {GENERATOR_VERSION} {self.split} {seed} {hops}")
        starts = list(self.entities)
        asked: set[str] = set()
        while True:
            path = [rng.choice(starts)]
            relations: list[str] = []
            for _ in range(hops):
                relation, target = rng.choice(list(self.entities[path[-1]].facts.items()))
                relations.append(relation)
                path.append(target)
            text = question_text(path[0], relations, self.entities[path[-1]].kind)
            if len(set(path)) == len(path) and text not in asked:
                asked.add(text)
                name = f"{self.split}_{hops}hop/{len(asked) - 1:05d}"
                yield Question(name, text, (path[-1],), tuple(path[:-1]), tuple(relations))


def question_text(start: str, relations: list[str], answer_kind: str) -> str:
    """`Who is the mayor of the birthplace of Kavo Renti?` for the relations birthplace, mayor."""
    chain = " of ".join(f"the {relation}" for relation in reversed(relations))
    return f"{'Who' if answer_kind == 'person' else 'What'} is {chain} of {start}?"


def _titles(split: str, size: int, rng: random.Random) -> dict[str, list[str]]:
    """Names of every kind, all different; given and family names recur, as people's do."""
    words: set[str] = set()

    def word() -> str:
        for _ in range(10_000):
            new = rng.choice(STARTS) + rng.choice(ENDS)
            if new not in words and word_split(new) == split:
                words.add(new)
                return new
        raise ValueError(f"There are not enough words for {size} {split} entities.")

    given, family = ([word() for _ in range(max(8, size // 12))] for _ in range(2))
    titles: dict[str, list[str]] = {}
    for kind, share in _PARTS.items():
        names: dict[str, None] = {}
        while len(names) < max(6, round(size * share)):
            if kind == "person":
                names[f"{rng.choice(given)} {rng.choice(family)}"] = None
            elif kind == "company":
                names[f"{word()} {rng.choice(_COMPANIES)}"] = None
            elif kind == "book":
                names[f"The {word()} {rng.choice(_BOOKS)}"] = None
            else:
                names[word() + (" Province" if kind == "province" else "")] = None
        titles[kind] = list(names)
    return titles


def _entity(name: str, kind: str, titles: dict[str, list[str]], rng: random.Random) -> Entity:
    relations = rng.sample(list(RELATIONS[kind]), FACTS)
    used = {name}
    facts: dict[str, str] = {}
    for relation in relations:
        target = rng.choice([title for title in titles[RELATIONS[kind][relation]] if title not in used])
        used.add(target)
        facts[relation] = target
    noun = rng.choice(PROFESSIONS) if kind == "person" else kind
    said = " ".join(f"{relation}: {target}." for relation, target in facts.items())
    return Entity(name, kind, facts, f"{name} is a {noun}. {said}")
