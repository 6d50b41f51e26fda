"""What the parts look at: the config, its models in memory, and some real turns of its environment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sage.check.page import Line, fine, warning

if TYPE_CHECKING:
    from sage.config.prompt_texts import PromptStyle
    from sage.config.schema import RunConfig
    from sage.envs.pool import EnvPool
    from sage.episode import Episode, Turn
    from sage.policy.models.load import LanguageModel
    from sage.training.batch import Models

TURNS = 10
"""How many real turns the judge is asked about, and the step learns from."""
GAMES = 4
STUDENT_TOKENS = 64
"""Most tokens of an answer where the student has to play them: enough for a thought and an action."""


@dataclass
class Subject:
    """One pair under examination; `episodes` are there once `play` has run."""

    config: RunConfig
    style: PromptStyle
    student: LanguageModel
    models: Models | None
    """None where the run would only evaluate."""
    episodes: list[Episode] = field(default_factory=list)

    def turns(self) -> list[tuple[Episode, Turn]]:
        """The first `TURNS` turns that were played, each with its episode."""
        return [(episode, turn) for episode in self.episodes for turn in episode.turns][:TURNS]

    def play(self) -> Iterator[Line]:
        """Play `TURNS` turns of training games: the expert's where the environment has one, else the
        student's."""
        from sage.policy.dialogue import Dialogue
        from sage.policy.openings import ExpertAnswers
        from sage.policy.rollout import play
        from sage.policy.seat import Job
        from sage.training.setup import training_settings

        settings = training_settings(self.config, self.style, self.student)
        short = replace(
            settings,
            sampling=replace(
                settings.sampling, max_new_tokens=min(settings.sampling.max_new_tokens, STUDENT_TOKENS)
            ),
            turn_budget=min(settings.turn_budget, TURNS // 2),
            slots=GAMES,
        )
        jobs = [Job(task) for task in self.config.env.tasks("train")[:GAMES]]
        with ExitStack() as stack:
            pool = self.pool(stack)
            answers = ExpertAnswers(pool, self.style, Dialogue(self.student.tokenizer, self.student.thinking))
            played, by = play(self.student, pool, jobs, short, opening=answers), "the environment's expert"
            if not any(e.status.is_ok and e.turns for e in played):
                played, by = play(self.student, pool, jobs, short), "the student"
        self.episodes = [e for e in played if e.status.is_ok and e.turns]
        turns = self.turns()
        if not turns:
            reasons = "; ".join(sorted({e.error or str(e.status) for e in played}))
            yield warning(
                f"No turn could be played ({reasons[:200]}), so neither judge nor step is looked at."
            )
            return
        tokens = [turn.n_tokens for _, turn in turns]
        yield fine(
            f"{len(turns)} turns of {len(self.episodes)} training games played by {by}: answers of "
            f"{min(tokens)} to {max(tokens)} tokens, episodes of up to "
            f"{max(len(e.token_ids) for e in self.episodes):,}."
        )

    def pool(self, stack: ExitStack) -> EnvPool:
        """The environment in this process, closed with `stack`."""
        from sage.envs.pool import EnvPool

        env = self.config.env
        return stack.enter_context(EnvPool(env.make, 0, 60.0, distances=False))
