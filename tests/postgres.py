"""A real PostgreSQL server for a test: Debian's binaries, a data folder of its own, loopback only."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def postgres_server() -> Iterator[str]:
    """URL of an empty database; the server is gone afterwards. Skips where there is none to start."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = places[-1] if places else shutil.which("initdb")
    if found is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt-get install postgresql)")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed: pip install 'sage-opd[postgres]'")
    bin_dir, user = Path(found).resolve().parent, None
    folder = Path(tempfile.mkdtemp(prefix="sage-pg-"))
    if os.geteuid() == 0:  # the server refuses to run as root
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in names else "nobody"
        shutil.chown(folder, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(program: str, *arguments: str) -> None:
        command = [str(bin_dir / program), *arguments]
        subprocess.run(command, user=user, cwd=folder, check=True, capture_output=True, timeout=300)

    data = str(folder / "data")
    try:
        run("initdb", "-D", data, "-U", "sage", "-A", "trust", "--no-sync")
        settings = ("listen_addresses=127.0.0.1", f"port={port}", f"unix_socket_directories={folder}")
        options = " ".join(f"-c {setting}" for setting in (*settings, "fsync=off"))
        run("pg_ctl", "-D", data, "-l", str(folder / "log"), "-o", options, "-w", "-t", "200", "start")
        try:
            run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "sage", "sage")
            yield f"postgresql+psycopg://sage@127.0.0.1:{port}/sage"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
