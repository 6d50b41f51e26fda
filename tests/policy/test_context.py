"""Whether an environment's games fit is known before weights are loaded, in the tokens that a rollout lays
down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest

from sage.config.load import load
from sage.envs.alfworld.env import AlfworldEnvironment
from sage.envs.pool import EnvFault, EnvPool, FaultKind
from sage.episode import Episode, Status, Task
from sage.errors import ConfigError
from sage.policy.context import SplitContext, measure, refuse_unless_it_fits, tokens_of
from sage.policy.decoding.answer import Sampling
from sage.policy.dialogue import Dialogue
from sage.policy.models.load import LanguageModel
from sage.policy.openings import ExpertAnswers
from sage.policy.preview import expert_games
from sage.policy.rollout import PlaySettings, play
from sage.policy.seat import Job
from tests.letters import STYLE as LETTERS_STYLE
from tests.letters import Letters
from tests.letters import tasks as letters_tasks

SHORT = load([]).prompt.styles["short"]
ENV = load([]).env


def previewed(tasks: Sequence[Task]) -> list[Episode | EnvFault]:
    with EnvPool(partial(AlfworldEnvironment, "native"), 0, 30.0, distances=False) as pool:
        return expert_games(pool, SHORT, tasks, 40)


def rolled_out(lm: LanguageModel, tasks: list[Task], limit: int) -> list[Episode]:
    how = PlaySettings(Sampling(1.0, 1.0, 60), SHORT, 0, "test", 40, limit, 4)
    with EnvPool(partial(AlfworldEnvironment, "native"), 0, 30.0, distances=True) as pool:
        answers = ExpertAnswers(pool, SHORT, Dialogue(lm.tokenizer))
        return play(lm, pool, [Job(t) for t in tasks], how, opening=answers)


def test_a_previewed_game_is_the_rollouts_token_for_token(lm: LanguageModel, tasks: list[Task]) -> None:
    games = previewed(tasks)
    played = rolled_out(lm, tasks, 4000)
    for game, episode in zip(games, played, strict=True):
        assert isinstance(game, Episode)
        assert game.status is episode.status is Status.WON
        assert [t.message for t in game.turns] == [t.message for t in episode.turns]
        assert tokens_of(game, Dialogue(lm.tokenizer)) == len(episode.token_ids)


def test_what_is_said_to_be_cut_is_cut_in_a_rollout(lm: LanguageModel, tasks: list[Task]) -> None:
    whole = sorted(len(e.token_ids) for e in rolled_out(lm, tasks, 4000))
    for limit in (whole[-1], whole[-1] - 1, whole[2], whole[0] - 1):
        found = measure("train", tasks, ENV, previewed, Dialogue(lm.tokenizer), limit)
        cut = sum(e.status is Status.CONTEXT_FULL for e in rolled_out(lm, tasks, limit))
        assert (found.cut, found.games) == (cut, len(tasks)) == (sum(n > limit for n in whole), len(tasks))
        assert found.longest == whole[-1]
        assert found.fits is (cut == 0)


def test_a_limit_that_cuts_the_expert_is_refused_with_its_numbers() -> None:
    fine = SplitContext("valid_seen", 2048, 800, 200.0, 2000, 6, cut=1, games=100, played=100)
    cut = replace(fine, split="train", longest=4525, cut=93)
    refuse_unless_it_fits([fine], 2048)
    with pytest.raises(ConfigError) as refused:
        refuse_unless_it_fits([fine, cut], 2048)
    assert str(refused.value) == (
        "rollout.max_context=2048 tokens would cut the expert itself in 93 of 100 games of train: an opening "
        "takes 800 tokens, a turn 200, the longest game 4,525; set rollout.max_context=4608 or more."
    )
    with pytest.raises(ConfigError, match=r"A reach of 2048 tokens .*; take models that reach further"):
        refuse_unless_it_fits([cut], 32768)


def test_one_game_in_a_hundred_may_be_cut_and_two_may_not() -> None:
    split = SplitContext("train", 100, cut=1, games=100)
    assert split.fits
    assert not replace(split, cut=2).fits


def test_a_sample_with_a_cut_game_is_followed_by_the_whole_split(
    lm: LanguageModel, tasks: list[Task]
) -> None:
    class Sampled:
        turn_budget = 40

        def expert_sample(self, tasks: Sequence[Task]) -> list[Task]:
            return list(tasks[:2])

        def expert_turns(self, task: Task) -> int | None:
            return None

    dialogue = Dialogue(lm.tokenizer)
    lengths = [tokens_of(g, dialogue) for g in previewed(tasks) if isinstance(g, Episode)]
    asked: list[int] = []

    def counted(chosen: Sequence[Task]) -> list[Episode | EnvFault]:
        asked.append(len(chosen))
        return previewed(chosen)

    fits = measure("train", tasks, Sampled(), counted, dialogue, max(lengths))  # type: ignore[arg-type]
    assert (asked, fits.cut, fits.games) == ([2], 0, 2)
    low = min(lengths[:2]) - 1
    cut = measure("train", tasks, Sampled(), counted, dialogue, low)  # type: ignore[arg-type]
    assert asked == [2, 2, len(tasks) - 2]
    assert (cut.cut, cut.games) == (sum(n > low for n in lengths), len(tasks))


def test_games_of_known_length_count_without_being_played(lm: LanguageModel, tasks: list[Task]) -> None:
    class Known:
        turn_budget = 30

        def expert_sample(self, tasks: Sequence[Task]) -> list[Task]:
            return list(tasks[:1])

        def expert_turns(self, task: Task) -> int | None:
            return 1000 if task is tasks[1] else 1

    found = measure("train", tasks, Known(), previewed, Dialogue(lm.tokenizer), 4000)  # type: ignore[arg-type]
    assert (found.played, found.games, found.longest_turns) == (1, len(tasks), 30)
    assert found.longest == round(found.opening + 30 * found.turn)


def test_an_environment_without_an_expert_shows_its_openings(lm: LanguageModel) -> None:
    class Silent(Letters):
        def expert_action(self) -> str | None:
            return None

    with EnvPool(Silent, 0, 30.0) as pool:
        games = expert_games(pool, LETTERS_STYLE, letters_tasks(2, broken=(1,)), 5)
    game, fault = games
    assert isinstance(game, Episode)
    assert [(t.message, t.answer) for t in game.turns] == [("Room t0. Find t0.", "")]
    assert isinstance(fault, EnvFault)
    dialogue = Dialogue(lm.tokenizer)
    opening = len(dialogue.open("", "Room t0. Find t0."))
    assert tokens_of(game, dialogue) == opening
    two = letters_tasks(2)
    # No answer fits into a limit that the opening fills.
    assert measure("train", two, ENV, lambda _: games, dialogue, opening).cut == 1
    assert measure("train", two, ENV, lambda _: games, dialogue, opening + 1).cut == 0


def test_a_split_that_cannot_be_played_is_said_and_not_refused(lm: LanguageModel, tasks: list[Task]) -> None:
    fault = EnvFault(FaultKind.RAISED, "The server is down.")
    found = measure("train", tasks, ENV, lambda _: [fault], Dialogue(lm.tokenizer), 10)
    assert found.fits
    assert found.line() == "train: not measured (The server is down.)"
