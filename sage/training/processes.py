"""The processes that make one run together, and every call in which they wait for each other.

`rank`, `count` and `is_main` are known to each alone; `all_reduce_sum`, `all_reduce_tensor`, `gather` and
`barrier` are collective: every process has to call them, in the same order. A process by itself (`ALONE`)
gets back what it gave.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from sage.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from torch import Tensor
    from torch.distributed.device_mesh import DeviceMesh

T = TypeVar("T")

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
        "start it with a config of conf/accelerate/ (docs/reference/devices.md)",
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
                "start it with a config of conf/accelerate/ (docs/reference/devices.md says why)."
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
                "start from conf/accelerate/fsdp.yaml (docs/reference/devices.md says why)."
            )


class Processes:
    """One process, or as many as `accelerate launch` started.

    On CPU several processes need `accelerate launch --multi_gpu --num_processes n` (torchrun; they then speak
    gloo): `accelerate launch --cpu` starts one process unless there is MPI.
    """

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self._accelerator = accelerator
        self.rank = accelerator.process_index if accelerator else 0
        self.count = accelerator.num_processes if accelerator else 1

    @classmethod
    def start(cls, device: torch.device) -> Processes:
        """Meet the others, if any, for a student on `device`.

        Raises ConfigError (a ValueError) where accelerate is set to what is not known here.
        """
        from accelerate import Accelerator

        check_launch()
        accelerator = Accelerator(cpu=device.type == "cpu")
        kind = accelerator.distributed_type.value
        if kind not in ("NO", "MULTI_CPU", "MULTI_GPU", "FSDP"):
            raise ConfigError(
                f"accelerate is set to {kind}, which is not known here; "
                "start it with a config of conf/accelerate/ (docs/reference/devices.md)."
            )
        return cls(accelerator)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and draws."""
        return self.rank == 0

    @cached_property
    def mesh(self) -> DeviceMesh | None:
        """All processes in a row where accelerate's config says FSDP and there are several; otherwise None.
        Collective the first time."""
        # The accelerator itself says FSDP on accelerators only; on CPU it says MULTI_CPU.
        if self._accelerator is None or self.count == 1 or not _is_on("ACCELERATE_USE_FSDP"):
            return None
        from torch.distributed.device_mesh import init_device_mesh

        return init_device_mesh(self._accelerator.device.type, (self.count,))

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's items of those that all of them have."""
        return list(items[self.rank :: self.count])

    def all_reduce_sum(self, numbers: Sequence[float]) -> list[float]:
        """The sums of `numbers` over all processes, element by element, in float64. Collective."""
        if self._accelerator is None or self.count == 1:
            return list(numbers)
        import torch

        here = torch.tensor(numbers, dtype=torch.float64, device=self._accelerator.device)
        return list(self.all_reduce_tensor(here).tolist())

    def all_reduce_tensor(self, tensor: Tensor) -> Tensor:
        """The sum of `tensor` over all processes. Collective."""
        if self._accelerator is None or self.count == 1:
            return tensor
        return self._accelerator.reduce(tensor, reduction="sum")

    def gather(self, items: Sequence[T]) -> list[T]:
        """The items of all processes, those of process 0 first, in every process. Collective."""
        if self.count == 1:
            return list(items)
        from accelerate.utils import gather_object

        return list(gather_object(list(items)))

    def barrier(self) -> None:
        """Wait until every process is here. Collective."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()


def launched() -> tuple[int, bool]:
    """How many processes were started for this run, and whether they cut the optimizer's state (FSDP); before
    they have met."""
    return int(os.environ.get("WORLD_SIZE", "1")), _is_on("ACCELERATE_USE_FSDP")


def take_gpu() -> None:
    """Make the GPU of this process the current one, where several were started on a machine with GPUs: its
    models go there, and accelerate comes to the same one later. Raises ConfigError where it has none."""
    import torch

    place = os.environ.get("LOCAL_RANK", "")
    if not place.isdecimal() or not torch.cuda.is_available():
        return
    count = torch.cuda.device_count()
    if int(place) >= count:
        raise ConfigError(
            f"Process {int(place) + 1} of this machine has no GPU, since the run sees {count}; start as many"
            " processes as that (--num_processes), or show it more (CUDA_VISIBLE_DEVICES)."
        )
    torch.cuda.set_device(int(place))


ALONE = Processes()
"""A process by itself, which speaks to none."""


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("true", "1")
