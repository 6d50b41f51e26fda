"""A folder of tasks, generated or fetched: made once, whole or not at all, by whichever process is first."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from sage.envs.manifest import made_folder
from sage.locks import locked


def made_once(final: Path, make: Callable[[Path], object]) -> Path:
    """`final`, made now if it is absent: `make` fills an empty folder, `manifest.json` in it included.

    Raises MissingData where nothing can be written beside it.
    """
    if (final / "manifest.json").exists():
        return final
    made_folder(final.parent)
    with locked(Path(f"{final}.lock")):
        if (final / "manifest.json").exists():
            return final
        shutil.rmtree(final, ignore_errors=True)  # a folder without its manifest was copied or cut by hand
        building = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}."))
        try:
            make(building)
            building.chmod(0o755)  # mkdtemp makes it private
            building.rename(final)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
    return final
