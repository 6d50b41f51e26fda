"""Rollouts are token-exact, independent of their neighbours, and survive environments that fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from sage.config.prompt_texts import PromptStyle
from sage.envs.alfworld.env import AlfworldEnvironment
from sage.envs.base import EnvironmentFault, Step
from sage.envs.pool import EnvPool
from sage.episode import Episode, Failure, Status, Task, Turn
from sage.errors import ConfigError
from sage.policy.decoding.answer import Reply, Sampling
from sage.policy.decoding.generate import Decoder
from sage.policy.dialogue import Dialogue, render
from sage.policy.models.load import LanguageModel
from sage.policy.rollout import PlaySettings, play
from sage.policy.seat import Job

ROOT = Path(__file__).parents[2]
SHORT = PromptStyle(**yaml.safe_load((ROOT / "conf/prompt/alfworld.yaml").read_text())["styles"]["short"])


def settings(temperature: float = 1.0, slots: int = 3, turns: int = 4, context: int = 2000) -> PlaySettings:
    return PlaySettings(Sampling(temperature, 1.0, 10), SHORT, 0, "test", turns, context, slots)


def play_alfworld(
    lm: LanguageModel,
    jobs: list[Job],
    how: PlaySettings,
    on_episode: Callable[[Episode], None] | None = None,
) -> list[Episode]:
    with EnvPool(partial(AlfworldEnvironment, "native"), 0, 30.0, distances=True) as pool:
        return play(lm, pool, jobs, how, on_episode)


def test_every_sampled_id_is_what_the_model_says_to_the_exact_history(
    lm: LanguageModel, tasks: list[Task]
) -> None:
    episodes = play_alfworld(lm, [Job(t) for t in tasks], settings(temperature=0.0))
    for episode in episodes:
        assert len(episode.turns) == 4
        with torch.inference_mode():
            logits = lm.model(input_ids=torch.tensor([episode.token_ids])).logits[0]
        for turn in episode.turns:
            said = logits[turn.answer_start - 1 : turn.answer_end - 1].argmax(-1).tolist()
            assert said == episode.token_ids[turn.answer_start : turn.answer_end]


def test_rendering_the_episode_again_gives_the_same_ids_and_spans(
    lm: LanguageModel, tasks: list[Task]
) -> None:
    for episode in play_alfworld(lm, [Job(t) for t in tasks], settings()):
        ids, spans = render(Dialogue(lm.tokenizer), episode)
        assert ids == episode.token_ids
        assert spans == [(t.answer_start, t.answer_end) for t in episode.turns]


def test_an_episode_does_not_depend_on_its_neighbours(lm: LanguageModel, tasks: list[Task]) -> None:
    jobs = [Job(t, r) for t in tasks for r in (0, 1)]
    together = play_alfworld(lm, jobs, settings(slots=5))
    alone = [play_alfworld(lm, [job], settings(slots=1))[0] for job in reversed(jobs)][::-1]
    assert [e.token_ids for e in together] == [e.token_ids for e in alone]
    assert together[0].token_ids != together[1].token_ids  # two rollouts of one task differ


def test_the_record_of_a_turn_is_complete(lm: LanguageModel, tasks: list[Task]) -> None:
    episode = play_alfworld(lm, [Job(tasks[0])], settings())[0]
    turn = episode.turns[0]
    assert turn.observation == episode.scene
    assert episode.goal in turn.message
    assert turn.answer == lm.tokenizer.decode(
        episode.token_ids[turn.answer_start : turn.answer_end], skip_special_tokens=True
    )
    assert turn.expert_distance_before is not None
    assert turn.expert_distance_after == turn.expert_distance_before
    assert turn.failure in (Failure.UNPARSED, Failure.EMPTY)  # a random model writes no action
    assert turn.feedback == SHORT.unparsed
    assert episode.status is Status.TURN_BUDGET


def test_the_context_limit_ends_an_episode(lm: LanguageModel, tasks: list[Task]) -> None:
    opening = play_alfworld(lm, [Job(tasks[0])], settings(turns=1))[0]
    limit = len(opening.token_ids) + 8
    episode = play_alfworld(lm, [Job(tasks[0])], settings(turns=50, context=limit))[0]
    assert episode.status is Status.CONTEXT_FULL
    assert episode.status.is_ok
    assert not episode.won
    assert len(episode.token_ids) <= limit


def test_an_answer_that_the_context_would_cut_is_no_turn(lm: LanguageModel, tasks: list[Task]) -> None:
    whole = play_alfworld(lm, [Job(tasks[0])], settings(turns=3))[0]
    told: list[tuple[Episode, Turn]] = []
    last = whole.turns[2]
    limit = last.answer_end - 2
    with EnvPool(partial(AlfworldEnvironment, "native"), 0, 30.0, distances=True) as pool:
        how = settings(turns=3, context=limit)
        (episode,) = play(lm, pool, [Job(tasks[0])], how, on_turns=told.extend)
    assert episode.status is Status.CONTEXT_FULL
    # The two turns that fit are the same, and nothing of the third is left.
    assert [t.answer for t in episode.turns] == [t.answer for t in whole.turns[:2]]
    assert episode.token_ids == whole.token_ids[: whole.turns[1].answer_end]
    assert [t.index for _, t in told] == [0, 1]


def test_a_whole_answer_that_just_fits_is_a_turn(lm: LanguageModel, tasks: list[Task]) -> None:
    whole = play_alfworld(lm, [Job(tasks[0])], settings(turns=2))[0]
    assert whole.turns[1].truncated  # by its own limit of ten tokens
    exact = play_alfworld(lm, [Job(tasks[0])], settings(turns=2, context=len(whole.token_ids)))[0]
    assert (exact.status, exact.token_ids) == (Status.TURN_BUDGET, whole.token_ids)


def test_an_opening_without_room_for_an_answer_is_refused_with_both_numbers(
    lm: LanguageModel, tasks: list[Task]
) -> None:
    opening = play_alfworld(lm, [Job(tasks[0])], settings(turns=1))[0].turns[0].answer_start
    with pytest.raises(ConfigError, match=rf"takes {opening} tokens, .*max_context .* is {opening}:"):
        play_alfworld(lm, [Job(tasks[0])], settings(context=opening))
    (episode,) = play_alfworld(lm, [Job(tasks[0])], settings(context=opening + 1))
    assert (episode.status, episode.turns) == (Status.CONTEXT_FULL, [])
    assert len(episode.token_ids) == opening


class Flaky:
    """Fails to start task `broken-start` and raises at the second step of `broken-step`."""

    goal = "say anything"

    def reset(self, task: Task) -> Step:
        if task.id == "broken-start":
            raise EnvironmentFault("The game file is gone.")
        self.task, self.steps = task, 0
        return Step("You see a door.")

    def step(self, action: str) -> Step:
        self.steps += 1
        if self.task.id == "broken-step" and self.steps == 2:
            raise EnvironmentFault("The simulator died.")
        done = self.steps == 3
        return Step("You see a wall.", done=done, won=done, reward=float(done), score=float(done))

    def expert_distance(self) -> int | None:
        return None

    def expert_action(self) -> str | None:
        return None

    def close(self) -> None:
        pass


def test_a_failing_environment_costs_only_its_own_episode(lm: LanguageModel) -> None:
    # Every answer counts as an action here, so that the random model gets through.
    style = SHORT.model_copy(update={"action_pattern": r"(?s)(.+)"})
    how = PlaySettings(Sampling(1.0, 1.0, 6), style, 0, "test", 20, 2000, 2)
    ids = ("fine-1", "broken-start", "broken-step", "fine-2")
    jobs = [Job(Task(i, "flaky", "train", "door", "test")) for i in ids]
    told: list[tuple[Episode, Turn]] = []
    with EnvPool(Flaky, 0, 30.0, distances=False) as pool:
        episodes = play(lm, pool, jobs, how, on_turns=told.extend)
    assert [e.status for e in episodes] == [Status.WON, Status.ENV_ERROR, Status.ENV_ERROR, Status.WON]
    assert "The game file is gone." in episodes[1].error
    assert "The simulator died." in episodes[2].error
    # Every turn is told of once and complete, but for the one in which an environment failed.
    played = [(e, t) for e in episodes for t in e.turns if not (e is episodes[2] and t is e.turns[-1])]
    assert sorted((id(e), t.index) for e, t in told) == sorted((id(e), t.index) for e, t in played)
    assert all(t is e.turns[t.index] and t.feedback == "You see a wall." for e, t in told)


class Slow(Flaky):
    """The first step of `slow` ends when `quick` has taken five; two steps of the one, ten of the other."""

    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def step(self, action: str) -> Step:
        slow = self.task.id == "slow"
        self.steps += 1
        while slow and not self.sign.exists():
            time.sleep(0.01)
        if self.steps == 5:
            self.sign.touch()
        done = self.steps == (2 if slow else 10)
        return Step(f"You see wall {self.steps}.", done=done, won=done, reward=float(done), score=float(done))


def test_nobody_waits_for_a_slow_environment_and_answers_are_the_same(
    lm: LanguageModel, tmp_path: Path
) -> None:
    style = SHORT.model_copy(update={"action_pattern": r"(?s)(.+)"})
    how = PlaySettings(Sampling(1.0, 1.0, 6), style, 0, "test", 20, 2000, 2)
    jobs = [Job(Task(i, "slow", "train", "door", "test")) for i in ("slow", "quick")]
    told: list[tuple[Episode, Turn]] = []
    with EnvPool(partial(Slow, tmp_path / "sign"), 2, 300.0) as pool:
        together = play(lm, pool, jobs, how, on_turns=told.extend)
        alone = [play(lm, pool, [job], how)[0] for job in jobs]
    assert all(e.won for e in together)  # a wait for the slow one would never have ended
    assert [e.token_ids for e in together] == [e.token_ids for e in alone]
    assert [turn.index for episode, turn in told if episode.task.id == "slow"] == [0, 1]
    assert len(told) == 12


def test_nobody_waits_for_a_long_answer(lm: LanguageModel, tasks: list[Task]) -> None:
    """Side by side the decoder takes as many steps as the longest episode alone, however answers differ."""
    how = PlaySettings(Sampling(1.0, 1.0, 9, "[aeiou]"), SHORT, 0, "test", 20, 2000, 3)
    jobs = [Job(t) for t in tasks[:3]]
    longest = 0
    with EnvPool(partial(AlfworldEnvironment, "native"), 0, 30.0, distances=True) as pool:
        alone = []
        for job in jobs:
            with counted_steps() as steps:
                alone += play(lm, pool, [job], how)
            longest = max(longest, len(steps))
        with counted_steps() as steps:
            together = play(lm, pool, jobs, how)
    assert [e.token_ids for e in together] == [e.token_ids for e in alone]
    lengths = {turn.answer_end - turn.answer_start for e in together for turn in e.turns}
    assert len(lengths) > 1
    assert len(steps) <= longest + 2


@contextmanager
def counted_steps() -> Iterator[list[int]]:
    steps: list[int] = []
    step = Decoder.step

    def counted(self: Decoder, *given: object) -> list[tuple[int, Reply]]:
        steps.append(1)
        return step(self, *given)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Decoder, "step", counted)
        yield steps


def test_a_model_that_cannot_run_at_all_is_an_error_not_an_episode(
    lm: LanguageModel, tasks: list[Task]
) -> None:
    class Broken(torch.nn.Module):
        config, generation_config = lm.model.config, lm.model.generation_config

        def forward(self, **_: object) -> None:
            raise RuntimeError("out of memory")

    broken = LanguageModel(Broken(), lm.tokenizer, "broken", "", lm.device)
    with pytest.raises(RuntimeError, match="out of memory"):
        play_alfworld(broken, [Job(tasks[0])], settings())
