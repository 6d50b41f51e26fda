"""The arithmetic of docs/evidence/paper_scale.md: memory by the product's own plan, time by measured speeds.

Nothing here is measured; what was is named beside each number. Lengths are those of the longest expert game
played to its turn budget, so that a step is no larger than it is taken for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from transformers import Qwen3Config

from sage.config.load import load
from sage.config.schema import RunConfig
from sage.policy.context import SplitContext
from sage.policy.models.shape import Shape, head_shape, shape_of
from sage.training.memory import Plan, fitted, need_of, over_processes

CARD = 80 << 30
GAMES = 140 + 134
"""Of one evaluation: ALFWorld's valid_seen and valid_unseen."""
VOCABULARY = 151_936
SHAPES = {  # width, feed-forward, layers, heads, tied: the published config.json of each
    "Qwen3-0.6B": (1024, 3072, 28, 16, True),
    "Qwen3-1.7B": (2048, 6144, 28, 16, True),
    "Qwen3-8B": (4096, 12_288, 36, 32, False),
    "Qwen3-32B": (5120, 25_600, 64, 64, False),
}
PAIRS = [(student, teacher) for teacher in ("Qwen3-8B", "Qwen3-32B") for student in list(SHAPES)[:2]]
"""Of the paper's table 1."""

# Counted with Qwen3's tokenizer on the official games (`python -m sage check --memory`).
CONTEXT = SplitContext("train", 32_768, opening=1_051, turn=245.97, games=3_553)
QUERY = 530
"""Tokens of a judge's query: about a million of them in a step of 64 games."""

# Measured on one H100 80 GB in November 2026; see the table of the page.
DECODE_S = {"Qwen3-0.6B": (0.0121, 0.0518), "Qwen3-1.7B": (0.0129, 0.0889)}
"""Of one token for up to 64 games: a forward replayed as a CUDA graph, and one of the padded engine."""
READ = {"Qwen3-0.6B": 129_000, "Qwen3-1.7B": 72_000}
"""Tokens of prompts a second."""
TEACHER = 53_000 / 2.5
"""Tokens a second that Qwen3-8B scores; another size is taken to be slower by its parameters."""
STUDENT = 28_000
"""Tokens a second forward and backward, Qwen3-1.7B."""
LOSS_S = 0.082 / 6_554
"""Of a student's token in the loss."""
SHARED = 3.29
"""How many times fewer tokens the judge reads where prefixes are shared."""
ANSWER = (30, 100)
"""Tokens of an answer, thought and action: few and many."""
ON_THE_CARD = ("Qwen3-8B",)
"""Teachers that fit on the card of the run; others are replicas on Ray, one for each run that goes on."""
METHODS = ("base", "sft", "opd", "opd_two_rollouts", "entropy_aware_opd", "tcod_f2b", "sage_opd")
"""Of conf/study/paper_table1.yaml."""


def methods_of(teacher: str) -> tuple[str, ...]:
    """Those that a study with this teacher runs: one on Ray does not play, so `sft` is left out."""
    return METHODS if teacher in ON_THE_CARD else tuple(m for m in METHODS if m != "sft")


@cache
def shape(name: str) -> Shape:
    """In bfloat16."""
    width, feed_forward, layers, heads, tied = SHAPES[name]
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=feed_forward, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=8, head_dim=128, tie_word_embeddings=tied,
    )  # fmt: skip
    return shape_of(config, 2)


@cache
def config_of(*words: str) -> RunConfig:
    """Of the budget `paper`, with as many games side by side as there are in a step; paths change nothing."""
    return load(["budget=paper", "env.games=generated", "speed.slots=64", *words])


@cache
def plan_of(student: str, teacher: str, *, here: bool) -> Plan:
    """What `check --memory 80 budget=paper speed.slots=64` says of the pair. here: whether the teacher is
    on the same card."""
    return fitted(shape(student), _teacher(teacher, here), need_of(config_of(), [CONTEXT]), CARD)


def split(processes: int, *, here: bool) -> Plan:
    """What `check --memory 80 --processes N` says of Qwen3-1.7B and 8B, games of at most 8,192 tokens."""
    config = load(["student=hub", "env.games=generated", "rollout.max_context=8192"])
    need = over_processes(need_of(config, []), processes, processes > 1)
    return fitted(shape("Qwen3-1.7B"), _teacher("Qwen3-8B", here), need, CARD)


def _teacher(name: str, here: bool) -> Shape:
    whole = shape(name)
    return whole if here else head_shape(VOCABULARY, whole.width, whole.size)


def replica(teacher: str, judge_batch: int) -> int:
    """Bytes on the card of a teacher's replica: weights, and the larger of a micro-batch and the judge's."""
    there, need = shape(teacher), need_of(config_of(), [CONTEXT])
    return there.weights + max(need.episode * there.working, judge_batch * need.query * there.cached)


@dataclass(frozen=True, slots=True)
class Step:
    """Seconds of a step by phase."""

    rollout: float
    judge: float
    teacher: float
    student: float

    @property
    def whole(self) -> float:
        return self.rollout + self.judge + self.teacher + self.student


def step(student: str, teacher: str, slots: int, config: RunConfig) -> tuple[Step, Step]:
    """A step of the method of `config`: as fast and as slow as the speeds allow."""
    games = config.trainer.tasks_per_step * config.rollout.episodes_per_task
    turns = config.env.turn_budget
    tokens = games * round(CONTEXT.opening + turns * CONTEXT.turn)
    scored = TEACHER * shape("Qwen3-8B").parameters / shape(teacher).parameters
    asked = games * turns * QUERY if config.intervention.query is not None else 0
    found = []
    for fast in (True, False):
        answers = games * turns * ANSWER[not fast]
        waves = max(1.0, games / slots)
        decoding = waves * turns * ANSWER[not fast] * DECODE_S[student][not fast]
        found.append(
            Step(
                rollout=decoding + (tokens - games * turns * ANSWER[0]) / READ[student],
                judge=asked / scored / (SHARED if fast else 1),
                teacher=tokens / scored,
                student=tokens / STUDENT + answers * LOSS_S,
            )
        )
    return found[0], found[1]


@cache
def run_hours(student: str, teacher: str, method: str) -> tuple[float, float]:
    """Of one run of the budget `paper`: its steps, and an evaluation before and after; `base` has one."""
    slots = plan_of(student, teacher, here=teacher in ON_THE_CARD).slots
    config = config_of(f"method={method}")
    trains = config.task == "train"
    games = config.trainer.tasks_per_step * config.rollout.episodes_per_task
    evaluated = GAMES * (2 if trains else 1) / games
    steps = config.trainer.steps if trains else 0
    fast, slow = (
        (steps * one.whole + evaluated * one.rollout) / 3_600 for one in step(student, teacher, slots, config)
    )
    return fast, slow
