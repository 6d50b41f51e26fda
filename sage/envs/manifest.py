"""Which tasks exist, exactly: identities, hashes, and one digest over all of them.

Invariant: two runs with the same manifest digest played the same bytes. The digest covers environment,
source, split, id, task type and sha256 of every task, in a fixed order, and nothing about where files lie.
Read by the run digest, the evaluation (each task exactly once) and every record.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sage.episode import Task
from sage.errors import short_reason

MANIFEST_FORMAT = "sage-manifest-1"
"""First line of the digest and `format` of a stored manifest; raise the number when either changes."""


class MissingData(RuntimeError):
    """Task files are not where they should be; the message says what is wrong, where, and what is right."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Tasks of one environment and source. Build it with `Manifest.of`, which checks that ids are unique."""

    env: str
    source: str
    tasks: tuple[Task, ...]

    @classmethod
    def of(cls, tasks: Iterable[Task]) -> Manifest:
        """The manifest of `tasks`, in the order given.

        Raises:
            ValueError: no task, several environments or sources, or an id that occurs twice.
        """
        listed = tuple(tasks)
        if not listed:
            raise ValueError("A manifest needs at least one task.")
        if len({(task.env, task.source) for task in listed}) > 1:
            raise ValueError("A manifest holds tasks of one environment and one source.")
        twice = [name for name, count in Counter(task.id for task in listed).items() if count > 1]
        if twice:
            raise ValueError(f"Task id {twice[0]!r} occurs more than once.")
        return cls(listed[0].env, listed[0].source, listed)

    @property
    def digest(self) -> str:
        """sha256 over every task's identity and content hash; independent of order and of paths."""
        return manifest_digest(self.tasks)

    def write(self, path: Path, root: Path) -> None:
        """Store as JSON with paths relative to `root`; atomic."""
        rows = [{**asdict(task), "path": Path(task.path).relative_to(root).as_posix()} for task in self.tasks]
        content = {"format": MANIFEST_FORMAT, "digest": self.digest, "tasks": rows}
        write_atomically(path, json.dumps(content, indent=0))

    @classmethod
    def read(cls, path: Path, root: Path) -> Manifest:
        """Load what `write` stored.

        Raises:
            MissingData: the file is absent, damaged, or of another format.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise MissingData(f"There is no manifest at {path}.") from None
        except json.JSONDecodeError as error:
            raise MissingData(f"The manifest at {path} is damaged ({error}); delete its folder.") from None
        if content.get("format") != MANIFEST_FORMAT:
            raise MissingData(
                f"The manifest at {path} has format {content.get('format')!r}, not {MANIFEST_FORMAT!r}; "
                "delete its folder and it is made again."
            )
        return cls.of(Task(**{**row, "path": str(root / row["path"])}) for row in content["tasks"])


def manifest_digest(tasks: Sequence[Task]) -> str:
    """sha256 over the identity and content hash of `tasks`, whatever their order."""
    lines = sorted(f"{t.env}\t{t.source}\t{t.split}\t{t.id}\t{t.task_type}\t{t.sha256}" for t in tasks)
    return hashlib.sha256("\n".join([MANIFEST_FORMAT, *lines]).encode()).hexdigest()


def spread(tasks: Sequence[Task], limit: int | None) -> list[Task]:
    """`limit` of the tasks, or all: the same ones for every caller, of every task type in turn.

    A manifest is sorted by name, so its first 20 would all be of one type. Within a type the order is that of
    the hash of the id; the result keeps the order of `tasks`.
    """
    if limit is None or limit >= len(tasks):
        return list(tasks)
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}.")
    queues: dict[str, list[Task]] = {}
    for task in sorted(tasks, key=lambda t: hashlib.sha256(t.id.encode()).digest()):
        queues.setdefault(task.task_type, []).append(task)
    chosen: set[str] = set()
    while len(chosen) < limit:
        for kind in sorted(queues):
            if queues[kind] and len(chosen) < limit:
                chosen.add(queues[kind].pop(0).id)
    return [task for task in tasks if task.id in chosen]


def hash_files(
    paths: Sequence[Path],
    memory: Path,
    accept: Callable[[bytes], bool] | None = None,
) -> dict[Path, str | None]:
    """sha256 of every file, or None where `accept` refuses its content.

    `memory` is a JSON file that remembers results by path, size and modification time, so that thousands of
    unchanged files cost one stat each. It is a cache: losing it costs time, nothing else.
    """
    try:
        known: dict[str, list] = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    found: dict[Path, str | None] = {}
    changed = False
    for path in paths:
        stat = path.stat()
        stamp = [stat.st_size, stat.st_mtime_ns]
        entry = known.get(str(path))
        if entry is None or entry[:2] != stamp:
            data = path.read_bytes()
            sha = hashlib.sha256(data).hexdigest() if accept is None or accept(data) else None
            entry = known[str(path)] = [*stamp, sha]
            changed = True
        found[path] = entry[2]
    if changed:
        try:
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(memory, json.dumps(known))
        except OSError:
            pass  # a read-only cache folder only means hashing again next time
    return found


def write_atomically(path: Path, text: str) -> None:
    """Write a whole file or leave the old one: through a temporary file in the same folder."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def home() -> Path:
    """The user's home folder. Raises MissingData where there is none (a container's user without a name)."""
    try:
        return Path.home()
    except RuntimeError as error:
        raise MissingData("This user has no home folder: set SAGE_CACHE to a folder for games.") from error


def cache_root() -> Path:
    """Where generated data and remembered hashes live: `SAGE_CACHE`, else the platform's cache folder."""
    if named := os.environ.get("SAGE_CACHE"):
        return Path(named).expanduser()
    if sys.platform == "darwin":
        base = home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache")
    return base / "sage-opd"


def made_folder(folder: Path) -> Path:
    """The folder below `cache_root`, made if it is absent. Raises MissingData where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError("no right to write")
    except OSError as error:
        raise MissingData(
            f"Games and their like cannot be kept in {folder} ({short_reason(error)}): set SAGE_CACHE to a "
            "folder that can be written."
        ) from error
    return folder
