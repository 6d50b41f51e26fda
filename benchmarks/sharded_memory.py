"""Bytes per weight that each process keeps for training a student, whole (DDP) and cut (FSDP).

    OMP_NUM_THREADS=1 python benchmarks/sharded_memory.py [--processes 1 2 4] [--dtype bfloat16]

Two real steps of a small Qwen3 of random weights: forward and backward in every process, `StudentOptimizer`.
Counted are the storages behind weights, gradients, masters and moments, so that a slice that keeps its whole
tensor alive would show. Activations, KV cache and teacher are the same in all modes and not counted, nor are
the copies of one weight at a time that the step makes. Sizes do not depend on the device; times do.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAUNCHED = "SAGE_BENCHMARK_LAUNCHED"


def here(dtype: str) -> None:
    """In one of the launched processes; the first prints a row."""
    import torch
    from torch.distributed.tensor import DTensor
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from sage.config.load import load
    from sage.training.optimizer import StudentOptimizer, all_reduce_gradients
    from sage.training.processes import Processes

    processes = Processes.start(torch.device("cpu"))
    mesh = processes.mesh
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=8000, hidden_size=256, intermediate_size=768, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=4, head_dim=32, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).to(getattr(torch, dtype)).eval()
    optimizer = StudentOptimizer(model, load(["tracking=none"]).trainer, mesh)
    weights = sum(p.numel() for p in optimizer.parameters)

    def held(tensors: Iterable[torch.Tensor | None]) -> float:
        local = [t.to_local() if isinstance(t, DTensor) else t for t in tensors if t is not None]
        storages = {s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in local) if s.nbytes()}
        return sum(storages.values()) / weights

    def moments() -> list[torch.Tensor]:
        return [t for state in optimizer.optimizer.state.values() for t in state.values() if t.ndim]

    in_step: list[float] = []

    def count(*_: object) -> None:
        gradients = [t.grad for t in (*optimizer.parameters, *optimizer.masters)]
        in_step.append(held([*optimizer.parameters, *optimizer.masters, *gradients, *moments()]))

    optimizer.optimizer.register_step_pre_hook(count)
    backward = seconds = 0.0
    for step in range(2):  # moments are there from the second on
        ids = torch.randint(0, 8000, (2, 64), generator=torch.Generator().manual_seed(step))
        model(input_ids=ids).logits.float().square().mean().backward()
        gradients = [p.grad for p in optimizer.parameters]
        backward = held([*optimizer.parameters, *optimizer.masters, *gradients, *moments()])
        processes.barrier()
        start = time.perf_counter()
        if mesh is None and processes.count > 1:
            all_reduce_gradients(optimizer.parameters, processes.all_reduce_tensor)
        optimizer.step()
        seconds = time.perf_counter() - start
    playing = held([*optimizer.parameters, *optimizer.masters, *moments()])
    masters = [m for p, m in zip(optimizer.parameters, optimizer.masters, strict=True) if m is not p]
    optimizer_bytes = held([*masters, *moments()])
    if processes.is_main:
        mode = "alone" if processes.count == 1 else "FSDP" if mesh else "DDP"
        print(
            f"| {mode} | {processes.count} | {optimizer_bytes:.2f} | {playing:.2f} "
            f"| {backward:.2f} | {in_step[-1]:.2f} | {seconds:.2f} |", flush=True,
        )  # fmt: skip
    processes.barrier()
    os._exit(0)  # a process that shuts down in order may abort in gloo's threads (pytorch issue 190489)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--dtype", default="bfloat16")
    chosen = parser.parse_args()
    if os.environ.get(LAUNCHED):
        here(chosen.dtype)
        return
    print("bytes per weight and process, student in", chosen.dtype)
    print(
        "| mode | processes | masters and moments | while playing | after backward | in the step | step, s |"
    )
    print("|---|---|---|---|---|---|---|")
    for count in chosen.processes:
        for mode in ("ddp_cpu",) if count == 1 else ("ddp_cpu", "fsdp_cpu"):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            config = str(ROOT / "conf" / "accelerate" / f"{mode}.yaml")
            launch = ["accelerate.commands.launch", "--config_file", config, "--num_processes", str(count)]
            launch += ["--main_process_port", str(port)]
            subprocess.run(
                [sys.executable, "-m", *launch, __file__, "--dtype", chosen.dtype],
                env={**os.environ, LAUNCHED: "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'sweeps'}"},
                check=True,
            )


if __name__ == "__main__":
    main()
