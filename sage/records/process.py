"""Which process that is, and whether it still is: a number alone is given again to others."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

State = Literal["alive", "suspended", "gone", "elsewhere"]


@dataclass(frozen=True, slots=True)
class Process:
    """One process of one boot of one machine, told apart from all that have had or will have its number.

    `start` is the moment it began, by the kernel's own count (a wall clock may jump). `boot` and `namespace`
    say which machine since when, and which container's numbers `pid` is one of; "" where nothing tells.
    """

    host: str
    pid: int
    start: str = ""
    boot: str = ""
    namespace: str = ""

    @classmethod
    def here(cls) -> Process:
        return cls(platform.node(), os.getpid(), _start(os.getpid()), *_machine())

    def state(self) -> State:
        """`elsewhere` where this machine cannot tell. A suspended process (Ctrl-Z, SIGSTOP) is not dead."""
        if not self._is_ours():
            return "elsewhere"
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return "gone"
        except (PermissionError, OverflowError):
            pass
        if self.start and _start(self.pid) != self.start:
            return "gone"
        kind = _kind(self.pid)
        if kind in "ZX":
            return "gone"
        return "suspended" if kind in "Tt" else "alive"

    def _is_ours(self) -> bool:
        boot, namespace = _machine()
        if self.boot and boot:
            return (self.boot, self.namespace) == (boot, namespace)
        return self.host == platform.node()


@cache
def _machine() -> tuple[str, str]:
    boot = namespace = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return boot, namespace


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the state on; nothing where there is no /proc."""
    with suppress(OSError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()
    return []


def _kind(pid: int) -> str:
    """The kernel's letter of a process: R runs, S and D wait, T is stopped, Z is dead and not reaped."""
    return (_stat(pid) or ["S"])[0]


def _start(pid: int) -> str:
    if fields := _stat(pid):
        return fields[19]  # starttime, in ticks since the machine was started
    with suppress(Exception):  # no /proc: psutil asks the system in its own way, where it is installed
        import psutil

        return str(psutil.Process(pid).create_time())
    return ""
