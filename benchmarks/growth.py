"""How time and peak memory grow: turns, vocabulary, episodes per batch, games in the manifest.

    OMP_NUM_THREADS=1 python benchmarks/growth.py [--axes turns games] --plot docs/evidence/growth.png

One optimizer step (play, teacher pass, gradient) of random Qwen3 models, 2 layers of width 64: 30 observation
and 8 answer tokens a turn. Every axis has the others at their middle. An exponent is the slope of log time
(or memory above what is held anyway) over the upper half of the axis, where fixed costs no longer hide it;
1 is linear. Only attention's own share of `turns` may grow faster: each token looks at all before it.
Peak memory is Linux's VmHWM, reset before each point.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import machine
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from sage.envs.manifest import Manifest, spread
from sage.episode import Decision, Episode, Label, Status, Task, Turn
from sage.objective.confidence.base import Top1
from sage.objective.divergence.base import ReverseKL
from sage.objective.normalization import AllToken
from sage.policy.decoding.answer import Sampling
from sage.policy.decoding.generate import Decoder, answers
from sage.policy.models.folder import resolve_path
from sage.policy.models.load import LanguageModel
from sage.training.batch import Models, TrainingEpisode
from sage.training.gradient import Objective, accumulate_gradient

AXES = {
    "turns": [5, 10, 20, 40, 60],
    "vocabulary": [1_000, 8_000, 32_000, 64_000, 152_000],
    "episodes": [1, 4, 16, 32, 64],
    "games": [100, 1_000, 10_000, 30_000, 100_000],
}
MIDDLE = {"turns": 20, "vocabulary": 8_000, "episodes": 4}
OBSERVATION, ANSWER = 30, 8


def language_model(seed: int, vocabulary: int) -> LanguageModel:
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=2, head_dim=32,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
        max_position_embeddings=8192,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(resolve_path("sage://tiny-student"))
    return LanguageModel(Qwen3ForCausalLM(config).eval(), tokenizer, "random", "", torch.device("cpu"))


def step(models: Models, episodes: int, turns: int) -> dict[str, float]:
    """CPU seconds of the parts of one optimizer step."""
    random = np.random.default_rng(0)
    started = time.process_time()
    decoder = Decoder(models.student, episodes, engine="packed", draft_tokens=10)
    played = [
        Episode(Task(str(e), "random", "train", "any", "random"), status=Status.WON) for e in range(episodes)
    ]
    last: list[list[int]] = [[] for _ in played]
    for index in range(turns):
        new = [random.integers(10, 900, OBSERVATION).tolist() for _ in played]
        prompts = [head + ids for head, ids in zip(last, new, strict=True)]
        how = Sampling(0.0, 1.0, ANSWER)
        replies = answers(decoder, prompts, how, None, [1 << 20] * episodes)
        for episode, ids, reply in zip(played, new, replies, strict=True):
            episode.token_ids += ids
            start = len(episode.token_ids)
            episode.token_ids += reply.ids
            episode.turns.append(
                Turn(
                    index,
                    message="",
                    observation="",
                    answer=reply.text,
                    answer_start=start,
                    answer_end=len(episode.token_ids),
                )
            )
        last = [reply.ids[-1:] for reply in replies]
        for episode, head in zip(played, last, strict=True):
            assert episode.token_ids[-1:] == head
    rollout = time.process_time() - started
    batch = [TrainingEpisode(e, [Decision(Label.STRONG, 1.0) for _ in e.turns]) for e in played]
    rules = Objective(
        Top1(name="top1", per="turn", teacher_temperature=1.0),
        AllToken(name="all_token", scope="batch", epsilon=1e-8, z_max=None),
        ReverseKL(name="reverse_kl"),
    )
    models.student.model.zero_grad(set_to_none=True)
    started = time.process_time()
    accumulate_gradient(models, rules, batch, micro_batch=4)
    return {"rollout": rollout, "teacher and gradient": time.process_time() - started}


def games(count: int) -> dict[str, float]:
    """Manifest of that many games: write, read, digest, and draw an evaluation of 134."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tasks = [
            Task(
                f"train/game-{i:06d}",
                "alfworld",
                "train",
                f"type-{i % 6}",
                "generated",
                str(root / str(i)),
                f"{i:064x}",
            )
            for i in range(count)
        ]
        started = time.process_time()
        manifest = Manifest.of(tasks)
        manifest.write(root / "manifest.json", root)
        again = Manifest.read(root / "manifest.json", root)
        assert again.digest == manifest.digest
        spread(again.tasks, 134)
        return {"manifest": time.process_time() - started}


def held() -> float:
    """Resident MB now, after giving back what is free."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return status("VmRSS")


def status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def measure(axis: str, size: int, repeats: int) -> dict[str, float]:
    """Medians of the parts' CPU seconds, and the peak in MB above what the process held before."""
    run: Callable[[], dict[str, float]]
    if axis == "games":
        run = lambda: games(size)  # noqa: E731
    else:
        shape = MIDDLE | {axis: size}
        v = shape["vocabulary"]
        models = Models(language_model(0, v), language_model(1, v), v, None)
        run = lambda: step(models, shape["episodes"], shape["turns"])  # noqa: E731
    before = held()
    Path("/proc/self/clear_refs").write_text("5")
    found = [run() for _ in range(repeats)]
    peak = status("VmHWM") - before
    return {name: float(np.median([one[name] for one in found])) for name in found[0]} | {"peak MB": peak}


def exponent(sizes: list[int], values: list[float]) -> float:
    """Slope in the logarithms over the upper half."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(np.maximum(values[half:], 1e-9)), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--axes", nargs="*", choices=AXES, default=list(AXES))
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--store", type=Path, help="JSON of the points; axes measured before are kept")
    args = parser.parse_args()
    print(machine())
    points: dict[str, dict[str, list[float]]] = {}
    if args.store and args.store.exists():
        points = json.loads(args.store.read_text())
    step(Models(language_model(0, 1000), language_model(1, 1000), 1000, None), 2, 2)  # warm
    for axis in args.axes:
        rows = [measure(axis, size, args.repeats) for size in AXES[axis]]
        points[axis] = {name: [row[name] for row in rows] for name in rows[0]}
        if args.store:
            args.store.write_text(json.dumps(points))
    print("\n| axis | what | " + " | ".join(f"point {i + 1}" for i in range(5)) + " | exponent |")
    print("|---|---|" + "---|" * 6)
    for axis, lines in points.items():
        print(f"| {axis} | size | " + " | ".join(f"{size:,}" for size in AXES[axis]) + " | |")
        for name, values in lines.items():
            unit = "" if name == "peak MB" else ", CPU s"
            cells = " | ".join(f"{value:.3g}" for value in values)
            print(f"| | {name}{unit} | {cells} | {exponent(AXES[axis], values):.2f} |")
    if args.plot:
        plot(points, args.plot)


def plot(points: dict[str, dict[str, list[float]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, axes = plt.subplots(2, len(points), figsize=(3.2 * len(points), 6), squeeze=False)
    for column, (axis, lines) in enumerate(points.items()):
        for name, values in lines.items():
            panel: Any = axes[int(name == "peak MB"), column]
            panel.loglog(AXES[axis], values, "o-", label=f"{name}, {exponent(AXES[axis], values):.2f}")
        for row, label in enumerate(("CPU s", "peak MB")):
            axes[row, column].set_xlabel(axis)
            axes[row, column].xaxis.set_minor_formatter(NullFormatter())
            axes[row, column].set_ylabel(label)
            axes[row, column].legend(fontsize=7, title="exponent", title_fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
