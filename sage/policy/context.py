"""Do an environment's games fit into `rollout.max_context`? Answered with a tokenizer, before any weights.

The expert plays games of each split as texts, and they are counted in the student's own tokens, exactly as a
rollout would lay them down. A limit under which the expert itself would be cut is one under which no student
can show what it can do.

The sample: what `EnvSettings.expert_sample` names of a split, and where some game of it is cut, up to MOST
games. Games that were not played count by `EnvSettings.expert_turns` where that is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sage.envs.manifest import spread
from sage.envs.pool import EnvFault
from sage.episode import Episode, Task
from sage.errors import ConfigError

if TYPE_CHECKING:
    from sage.envs.settings import EnvSettings
    from sage.policy.dialogue import Dialogue

MOST = 1000
"""Games of a split that are played at most."""
SHARE = 0.01
"""Share of a split's games that the limit may cut."""
_COUNTED = 8
"""The longest texts that are always counted in tokens; shorter ones only where they might not fit."""

Play = Callable[[Sequence[Task]], Sequence[Episode | EnvFault]]


@dataclass(frozen=True, slots=True)
class SplitContext:
    """What the games of one split take, in tokens of the student."""

    split: str
    limit: int
    """The smaller of `rollout.max_context` and the reach of the models."""
    opening: int = 0
    """The longest opening that was seen."""
    turn: float = 0.0
    """A turn of the longest game: an answer and the user's message before it, the opening left out."""
    longest: int = 0
    """The longest game."""
    longest_turns: int = 0
    cut: int = 0
    """Games that do not fit, of `games`."""
    games: int = 0
    played: int = 0
    """Games that the expert has played for this."""
    problem: str = ""
    """Why nothing is known, where it is not."""

    @property
    def fits(self) -> bool:
        """Whether at most SHARE of the games are cut."""
        return self.cut <= SHARE * self.games

    def line(self) -> str:
        """For a page or a log."""
        if self.problem:
            return f"{self.split}: not measured ({self.problem})"
        if not self.longest_turns:
            return (
                f"{self.split}: opening {self.opening:,} tokens of {self.limit:,}; no expert has played on, "
                "so whether whole games fit is not known"
            )
        return (
            f"{self.split}: opening {self.opening:,} tokens, {self.turn:.0f} a turn, longest expert game "
            f"{self.longest:,} in {self.longest_turns} turns; a limit of {self.limit:,} cuts {self.cut} of "
            f"{self.games} games"
        )


def measure(
    split: str, tasks: Sequence[Task], env: EnvSettings, play: Play, dialogue: Dialogue, limit: int
) -> SplitContext:
    """`play` plays some tasks as the expert does (`sage.policy.preview`)."""
    first = env.expert_sample(tasks)
    games, problem = _played(play(first))
    if not games:
        return SplitContext(split, limit, problem=problem or "no game could be played")
    lengths = _lengths(games, dialogue, limit)
    cut = sum(n > limit for n in lengths)
    if cut and 1 < len(first) < len(tasks):  # then it is worth while to know how many of all
        known = {task.id for task in first}
        more, _ = _played(play([task for task in spread(tasks, MOST) if task.id not in known]))
        games, lengths = games + more, lengths + _lengths(more, dialogue, limit)
        cut = sum(n > limit for n in lengths)
    longest = max(range(len(games)), key=lengths.__getitem__)
    turns = _answered(games[longest])
    opening = max(_opening(game, dialogue) for game in games)
    a_turn = (lengths[longest] - _opening(games[longest], dialogue)) / max(1, turns)
    found = SplitContext(split, limit, opening, a_turn, lengths[longest], turns, cut, len(games), len(games))
    return found if len(games) == len(tasks) else _with_the_rest(found, games, tasks, env)


def refuse_unless_it_fits(found: Sequence[SplitContext], max_context: int) -> None:
    """Raises ConfigError, with the numbers, where the limit cuts the expert in over SHARE of some split."""
    bad = next((split for split in found if not split.fits), None)
    if bad is None:
        return
    needed = max(split.longest for split in found)
    limited = f"rollout.max_context={max_context}" if bad.limit == max_context else f"A reach of {bad.limit}"
    way_out = (
        f"set rollout.max_context={-(-needed // 256) * 256} or more"
        if bad.limit == max_context
        else "take models that reach further, or a shorter prompt.style"
    )
    raise ConfigError(
        f"{limited} tokens would cut the expert itself in {bad.cut} of {bad.games} games of {bad.split}: "
        f"an opening takes {bad.opening:,} tokens, a turn {bad.turn:.0f}, the longest game {needed:,}; "
        f"{way_out}."
    )


def tokens_of(game: Episode, dialogue: Dialogue) -> int:
    """Tokens of a whole game, laid down as a rollout does it."""
    total, answer = len(dialogue.open(game.system, game.turns[0].message)), list[int]()
    for turn in game.turns:
        total += len(dialogue.after(answer, turn.message)) if answer else 0
        answer = dialogue.encode_answer(turn.answer) if turn.answer else []
        total += len(answer)
    return total


def _played(games: Sequence[Episode | EnvFault]) -> tuple[list[Episode], str]:
    """The games that could be played, and why the first one that could not be could not."""
    faults = [game.reason for game in games if isinstance(game, EnvFault)]
    return [game for game in games if not isinstance(game, EnvFault)], faults[0] if faults else ""


def _answered(game: Episode) -> int:
    return sum(bool(turn.answer) for turn in game.turns)


def _opening(game: Episode, dialogue: Dialogue) -> int:
    return len(dialogue.open(game.system, game.turns[0].message)) + 1  # an answer has a token at least


def _lengths(games: Sequence[Episode], dialogue: Dialogue, limit: int) -> list[int]:
    """Tokens of each game; of a short text that fits whatever its tokens are, one for every four bytes."""
    sizes = [_size(game, dialogue) for game in games]
    order = sorted(range(len(games)), key=sizes.__getitem__, reverse=True)
    exact = {i for place, i in enumerate(order) if place < _COUNTED or sizes[i] > limit}
    return [
        max(tokens_of(game, dialogue), _opening(game, dialogue)) if i in exact else sizes[i] // 4
        for i, game in enumerate(games)
    ]


def _size(game: Episode, dialogue: Dialogue) -> int:
    """A bound on the tokens: bytes of everything that is said, of which no token has less than one."""
    text = dialogue.opening_text(game.system, game.turns[0].message)
    text += "".join(dialogue.follow_text(turn.message) for turn in game.turns[1:])
    return len((text + "".join(turn.answer for turn in game.turns)).encode()) + 2 * len(game.turns)


def _with_the_rest(
    found: SplitContext, games: Sequence[Episode], tasks: Sequence[Task], env: EnvSettings
) -> SplitContext:
    """`found` over all tasks, where the turns of those that were not played are known."""
    played = {game.task.id for game in games}
    turns = [env.expert_turns(task) for task in tasks if task.id not in played]
    known = [min(count, env.turn_budget) for count in turns if count is not None]
    if not known:
        return found
    lengths = [round(found.opening + count * found.turn) for count in known]
    longest = max(found.longest, *lengths)
    return replace(
        found,
        longest=longest,
        longest_turns=max(found.longest_turns, *known),
        cut=found.cut + sum(length > found.limit for length in lengths),
        games=found.games + len(known),
    )
