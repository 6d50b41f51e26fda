"""The fictional encyclopedia: nothing shared between splits, every answer where the chain says it is."""

from __future__ import annotations

import itertools

import pytest

from sage.envs.searchqa.encyclopedia import ENDS, FACTS, RELATIONS, SPLITS, STARTS, World, word_split
from sage.envs.searchqa.score import normalise

WORLDS = {split: World(split, 3, 400) for split in SPLITS}
COMMON = {"The", "Works", "Mills", "Bank", "Press", "Letters", "Song", "Garden", "Tower", "Province"}


def words(world: World) -> set[str]:
    return {word for title in world.entities for word in title.split()} - COMMON


def test_splits_share_no_entity_and_no_word_of_a_name() -> None:
    for one, other in itertools.combinations(SPLITS, 2):
        assert not words(WORLDS[one]) & words(WORLDS[other])
    for split, world in WORLDS.items():
        assert {word_split(word) for word in words(world)} == {split}


def test_every_word_is_two_pieces_in_one_way() -> None:
    assert len(set(STARTS)) == 240
    assert len(set(ENDS)) == 100
    for word in words(WORLDS["train"]):
        assert (word[:3] in STARTS, word[3:] in ENDS) == (True, True)


@pytest.mark.parametrize("split", SPLITS)
def test_a_passage_states_its_facts_and_names_nobody_else(split: str) -> None:
    world = WORLDS[split]
    for entity in world.entities.values():
        assert len(entity.facts) == FACTS
        assert entity.text.startswith(f"{entity.title} is a ")
        for relation, target in entity.facts.items():
            assert f" {relation}: {target}." in entity.text
            assert world.entities[target].kind == RELATIONS[entity.kind][relation]
        # What is left without title and facts holds no name.
        rest = entity.text
        for name in sorted((entity.title, *entity.facts.values()), key=len, reverse=True):
            rest = rest.replace(name, "")
        assert not words(world) & set(rest.replace(",", "").replace(".", "").split())


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_following_the_chain_leads_to_the_answer_which_the_question_does_not_give(hops: int) -> None:
    world = WORLDS["valid"]
    questions = list(itertools.islice(world.questions(hops, 0), 200))
    assert len({question.text for question in questions}) == len({q.id for q in questions}) == 200
    for question in questions:
        here = question.gold[0]
        assert question.text.endswith(f" of {here}?")
        for title, relation in zip(question.gold, question.relations, strict=True):
            assert here == title
            here = world.entities[title].facts[relation]
        assert question.answers == (here,)
        assert len({*question.gold, here}) == hops + 1
        assert f" {normalise(here)} " not in f" {normalise(question.text)} "
        assert question.text.startswith("Who" if world.entities[here].kind == "person" else "What")


def test_more_names_than_there_are_words_for_are_refused() -> None:
    with pytest.raises(ValueError, match="not enough words for 9000 test entities"):
        World("test", 0, 9000)


def test_same_seed_same_world_and_another_seed_another() -> None:
    assert World("test", 1, 120).passages() == World("test", 1, 120).passages()
    assert not {p.text for p in World("test", 1, 120).passages()} & {
        p.text for p in World("test", 2, 120).passages()
    }
