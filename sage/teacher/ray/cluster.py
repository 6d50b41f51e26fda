"""The Ray cluster: finding it, being quiet about it, and the names under which teachers stand on it.

Ray is told to send no usage statistics and to print nothing; the handlers of signals that it puts in place of
ours are taken out again, because a run ends by its own (`sage.signals`). A cluster that does not listen is
found out by a connection of our own: Ray itself would wait for minutes.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import sage
from sage.config.ray_teacher import AUTO
from sage.errors import ConfigError, short_reason

NAMESPACE = "sage"
LOOK = "look"
"""The group of questions that an actor answers beside its work."""
PASSED = ("PYTHONPATH", "SAGE_CACHE", "XDG_CACHE_HOME", "ALFWORLD_DATA", "HF_HOME", "HF_HUB_OFFLINE")
"""Environment variables that a run or a model may need and that a worker does not inherit everywhere."""
_CONNECT_S = 5.0


def token_file() -> Path:
    """Where Ray looks for its user's token."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()


def prepare_environment() -> None:
    """Say in the environment, for Ray and its workers, what it is not to do; and that it is to show the token
    that its user has, as it does for clusters that it begins itself. Ray reads it once, when it is imported.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Else Ray ends this process, without a word of ours, when its cluster has been gone for a minute.
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "3600")
    if "RAY_AUTH_TOKEN" in os.environ or token_file().is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    # Else Ray warns at each task without a GPU that it will stop hiding the GPUs one day.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


def imported() -> Any:
    """The module `ray`. Raises ConfigError where it is not installed."""
    prepare_environment()
    try:
        import ray
    except ImportError as error:
        raise ConfigError("teacher=ray needs Ray: pip install 'sage-opd[ray]'.") from error
    return ray


def listening(address: str) -> str | None:
    """`host:port` of the cluster that `address` means, which does listen; None where there is none."""
    found = os.environ.get("RAY_ADDRESS", AUTO) if address == AUTO else address
    if found == AUTO:
        # Where `ray start` has written it.
        noted = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
        try:
            found = noted.read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
    host, _, port = found.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except (OSError, ValueError):
        return None
    return found


def connect(address: str) -> Any:
    """The module `ray`, connected. Raises ConfigError where there is no cluster, or none that can be used."""
    ray = imported()
    if ray.is_initialized():
        return ray
    found = listening(address)
    if found is None:
        where = "on this machine or at RAY_ADDRESS" if address == AUTO else f"at {address}"
        raise ConfigError(
            f"There is no Ray cluster {where} (teacher.ray.address={address}); start one and the teacher on"
            " it: python -m sage teacher start, with the words of this run about the teacher."
        )
    in_main = threading.current_thread() is threading.main_thread()
    handlers = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        ray.init(
            address=found,
            namespace=NAMESPACE,
            logging_level=logging.ERROR,
            log_to_driver=False,
            configure_logging=True,
        )
    except (ConnectionError, RuntimeError, ValueError, TypeError) as error:
        raise ConfigError(
            f"The Ray cluster at {found} cannot be used ({short_reason(error)}): it may be of another version"
            " of Ray, or want a token (RAY_AUTH_TOKEN_PATH)."
        ) from error
    finally:
        if in_main:
            for number, handler in handlers.items():
                if handler is not None:
                    signal.signal(number, handler)
    return ray


def environment() -> dict[str, str]:
    """Variables of an actor: what it needs to find this package and models."""
    found = {name: os.environ[name] for name in PASSED if name in os.environ}
    own = str(Path(sage.__file__).resolve().parents[1])
    paths = [own, *found.get("PYTHONPATH", "").split(os.pathsep)]
    found["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in paths if path))
    return found


def replica_name(name: str, index: int) -> str:
    return f"{name}/{index}"


def standing(ray: Any) -> dict[str, list[int]]:
    """The teachers on the cluster: name -> indices of their replicas, in order."""
    found: dict[str, list[int]] = {}
    for one in ray.util.list_named_actors(all_namespaces=True):
        name, _, index = one["name"].rpartition("/")
        if one["namespace"] == NAMESPACE and name and index.isdigit():
            found.setdefault(name, []).append(int(index))
    return {name: sorted(indices) for name, indices in sorted(found.items())}


def replicas(ray: Any, name: str) -> list[Any]:
    """The actors of the teacher `name`. Raises ConfigError where there are none."""
    teachers = standing(ray)
    if name not in teachers:
        there = f"it has {', '.join(map(repr, teachers))}" if teachers else "it has none"
        raise ConfigError(
            f"The Ray cluster has no teacher {name!r} ({there}); start it: python -m sage teacher start, with"
            " the words of this run about the teacher, or set teacher.ray.name."
        )
    return [ray.get_actor(replica_name(name, index), NAMESPACE) for index in teachers[name]]
