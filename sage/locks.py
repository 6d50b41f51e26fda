"""One lock for what one process at a time may do, on file systems with kernel locks and on those without.

Some network file systems refuse `flock` (ENOLCK, ENOTSUP). There the existence of a file beside is the lock;
a process that was killed while it held it leaves that file, and whoever waits too long is told its name.
"""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOFT_TIMEOUT_S = 120.0
"""How long anybody waits for a lock that may belong to a killed process."""
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


class LockTimeout(OSError):
    """Somebody else holds the lock; the message is one sentence."""

    def __str__(self) -> str:
        return str(self.args[0])


@contextmanager
def locked(path: Path, timeout_s: float = -1) -> Iterator[None]:
    """Hold the lock at `path` while the block runs; raises LockTimeout after `timeout_s` (-1: never)."""
    from filelock import FileLock, SoftFileLock, Timeout

    lock: FileLock | SoftFileLock = FileLock(path)
    try:
        try:
            with warnings.catch_warnings():  # filelock says that it falls back by itself, where it does
                warnings.simplefilter("ignore", UserWarning)
                lock.acquire(timeout=timeout_s)
        except OSError as error:
            if isinstance(error, Timeout) or error.errno not in _NO_LOCKS:
                raise
            lock = SoftFileLock(f"{path}.soft")
            lock.acquire(timeout=SOFT_TIMEOUT_S if timeout_s < 0 else timeout_s)
    except Timeout as error:
        hint = f"; if none is at work, remove {path}.soft" if isinstance(lock, SoftFileLock) else ""
        raise LockTimeout(f"Another process holds the lock {path}{hint}.") from error
    try:
        yield
    finally:
        lock.release()
