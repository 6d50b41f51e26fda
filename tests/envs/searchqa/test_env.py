"""Every outcome that an action can have, and the oracle, on an encyclopedia of four passages."""

from __future__ import annotations

import pytest

from sage.config.load import load
from sage.envs.base import Environment, EnvironmentFault, Step
from sage.envs.searchqa.env import SearchqaEnvironment, parse_action
from sage.envs.searchqa.question import Question
from sage.envs.searchqa.retrieval.bm25 import Bm25
from sage.envs.searchqa.retrieval.passage import Passage
from sage.episode import Failure, Task, effect_of
from sage.policy.prompts import parse_answer

PASSAGES = [
    Passage("Kavor Renim", "Kavor Renim is a painter, married to Dilas Mopek."),
    Passage("Dilas Mopek", "Dilas Mopek is a baker, born in Sorem."),
    Passage("Sorem", "Sorem is a town led by Tumak Bol."),
    Passage("Kavor Bank", "Kavor Bank is a company."),
]
QUESTION = Question(
    "two", "What is the birthplace of the spouse of Kavor Renim?", ("Sorem",), ("Kavor Renim", "Dilas Mopek"),
    ("spouse", "birthplace"),
)


@pytest.fixture
def env() -> SearchqaEnvironment:
    made = SearchqaEnvironment(lambda: Bm25(PASSAGES, 1.5, 0.75), topk=2, max_searches=3)
    made.begin(QUESTION)
    return made


def test_the_experts_episode(env: SearchqaEnvironment) -> None:
    assert isinstance(env, Environment)
    assert (env.goal, env.expert_distance()) == (QUESTION.text, 3)
    assert env.expert_action() == "search[Kavor Renim]"
    step = env.step("search[Kavor Renim]")
    assert step.observation.splitlines() == [
        "Doc 1(Title: Kavor Renim) Kavor Renim is a painter, married to Dilas Mopek.",
        "Doc 2(Title: Kavor Bank) Kavor Bank is a company.",
    ]
    assert (env.expert_distance(), env.expert_action()) == (2, "search[Dilas Mopek]")
    env.step("search[Dilas Mopek]")
    assert (env.expert_distance(), env.expert_action()) == (1, "answer[Sorem]")
    step = env.step("answer[the SOREM.]")
    assert (step.done, step.won, step.score, step.reward) == (True, True, 1.0, 1.0)
    assert (env.expert_distance(), env.expert_action()) == (0, None)
    with pytest.raises(EnvironmentFault, match="episode is over"):
        env.step("search[Sorem]")


def test_a_wrong_answer_ends_the_episode_with_its_f1_and_out_of_reach(env: SearchqaEnvironment) -> None:
    step = env.step("answer[Sorem town]")
    assert (step.done, step.won) == (True, False)
    assert step.score == pytest.approx(2 / 3)
    assert step.failure is Failure.NONE
    assert env.expert_distance() is None
    assert env.expert_action() is None
    # Nothing in the reply says whether it was right: the judge reads it.
    env.begin(QUESTION)
    assert env.step("answer[Sorem]").observation == step.observation


def effect(env: SearchqaEnvironment, action: str) -> tuple[Step, str]:
    before = env.expert_distance()
    step = env.step(action)
    return step, str(effect_of(before, env.expert_distance()))


def test_a_search_is_progress_when_it_returns_a_missing_gold_passage(env: SearchqaEnvironment) -> None:
    assert effect(env, "search[Tumak]")[1] == "no_effect"
    # The later gold passage first: progress too, though the expert still has to read the first one.
    assert effect(env, "search[baker]")[1] == "progress"
    assert env.missing() == ["Kavor Renim"]
    assert effect(env, "search[painter]")[1] == "progress"
    assert effect(env, "answer[Tumak]")[1] == "harm"


def test_the_expert_searches_only_for_what_was_read(env: SearchqaEnvironment) -> None:
    env.begin(Question("x", "Who?", ("Sorem",), ("Dilas Mopek",), ("birthplace",)))
    assert env.expert_action() is None  # the title stands nowhere yet
    env.step("search[Renim]")
    assert env.expert_action() == "search[Dilas Mopek]"


@pytest.mark.parametrize(("action", "failure", "says", "searches"), [
    ("search[zzz]", Failure.TOOL, "Nothing was found.", 1),
    ("search[]", Failure.SCHEMA, "Not an action", 0),
    ("search[   ]", Failure.SCHEMA, "Not an action", 0),
    ("answer[]", Failure.SCHEMA, "Not an action", 0),
    ("search[Sorem] search[Renim]", Failure.SCHEMA, "Not an action", 0),
    ("search[Sorem]\nanswer[Sorem]", Failure.SCHEMA, "Not an action", 0),
    ("search[Sorem], then answer[Sorem]", Failure.SCHEMA, "Not an action", 0),
    ("look up Sorem", Failure.SCHEMA, "Not an action", 0),
    ("search Sorem", Failure.SCHEMA, "Not an action", 0),
    ("find[Sorem]", Failure.SCHEMA, "Not an action", 0),
    ("search[Sorem", Failure.SCHEMA, "Not an action", 0),
])
def test_what_is_no_proper_action(env, action, failure, says, searches) -> None:
    step = env.step(action)
    assert step.failure is failure
    assert step.observation.startswith(says)
    assert (step.done, env.searches, env.expert_distance()) == (False, searches, 3)


def test_one_search_more_than_allowed_is_not_made(env: SearchqaEnvironment) -> None:
    for _ in range(2):
        env.step("search[Sorem]")
    env.step("search[zzz]")  # one that finds nothing counts
    step = env.step("search[Kavor Renim]")
    assert (step.failure, step.observation) == (Failure.NO_EFFECT, "No searches are left; answer now.")
    assert (env.searches, env.expert_distance(), env.expert_action()) == (3, 2, None)
    assert env.step("answer[Sorem]").won


def test_a_query_may_hold_brackets_and_lines() -> None:
    assert parse_action(" Search[ a [b] c\nd ] ") == ("search", "a [b] c\nd")
    assert parse_action("answer[research[1]]") == ("answer", "research[1]")


def test_a_retriever_that_cannot_be_asked_is_a_fault_and_a_new_episode_can_begin() -> None:
    class Gone:
        def search(self, query: str, count: int) -> list[Passage]:
            raise EnvironmentFault("The server is gone.")

    env = SearchqaEnvironment(Gone, 3, 8)
    env.begin(QUESTION)
    with pytest.raises(EnvironmentFault, match="gone"):
        env.step("search[x]")
    env.close()
    with pytest.raises(EnvironmentFault, match="before reset"):
        env.step("search[x]")
    assert env.begin(QUESTION).observation


def test_a_task_whose_question_is_not_there_is_a_fault(tmp_path) -> None:
    env = SearchqaEnvironment(lambda: Bm25(PASSAGES, 1.5, 0.75), 3, 8)
    file = tmp_path / "set.jsonl"
    task = Task("a", "searchqa", "set", "2hop", "test", f"{file}#a")
    with pytest.raises(EnvironmentFault, match="cannot be read"):
        env.reset(task)
    file.write_text(QUESTION.line() + "\n")
    with pytest.raises(EnvironmentFault, match="no question 'a'"):
        env.reset(task)
    (tmp_path / "other.jsonl").write_text("{}\n")
    with pytest.raises(EnvironmentFault, match=r"Line 1 of .*other\.jsonl is no question"):
        env.reset(Task("a", "searchqa", "set", "2hop", "test", f"{tmp_path / 'other.jsonl'}#a"))
    assert env.reset(Task("two", "searchqa", "set", "2hop", "test", f"{file}#two")).observation
    assert env.goal == QUESTION.text


@pytest.mark.parametrize("name", ["short", "react"])
def test_the_prompts_take_the_first_action_and_leave_the_rest(name: str) -> None:
    style = load(["env=searchqa"]).prompt.styles[name]
    both = "<thought> so</thought>\n<action>search[a]</action><action>search[b]</action>"
    assert parse_answer(style, both) == ("so", "search[a]")
    assert parse_answer(style, "<action>search[a <action>search[b]</action>")[1] == "search[b]"
    for missing in ("<thought>so</thought>", "search[a]", "<action>search[a]", "<action></action>", ""):
        assert parse_answer(style, missing)[1] == ""
