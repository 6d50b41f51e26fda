"""Expert play on fictional encyclopedias as training text: what was played, with honest weights."""

from __future__ import annotations

import itertools
import random

import pytest
from transformers import AutoTokenizer

from pretrain.corpora import find_corpus
from pretrain.plays import episode_sample, oracle_word
from pretrain.searchqa import Quiz, SearchqaCorpus, play, split_words, weigh_repeats
from pretrain.train import Sample
from sage.config.load import load
from sage.envs.searchqa.encyclopedia import ENDS, STARTS, World, word_split
from sage.envs.searchqa.env import SearchqaEnvironment, parse_action
from sage.envs.searchqa.retrieval.bm25 import Bm25
from sage.policy.dialogue import Dialogue
from sage.policy.models.folder import resolve_path
from sage.policy.prompts import parse_answer

CONFIG = load(["env=searchqa", "pretrain=searchqa"])
SHORT = CONFIG.prompt.styles["short"]
WORLD = World("train", 5, 150)
QUESTIONS = [q for hops in (1, 2, 3) for q in itertools.islice(WORLD.questions(hops, 0), 20)]


@pytest.fixture(scope="module")
def dialogue() -> Dialogue:
    return Dialogue(AutoTokenizer.from_pretrained(resolve_path("sage://tiny-student/searchqa")))


@pytest.fixture
def env() -> SearchqaEnvironment:
    index = Bm25(WORLD.passages(), 1.5, 0.75)
    return SearchqaEnvironment(lambda: index, 3, 8)


def test_the_expert_wins_in_at_most_one_turn_per_fact_and_one(env: SearchqaEnvironment) -> None:
    for question in QUESTIONS:
        done = play(Quiz(env, WORLD, question, sloppy=False), SHORT, random.Random(0), 0.0, 12)
        assert done.won
        # Fewer where one search returns the next passage too.
        assert 2 <= len(done.turns) <= len(question.gold) + 1
        assert [oracle_word(turn) for turn in done.turns] == ["SKIP"] * len(done.turns)


def test_a_played_episode_replays_and_recovers(env: SearchqaEnvironment) -> None:
    won = mistakes = 0
    for number, question in enumerate(QUESTIONS):
        done = play(Quiz(env, WORLD, question, sloppy=False), SHORT, random.Random(number), 0.4, 12)
        won += done.won
        mistakes += sum(turn.mistake for turn in done.turns)
        env.begin(question)
        for turn in done.turns:
            thought, action = parse_answer(SHORT, turn.answer)
            assert (thought, action) == (turn.thought, turn.action)
            assert env.step(action).observation == turn.feedback
            assert turn.executed != turn.feedback.startswith(("Nothing was", "Not an action", "No searches"))
    assert mistakes > 20
    assert won > 0.8 * len(QUESTIONS)


def test_a_sloppy_player_gives_the_judge_all_three_words(env: SearchqaEnvironment) -> None:
    words = set()
    for number, question in enumerate(QUESTIONS):
        done = play(Quiz(env, WORLD, question, sloppy=True), SHORT, random.Random(number), 0.6, 6)
        words |= {oracle_word(turn) for turn in done.turns if turn.executed}
        if not done.won and parse_action(done.turns[-1].action) and "answer" in done.turns[-1].action:
            assert oracle_word(done.turns[-1]) == "STRONG"
    assert words == {"SKIP", "WEAK", "STRONG"}


def test_an_episode_weighs_the_experts_answers_and_copied_ends_of_names(
    env: SearchqaEnvironment, dialogue: Dialogue
) -> None:
    done = play(Quiz(env, WORLD, QUESTIONS[45], sloppy=False), SHORT, random.Random(3), 0.4, 12)
    sample = episode_sample(done, dialogue, 0.0)
    full = [i for i, w in zip(sample.ids, sample.weights, strict=True) if w == 1.0]
    assert full == [t for turn in done.turns if not turn.mistake for t in dialogue.encode_answer(turn.answer)]
    copied = Sample([7, 1, 8, 7, 1, 8, 2, 7, 1], [0, 0, 1, 0, 0, 0, 0, 0, 1])
    weigh_repeats(copied, {1, 2}, 0.5)
    assert copied.weights == [0, 0, 1, 0, 0.5, 0, 0, 0, 1]


def test_the_tokenizer_writes_every_name_in_its_pieces_wherever_it_stands(dialogue: Dialogue) -> None:
    world = World("test", 9, 200)  # of the split that no corpus has
    (special,) = dialogue.format.end_ids
    for title in world.entities:
        ids = dialogue.tokenizer.encode(f" {title}", add_special_tokens=False)
        pieces = [dialogue.tokenizer.decode([i]) for i in ids]
        expected = []
        for word in title.split():
            cut = (word[:3], word[3:]) if (word[:3] in STARTS and word[3:] in ENDS) else (word,)
            expected += [f" {cut[0]}", *cut[1:]]
        assert pieces == expected
        action = dialogue.encode_answer(f"<action>search[ {title}]</action>")
        assert action[-1] == special
        assert [i for i in action if i in ids] == ids


def test_no_text_for_the_tokenizer_holds_a_whole_name() -> None:
    start, end = STARTS[0], ENDS[0]
    assert split_words(f"Who is {start}{end} of The {start}{end} Song?") == (
        f"Who is {start}·{end} of The {start}·{end} Song?"
    )


def test_the_stream_is_the_same_for_the_same_seed_and_names_train_words_only(dialogue: Dialogue) -> None:
    corpus = find_corpus(CONFIG.env)
    assert isinstance(corpus, SearchqaCorpus)

    def first(seed: int) -> list[list[int]]:
        return [s.ids for s in itertools.islice(corpus.samples(SHORT, dialogue, CONFIG.pretrain, seed), 12)]

    once = first(1)
    assert once == first(1)
    assert once != first(2)
    text = dialogue.decode([i for ids in once for i in ids])
    words = {w for w in text.replace("]", " ").replace(")", " ").replace(",", " ").replace(".", " ").split()
             if w[:3] in STARTS and w[3:] in ENDS}
    assert len(words) > 50
    # A slip may make any word; what is read is of the train split.
    assert sum(word_split(word) == "train" for word in words) > 0.9 * len(words)
