"""Where the time of a training step goes, and whether two runs side by side disturb one another.

    OMP_NUM_THREADS=1 python benchmarks/main_job.py                 # profile of one training step
    python benchmarks/main_job.py --side-by-side                    # two runs, one core each, against one
    python benchmarks/main_job.py --engines                         # rollout of a step: hf against packed
    python benchmarks/main_job.py --engines --split valid_unseen    # an evaluation instead
    python benchmarks/main_job.py --ahead                           # judge while others play, or after

A step of the default method on generated games (the shipped models): play, judge, score, differentiate, step.
The profiler counts the wall seconds that torch's operators take by themselves; what the simulator takes is
counted around the environment pool, on the same clock. The rest is Python: ours, tokenizers, transformers'.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from timing import Timed, machine, print_table, take_turns

from sage.config.load import load
from sage.envs.pool import EnvPool
from sage.policy.models.load import load_model
from sage.policy.prompts import choose_style
from sage.policy.rollout import OnTurns, play
from sage.policy.seat import Job
from sage.records.clock import PhaseClock, phase
from sage.training.batch import Models, TrainingEpisode, match_models
from sage.training.gradient import Objective, accumulate_gradient
from sage.training.judging import decide, judge_of, prefetch_judge, turn_streams
from sage.training.optimizer import StudentOptimizer
from sage.training.players import training_play
from sage.training.setup import evaluation_settings, training_settings


class CountedPool(EnvPool):
    """Adds up the wall seconds of its requests."""

    seconds = 0.0

    def _serve(self, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return super()._serve(*args, **kwargs)
        finally:
            self.seconds += time.perf_counter() - started


class Step:
    """One optimizer step, as `sage.training.loop` does it, ready to be run again and again."""

    def __init__(self, overrides: list[str]) -> None:
        self.config = load(["tracking=none", *overrides])
        self.models: Models = match_models(load_model(self.config.student), load_model(self.config.teacher))
        self.style = choose_style(self.config.prompt, self.config.student.path)
        self.tasks = self.config.env.tasks("train")[: self.config.trainer.tasks_per_step]
        self.optimizer = StudentOptimizer(self.models.student.model, self.config.trainer)

    def evaluate(self, pool: EnvPool, split: str) -> list[Any]:
        student = self.models.student
        how = evaluation_settings(self.config, self.style, student)
        jobs = [Job(task) for task in self.config.env.tasks(split)]
        return list(play(student, pool, jobs, how))

    def judged(self, pool: EnvPool) -> list[Any]:
        """What the training episodes did and what was decided about each turn."""
        with ExitStack() as stack:
            rule = self.config.intervention
            ask = judge_of(self.config, self.style, self.models.teacher, stack)
            batch = [TrainingEpisode(e) for e in self.rollout(pool, prefetch_judge(self.config, ask))]
            decide(batch, rule, ask, turn_streams(0, 1))
        said = [[(d.label, d.reply, d.judge_tokens) for d in played.decisions] for played in batch]
        return [(played.episode.token_ids, turns) for played, turns in zip(batch, said, strict=True)]

    def rollout(self, pool: EnvPool, on_turns: OnTurns | None = None) -> list[Any]:
        how = training_settings(self.config, self.style, self.models.student)
        training = training_play(self.config, self.models, pool, how, on_turns)
        return list(training([Job(task) for task in self.tasks], self.config.env.turn_budget))

    def __call__(self, pool: EnvPool) -> None:
        config = self.config
        with phase("rollout"):
            batch = [TrainingEpisode(episode) for episode in self.rollout(pool)]
        with phase("judge"), ExitStack() as stack:
            ask = judge_of(config, self.style, self.models.teacher, stack)
            decide(batch, config.intervention, ask, turn_streams(0, 1))
        self.optimizer.clear()
        rules = Objective(config.confidence, config.normalization, config.divergence)
        accumulate_gradient(self.models, rules, batch, micro_batch=config.speed.micro_batch)
        with phase("student"):
            self.optimizer.step()

    def pool(self) -> CountedPool:
        return CountedPool(self.config.env.make, 0, 60.0, distances=self.config.env.gives_distances())


def profile(overrides: list[str]) -> None:
    step = Step(overrides)
    with step.pool() as pool:
        step(pool)  # warm
        started = time.process_time()
        with PhaseClock().running() as clock:
            step(pool)
        plain, phases = time.process_time() - started, clock.totals()
        pool.seconds = 0.0
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
            started = time.perf_counter()
            step(pool)
            profiled = time.perf_counter() - started
        simulator = pool.seconds
    # An operator's own time, its callees counted by themselves; the wall clock's, as all times below.
    kernels = sum(e.self_cpu_time_total for e in profiler.key_averages()) / 1e6
    wall = sum(phases.values())
    print(f"step without the profiler: {plain:.2f} CPU s, {wall:.2f} wall s")
    for name, seconds in phases.items():
        print(f"  {name:<10} {seconds / wall:6.1%} of wall time")
    print(
        f"with the profiler: {profiled:.2f} wall s, operators by themselves {kernels:.2f} s, "
        f"simulator {simulator:.2f} s"
    )
    print(f"share in model kernels or the simulator: {(kernels + simulator) / profiled:.1%}")
    print(
        profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=60)
    )


def take_steps(
    settings: dict[str, list[str]], what: Callable[[Step, EnvPool], list[Any]], repeats: int
) -> dict[str, Timed]:
    """`what` each side's step does in a pool of its own, timed in turns."""

    def side(step: Step) -> list[Any]:
        with step.pool() as pool:
            return what(step, pool)

    return take_turns({name: partial(side, Step(values)) for name, values in settings.items()}, repeats)


def engines(repeats: int, split: str | None) -> None:
    def ids(step: Step, pool: EnvPool) -> list[list[int]]:
        episodes = step.evaluate(pool, split) if split else step.rollout(pool)
        return [episode.token_ids for episode in episodes]

    settings = {
        "engine=hf, draft_tokens=0": ["speed.engine=hf", "speed.draft_tokens=0"],
        "engine=packed, draft_tokens=0": ["speed.engine=packed", "speed.draft_tokens=0"],
        "engine=packed, draft_tokens=10": ["speed.engine=packed"],
    }
    timed = take_steps(settings, ids, repeats)
    results = [one.result for one in timed.values()]
    equal = all(result == results[0] for result in results)
    print(f"token ids equal on all sides: {equal}\n")
    print_table(timed, work=sum(map(len, results[0])), unit="tokens")


def ahead(overrides: list[str], repeats: int) -> None:
    """Play and judge the episodes of one step, the judge in a thread of its own or after all were played."""
    sides = ("judge_ahead=false", "judge_ahead=true")
    settings = {side: [f"speed.{side}", *overrides] for side in sides}
    timed = take_steps(settings, Step.judged, repeats)
    after, before = [one.result for one in timed.values()]
    print(f"{torch.get_num_threads()} threads; equal episodes and decisions: {after == before}\n")
    print_table(timed, work=sum(len(labels) for _, labels in after), unit="turns")


def side_by_side(overrides: list[str], repeats: int) -> None:
    """Wall time of one small run pinned to a core, and of two at once on a core each."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    small = ["tracking=none", "trainer.steps=4", "evaluation.limit=32", "speed.threads=1", *overrides]
    alone: list[float] = []
    together: list[float] = []
    for number in range(repeats):
        with tempfile.TemporaryDirectory() as folder:

            def start(core: int, seed: int, folder: str = folder) -> subprocess.Popen[bytes]:
                line = ["taskset", "-c", str(core), sys.executable, "-m", "sage", f"seed={seed}"]
                where = [f"launch.runs_dir={folder}"]
                return subprocess.Popen([*line, *where, *small], stdout=subprocess.DEVNULL)

            for times, seeds in ((alone, [2 * number]), (together, [2 * number, 2 * number + 1])):
                started = time.perf_counter()
                runs = [start(core, 100 * len(seeds) + s) for core, s in zip(cores, seeds, strict=False)]
                codes = [one.wait() for one in runs]
                assert not any(codes), codes
                times.append(time.perf_counter() - started)
    one, two = statistics.median(alone), statistics.median(together)
    print(
        f"one run on one core: {one:.1f} s, two side by side {two:.1f} s ({two / one:.2f} x), {repeats} times"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side-by-side", action="store_true")
    parser.add_argument("--engines", action="store_true")
    parser.add_argument("--ahead", action="store_true")
    parser.add_argument("--split", help="with --engines: play this evaluation split")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_args()
    print(machine())
    if args.side_by_side:
        side_by_side(args.overrides, args.repeats)
    elif args.ahead:
        ahead(args.overrides, args.repeats)
    elif args.engines:
        engines(args.repeats, args.split)
    else:
        profile(args.overrides)


if __name__ == "__main__":
    main()
