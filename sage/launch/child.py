"""`python -m sage.launch.child`: the process of one run of a multirun; only `sage.launch.schedule` starts it.

The request comes as one JSON line on stdin (never in a file or an argument: a tracking URI may hold a
password), and stdin stays open: when it ends, the parent is gone, however it died, and this run stops too.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from sage.redaction import guard_streams
from sage.signals import SIGNALS, end_at_once, is_stopping

if TYPE_CHECKING:
    from sage.config.schema import RunConfig
    from sage.records.identity import Identity

STOP_GRACE_S = 60.0
"""After its parent has died: time for a checkpoint before this process is killed."""


def main() -> int:
    guard_streams()
    if hasattr(signal, "pthread_sigmask"):  # a worker of Ray blocks them, and a child inherits that
        signal.pthread_sigmask(signal.SIG_UNBLOCK, set(SIGNALS))
    end_at_once()
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_watch_parent, name="parent-watch", daemon=True).start()

    from sage.config.validate import validate
    from sage.errors import ConfigError
    from sage.launch.execute import EXIT_CONFIG, execute
    from sage.records.identity import Identity

    try:
        config = validate(request["config"])
        identity = Identity.of(config, request["manifest_digest"])
        _wait_for_lease(config, identity, request.get("patience_s", 0.0))
        outcome = execute(config, identity=identity, export=False)
    except KeyboardInterrupt as stop:
        return getattr(stop, "exit_code", 130)
    except ConfigError as error:
        _say(str(error))
        return EXIT_CONFIG
    if outcome.reason:
        _say(outcome.reason)
    return outcome.exit_code


def _say(sentence: str) -> None:
    """Into the console's file; the exit code is right where a full disk does not take it."""
    with suppress(OSError):
        print(sentence, file=sys.stderr, flush=True)


def _wait_for_lease(config: RunConfig, identity: Identity, patience_s: float) -> None:
    """A job that took the place of another waits until the other's process has let go of the run."""
    from sage.launch.claim import look_up

    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and look_up(config, identity).state == "running":
        time.sleep(1.0)


def _watch_parent() -> None:
    while os.read(0, 4096):
        pass
    if not is_stopping():  # a second signal would kill it over its checkpoint
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
