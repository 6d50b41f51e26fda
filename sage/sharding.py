"""One student over several processes, each of which keeps its rows of the masters and of AdamW's moments.

This is what FSDP calls SHARD_GRAD_OP (`reshard_after_forward: false`), done with torch's DTensor and without
FSDP's hooks: they speak inside `forward` and `backward`, and our processes play and differentiate different
numbers of times, so that one would wait for ever. Invariant: the student's weights, and the gradient that a
process adds to, are whole; processes speak only in the optimizer's step and where a checkpoint is written,
parameter by parameter and in the same order everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from sage.settings import ConfigError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, dtype
    from torch.distributed.device_mesh import DeviceMesh

_KNOWN = {
    "fsdp_version": "2",
    "fsdp_reshard_after_forward": "false",  # the weights stay whole: every process plays with them
    "fsdp_offload_params": "false",
    "fsdp_activation_checkpointing": "false",
    "fsdp_cpu_ram_efficient_loading": "false",  # transformers would give weights to one process alone
}
"""What `fsdp_config` may say. `accelerate launch` hands it on as environment variables of these names."""

_UNUSED = {
    "ACCELERATE_MIXED_PRECISION": (
        "mixed_precision",
        "no",
        "set it to 'no', and student.dtype=bfloat16 for bfloat16 with float32 masters",
    ),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": (
        "gradient_accumulation_steps",
        "1",
        "set it to 1, and trainer.tasks_per_step for the batch of one step",
    ),
    "ACCELERATE_DYNAMO_BACKEND": ("dynamo_backend", "no", "set it to 'NO'"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": (
        "a parallelism_config",
        "false",
        "start it with a config of conf/accelerate/ (docs/launch.md)",
    ),
}
"""Variables that `accelerate launch` sets from its config: what it is called there, the value that asks for
nothing, and the way out. This package runs the model and sums the loss, so it cannot honour them."""


def check_launch() -> None:
    """Raises ConfigError, in one sentence, where accelerate was told to do what this package does not.

    To be called before a model is loaded: one of the settings changes what loading does.
    """
    for name in ("DeepSpeed", "Megatron_LM"):
        if _is_on(f"ACCELERATE_USE_{name.upper()}"):
            raise ConfigError(
                f"accelerate is set to {name}, but every process needs the whole student; "
                "start it with a config of conf/accelerate/ (docs/launch.md says why)."
            )
    for variable, (asked_for, unused, instead) in _UNUSED.items():
        asked = os.environ.get(variable, unused)
        if asked.lower() != unused:
            raise ConfigError(
                f"accelerate is set to {asked_for}: {asked}, which would change nothing here; {instead}."
            )
    if not _is_on("ACCELERATE_USE_FSDP"):
        return
    for name, known in _KNOWN.items():
        asked = os.environ.get(name.upper(), known).lower()
        if asked != known:
            raise ConfigError(
                f"accelerate's fsdp_config says {name}: {asked}, and only {known} is known here; "
                "start from conf/accelerate/fsdp.yaml (docs/launch.md says why)."
            )


def mesh_of(accelerator: Accelerator) -> DeviceMesh | None:
    """All processes in a row where accelerate's config says FSDP and there are several; otherwise None."""
    # The accelerator itself says FSDP on accelerators only; on CPU it says MULTI_CPU.
    if accelerator.num_processes == 1 or not _is_on("ACCELERATE_USE_FSDP"):
        return None
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(accelerator.device.type, (accelerator.num_processes,))


def cut(whole: Tensor, mesh: DeviceMesh, kind: dtype) -> Tensor:
    """A DTensor with this process's rows of `whole`, copied, in dtype `kind`. Processes do not speak.

    Rows are dealt out as `torch.chunk` does, so that a short tensor leaves some processes with none. A scalar
    has no rows: everybody keeps it.
    """
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    placement = Shard(0) if whole.ndim else Replicate()
    rows = distribute_tensor(whole.detach(), mesh, [placement], src_data_rank=None)
    return rows.to(kind, copy=True)  # without the copy they would keep the whole tensor alive


def cut_like(whole: Tensor, other: Tensor) -> Tensor:
    """`whole` with the rows and dtype of `other`, or as it is where `other` is not cut."""
    from torch.distributed.tensor import DTensor

    return cut(whole, other.device_mesh, other.dtype) if isinstance(other, DTensor) else whole


def add_up_rows(here: Tensor, rows: Tensor) -> Tensor:
    """This process's rows of the sum of `here` over all processes, cut as the DTensor `rows` is."""
    from torch.distributed.tensor import DTensor, Partial

    assert isinstance(rows, DTensor)
    return DTensor.from_local(here, rows.device_mesh, [Partial()]).redistribute(placements=rows.placements)


def map_rows(change: Callable[[Tensor, int], Tensor], tensor: Tensor) -> Tensor:
    """`change` of this process's rows and of how many numbers of the whole tensor stand before them, cut as
    `tensor` is; of all rows and 0 where it is not cut. Processes do not speak."""
    from torch.distributed.tensor import DTensor, Shard

    if not isinstance(tensor, DTensor):
        return change(tensor, 0)
    rows, mesh, (placement,) = tensor.to_local(), tensor.device_mesh, tensor.placements
    before = 0
    if isinstance(placement, Shard):
        share = -(-tensor.shape[0] // mesh.size())
        before = min(mesh.get_local_rank() * share, tensor.shape[0]) * tensor[0:1].numel()
    return DTensor.from_local(
        change(rows, before), mesh, [placement], run_check=False, shape=tensor.shape, stride=tensor.stride()
    )


def whole(tensor: Tensor) -> Tensor:
    """All rows in every process; what is not cut is handed back. Every process has to call it."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def kept(tensor: Tensor, keep: bool) -> Tensor | None:
    """`whole` in main memory where `keep`, else None; what is not cut is handed back. Every process has to
    call it."""
    from torch.distributed.tensor import DTensor

    if not isinstance(tensor, DTensor):
        return tensor
    full = tensor.full_tensor()
    return full.cpu() if keep else None


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("true", "1")
