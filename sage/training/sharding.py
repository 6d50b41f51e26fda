"""One student over several processes, each of which keeps its rows of the masters and of AdamW's moments.

This is what FSDP calls SHARD_GRAD_OP (`reshard_after_forward: false`), done with torch's DTensor and without
FSDP's hooks: they speak inside `forward` and `backward`, and our processes play and differentiate different
numbers of times, so that one would wait for ever. Invariant: the student's weights, and the gradient that a
process adds to, are whole; processes speak only in the optimizer's step and where a checkpoint is written,
parameter by parameter and in the same order everywhere. A function here that speaks says `Collective`: every
process has to call it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, dtype
    from torch.distributed.device_mesh import DeviceMesh


def shard(tensor: Tensor, mesh: DeviceMesh, kind: dtype) -> Tensor:
    """A DTensor with this process's rows of `tensor`, copied, in dtype `kind`. Not collective.

    Rows are split as `torch.chunk` does, so that a short tensor leaves some processes with none. A scalar
    has no rows: everybody keeps it.
    """
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    placement = Shard(0) if tensor.ndim else Replicate()
    rows = distribute_tensor(tensor.detach(), mesh, [placement], src_data_rank=None)
    return rows.to(kind, copy=True)  # without the copy they would keep the whole tensor alive


def shard_like(tensor: Tensor, other: Tensor) -> Tensor:
    """`tensor` with the rows and dtype of `other`, or as it is where `other` is no shard. Not collective."""
    from torch.distributed.tensor import DTensor

    return shard(tensor, other.device_mesh, other.dtype) if isinstance(other, DTensor) else tensor


def reduce_scatter(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's rows of the sum of `tensor` over all processes, sharded as the DTensor `like` is.
    Collective."""
    from torch.distributed.tensor import DTensor, Partial

    assert isinstance(like, DTensor)
    part = DTensor.from_local(tensor, like.device_mesh, [Partial()])
    return part.redistribute(placements=like.placements)


def map_rows(change: Callable[[Tensor, int], Tensor], tensor: Tensor) -> Tensor:
    """`change` of this process's rows and of how many numbers of the full tensor stand before them, sharded
    as `tensor` is; of all rows and 0 where it is no shard. Not collective."""
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


def full_tensor(tensor: Tensor) -> Tensor:
    """All rows in every process; what is no shard is handed back. Collective."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_to_cpu(tensor: Tensor, keep: bool) -> Tensor | None:
    """`full_tensor` in main memory where `keep`, else None; what is no shard is handed back. Collective."""
    from torch.distributed.tensor import DTensor

    if not isinstance(tensor, DTensor):
        return tensor
    full = tensor.full_tensor()
    return full.cpu() if keep else None
