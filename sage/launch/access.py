"""Who may read what a run writes: folders, tables, databases, logs.

One place decides, the process's file mode mask, so that no kind of file can be forgotten: libraries' files
(SQLite, Parquet, Optuna's journal) are made under it too, and children inherit it.
"""

from __future__ import annotations

import os
from typing import Literal

Access = Literal["owner", "group", "all"]

MASKS: dict[Access, int] = {"owner": 0o077, "group": 0o007, "all": 0o022}
"""What is taken away: `group` shares a folder with colleagues who go on with its runs, `all` lets everybody
read."""


def open_to(access: Access) -> None:
    """Files that this process makes from now on are open to these; those that exist stay as they are."""
    os.umask(MASKS[access])
