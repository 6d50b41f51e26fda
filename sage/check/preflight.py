"""What needs no weights and is looked at before every run: do both models' chat templates say what the
environment says, and do its games fit into `rollout.max_context`?

The expert plays a few games as texts (`sage.policy.preview`); every kind of prompt of theirs (opening, later
turn, judge's question, written answer) goes through both templates, and whole games through the student's
tokenizer. What cannot be right is refused in one sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from sage.check.before import models_of
from sage.envs.manifest import spread
from sage.envs.pool import EnvFault, EnvPool
from sage.episode import Episode, Task
from sage.errors import ConfigError, ModelError, short_reason
from sage.objective.intervention.base import TurnContext
from sage.policy.context import SplitContext, measure, refuse_unless_it_fits
from sage.policy.dialogue import Dialogue
from sage.policy.models.chat_format import render
from sage.policy.models.load import load_tokenizer
from sage.policy.preview import expert_games
from sage.policy.prompts import choose_style, parse_answer
from sage.teacher.vocabulary import common_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sage.config.prompt_texts import PromptStyle
    from sage.config.schema import ModelSettings, RunConfig

_SHOWN_TURNS = 3
"""Turns of each split's first game that go through the templates."""
_EXPERT_GAMES = 8
"""Training games in which an expert that is to play is asked for a first move, where the sample shows none
of its moves."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found. The tokenizers are those that the models will be loaded with."""

    student: PreTrainedTokenizerBase
    teacher: PreTrainedTokenizerBase | None
    context: list[SplitContext]
    prompts: int
    """Prompts and answers that were rendered and compared, over both models."""


def preflight(config: RunConfig, tasks: Callable[[str], Sequence[Task]]) -> Preflight:
    """Raises ConfigError or ModelError where a prompt cannot be rendered, the games do not fit, or an expert
    is to play that is not there.

    `tasks` gives the tasks of a split; each split that the run plays is looked at.
    """
    found = look_ahead(config, tasks)
    refuse_unless_it_fits(found.context, config.rollout.max_context)
    return found


def tokenizers(config: RunConfig) -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase | None]:
    """The student's and, in a training, the teacher's. Raises ModelError where the models of the run have
    different vocabularies: that is known before any weights are."""
    read = {role: load_tokenizer(model, role=role) for role, model in models_of(config).items()}
    student = read.pop("student")
    for role, other in read.items():
        names = (config.student.path, models_of(config)[role].path)
        common_ids(student, other, names)
    return student, read.get("teacher")


def look_ahead(
    config: RunConfig,
    tasks: Callable[[str], Sequence[Task]],
    loaded: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase | None] | None = None,
) -> Preflight:
    """`preflight` for a page: games that do not fit are among what is found. `loaded`: what `tokenizers` has
    given. Raises ModelError where a prompt cannot be rendered, and ConfigError where an expert is to play
    that is not there."""
    style = choose_style(config.prompt, config.student.path)
    trains = config.task == "train" and config.trainer.steps > 0
    student, teacher = loaded or tokenizers(config)
    own = Dialogue(student, config.student.thinking)
    templates = {"student": own}
    if teacher is not None:
        templates["teacher"] = Dialogue(teacher, config.student.thinking)
        templates["judge"] = Dialogue(teacher, config.teacher.thinking)
    roles = [config.student, config.teacher] if trains else [config.student]
    limit = min([config.rollout.max_context, *(r for r in map(reach, roles) if r is not None)])
    shown: list[Episode] = []
    splits = dict.fromkeys([*config.evaluation.splits, *(["train"] if trains else [])])
    speed = config.speed
    with EnvPool(config.env.make, min(speed.workers, 1), speed.step_timeout_s, distances=False) as pool:

        def play(chosen: Sequence[Task]) -> list[Episode | EnvFault]:
            games = expert_games(pool, style, chosen, config.env.turn_budget)
            shown.extend([game for game in games if isinstance(game, Episode)][:1])
            return games

        context = [measure(split, tasks(split), config.env, play, own, limit) for split in splits]
        if trains and not _has_expert(shown):
            _refuse_without_expert(config, pool, style, tasks("train"))
    query = config.intervention.query
    prompts = 0
    for role, dialogue in templates.items():
        _check_ends(dialogue, role, style)
        for game in shown:
            prompts += check_game(dialogue, role, style, game, query.sees_feedback if query else True)
    return Preflight(student, teacher, context, prompts)


def _has_expert(games: Sequence[Episode]) -> bool:
    """Whether the expert knew a move in one of the training games."""
    return any(turn.answer for game in games if game.task.split == "train" for turn in game.turns)


def _refuse_without_expert(
    config: RunConfig, pool: EnvPool, style: PromptStyle, tasks: Sequence[Task]
) -> None:
    """Raises ConfigError where the run has the expert play and it knows no first move in any of some games;
    where it knows some, those that it does not are counted as they are played (`evaluation.max_not_ok`)."""
    shown = config.rollout.demonstration
    if config.rollout.player == "expert":
        what, way_out = "rollout.player=expert", "rollout.player=student or teacher"
    elif shown.player == "expert" and shown.weight > 0:
        what, way_out = "rollout.demonstration.player=expert", "rollout.demonstration.player=none or teacher"
    else:
        return
    asked = expert_games(pool, style, spread(tasks, _EXPERT_GAMES), turn_budget=1)
    games = [game for game in asked if isinstance(game, Episode)]
    if games and not any(turn.answer for game in games for turn in game.turns):
        raise ConfigError(
            f"{what} learns from the environment's expert, and in env={config.env.name} there is none (no "
            f"move in {len(games)} of {len(games)} training games); set {way_out}, or give the environment "
            "an `expert_action()`."
        )


def _check_ends(dialogue: Dialogue, role: str, style: PromptStyle) -> None:
    if not style.stop and dialogue.closing is None:
        raise ModelError(
            f"Nothing would end an answer of the {role}: its chat template closes none, its tokenizer has no "
            "end token, and the prompt style has no `stop`; give it a chat template that closes answers."
        )


def reach(settings: ModelSettings) -> int | None:
    """Tokens that the model is made for; None where its config does not say."""
    from sage.policy.models.folder import look

    config = look(settings).config
    return None if config is None else getattr(config.get_text_config(), "max_position_embeddings", None)


def check_game(dialogue: Dialogue, role: str, style: PromptStyle, game: Episode, sees_feedback: bool) -> int:
    """Compare a game's prompts, put together from the template's pieces, with the template's own rendering.

    Returns how many were compared. Raises ModelError at the first that differs.
    """
    count = 0
    for ours, messages in _prompts(dialogue, style, game, sees_feedback):
        try:
            theirs = render(dialogue.tokenizer, messages, thinking=dialogue.thinking) + dialogue.format.added
        except Exception as error:  # whatever the template's own code raises
            raise ModelError(
                f"The {role}'s chat template cannot render a prompt of {game.task.env} "
                f"({short_reason(error)}); point {_setting(role)} at a Jinja file that can."
            ) from error
        if not theirs.endswith(ours):
            raise ModelError(
                f"The {role}'s chat template renders a prompt of {game.task.env} otherwise than its pieces "
                f"({_difference(ours, theirs)}), so that multi-turn ids cannot be exact; point "
                f"{_setting(role)} at a Jinja file that shows each message as it is."
            )
        count += 1
    for turn in game.turns[:_SHOWN_TURNS]:
        back = dialogue.said(dialogue.decode(dialogue.encode_answer(turn.answer))).strip()
        if turn.answer and parse_answer(style, back) != parse_answer(style, turn.answer):
            raise ModelError(
                f"The {role}'s tokenizer does not give the answer {turn.answer[:60]!r} back (it says "
                f"{back[:60]!r}); take a model whose tokenizer keeps texts as they are."
            )
        count += bool(turn.answer)
    return count


def _prompts(
    dialogue: Dialogue, style: PromptStyle, game: Episode, sees_feedback: bool
) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """(our text, the messages that give it): the opening, the turns after it, and the judge's questions."""
    from sage.teacher.question import judge_message

    def opening(system: str, user: str) -> list[dict[str, str]]:
        if system and dialogue.format.system is None:
            return [{"role": "user", "content": dialogue.joined(system, user)}]
        first = [{"role": "system", "content": system}] if system else []
        return [*first, {"role": "user", "content": user}]

    turns = game.turns[:_SHOWN_TURNS]
    yield dialogue.opening_text(game.system, turns[0].message), opening(game.system, turns[0].message)
    for before, turn in pairwise(turns):
        said = {"role": "assistant", "content": before.answer}
        asked = {"role": "user", "content": turn.message}
        yield dialogue.follow_text(turn.message), [*opening("", before.message), said, asked]
    for turn in turns:
        if turn.answer:
            question = judge_message(style, TurnContext(game, turn), sees_feedback)
            yield dialogue.opening_text(style.judge_system, question), opening(style.judge_system, question)


def _setting(role: str) -> str:
    return "student.chat_template" if role == "student" else "teacher.chat_template"


def _difference(ours: str, theirs: str) -> str:
    """Where two texts part, from their ends, on which openings and follow-ups have to agree."""
    same = 0
    while same < min(len(ours), len(theirs)) and ours[-1 - same] == theirs[-1 - same]:
        same += 1
    end, other = len(ours) - same, len(theirs) - same
    return f"{ours[max(0, end - 30) : end]!r} is {theirs[max(0, other - 30) : other]!r} there"
