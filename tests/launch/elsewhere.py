"""`python -m sage` in a process that believes itself on another machine, with a shorter lease."""

from sage import __main__
from sage.records import owner, process


def main() -> None:
    process._machine = lambda: ("another boot", "another namespace")  # type: ignore[assignment]
    owner.LEASE_S = 7.0  # longer than a heartbeat takes
    __main__.main()
