"""The weights that a training began with, which are looked at one after the other after each step."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path

import torch
from torch import Tensor

IN_MEMORY = 1 << 29
"""Bytes up to which they are kept in main memory whatever they are of."""


class FirstWeights:
    """A copy of `parameters` as they are now, in the same dtype, given back in the same order.

    Those of a GPU lie in main memory, from where it can fetch them by itself. Those that fill main memory
    themselves lie in a file without a name in `folder`, which is gone with this process; in main memory where
    there is no `folder`, or no room in it.
    """

    def __init__(self, parameters: Sequence[Tensor], folder: Path | None = None) -> None:
        self._parameters = parameters
        self._kept: list[Tensor] = []
        self._file: FileIO | None = None
        size = sum(p.numel() * p.element_size() for p in parameters)
        if folder is not None and size > IN_MEMORY and not any(p.is_cuda for p in parameters):
            with suppress(OSError):
                self._file = _written(parameters, folder)
        if self._file is None:
            self._kept = [_in_main_memory(p) for p in parameters]

    def __iter__(self) -> Iterator[Tensor]:
        """In main memory; from a file each is read when it is asked for, and is the caller's."""
        if self._file is None:
            yield from self._kept
            return
        self._file.seek(0)
        for p in self._parameters:
            first = torch.empty(p.shape, dtype=p.dtype)
            left = _bytes_of(first)
            while len(left):  # one call reads no more than 2 GiB
                if not (read := self._file.readinto(left)):
                    raise OSError("The file with the weights of the start has been cut short.")
                left = left[read:]
            yield first


def _written(parameters: Sequence[Tensor], folder: Path) -> FileIO:
    folder.mkdir(parents=True, exist_ok=True)
    file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - as long as this process
    try:
        for p in parameters:
            left = _bytes_of(p.detach().contiguous())
            while len(left):  # one call writes no more than 2 GiB
                left = left[file.write(left) :]
    except BaseException:
        file.close()
        raise
    return file


def _bytes_of(tensor: Tensor) -> memoryview:
    view: memoryview = tensor.reshape(-1).view(torch.uint8).numpy().data
    return view


def _in_main_memory(p: Tensor) -> Tensor:
    copy = p.detach().to("cpu", copy=True)
    return copy.pin_memory() if p.is_cuda else copy
