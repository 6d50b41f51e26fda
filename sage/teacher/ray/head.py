"""A Ray cluster of this machine's own: begun without a dashboard, closed to others, and ended again.

Ray's servers listen on the machine's address, and whoever may speak to them may run code. So they ask for a
token, in a file that only its owner reads (Ray's own ~/.ray/auth_token), which clients find by themselves.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sage.config.ray_teacher import AUTO
from sage.errors import ConfigError, short_reason
from sage.teacher.ray.cluster import environment, listening, prepare_environment, token_file

MARK = "sage_begun_by"
"""A resource of the cluster, of which there is as much as the process id of what began it."""
_WAIT_S = 180.0
_RAY = (sys.executable, "-m", "ray.scripts.scripts")


def begin() -> str:
    """Begin one; its address. Raises ConfigError where Ray does not start."""
    if "RAY_AUTH_MODE" not in os.environ and "RAY_AUTH_TOKEN" not in os.environ:
        _give_token(token_file())
    prepare_environment()
    given = {**os.environ, **environment()}
    words = ("start", "--head", "--block", "--port=0", "--include-dashboard=false", "--disable-usage-stats")
    # The shell becomes Ray, so its process id is known before Ray is told it.
    script = f"exec \"$@\" --resources='{{\"{MARK}\": '$$'}}'"
    process = subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", *_RAY, *words],
        env=given,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    ends = time.monotonic() + _WAIT_S
    while time.monotonic() < ends and process.poll() is None:
        if (address := listening(AUTO)) is not None:
            return address
        time.sleep(0.5)
    process.terminate()
    raise ConfigError(
        "Ray could not be started on this machine; `ray start --head --block` says why. Start it that way, or"
        " name a cluster by teacher.ray.address."
    )


def _give_token(file: Path) -> None:
    """A token of Ray's kind, where its user has none yet."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as made:
            made.write(secrets.token_hex(32))
    except FileExistsError:
        return
    except OSError as error:
        raise ConfigError(
            f"Ray's token cannot be written to {file} ({short_reason(error)}); RAY_AUTH_TOKEN_PATH may name"
            " another file."
        ) from error


def begun(ray: Any) -> int | None:
    """The process that `begin` has started, where the cluster is one of this machine's."""
    pid = int(ray.cluster_resources().get(MARK, 0))
    try:
        with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
            return pid if pid and MARK in file.read() else None
    except OSError:
        return None


def end(pid: int) -> None:
    """Ask it to end, and wait until it has."""
    os.kill(pid, signal.SIGTERM)
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        try:
            os.kill(pid, 0)
            with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return
        except OSError:
            return
        time.sleep(0.2)
