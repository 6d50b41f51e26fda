"""What several processes of one run do; a script for `accelerate launch`.

    python -m tests.distributed_run OUT_DIR

writes OUT_DIR/result.pt from the main process. OUT_DIR/alone holds the checkpoint that a
single process has written after step 2.
"""

from __future__ import annotations

import copy
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from sage.training.optimizer import StudentOptimizer, all_reduce_gradients
from sage.training.processes import ALONE, Processes
from tests.distill_run import TRAINER, complete

STEPS = 3
PARTS = ("float32", "bfloat16")


def parts(kind: torch.dtype) -> nn.ParameterList:
    """Rows that do not divide, fewer rows than processes, none at all."""
    random = torch.Generator().manual_seed(5)
    shapes = [(5, 3), (4, 2, 2), (7,), (1,), (), (2, 2)]
    return nn.ParameterList([torch.randn(shape, generator=random).to(kind) for shape in shapes])


def gradients(number: int, process: int, kind: torch.dtype) -> list[torch.Tensor | None]:
    """Process 1 has none for the first weight; small integers, so that sums are exact."""
    random = torch.Generator().manual_seed(10 * number + process)
    made = [torch.randint(-8, 9, p.shape, generator=random).to(kind) for p in parts(kind)]
    return [None if process == 1 and i == 0 else g for i, g in enumerate(made)]


def steps_of_parts(
    optimizer: StudentOptimizer, steps: range, shares: range, processes: Processes = ALONE
) -> list[float]:
    """Gradient norms of `steps`, each with the gradients of `shares`; added up by whoever is to do it."""
    norms = []
    weights = optimizer.parameters
    for step in steps:
        optimizer.clear()
        for process in shares:
            for p, part in zip(weights, gradients(step, process, weights[0].dtype), strict=True):
                p.grad = p.grad if part is None else part if p.grad is None else p.grad + part
        if processes.count > 1 and optimizer.mesh is None:
            all_reduce_gradients(weights, processes.all_reduce_tensor)
        norms.append(optimizer.step())
    return norms


def parts_here(kind: torch.dtype, processes: Processes) -> dict[str, Any]:
    """Two steps, the state, and a third after it was loaded into another optimizer and weights."""
    mesh, me = processes.mesh, processes.rank
    model, other = parts(kind), parts(kind)
    optimizer = StudentOptimizer(model, TRAINER, mesh)
    norms = steps_of_parts(optimizer, range(2), range(me, me + 1), processes)
    state = copy.deepcopy(optimizer.state_dict())
    lean = optimizer.state_dict(keep=processes.is_main)["optimizer"]["state"]
    other.load_state_dict(model.state_dict())
    again = StudentOptimizer(other, TRAINER, mesh)
    again.load_state_dict(copy.deepcopy(state))
    norms += steps_of_parts(again, range(2, 3), range(me, me + 1), processes)
    return {
        "norms": norms,
        "state": state,
        "weights": [p.detach() for p in other],
        "keeps": processes.gather([lean[0]["exp_avg"] is not None]),
        "held": processes.gather([[bytes_of(master) // 4 for master in optimizer.masters]]),
    }


def bytes_of(tensor: torch.Tensor) -> int:
    """Of the memory that a tensor, or this process's part of it, keeps alive."""
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local.untyped_storage().nbytes()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    whole = complete(folder / "whole", STEPS)
    processes = Processes.start(torch.device("cpu"))

    # interrupted after step 2, and gone on with
    complete(folder / "cut", 2)
    if processes.is_main:
        shutil.copytree(folder / "cut", folder / "half")
    processes.barrier()
    resumed = complete(folder / "cut", STEPS)

    # begun by one process
    taken_over = complete(folder / "alone", STEPS)

    of_parts = {name: parts_here(getattr(torch, name), processes) for name in PARTS}
    if processes.is_main:
        result = {"whole": whole, "resumed": resumed, "taken_over": taken_over, "parts": of_parts}
        torch.save(result, folder / "result.pt")
    processes.barrier()
    # gloo's threads may let go of their last tensors while Python shuts down, which aborts (pytorch 190489).
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
