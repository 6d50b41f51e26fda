"""Settings of a teacher that named actors of a Ray cluster hold."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from sage.config.registry import Settings

AUTO = "auto"


class RaySettings(Settings):
    """Actors that hold the teacher (docs/guide/teachers.md), started by `python -m sage teacher start`."""

    address: str
    """`auto` (the cluster that RAY_ADDRESS names, or that this machine is part of) or the `host:port` of its
    head. This machine has to be a node of it."""
    name: str
    """What the teacher is called on the cluster; runs find it by this."""
    replicas: int = Field(ge=1, le=1_000)
    """Actors that `teacher start` makes, each with the whole model. A run uses as many as there are."""
    num_gpus: float = Field(ge=0, le=64)
    """GPUs of each replica; a fraction shares one, 0 keeps the model on the CPU."""
    num_cpus: float = Field(ge=0, le=10_000)
    """CPU cores that Ray reserves for each replica; on a CPU also the threads of torch."""
    transfer: Literal["as_is", "float16", "bfloat16"]
    """How hidden states travel: `as_is` in the model's own dtype, which is exact, or rounded to a half."""
    digest: str | None = Field(pattern=r"[0-9a-f]{8,64}")
    """How the digest of the weights begins (`teacher status` shows it), where a run is to insist on it; the
    teacher may then have been loaded from another path. None compares the paths."""
    patience_s: float = Field(gt=0, le=864_000)
    """How long one answer is waited for, a restart of its actor and the work of other runs included, before
    the run fails; the same line then goes on from the newest checkpoint."""

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", name):
            raise ValueError(
                f"teacher.ray.name={name!r} is no name; it has letters, digits and . _ - and begins with one"
                " of the first two."
            )
        return name

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, address: str) -> str:
        if address.startswith("ray://"):
            raise ValueError(
                "teacher.ray.address is that of a Ray client; hidden states go through a node's shared"
                " memory: make this machine a node (ray start --address=HOST:PORT) and take auto."
            )
        if address != AUTO and not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}", address):
            raise ValueError("teacher.ray.address is no address of a Ray cluster; it is auto, or host:port.")
        return address
