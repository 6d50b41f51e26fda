"""What can be told about a turn without the teacher: the inputs of a learned intervention.

Made from one episode's turns in order, by the rule while it trains (`sage.objective.intervention.learned`)
and from records when it is fitted (`sage.objective.intervention.fit`), so that both see the same numbers.
Nothing here knows the label.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sage.episode import Failure

NAMES = (
    "position",
    "action_repeats",
    "same_action",
    "observation_seen",
    "feedback_seen",
    "failed_before",
    "failure_share",
    "answer_length",
    "student_entropy",
    "student_surprise",
    "goal_in_observation",
    "goal_in_action",
    "action_in_observation",
    "won_reward",
)
"""Names of the features, in order."""

_WORD = re.compile(r"[a-z]{3,}")
_COMMON = frozenset(
    [
        *("the", "and", "put", "some", "task", "your", "with", "into", "that", "you", "are", "find", "two"),
        *("them", "cool", "heat", "clean"),
    ]
)
"""Words of a task sentence that name no thing."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One turn as the agent and its environment know it. Entropy and log-probability are means over the
    turn's tokens, in nats; None where the student was not scored."""

    observation: str
    action: str
    feedback: str
    failure: str
    answer_tokens: int
    reward: float
    student_entropy: float | None
    student_logprob: float | None


def features(goal: str, turns: Sequence[Seen], turn_budget: int) -> list[list[float]]:
    """One row of `len(NAMES)` numbers for each turn of an episode; a row reads no later turn."""
    rows: list[list[float]] = []
    actions: list[str] = []
    observations: set[str] = set()
    feedbacks: set[str] = set()
    failures = 0
    failed = False
    wanted = _words(goal)
    for index, turn in enumerate(turns):
        seen, acted = _words(turn.observation), _words(turn.action)
        rows.append(
            [
                index / max(1, turn_budget),
                float(min(actions.count(turn.action), 5)),
                float(bool(actions) and actions[-1] == turn.action),
                float(turn.observation in observations),
                float(turn.feedback in feedbacks),
                float(failed),
                failures / index if index else 0.0,
                turn.answer_tokens / 10,
                turn.student_entropy or 0.0,
                -(turn.student_logprob or 0.0),
                _overlap(wanted, seen),
                _overlap(wanted, acted),
                _overlap(acted, seen),
                turn.reward,
            ]
        )
        failed = turn.failure != Failure.NONE
        failures += failed
        actions.append(turn.action)
        observations.add(turn.observation)
        feedbacks.add(turn.feedback)
    return rows


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower())) - _COMMON


def _overlap(part: frozenset[str], whole: frozenset[str]) -> float:
    """Share of the words of `part` that `whole` has."""
    return len(part & whole) / len(part) if part else 0.0
