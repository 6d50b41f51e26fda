"""A path that a run writes to: never an address, whose password would become the name of a folder."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

_ADDRESS = re.compile(r"[A-Za-z][\w+.\-]*:/{2,}")


def _local(path: str) -> str:
    if _ADDRESS.match(path):
        raise PydanticCustomError("local_path", "It is a path on this machine, not an address.")
    return path


LocalPath = Annotated[str, AfterValidator(_local)]
