"""What a `.wandb` file holds, which wandb itself has no Python to read: whether all of a run has arrived.

The format is that of LevelDB's log (blocks of 32 KiB, records cut into fragments that have a checksum, a
length and a kind each) behind a header of 7 bytes; a record is a message of wandb's own protocol.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_HEADER, _FRAGMENT, _BLOCK = 7, 7, 32768
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[tuple[str, Any]]:
    """Kind and content of each record that is complete, in order. A file that is cut ends early."""
    from wandb.proto.wandb_internal_pb2 import Record

    for content in _contents(path.read_bytes()):
        record = Record.FromString(content)
        kind = record.WhichOneof("record_type")
        if kind:
            yield kind, getattr(record, kind)


def _contents(data: bytes) -> Iterator[bytes]:
    at, parts = _HEADER, b""
    while at + _FRAGMENT <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _FRAGMENT:  # no fragment begins there
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        at += _FRAGMENT
        if not _WHOLE <= kind <= _LAST or at + size > len(data):
            return
        parts = data[at : at + size] if kind in (_WHOLE, _FIRST) else parts + data[at : at + size]
        at += size
        if kind in (_WHOLE, _LAST):
            yield parts
