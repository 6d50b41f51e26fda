"""Synthetic record sets with a known truth: run directories, turns with labels and oracle, plain episode
tables.

An evaluation episode is won when  level + game difficulty + run + noise > 0. A training turn makes progress,
changes nothing or does harm; the judge sees that with `JUDGE_ACCURACY`; the teacher's confidence is higher
where the judge is right. All draws come from one seed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from sage.records.schema import EPISODES, STEPS, TURNS

TASK_TYPES = ("pick", "look", "clean", "heat", "cool", "two")
JUDGE_ACCURACY = 0.8
LABEL_OF = {"progress": "SKIP", "no_effect": "WEAK", "harm": "STRONG"}
WEIGHT_OF = {
    "SKIP": 0.0,
    "WEAK": 0.5,
    "STRONG": 1.0,
    "DET_FAIL": 1.0,
    "FALLBACK": 1.0,
    "ALWAYS": 1.0,
    "NEVER": 0.0,
}


def episode_table(
    levels: Mapping[str, float],
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    games: int = 30,
    run_sd: float = 0.2,
    game_sd: float = 1.0,
    rollouts: int = 1,
    rng_seed: int = 0,
    split: str = "valid_unseen",
    steps: Sequence[int] = (0,),
) -> pd.DataFrame:
    """A plain table of episodes with exactly the documented columns; `levels` are in noise units."""
    rng = np.random.default_rng(rng_seed)
    difficulty = rng.normal(0, game_sd, games)
    rows = []
    for method, level in levels.items():
        for seed in seeds:
            run = rng.normal(0, run_sd)
            for number, step in enumerate(steps):
                reached = level if number == len(steps) - 1 else level * number / max(1, len(steps) - 1)
                for rollout in range(rollouts):
                    won = reached + difficulty + run + rng.normal(0, 1, games) > 0
                    turns = np.where(won, rng.integers(6, 25, games), 30)
                    rows.append(
                        pd.DataFrame(
                            {
                                "method": method,
                                "env": "alfworld",
                                "split": split,
                                "source": "generated",
                                "seed": seed,
                                "task": [f"{split}-{g:04d}" for g in range(games)],
                                "task_type": [TASK_TYPES[g % len(TASK_TYPES)] for g in range(games)],
                                "step": step,
                                "rollout": rollout,
                                "won": won.astype(int),
                                "turns": turns,
                            }
                        )
                    )
    return pd.concat(rows, ignore_index=True)


@dataclass(frozen=True)
class Study:
    """What `write_study` makes. `epsilon` > 0 redraws labels uniformly with that probability and logs
    propensities."""

    levels: Mapping[str, float]
    seeds: Sequence[int] = (0, 1, 2)
    games: int = 18
    splits: Sequence[str] = ("valid_seen", "valid_unseen")
    train_steps: int = 6
    episodes_per_step: int = 4
    epsilon: float = 0.0
    plan: str = ""
    started: float = 1_790_000_000.0
    rng_seed: int = 0


def write_study(root: Path, study: Study) -> Path:
    """Run directories below `root` as `sage.records` lays them out; returns `root`."""
    half = study.train_steps // 2
    evaluations = [
        episode_table(
            study.levels,
            study.seeds,
            study.games,
            rng_seed=study.rng_seed + i,
            split=split,
            steps=(0, half, study.train_steps),
        ).assign(phase="eval")
        for i, split in enumerate(study.splits)
    ]
    table = pd.concat(evaluations, ignore_index=True)
    for number, ((method, seed), episodes) in enumerate(table.groupby(["method", "seed"], sort=True)):
        rng = np.random.default_rng([study.rng_seed, number])
        write_run(root, str(method), int(seed), episodes, study, rng)
    return root


def write_run(
    root: Path, method: str, seed: int, evaluation: pd.DataFrame, study: Study, rng: np.random.Generator
) -> Path:
    """One finished run; returns its attempt directory."""
    config: dict[str, Any] = {
        "task": "train",
        "seed": seed,
        "method": method,
        "env": {"name": "alfworld", "source": "generated"},
        "confidence": {"name": "top1", "threshold": 0.5},
        "trainer": {"steps": study.train_steps, "threads": 1},
        "rollout": {"temperature": 0.4, "workers": 0},
        "launch": {"runs_dir": str(root)},
        "tracking": {"mlflow": False},
    }
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    base = {"run": digest[:12], "method": method, "env": "alfworld", "source": "generated", "seed": seed}
    turns, training = training_turns(method, study, rng)
    episodes = pd.concat([evaluation, training], ignore_index=True).assign(**base)
    episodes["status"] = np.where(episodes["won"].astype(bool), "won", "turn_budget")
    episodes["ok"], episodes["won"] = True, episodes["won"].astype(bool)
    episodes["score"] = episodes["won"].astype(float)
    episodes["game_sha256"] = [hashlib.sha256(task.encode()).hexdigest() for task in episodes["task"]]
    episodes["error"] = ""
    turns = turns.assign(**base)
    steps = pd.DataFrame({"step": range(1, study.train_steps + 1)}).assign(**base)
    drift = np.linspace(0, 1, study.train_steps)
    steps["loss"] = 1.5 - drift + rng.normal(0, 0.05, study.train_steps)
    steps["success_rate"] = training.groupby("step")["won"].mean().to_numpy()
    steps["z"], steps["stepped"] = 1.6, True
    for column, label in (
        ("share_det_fail", "DET_FAIL"),
        ("share_skip", "SKIP"),
        ("share_weak", "WEAK"),
        ("share_strong", "STRONG"),
        ("share_fallback", "FALLBACK"),
    ):
        steps[column] = turns.assign(hit=turns["label"] == label).groupby("step")["hit"].mean().to_numpy()
    folder = root / digest[:12] / "attempt_1"
    folder.mkdir(parents=True)
    for name, frame, columns in (
        ("episodes", episodes, EPISODES),
        ("turns", turns, TURNS),
        ("steps", steps, STEPS),
    ):
        unknown = set(frame.columns) - set(columns)
        assert not unknown, f"{name} has columns that the schema lacks: {unknown}"
        frame.reindex(columns=list(columns)).to_parquet(folder / f"{name}.parquet", index=False)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "status.json").write_text(json.dumps({"state": "done", "reason": "", "started": study.started}))
    provenance = {"time": "2026-11-23T04:00:00+0000", "code": {"commit": "c0ffee", "dirty": False}}
    if study.plan:
        provenance["plan_sha256"] = study.plan
    (folder / "provenance.json").write_text(json.dumps(provenance))
    return folder


def training_turns(method: str, study: Study, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(turns, episodes) of training: the expert distance walks, the judge labels, the teacher is more or
    less sure."""
    rows, episodes = [], []
    for step in range(study.train_steps):
        for index in range(study.episodes_per_step):
            task_type = TASK_TYPES[int(rng.integers(len(TASK_TYPES)))]
            key = {
                "phase": "train",
                "step": step,
                "split": "train",
                "task": f"train-{step * 1000 + index:05d}",
                "task_type": task_type,
                "rollout": 0,
            }
            played = _episode(method, study, rng, key)
            rows.extend(played)
            won = played[-1]["expert_distance_after"] == 0
            for row in played:
                row["won"], row["status"] = won, "won" if won else "turn_budget"
            episodes.append(
                {
                    **key,
                    "won": won,
                    "turns": len(played),
                    "answer_tokens": sum(r["answer_tokens"] for r in played),
                    "expert_distance_start": played[0]["expert_distance_before"],
                }
            )
    return pd.DataFrame(rows), pd.DataFrame(episodes)


def _episode(
    method: str, study: Study, rng: np.random.Generator, key: dict[str, Any]
) -> list[dict[str, Any]]:
    distance = int(rng.integers(5, 13))
    rows: list[dict[str, Any]] = []
    for turn in range(30):
        oracle = str(rng.choice(["progress", "no_effect", "harm"], p=[0.62, 0.25, 0.13]))
        failure = "no_effect" if oracle == "no_effect" and rng.random() < 0.3 else "none"
        after = max(0, distance - 1) if oracle == "progress" else distance + (oracle == "harm")
        label, propensity, right = _label(method, oracle, failure, study.epsilon, rng)
        confidence = float(np.clip(rng.normal(0.85 if right else 0.65, 0.12), 0.05, 0.999))
        rows.append(
            {
                **key,
                "turn": turn,
                "observation": f"You are {distance} steps away.",
                "thought": "Go on.",
                "action": f"go to shelf {turn}",
                "answer": f"Thought: Go on.\nAction: go to shelf {turn}",
                "feedback": "Nothing happens." if failure == "no_effect" else f"You are {after} steps away.",
                "failure": failure,
                "truncated": False,
                "answer_tokens": int(rng.integers(6, 20)),
                "label": label,
                "weight": WEIGHT_OF[label],
                "propensity": propensity,
                "confidence": confidence,
                "effective_weight": WEIGHT_OF[label] * confidence * 1.6,
                "top1": confidence,
                "teacher_entropy": 1 - confidence,
                "teacher_logprob": -2 * (1 - confidence),
                "student_logprob": -float(rng.exponential(0.4)),
                "student_entropy": float(rng.exponential(0.5)),
                "divergence": float(rng.exponential(0.3)),
                "oracle": oracle,
                "judge_reply": None if label == "DET_FAIL" else label,
                "judge_cached": False,
                "expert_distance_before": distance,
                "expert_distance_after": after,
                "score": float(after == 0),
            }
        )
        distance = after
        if distance == 0:
            break
    return rows


def _label(
    method: str, oracle: str, failure: str, epsilon: float, rng: np.random.Generator
) -> tuple[str, float, bool]:
    """(label, its propensity, whether it is the oracle's)."""
    if method == "opd":
        return "ALWAYS", 1.0, True
    if failure != "none":
        return "DET_FAIL", 1.0, True
    names = list(WEIGHT_OF)[:3]
    meant = LABEL_OF[oracle]
    if rng.random() > JUDGE_ACCURACY:
        meant = str(rng.choice([name for name in names if name != meant]))
    label = str(rng.choice(names)) if rng.random() < epsilon else meant
    propensity = epsilon / 3 + (1 - epsilon) * (label == meant)
    return label, propensity, label == LABEL_OF[oracle]
