"""`judge.context=state` against `trajectory`: what each costs, and how often they say the same.

    OMP_NUM_THREADS=1 python benchmarks/judge_context.py [--seeds 0 1 2] [--episodes 8] [--turns 30]

Turns on generated ALFWorld games: the tiny student's in the style `short`, the expert's in `react`, which the
tiny models do not speak (there the tokens are of interest, not the labels). Tokens are what goes
through the teacher's forwards for the judge alone, counted as they go in: `state` on the device's engine with
every query alone and with shared prefixes, `trajectory` beside a scoring pass that is made anyway. Labels are
compared with each other and with the environment's expert (`sage.episode.effect_of`): those that are read in
the replies, and, for models that give none, the likeliest of the three words at the reply's first token.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from timing import machine

from sage.config.load import load
from sage.envs.pool import EnvPool
from sage.episode import Episode, Failure, Label, effect_of
from sage.objective.intervention.base import TurnContext
from sage.policy.decoding.answer import Sampling
from sage.policy.decoding.engine import right_engine
from sage.policy.decoding.engines import BuiltName
from sage.policy.decoding.packed import PackedEngine
from sage.policy.decoding.static import StaticEngine
from sage.policy.models.load import LanguageModel, load_model
from sage.policy.models.plain import plain_logits
from sage.policy.rollout import PlaySettings
from sage.policy.seat import Job
from sage.teacher.judge import TeacherJudge
from sage.teacher.score import own_view
from sage.teacher.trajectory import TrajectoryJudge
from sage.training.batch import Models, match_models
from sage.training.jobs import Schedule
from sage.training.players import training_play

GROUP = 4
"""Episodes of one scoring pass."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--teachers", nargs="+", default=["tiny", "tiny_strong"])
    parser.add_argument("--engine", choices=["packed", "static"], default="packed")
    args = parser.parse_args()
    print(machine(), f"{torch.get_num_threads()} threads, engine {args.engine}")
    for name in ("short", "react"):
        print(f"\n{name} style; tokens through the teacher for judging")
        print(HEAD)
        lines = []
        for teacher in args.teachers:
            found = [compare(seed, name, teacher, args) for seed in args.seeds]
            turns, each, shared, ours, scored = (sum(one[0][i] for one in found) for i in range(5))
            cells = [teacher, turns, f"{each:,}", f"{shared:,}", f"{ours:,}", f"{each / ours:.2f}"]
            print("| " + " | ".join(map(str, [*cells, f"{each / shared:.2f}", f"{scored:,}"])) + " |")
            for kind, of_seeds in (
                ("replies", [one[1] for one in found]),
                ("likeliest word", [one[2] for one in found]),
            ):
                lines.append(agreement(f"{teacher}, {kind}", [p for one in of_seeds for p in one]))
        print(f"\n{LABELS}\n" + "\n".join(lines))


HEAD = """\
| teacher | turns | state, alone | state, shared | trajectory | alone/trajectory | alone/shared | scoring |
|---|---|---|---|---|---|---|---|"""
LABELS = """\
| teacher | judged by the expert | same | state = expert | trajectory = expert | unread | state | trajectory |
|---|---|---|---|---|---|---|---|"""

Said = tuple[Label | None, Label | None, Label | None]
"""A turn's label by `state`, by `trajectory` and by the expert."""


def compare(
    seed: int, style_name: str, teacher_name: str, args: Any
) -> tuple[list[int], list[Said], list[Said]]:
    """(turns, tokens of state alone, shared, of trajectory, of the scoring pass), the labels of the replies,
    and those of the likeliest word."""
    player = "student" if style_name == "short" else "expert"
    words = [f"seed={seed}", f"teacher={teacher_name}", f"rollout.player={player}"]
    config = load([*words, "env.games=generated", "tracking=none"])
    style, query = config.prompt.styles[style_name], config.intervention.query
    assert query is not None
    query = query.model_copy(update={"max_new_tokens": 8})
    student, teacher = load_model(config.student), load_model(config.teacher)
    schedule = Schedule(config.env.tasks("train"), args.episodes, 1, args.turns, seed)
    models = match_models(student, teacher)
    right_engine(teacher, args.engine)  # measured here, so that it is not counted below
    episodes = played(models, config, style, seed, schedule.jobs(1), args.turns)
    contexts = [TurnContext(e, t) for e in episodes for t in e.turns if t.failure is Failure.NONE]
    engine: BuiltName = args.engine
    how: dict[str, Any] = {"engine": engine, "draft_tokens": 0}

    with alone(engine), fed(teacher) as each:
        TeacherJudge(teacher, style, query, **how)(contexts)
    with fed(teacher) as shared:
        by_state = TeacherJudge(teacher, style, query, **how)(contexts)
    groups = [episodes[i : i + GROUP] for i in range(0, len(episodes), GROUP)]
    judge = TrajectoryJudge(teacher, style, query, None, **how)
    for group in groups:
        judge.read(group, [c for c in contexts if any(c.episode is e for e in group)])
    by_trajectory = judge(contexts)
    scored = sum(max(own_view(e).positions(), default=-1) + 1 for e in episodes)
    counts = [len(contexts), each[0], shared[0], sum(r.tokens for r in by_trajectory), scored]
    likely = [
        [likeliest(teacher, asked._prompt(context)) for context in contexts]
        for asked in (TeacherJudge(teacher, style, query, **how), judge)
    ]
    experts = [expert(context) for context in contexts]
    read = ([r.label for r in by_state], [r.label for r in by_trajectory], experts)
    return counts, list(zip(*read, strict=True)), list(zip(*likely, experts, strict=True))


LABELLED = (Label.SKIP, Label.WEAK, Label.STRONG)


def likeliest(lm: LanguageModel, prompt: list[int]) -> Label:
    """The label whose word's first token is the likeliest to follow."""
    first = [lm.tokenizer(str(label), add_special_tokens=False)["input_ids"][0] for label in LABELLED]
    logits_V = plain_logits(lm, prompt, 1)[0]
    return LABELLED[int(logits_V[first].argmax())]


def expert(context: TurnContext) -> Label | None:
    effect = effect_of(context.turn.expert_distance_before, context.turn.expert_distance_after)
    return effect.label if effect else None


def played(
    models: Models, config: Any, style: Any, seed: int, jobs: Sequence[Job], turns: int
) -> list[Episode]:
    how = PlaySettings(Sampling(0.4, 1.0, 32), style, seed, "train", turns, 1_700, 64, draft_tokens=10)
    with EnvPool(config.env.make, 0, 60.0, distances=True) as pool:
        return training_play(config, models, pool, how)(jobs, turns)


@contextmanager
def alone(engine: str) -> Iterator[None]:
    with patch.object({"packed": PackedEngine, "static": StaticEngine}[engine], "shares", False):
        yield


@contextmanager
def fed(lm: LanguageModel) -> Iterator[list[int]]:
    """Tokens that an engine's forwards were given meanwhile, as the first number; what `static` fills its
    shapes with is not counted."""
    count = [0]
    inside: Callable[..., Any] = PackedEngine._forward
    run: Callable[..., Any] = StaticEngine._run

    def forward(engine: PackedEngine, parts: Any) -> Any:
        count[0] += sum(len(part.ids) for part in parts) if engine.lm is lm else 0
        return inside(engine, parts)

    def fixed(engine: StaticEngine, chunk: bool, parts: Any, slot: int) -> Any:
        count[0] += sum(len(ids) for *_, ids in parts) if engine.lm is lm else 0
        return run(engine, chunk, parts, slot)

    with patch.object(PackedEngine, "_forward", forward), patch.object(StaticEngine, "_run", fixed):
        yield count


def agreement(teacher: str, turns: Sequence[Said]) -> str:
    judged = [one for one in turns if one[2] is not None]
    both = sum(a is b and a is not None for a, b, _ in turns) / len(turns)
    right = [sum(one[i] is one[2] for one in judged) / len(judged) for i in (0, 1)]
    unread = [sum(one[i] is None for one in turns) for i in (0, 1)]
    labels = []
    for i in (0, 1):
        counts = Counter(one[i] for one in turns if one[i] is not None)
        labels.append(", ".join(f"{label} {counts[label]}" for label in LABELLED))
    cells = [teacher, str(len(judged)), f"{both:.0%}", *(f"{share:.0%}" for share in right)]
    return "| " + " | ".join([*cells, f"{unread[0]}, {unread[1]}", *labels]) + " |"


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"\n{time.perf_counter() - started:.0f} s")
