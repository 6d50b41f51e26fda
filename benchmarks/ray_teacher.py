"""Memory of runs with a teacher on Ray: a student of Qwen3-0.6B's shape, and a sweep that shares one.

    python benchmarks/ray_teacher.py student --tokenizer DIR [--lora] [--dtype float32] [--recompute]
    python benchmarks/ray_teacher.py sweep [--runs 6] [--workers 2]

Models have random weights. `student` trains two steps on the CPU; DIR holds the tokenizer of the student's
family (tokenizer.json, tokenizer_config.json). `sweep` plays the same runs twice, with `teacher=ray` and with
the teacher in each run. Counted is memory that cannot be given back (RssAnon + RssShmem of /proc) ten times a
second, summed over the run's processes, over the actors and over Ray's own, and each sum's peak; and the
largest resident size of the run's own process (VmHWM), pages of files included. The cluster is one of this
benchmark's own. `--recompute` computes layers again for the gradient.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
GIB = 2**30
SMALL = (
    *("env.games=generated", "env.generated.train=6", "env.generated.valid_seen=2", "prompt.style=short"),
    *("env.generated.valid_unseen=2", "env.turn_budget=2", "env.evaluation_splits=[valid_seen]"),
    *("trainer.tasks_per_step=2", "evaluation.limit=1", "evaluation.before=false", "evaluation.after=false"),
    *("tracking=none", "speed.threads=1", "rollout.max_new_tokens=4", "intervention.max_new_tokens=2"),
)
KEPT = ("trainer.checkpoint=weights", "speed.checkpoint_background=false")
"""Of a training that is not gone on with: AdamW's state is not copied to be written."""


def save(folder: Path, tokenizer: str, dtype: str, **shape: int) -> None:
    """A Qwen3 of random weights with a tokenizer that is there: a folder, or a shipped model's name."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from sage.policy.models.folder import resolve_path

    torch.manual_seed(0)
    config = Qwen3Config(head_dim=128, max_position_embeddings=40960, tie_word_embeddings=True, **shape)
    Qwen3ForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)
    for file in Path(resolve_path(tokenizer)).iterdir():
        if "token" in file.name or file.name in ("vocab.json", "merges.txt", "chat_template.jinja"):
            shutil.copy(file, folder / file.name)


def processes() -> Iterator[tuple[int, int, str, int]]:
    """(pid, parent, command line, bytes that cannot be given back) of every process that can be read."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            lines = (entry / "status").read_text().splitlines()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        held = sum(int(fields.get(name, "0 kB").split()[0]) for name in ("RssAnon", "RssShmem"))
        yield int(entry.name), int(fields["PPid"]), command, held * 1024


def high_water(pid: int) -> int:
    """The most bytes that were ever resident of a process; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return max((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), default=0)


class Watch(threading.Thread):
    """Peaks of the sums over the processes below `root` (the run) and below Ray's head."""

    def __init__(self, root: int, ray_head: int | None) -> None:
        super().__init__(daemon=True)
        self.root, self.ray_head, self.over = root, ray_head, threading.Event()
        self.peaks = dict.fromkeys(("run", "actors", "ray", "all"), 0)
        self.actors = 0
        self.largest = 0

    def run(self) -> None:
        while not self.over.wait(0.1):
            now = {pid: (parent, command, held) for pid, parent, command, held in processes()}
            self.largest = max(self.largest, high_water(self.root))
            sums = dict.fromkeys(("run", "actors", "ray"), 0)
            actors = 0
            for pid, (_, command, held) in now.items():
                if self._below(pid, self.root, now):
                    sums["run"] += held
                elif self.ray_head is not None and self._below(pid, self.ray_head, now):
                    is_actor = command.startswith("ray::Replica")
                    actors += is_actor
                    sums["actors" if is_actor else "ray"] += held
            self.actors = max(self.actors, actors)
            for name, held in {**sums, "all": sum(sums.values())}.items():
                self.peaks[name] = max(self.peaks[name], held)

    @staticmethod
    def _below(pid: int, root: int, now: Mapping[int, tuple[int, str, int]]) -> bool:
        while pid != root and pid in now:
            pid = now[pid][0]
        return pid == root


def sage(*words: str, check: bool = True) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-m", "sage", *words])
    if check and process.wait():
        raise SystemExit(f"python -m sage {' '.join(words)} ended with {process.returncode}.")
    return process


@contextmanager
def teacher(*words: str) -> Iterator[int]:
    """A teacher on a cluster of this benchmark's own; the process that has begun the cluster."""
    from sage.teacher.ray.head import MARK

    sage("teacher", "start", *words)
    try:
        ours = os.environ["RAY_TMPDIR"]
        yield next(
            pid
            for pid, _, command, _ in processes()
            if MARK in command and "scripts" in command and _has(pid, ours)
        )
    finally:
        sage("teacher", "stop")


def _has(pid: int, value: str) -> bool:
    return value.encode() in Path(f"/proc/{pid}/environ").read_bytes()


def measured(label: str, ray_head: int | None, *words: str) -> None:
    """Run it and print a row."""
    started = time.perf_counter()
    process = sage(*words, check=False)
    watch = Watch(process.pid, ray_head)
    watch.start()
    code = process.wait()
    watch.over.set()
    watch.join()
    numbers = [watch.peaks[name] for name in ("run", "actors", "ray", "all")] + [watch.largest]
    peaks = " | ".join(f"{number / GIB:.2f}" for number in numbers)
    print(
        f"| {label} | {watch.actors} | {peaks} | {time.perf_counter() - started:.0f} | {code} |", flush=True
    )


def student(tokenizer: str, lora: bool, dtype: str, recompute: bool, folder: Path) -> None:
    shape = {"vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28}
    save(folder / "student", tokenizer, dtype, **shape, num_attention_heads=16, num_key_value_heads=8)
    small = {"vocab_size": 151936, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}
    save(folder / "teacher", tokenizer, "float32", **small, num_attention_heads=4, num_key_value_heads=2)
    there = (f"teacher.path={folder / 'teacher'}", "teacher.dtype=float32", "teacher.ray.num_gpus=0")
    group = "hub_lora" if lora else "hub"
    words = (
        f"student={group}",
        f"student.path={folder / 'student'}",
        f"student.dtype={dtype}",
        "teacher=ray",
        f"speed.gradient_checkpointing={str(recompute).lower()}",
    )
    with teacher(*there) as head:
        label = f"{'LoRA' if lora else 'full weights'}, {dtype}"
        measured(label, head, *words, *there, *SMALL, "trainer.steps=2", "trainer.warmup_steps=0", *KEPT)


def sweep(runs: int, workers: int, folder: Path) -> None:
    tokenizer = "sage://tiny-teacher"
    shape = {"vocab_size": 1536, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 8}
    # Loaded in another dtype than the file's, weights are each process's own and no pages of the file.
    save(folder / "teacher", tokenizer, "bfloat16", **shape, num_attention_heads=8, num_key_value_heads=4)
    seeds = f"seed={','.join(map(str, range(runs)))}"
    there = (f"teacher.path={folder / 'teacher'}", "teacher.dtype=float32")
    words = ("-m", seeds, f"launch.workers={workers}", *there, *SMALL, "trainer.steps=1")
    measured(
        f"{runs} runs, {workers} at a time, each its own", None, *words, "teacher=hub", "launch.runs_dir=own"
    )
    with teacher(*there, "teacher.ray.num_gpus=0") as head:
        label = f"{runs} runs, {workers} at a time, teacher=ray"
        measured(label, head, *words, "teacher=ray", "teacher.ray.num_gpus=0", "launch.runs_dir=shared")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["student", "sweep"])
    parser.add_argument("--tokenizer", help="folder with the tokenizer of the student's family")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rt") as name:
        folder = Path(name)
        path = os.pathsep.join([str(ROOT), str(ROOT / "sweeps"), os.environ.get("PYTHONPATH", "")])
        os.environ |= {"RAY_TMPDIR": name, "RAY_AUTH_TOKEN_PATH": str(folder / "token"), "PYTHONPATH": path}
        os.environ |= {"SAGE_CACHE": str(folder / "games"), "OMP_NUM_THREADS": "1"}
        os.environ.pop("RAY_ADDRESS", None)
        sys.path.insert(0, str(ROOT))
        os.chdir(folder)
        print("| what | actors | run, GiB | actors, GiB | Ray, GiB | all, GiB | VmHWM, GiB | s | exit |")
        print("|---|---|---|---|---|---|---|---|---|", flush=True)
        if asked.what == "sweep":
            sweep(asked.runs, asked.workers, folder)
        elif asked.tokenizer:
            student(str(Path(asked.tokenizer).resolve()), asked.lora, asked.dtype, asked.recompute, folder)
        else:
            parser.error("student needs --tokenizer")


if __name__ == "__main__":
    main()
