"""Answers that come from elsewhere: an expert's episodes and a teacher's first turns, token for token."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml

from sage.config.load import load
from sage.envs.alfworld.env import AlfworldEnvironment
from sage.envs.base import expert_move
from sage.envs.pool import Advice, EnvFault, EnvPool
from sage.episode import Episode, Status, Task
from sage.errors import ConfigError
from sage.policy.decoding.answer import Sampling
from sage.policy.dialogue import Dialogue, render
from sage.policy.models.load import LanguageModel
from sage.policy.openings import ExpertAnswers, FirstTurns, RandomTurns
from sage.policy.prompts import fill, parse_answer
from sage.policy.rollout import PlaySettings, play
from sage.policy.seat import Job
from sage.teacher.score import own_view, teacher_view
from tests.letters import STYLE as LETTERS_STYLE
from tests.letters import Letters
from tests.letters import tasks as letters_tasks

REACT = load([]).prompt.styles["react"]
SHORT = load([]).prompt.styles["short"]


def settings(turns: int = 40, slots: int = 4) -> PlaySettings:
    return PlaySettings(Sampling(1.0, 1.0, 10), SHORT, 0, "test", turns, 4000, slots)


def expert_play(lm: LanguageModel, tasks: list[Task], workers: int = 0, turns: int = 40) -> list[Episode]:
    with EnvPool(partial(AlfworldEnvironment, "native"), workers, 30.0, distances=True) as pool:
        answers = ExpertAnswers(pool, SHORT, Dialogue(lm.tokenizer))
        return play(lm, pool, [Job(t) for t in tasks], settings(turns), opening=answers)


@pytest.fixture(scope="module")
def shown(lm: LanguageModel, tasks: list[Task]) -> list[Episode]:
    return expert_play(lm, tasks)


def test_the_expert_wins_and_its_turns_are_the_episodes(
    shown: list[Episode], lm: LanguageModel, tasks: list[Task]
) -> None:
    assert [e.task.id for e in shown] == [t.id for t in tasks]
    assert all(e.status is Status.WON and not e.given for e in shown)
    for episode in shown:
        ids, spans = render(Dialogue(lm.tokenizer), episode)
        assert ids == episode.token_ids
        assert spans == [(t.answer_start, t.answer_end) for t in episode.turns]
        for t, turn in enumerate(episode.turns):
            assert turn.index == t
            said = episode.token_ids[turn.answer_start : turn.answer_end]
            assert said == Dialogue(lm.tokenizer).encode_answer(turn.answer)
            assert turn.answer == f"Thought: {turn.thought}\nAction: {turn.action}"
            assert turn.thought
            assert turn.expert_distance_after is not None


def test_worker_processes_play_the_same(shown: list[Episode], lm: LanguageModel, tasks: list[Task]) -> None:
    apart = expert_play(lm, tasks, workers=2)
    assert [e.token_ids for e in apart] == [e.token_ids for e in shown]


def test_an_expert_stops_at_the_turn_budget(lm: LanguageModel, tasks: list[Task]) -> None:
    episodes = expert_play(lm, tasks[:2], turns=3)
    assert [(e.status, len(e.turns)) for e in episodes] == [(Status.TURN_BUDGET, 3)] * 2


def test_every_style_reads_its_own_answer_format_back() -> None:
    for style in (REACT, SHORT):
        text = fill(style.answer, thought="find mug", action="go to shelf 1")
        assert parse_answer(style, text) == ("find mug", "go to shelf 1")


def test_an_expert_without_thoughts_only_acts() -> None:
    environment = Letters()
    environment.reset(letters_tasks(1)[0])
    move = expert_move(environment)
    assert move is not None
    assert (move.thought, move.action) == ("", "a")


class Speechless(Letters):
    """Knows the first move of task t0, and no other."""

    def expert_action(self) -> str | None:
        return "b" if self.goal == "Find t0." and not self.found else None


def test_an_expert_without_a_move_has_lost_or_was_never_there(lm: LanguageModel) -> None:
    with EnvPool(Speechless, 0, 30.0) as pool:
        answers = ExpertAnswers(pool, LETTERS_STYLE, Dialogue(lm.tokenizer))
        how = replace(settings(), style=LETTERS_STYLE)
        episodes = play(lm, pool, [Job(t) for t in letters_tasks(2)], how, opening=answers)
    assert [(e.status, len(e.turns)) for e in episodes] == [(Status.LOST, 1), (Status.ENV_ERROR, 0)]
    assert "letters has no expert that plays this task." in episodes[1].error


def test_a_slot_without_an_episode_has_no_advice() -> None:
    with EnvPool(Letters, 0, 30.0) as pool:
        (fault,) = pool.advise_many([3]).values()
        assert isinstance(fault, EnvFault)
        pool.reset_many([(3, letters_tasks(1)[0])])
        (advice,) = pool.advise_many([3]).values()
        assert isinstance(advice, Advice)


def guided(
    lm: LanguageModel, tasks: list[Task], shown: list[Episode], last_turns: int | None, slots: int = 4
) -> list[Episode]:
    jobs = [Job(t, last_turns=last_turns) for t in tasks]
    with EnvPool(partial(AlfworldEnvironment, "native"), 0, 30.0, distances=True) as pool:
        return play(lm, pool, jobs, settings(slots=slots), opening=FirstTurns(shown))


def test_the_students_turns_begin_where_the_teachers_end(
    lm: LanguageModel, tasks: list[Task], shown: list[Episode]
) -> None:
    k = 2
    for whole, episode in zip(shown, guided(lm, tasks, shown, k), strict=True):
        count = len(whole.turns) - k
        assert len(episode.given) == count
        first = episode.turns[0]
        assert first.index == count
        # The conversation up to the student's first answer is the teacher's, token for token.
        assert first.answer_start == whole.turns[count].answer_start
        assert episode.token_ids[: first.answer_start] == whole.token_ids[: first.answer_start]
        assert [t.action for t in episode.given] == [t.action for t in whole.turns[:count]]
        assert first.expert_distance_before == whole.turns[count].expert_distance_before
        ids, spans = render(Dialogue(lm.tokenizer), episode)
        assert ids == episode.token_ids
        # What models are asked about: the student's turns alone.
        assert own_view(episode).spans == spans == [(t.answer_start, t.answer_end) for t in episode.turns]
        assert teacher_view(episode, Dialogue(lm.tokenizer)).spans == spans
        assert len(episode.all_turns) <= 40


def test_what_the_student_samples_after_the_teacher_does_not_depend_on_its_neighbours(
    lm: LanguageModel, tasks: list[Task], shown: list[Episode]
) -> None:
    together = guided(lm, tasks, shown, 2)
    alone = [guided(lm, [task], shown, 2, slots=1)[0] for task in tasks[:3]]
    assert [e.token_ids for e in together[:3]] == [e.token_ids for e in alone]


@pytest.mark.parametrize("last_turns", [None, 1000])
def test_with_all_turns_its_own_the_student_starts_the_episode(
    lm: LanguageModel, tasks: list[Task], shown: list[Episode], last_turns: int | None
) -> None:
    with EnvPool(partial(AlfworldEnvironment, "native"), 0, 30.0, distances=True) as pool:
        plain = play(lm, pool, [Job(t) for t in tasks[:2]], settings())
    opened = guided(lm, tasks[:2], shown, last_turns)
    assert [e.token_ids for e in opened] == [e.token_ids for e in plain]
    assert not any(e.given for e in opened)


def test_a_teacher_that_did_not_win_leads_nowhere(
    lm: LanguageModel, tasks: list[Task], shown: list[Episode]
) -> None:
    lost = [replace(episode, status=Status.TURN_BUDGET) for episode in shown]
    assert not any(e.given for e in guided(lm, tasks[:2], lost, 1))


def test_the_folder_of_prompts_gives_every_style_an_answer_format() -> None:
    for path in (Path(__file__).parents[2] / "conf" / "prompt").glob("*.yaml"):
        for name, style in yaml.safe_load(path.read_text())["styles"].items():
            assert "{action}" in style["answer"], f"{path.name}: {name}"


def test_random_first_turns_are_admissible_and_no_part_of_what_is_learnt(
    lm: LanguageModel, tasks: list[Task]
) -> None:
    def perturbed(slots: int) -> list[Episode]:
        with EnvPool(partial(AlfworldEnvironment, "native"), 0, 30.0) as pool:
            opening = RandomTurns(3, SHORT, Dialogue(lm.tokenizer), seed=7)
            return play(lm, pool, [Job(t) for t in tasks], settings(6, slots), opening=opening)

    one, other = perturbed(4), perturbed(1)
    assert [e.token_ids for e in one] == [e.token_ids for e in other]
    assert len({turn.action for e in one for turn in e.given}) > 3
    for episode in one:
        assert (len(episode.given), episode.turns[0].index) == (3, 3)
        assert all(turn.action in turn.admissible for turn in episode.given)
        assert len(episode.all_turns) <= 6


def test_random_first_turns_need_commands_to_draw_from(lm: LanguageModel) -> None:
    opening = RandomTurns(1, LETTERS_STYLE, Dialogue(lm.tokenizer), seed=7)
    how = replace(settings(), style=LETTERS_STYLE)
    with EnvPool(Letters, 0, 30.0) as pool, pytest.raises(ConfigError, match=r"rollout\.perturb=0"):
        play(lm, pool, [Job(t) for t in letters_tasks(1)], how, opening=opening)
