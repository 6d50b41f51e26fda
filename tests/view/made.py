"""Recorded runs for the viewer, made of real rows in real files: two methods, the same games, and the turn at
which they part.

Games 0 and 3 are won by both, game 1 by `opd` alone, game 2 by `sage_opd` alone. Both say the same until turn
1; there `opd` goes to a shelf and `sage_opd` to a drawer, at token 4 of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sage.config.load import load
from sage.episode import (
    Decision,
    Episode,
    Failure,
    Label,
    Status,
    Task,
    TokenScores,
    TrainingEpisode,
    Turn,
    TurnScore,
)
from sage.records.identity import Identity
from sage.records.rows import RunKey, episode_rows, label_shares, step_row, token_rows
from sage.records.rundir import RunDir, new_attempt
from sage.records.summary import summarize
from sage.records.tables import Tables

GAMES = 4
TURNS = 3
WINS = {"opd": (0, 1, 3), "sage_opd": (0, 2, 3)}
LABELS = (Label.SKIP, Label.STRONG, Label.FALLBACK)


def words(text: str) -> list[str]:
    """The tokens of an answer: words with the blank before them, and the sign that ends it."""
    return [*re.findall(r"\n|\s?[^\s]+", text), "<|end|>"]


def answer_of(method: str, turn: int) -> str:
    place = "shelf 1" if method == "opd" or turn < 1 else "drawer 1"
    return f"Thought: look\nAction: go to {place}" if turn != 1 else f"Go to the nice {place}"


def make_episode(method: str, game: int, split: str, said: Sequence[str] = ()) -> Episode:
    """`said`: texts that stand in place of the usual ones, one after the other."""
    task = Task(f"{split}/game-{game}", "alfworld", split, f"kind_{game % 2}", "generated", sha256="a" * 64)
    episode = Episode(task, goal="put a mug in a shelf.", scene="You are in a room.")
    given = iter([said[(game + i) % len(said)] for i in range(100)] if said else [])
    for t in range(TURNS):
        answer = next(given, answer_of(method, t))
        start = 10 + 100 * t
        episode.turns.append(
            Turn(
                t,
                message=f"message {t}",
                observation=next(given, "You are in a room." if t == 0 else f"You see {t}."),
                answer=answer,
                answer_start=start,
                answer_end=start + len(words(answer)),
                thought=next(given, "look"),
                action=next(given, answer.partition("Action: ")[2]),
                feedback=next(given, "Nothing happens." if t == 2 else f"You see {t + 1}."),
                admissible=("look", "go to shelf 1"),
                failure=Failure.NO_EFFECT if t == 2 else Failure.NONE,
                expert_distance_before=3 - min(t, 1),
                expert_distance_after=2 if t == 0 else 3,
            )
        )
    episode.token_ids = list(range(400))
    for turn in episode.turns:
        if "drawer" in turn.answer:
            place = turn.answer_start + words(turn.answer).index(" drawer")
            episode.token_ids[place] += 100
    episode.status = Status.WON if game in WINS[method] else Status.TURN_BUDGET
    episode.score = float(episode.won)
    if said:
        episode.goal = episode.scene = said[game % len(said)]
    return episode


def make_tokens(episode: Episode) -> TokenScores:
    """Numbers that grow with the token's place; the id of a token is the number of its word."""
    text = [word for turn in episode.turns for word in words(turn.answer)]
    n = len(text)
    up = [i / n for i in range(n)]
    return TokenScores(
        ids=[sum(map(ord, word)) for word in text],
        text=list(text),
        student_logprob=[-x for x in up],
        student_entropy=list(up),
        teacher_logprob=[-2 * x for x in up],
        teacher_entropy=[None] * n,
        divergence=list(up),
        top1=[1 - x for x in up],
        likeliest=[[(word, 0.75), (" other", 0.125), ("\n", 0.0625)] for word in text],
        confidence=[0.5] * n,
        weight=list(up),
    )


def make_run(
    runs: Path,
    method: str,
    *,
    seed: int = 0,
    steps: int = 2,
    ends: bool = True,
    said: Sequence[str] = (),
) -> RunDir:
    """A recorded run below `runs`; one that does not end is left as if its process were at work."""
    config = load([f"method={method}", f"seed={seed}", "tracking=none"])
    run = new_attempt(runs, Identity.of(config, "f" * 64), config)
    run.start(steps=steps)
    key = RunKey(run.path.parent.name, method, "alfworld", "generated", seed)
    tables = Tables(run.path)
    tables.resume(0)
    record_evaluation(tables, key, method, 0, said)
    for step in range(1, steps + 1):
        record_step(tables, key, method, step, said)
        run.beat(step=step, phase="training", seconds={"rollout": 2.0 * step, "student": 1.0 * step})
    if ends:
        record_evaluation(tables, key, method, steps, said)
        tables.consolidate()
        run.write_json("summary.json", summarize(run.path).to_json())
        run.done(step=steps)
    return run


def record_evaluation(tables: Tables, key: RunKey, method: str, step: int, said: Sequence[str] = ()) -> None:
    played = [make_episode(method, game, "valid_unseen", said) for game in range(GAMES)]
    turns, rows = episode_rows(key, played, phase="eval", step=step)
    tables.append_evaluation(step, "valid_unseen", turns=turns, episodes=rows)


def record_step(tables: Tables, key: RunKey, method: str, step: int, said: Sequence[str] = ()) -> None:
    """Game 0 with its tokens, game 1 without."""
    batch = []
    for game in range(2):
        episode = make_episode(method, game, "train", said)
        reply = said[0] if said else ""
        decisions = [
            Decision(label, float(label is not Label.SKIP), reply=reply or str(label), judge_tokens=80)
            for label in LABELS
        ]
        scores = [TurnScore(0.8, 0.8, 0.5, -0.4, student_logprob=-0.6, divergence=0.2) for _ in LABELS]
        one = TrainingEpisode(episode, decisions, scores, [0.0, 1.5, 0.5])
        one.tokens = make_tokens(episode) if game == 0 else None
        batch.append(one)
    turns, rows = episode_rows(
        key,
        [one.episode for one in batch],
        phase="train",
        step=step - 1,
        decisions=[one.decisions for one in batch],
        scores=[one.scores for one in batch],
        effective_weights=[one.effective_weights for one in batch],
    )
    row = step_row(
        key,
        step,
        loss=1 / step,
        mean_divergence=0.5 / step,
        success_rate=0.5,
        seconds_rollout=2.0,
        **label_shares([one.decisions for one in batch]),
    )
    tokens = [token for one in batch for token in token_rows(key, one, step=step - 1)]
    tables.append_step(step, turns=turns, episodes=rows, row=row, tokens=tokens)


def make_pair(folder: Path) -> Path:
    """A run of each method, of one seed, below `folder`."""
    for method in WINS:
        make_run(folder, method)
    return folder
