"""From the shared nouns (episode, turn, decision, score) to the rows of `sage.records.schema`.

A row is a plain dict; columns that are left out become null. An episode that is not ok (`env_error`,
`policy_error`) has null `won` and `score`: trouble with the machinery is never a loss.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sage.episode import Decision, Episode, Label, TrainingEpisode, Turn, TurnScore, effect_of
from sage.redaction import redact

Row = dict[str, Any]
Phase = Literal["train", "eval", "given", "failed"]

LABEL_SHARES = {
    Label.DET_FAIL: "share_det_fail",
    Label.SKIP: "share_skip",
    Label.WEAK: "share_weak",
    Label.STRONG: "share_strong",
    Label.FALLBACK: "share_fallback",
}
"""Column of the steps table for each label that a judge can give; ALWAYS and NEVER have none."""

TOKEN_VALUES = (
    *("text", "student_logprob", "student_entropy", "teacher_logprob", "teacher_entropy"),
    *("divergence", "top1", "confidence", "weight"),
)
"""Columns of the tokens table that are a list of `TokenScores` each."""


@dataclass(frozen=True, slots=True)
class RunKey:
    """The columns every row carries. `source` is the env's game source; episodes carry their own task's."""

    run: str
    method: str
    env: str
    source: str
    seed: int


def _keys(key: RunKey, episode: Episode, phase: Phase, step: int) -> Row:
    task = episode.task
    return {
        **asdict(key),
        "env": task.env,
        "source": task.source,
        "phase": phase,
        "step": step,
        "split": task.split,
        "task": task.id,
        "task_type": task.task_type,
        "rollout": episode.rollout_index,
        "status": str(episode.status),
        "won": episode.won if episode.status.is_ok else None,
    }


def episode_row(key: RunKey, episode: Episode, *, phase: Phase, step: int) -> Row:
    """One row of `episodes`. `step` is the number of optimizer steps done when it was played."""
    ok = episode.status.is_ok
    return _keys(key, episode, phase, step) | {
        "ok": ok,
        "score": episode.score if ok else None,
        "turns": len(episode.turns),
        "given_turns": len(episode.given),
        "answer_tokens": sum(turn.n_tokens for turn in episode.turns),
        "total_tokens": len(episode.token_ids),
        "expert_distance_start": episode.all_turns[0].expert_distance_before if episode.all_turns else None,
        "goal": episode.goal or None,
        "scene": episode.scene or None,
        "seconds": episode.seconds,
        "retries": episode.retries,
        "error": redact(episode.error) or None,
        "game_sha256": episode.task.sha256 or None,
    }


def turn_row(
    key: RunKey,
    episode: Episode,
    turn: Turn,
    *,
    phase: Phase,
    step: int,
    decision: Decision | None = None,
    score: TurnScore | None = None,
    effective_weight: float | None = None,
) -> Row:
    """One row of `turns`; without a decision and a score (evaluation) their columns are null."""
    row = _keys(key, episode, phase, step) | {
        "turn": turn.index,
        "observation": turn.observation,
        "admissible": "\n".join(turn.admissible) or None,
        "thought": turn.thought,
        "action": turn.action,
        "answer": turn.answer,
        "answer_ids": " ".join(map(str, episode.token_ids[turn.answer_start : turn.answer_end])),
        "feedback": turn.feedback,
        "failure": str(turn.failure),
        "truncated": turn.truncated,
        "format_slip": turn.format_slip,
        "answer_tokens": turn.n_tokens,
        "oracle": effect_of(turn.expert_distance_before, turn.expert_distance_after),
        "expert_distance_before": turn.expert_distance_before,
        "expert_distance_after": turn.expert_distance_after,
        "teacher_spoilt": turn.teacher_spoilt,
        "reward": turn.reward,
        "score": turn.score,
        "effective_weight": effective_weight,
    }
    if decision is not None:
        asked = bool(decision.reply) or decision.label is Label.FALLBACK
        row |= {
            "label": str(decision.label),
            "weight": decision.weight,
            "propensity": decision.propensity,
            "judge_reply": decision.reply if asked else None,
            "judge_latency_s": decision.latency_s if asked else None,
            "judge_cached": decision.cached if asked else None,
            "judge_tokens": decision.judge_tokens if asked else None,
        }
    if score is not None:
        row |= {
            "confidence": score.confidence,
            "top1": score.top1,
            "teacher_entropy": score.teacher_entropy,
            "teacher_logprob": score.teacher_logprob,
            "student_logprob": score.student_logprob,
            "student_entropy": score.student_entropy,
            "divergence": score.divergence,
        }
    return row


def episode_rows(
    key: RunKey,
    episodes: Sequence[Episode],
    *,
    phase: Phase,
    step: int,
    decisions: Sequence[Sequence[Decision]] | None = None,
    scores: Sequence[Sequence[TurnScore]] | None = None,
    effective_weights: Sequence[Sequence[float]] | None = None,
) -> tuple[list[Row], list[Row]]:
    """(rows of `turns`, rows of `episodes`) of a batch.

    `decisions`, `scores` and `effective_weights` are aligned with `episodes` and each episode's turns; all
    None in evaluation. A turn list cut short by a curriculum leaves the remaining turns' columns null.
    """
    turns: list[Row] = []
    for e, episode in enumerate(episodes):
        turns += [turn_row(key, episode, turn, phase="given", step=step) for turn in episode.given]
        for t, turn in enumerate(episode.turns):
            turns.append(
                turn_row(
                    key,
                    episode,
                    turn,
                    phase=phase,
                    step=step,
                    decision=_at(decisions, e, t),
                    score=_at(scores, e, t),
                    effective_weight=_at(effective_weights, e, t),
                )
            )
    return turns, [episode_row(key, episode, phase=phase, step=step) for episode in episodes]


def token_rows(key: RunKey, one: TrainingEpisode, *, step: int) -> list[Row]:
    """Rows of `tokens`, none where the episode is none of the sample; what is not known is null."""
    tokens = one.tokens
    if tokens is None or not tokens.ids:
        return []
    same = _keys(key, one.episode, "train", step)
    same = {name: value for name, value in same.items() if name not in ("status", "won")}
    places = [(turn.index, position) for turn in one.episode.turns for position in range(turn.n_tokens)]
    columns = {
        "token": tokens.ids,
        **{name: getattr(tokens, name) for name in TOKEN_VALUES if getattr(tokens, name)},
    }
    rows = []
    for n, (turn, position) in enumerate(places):
        row = same | {"turn": turn, "position": position}
        row |= {name: values[n] for name, values in columns.items()}
        for rank, (word, probability) in enumerate(tokens.likeliest[n] if tokens.likeliest else [], start=1):
            row |= {f"word_{rank}": word, f"word_{rank}_p": probability}
        rows.append(row)
    return rows


def _at(values: Sequence[Sequence[Any]] | None, e: int, t: int) -> Any:
    if values is None or t >= len(values[e]):
        return None
    return values[e][t]


def label_shares(decisions: Sequence[Sequence[Decision]]) -> Row:
    """The `share_*` columns of a steps row; empty for a batch without turns."""
    labels = [decision.label for per_episode in decisions for decision in per_episode]
    if not labels:
        return {}
    return {column: labels.count(label) / len(labels) for label, column in LABEL_SHARES.items()}


def step_row(key: RunKey, step: int, **values: Any) -> Row:
    """One row of `steps` (1-based); `values` are its columns by name, checked when written."""
    return {**asdict(key), "step": step, "time": time.time(), **values}
