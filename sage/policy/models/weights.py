"""Weight files, looked at without loading them: safetensors and GGUF headers, and pickles that nobody opens.

A header names every tensor, its shape and where its bytes lie, so that a file that was cut off, or is
empty, or is an error page that a download left behind, is known in milliseconds.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sage.errors import ModelError, some

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_LARGEST_HEADER = 100_000_000
_GGUF_FIXED = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of GGUF's value types of fixed size; 8 is a string, 9 an array."""


def check_names(names: Sequence[str], where: str) -> None:
    """Raises ModelError where a model's files, by their names, hold no weights that can be loaded."""
    if "adapter_config.json" in names:
        raise ModelError(
            f"{where} holds an adapter (adapter_config.json), not a model; merge it into its base model "
            "first "
            "(peft: merge_and_unload, then save_pretrained) and give that folder."
        )
    if SINGLE in names or INDEX in names:
        return
    shards = [name for name in names if name.endswith(".safetensors")]
    if shards:
        raise ModelError(
            f"{where} holds {some(sorted(shards))} but no {INDEX}, which says what is in which file; "
            "fetch the index too, or save the model again with save_pretrained."
        )
    if ggufs := sorted(name for name in names if name.lower().endswith(".gguf")):
        raise ModelError(f"{where} holds GGUF weights; say which file: gguf_file={some(ggufs)}.")
    if pickles := sorted(name for name in names if name.endswith(PICKLES)):
        raise ModelError(
            f"{where} holds its weights only as pickles ({some(pickles)}), which can run code when they are "
            "opened and are not read here; save the model as safetensors once (save_pretrained does)."
        )
    raise ModelError(f"{where} holds no weights; a model folder has {SINGLE}, or {INDEX} and its files.")


def check_safetensors(folder: Path) -> None:
    """Raises ModelError where a file of the folder's safetensors weights is missing, cut off or not one."""
    if not (folder / INDEX).is_file():
        _header(folder / SINGLE)
        return
    try:
        weight_map = dict(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{folder / INDEX} cannot be read as an index of weights; fetch it again."
        ) from error
    if not weight_map:
        raise ModelError(f"{folder / INDEX} names no weights; fetch it again.")
    for name in sorted({str(file) for file in weight_map.values()}):
        if Path(name).name != name:
            raise ModelError(f"{folder / INDEX} names {name!r}, which is not a file beside it.")
        held = _header(folder / name)
        lost = sorted(tensor for tensor, file in weight_map.items() if file == name and tensor not in held)
        if lost:
            raise ModelError(
                f"{folder / name} lacks {some(lost)}, which {INDEX} says it holds; fetch both again."
            )


def held_in(path: str) -> list[str]:
    """Names of all tensors in a folder's safetensors files; none where that is no such folder."""
    folder = Path(path)
    if (folder / INDEX).is_file():
        return list(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"])
    return list(_header(folder / SINGLE)) if (folder / SINGLE).is_file() else []


def _header(file: Path) -> dict[str, Any]:
    """The tensors that a safetensors file names. Raises ModelError."""
    again = "fetch it again"
    if not file.is_file():
        raise ModelError(f"The weights file {file} is not there; {again}.")
    size = file.stat().st_size
    if size < 8:
        raise ModelError(f"The weights file {file} is {'empty' if size == 0 else 'cut off'}; {again}.")
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > _LARGEST_HEADER or length < 2:
            raise ModelError(f"The weights file {file} is no safetensors file; {again}.")
        if size < 8 + length:
            raise ModelError(f"The weights file {file} is cut off inside its header; {again}.")
        try:
            header = json.loads(stream.read(length))
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
        except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
            raise ModelError(f"The header of {file} cannot be read; {again}.") from error
    if size != 8 + length + end:
        what = "is cut off" if size < 8 + length + end else "is longer than its header says"
        raise ModelError(
            f"The weights file {file} {what} ({size:,} bytes, {8 + length + end:,} belong there); {again}."
        )
    if not tensors:
        raise ModelError(f"The weights file {file} holds no tensor; {again}.")
    return tensors


def check_gguf(file: Path) -> None:
    """Raises ModelError where the file is missing, is no GGUF, or ends before its last tensor does."""
    if not file.is_file():
        beside = sorted(p.name for p in file.parent.glob("*.gguf")) if file.parent.is_dir() else []
        there = f"; the folder has {some(beside)}" if beside else ""
        raise ModelError(f"The GGUF file {file} is not there{there}.")
    size = file.stat().st_size
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise ModelError(f"{file} is no GGUF file ({size:,} bytes); fetch it again.")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                end = _gguf_end(data)
            except (struct.error, ValueError, KeyError, UnicodeDecodeError, OverflowError) as error:
                raise ModelError(
                    f"The GGUF file {file} is cut off or broken inside its header ({size:,} bytes); "
                    "fetch it again."
                ) from error
    if size < end:
        raise ModelError(
            f"The GGUF file {file} is cut off ({size:,} bytes, {end:,} belong there); fetch it again."
        )


def _gguf_end(data: mmap.mmap) -> int:
    """Where the last tensor's bytes end, from the header (format versions 2 and 3, little endian)."""
    try:
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    except ImportError as error:
        raise ModelError("GGUF files need the package gguf: pip install gguf.") from error
    version, tensors, entries = struct.unpack_from("<IQQ", data, 4)
    if version not in (2, 3):
        raise ValueError(f"GGUF version {version}")
    at, alignment = 24, 32
    for _ in range(entries):
        key, at = _gguf_string(data, at)
        (kind,) = struct.unpack_from("<I", data, at)
        if key == b"general.alignment":
            (alignment,) = struct.unpack_from("<I", data, at + 4)
        at = _past_value(data, at + 4, kind)
    last = 0
    for _ in range(tensors):
        _, at = _gguf_string(data, at)
        (dimensions,) = struct.unpack_from("<I", data, at)
        shape = struct.unpack_from(f"<{dimensions}Q", data, at + 4)
        kind, offset = struct.unpack_from("<IQ", data, at + 4 + 8 * dimensions)
        at += 4 + 8 * dimensions + 12
        block, bytes_of_block = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        last = max(last, offset + math.prod(shape) // block * bytes_of_block)
    return -(-at // alignment) * alignment + last


def _gguf_string(data: mmap.mmap, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from("<Q", data, at)
    if at + 8 + length > len(data):
        raise ValueError("a string ends behind the file")
    return data[at + 8 : at + 8 + length], at + 8 + length


def _past_value(data: mmap.mmap, at: int, kind: int) -> int:
    """The position behind a value of that type. Raises ValueError or struct.error at the end of the file."""
    if kind == 8:
        return _gguf_string(data, at)[1]
    if kind != 9:
        return at + _GGUF_FIXED[kind]
    inner, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if inner in _GGUF_FIXED:
        return at + count * _GGUF_FIXED[inner]
    for _ in range(count):
        at = _past_value(data, at, inner)
    return at
