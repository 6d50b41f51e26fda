"""One distillation step: ours against TRL's GKD loss, its chunked distillation loss, and Liger's fused JSD.

    OMP_NUM_THREADS=1 python benchmarks/distill_step.py                        # 49k: 4 x 1024 tokens
    OMP_NUM_THREADS=1 python benchmarks/distill_step.py --vocabulary 151936 --batch 1
    OMP_NUM_THREADS=1 python benchmarks/distill_step.py --skip                 # time against the skip rate

The step: forward of student and teacher (random Qwen3, 4 layers, width 192), reverse KL at the student's
tokens (40 % of the sequence, in turns), backward to every student parameter. Each measurement is a process of
its own, so that its peak memory is its own; sides take turns. Loss and gradient norm must agree. The peers
need `pip install --no-deps trl==1.16.0 liger-kernel==0.8.5`; a side whose package is missing says so. GKD's
full matrices at 151,936 entries and 4 x 1024 tokens take 23 GB; --batch 1 takes a quarter.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

LENGTH, SHARE, TURN = 1024, 0.4, 16
"""Tokens of a sequence, the student's share of them, and student tokens of one turn."""
SIDES = {
    "ours": "chunked_divergence of sage.objective",
    "gkd": "TRL GKDTrainer.generalized_jsd_loss on full logits",
    "trl_chunked": "TRL DistillationTrainer's chunked loss",
    "liger": "Liger LigerFusedLinearJSDLoss, not compiled",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabulary", type=int, default=49152)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3, help="processes per side")
    parser.add_argument("--steps", type=int, default=1, help="timed steps per process, after one to warm up")
    parser.add_argument("--sides", nargs="*", default=list(SIDES), choices=SIDES)
    parser.add_argument("--skip", action="store_true", help="ours only, over the share of skipped turns")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--skipped", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--log-skipped", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args)))
        return
    from timing import machine

    print(machine())
    print(f"vocabulary {args.vocabulary}, {args.batch} x {LENGTH} tokens, {SHARE:.0%} the student's\n")
    if args.skip:
        curve(args)
    else:
        compare(args)


def compare(args: argparse.Namespace) -> None:
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in args.sides}
    for _ in range(args.repeats):
        for side in args.sides:
            if found[side] is not None and (one := child(args, side)) is not None:
                found[side].append(one)
    done = {side: runs for side, runs in found.items() if runs}
    for side in set(args.sides) - set(done):
        print(f"{side}: not measured (see the error above)")
    base = done.get("gkd") or next(iter(done.values()))
    loss, norm = base[0]["loss"], base[0]["norm"]
    seconds, memory = middle(base, "cpu"), middle(base, "memory")
    print("| side | CPU s a step, median (range) | ratio | peak GB above start | ratio | loss | gradient |")
    print("|---|---|---|---|---|---|---|")
    for side, runs in done.items():
        cpu = [x for run in runs for x in run["cpu"]]
        print(
            f"| {SIDES[side]} | {statistics.median(cpu):.2f} ({min(cpu):.2f} to {max(cpu):.2f}) "
            f"| {middle(runs, 'cpu') / seconds:.3f} | {middle(runs, 'memory'):.2f} "
            f"| {middle(runs, 'memory') / memory:.3f} | {runs[0]['loss']:.8f} | {runs[0]['norm']:.8f} |"
        )
        for what, value, wanted in (("loss", runs[0]["loss"], loss), ("gradient", runs[0]["norm"], norm)):
            if abs(value - wanted) > 1e-4 * abs(wanted):
                print(f"NOT EQUAL: {what} of {side} differs by {abs(value / wanted - 1):.1e}")


def curve(args: argparse.Namespace) -> None:
    print("| turns skipped | log_skipped | CPU s a step | of which in the loss | peak GB above start |")
    print("|---|---|---|---|---|")
    for skipped in (0.0, 0.25, 0.5, 0.75, 0.9):
        for log in (False, True):
            runs = [
                one
                for _ in range(args.repeats)
                if (one := child(args, "ours", skipped=skipped, log=log)) is not None
            ]
            print(
                f"| {skipped:.0%} | {str(log).lower()} | {middle(runs, 'cpu'):.2f} "
                f"| {middle(runs, 'loss_cpu'):.2f} | {middle(runs, 'memory'):.2f} |",
                flush=True,
            )


def middle(runs: list[dict[str, Any]], key: str) -> float:
    values: list[float] = []
    for run in runs:
        values += run[key] if isinstance(run[key], list) else [run[key]]
    return statistics.median(values)


def child(
    args: argparse.Namespace, side: str, skipped: float = 0.0, log: bool = False
) -> dict[str, Any] | None:
    line = [sys.executable, __file__, "--child", side, "--vocabulary", str(args.vocabulary)]
    line += ["--batch", str(args.batch), "--steps", str(args.steps), "--device", args.device]
    line += ["--skipped", str(skipped)] + ["--log-skipped"] * log
    done = subprocess.run(line, capture_output=True, text=True)
    if done.returncode:
        print(f"{side}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'killed'}")
        return None
    return dict(json.loads(done.stdout.splitlines()[-1]))


# One measurement, in a process of its own ---------------------------------------------------------------


def measure(args: argparse.Namespace) -> dict[str, Any]:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    def model(seed: int) -> Any:
        torch.manual_seed(seed)
        config = Qwen3Config(
            vocab_size=args.vocabulary, hidden_size=192, intermediate_size=512, num_hidden_layers=4,
            num_attention_heads=3, num_key_value_heads=1, head_dim=64, tie_word_embeddings=True,
        )  # fmt: skip
        return Qwen3ForCausalLM(config).to(args.device)

    student, teacher = model(0), model(1).requires_grad_(False)
    torch.manual_seed(2)
    ids_BL = torch.randint(0, args.vocabulary, (args.batch, LENGTH), device=args.device)
    # Turns of TURN student tokens; the first token of a sequence is never the student's.
    period = int(TURN / SHARE)
    turn_BL = torch.arange(LENGTH).repeat(args.batch, 1) // period
    mask_BL = (torch.arange(LENGTH) % period >= period - TURN).repeat(args.batch, 1)
    turns = int(turn_BL.max()) + 1
    kept = torch.linspace(0, 1, turns) >= args.skipped  # the first turns of an episode are skipped
    weight_BL = mask_BL.float() * kept[turn_BL]
    side: Callable[..., Any] = globals()[f"_{args.child}"]
    step = side(student, teacher, ids_BL, mask_BL, weight_BL, args)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found: dict[str, Any] = {"cpu": [], "loss_cpu": []}
    for number in range(args.steps + 1):
        student.zero_grad(set_to_none=True)
        started = time.process_time()
        loss, loss_cpu = step()
        if number or args.steps == 0:
            found["cpu"].append(time.process_time() - started)
            found["loss_cpu"].append(loss_cpu)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    norm = torch.sqrt(sum(p.grad.square().sum() for p in student.parameters() if p.grad is not None))
    return found | {"memory": (peak - memory) / 2**20, "loss": float(loss), "norm": float(norm)}


def _backbones(student: Any, teacher: Any, ids_BL: Any) -> tuple[Any, Any]:
    import torch

    with torch.no_grad():
        teacher_BLD = teacher.model(input_ids=ids_BL, use_cache=False).last_hidden_state
    return student.model(input_ids=ids_BL, use_cache=False).last_hidden_state, teacher_BLD


def _ours(student: Any, teacher: Any, ids_BL: Any, mask_BL: Any, weight_BL: Any, args: Any) -> Any:
    from sage.objective.chunked import Chunking, Head, Projected, chunked_divergence
    from sage.objective.divergence.base import ReverseKL

    divergence = ReverseKL(name="reverse_kl")
    wanted = mask_BL[:, 1:] if args.log_skipped else weight_BL[:, 1:] > 0
    total = float(mask_BL[:, 1:].sum())

    def step() -> tuple[float, float]:
        student_BLD, teacher_BLD = _backbones(student, teacher, ids_BL)
        started = time.process_time()
        result = chunked_divergence(
            divergence,
            student_BLD[:, :-1][wanted],
            Head(student.lm_head.weight),
            Projected(teacher_BLD[:, :-1][wanted], Head(teacher.lm_head.weight)),
            ids_BL[:, 1:][wanted],
            (weight_BL[:, 1:][wanted] / total).to(student_BLD),
            vocabulary=args.vocabulary,
            chunking=Chunking(log_unweighted=args.log_skipped),
        )
        spent = time.process_time() - started
        result.weighted_sum.backward()
        return float(result.weighted_sum.detach()), spent

    return step


def _gkd(student: Any, teacher: Any, ids_BL: Any, mask_BL: Any, weight_BL: Any, args: Any) -> Any:
    import torch
    from trl.experimental.gkd.gkd_trainer import GKDTrainer

    labels = ids_BL.masked_fill(~mask_BL, -100)
    total = int(mask_BL[:, 1:].sum())

    def step() -> tuple[float, float]:
        # As in GKDTrainer.compute_loss: whole logits of both models, shifted, then masked.
        student_BLV = student(input_ids=ids_BL, use_cache=False).logits
        with torch.no_grad():
            teacher_BLV = teacher(input_ids=ids_BL, use_cache=False).logits
        loss = GKDTrainer.generalized_jsd_loss(
            student_logits=student_BLV[:, :-1, :],
            teacher_logits=teacher_BLV[:, :-1, :],
            labels=labels[:, 1:],
            beta=1.0,
            num_items_in_batch=total,
        )
        loss.backward()
        return float(loss.detach()), 0.0

    return step


def _trl_chunked(student: Any, teacher: Any, ids_BL: Any, mask_BL: Any, weight_BL: Any, args: Any) -> Any:
    import torch
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    wanted = mask_BL[:, 1:]

    def step() -> tuple[float, float]:
        student_BLD, teacher_BLD = _backbones(student, teacher, ids_BL)
        # Without Triton it would project every position; it gets only the student's, the best case for it.
        started = time.process_time()
        loss, _, _ = _chunked_divergence_loss(
            student_BLD[:, :-1][wanted][None],
            teacher_BLD[:, :-1][wanted][None],
            student.lm_head.weight,
            teacher.lm_head.weight,
            torch.ones(1, int(wanted.sum())),
            beta=1.0,
        )
        spent = time.process_time() - started
        loss.backward()
        return float(loss.detach()), spent

    return step


def _liger(student: Any, teacher: Any, ids_BL: Any, mask_BL: Any, weight_BL: Any, args: Any) -> Any:
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    wanted = mask_BL[:, 1:]
    fused = LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0, weight_soft_loss=1.0, beta=1.0, compiled=False, chunk_size=256
    )

    def step() -> tuple[float, float]:
        student_BLD, teacher_BLD = _backbones(student, teacher, ids_BL)
        started = time.process_time()
        loss = fused(
            student_BLD[:, :-1][wanted],
            student.lm_head.weight,
            teacher_BLD[:, :-1][wanted],
            teacher.lm_head.weight,
            ids_BL[:, 1:][wanted],
        )
        spent = time.process_time() - started
        loss.backward()
        return float(loss.detach()), spent

    return step


if __name__ == "__main__":
    main()
