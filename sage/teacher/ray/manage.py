"""`python -m sage teacher start|status|stop`: actors that hold a teacher, on a cluster or on this machine.

Actors are detached: they live until they are stopped or their cluster ends, whatever runs come and go. Where
`start` finds no cluster at `teacher.ray.address=auto`, it begins one on this machine, and the `stop` of the
last teacher on it ends it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sage.config.ray_teacher import AUTO
from sage.errors import ConfigError
from sage.policy.models.load import load_tokenizer
from sage.teacher.ray import head
from sage.teacher.ray.actor import Replica
from sage.teacher.ray.cluster import (
    LOOK,
    NAMESPACE,
    connect,
    environment,
    listening,
    replica_name,
    replicas,
    standing,
)
from sage.teacher.ray.identity import Identity, check
from sage.teacher.ray.teacher import Actors
from sage.teacher.ray.wire import Failed

if TYPE_CHECKING:
    from sage.config.ray_teacher import RaySettings
    from sage.config.schema import TeacherSettings

ACTIONS = ("start", "status", "stop")
Say = Callable[[str], None]
_RETRIES = 3
"""Times that Ray asks a question again whose actor died: what kills each that tries it is given up."""
_LOOK_S = 10.0
"""For a replica to say what it is, at `status`."""


def manage(action: str, settings: TeacherSettings, say: Say = print) -> None:
    """One of `ACTIONS`. Raises ConfigError or ModelError, in one sentence, where it cannot be done."""
    if settings.ray is None:
        raise ConfigError(f"teacher {action} is about a teacher on Ray; say teacher=ray, or nothing of it.")
    if action == "start":
        start(settings, settings.ray, say)
    elif action == "status":
        status(settings.ray, say)
    else:
        stop(settings.ray, say)


def start(settings: TeacherSettings, how: RaySettings, say: Say) -> None:
    """Make the replicas that are not there yet, and wait until all have loaded."""
    tokenizer = load_tokenizer(settings, role="teacher")
    if how.address == AUTO and listening(AUTO) is None:
        say(f"There is no Ray cluster: one is begun on this machine ({head.begin()}).")
    ray = connect(how.address)
    try:
        there = standing(ray).get(how.name, [])
        if there:
            for one in Actors(ray, how.name, how.patience_s).identities():
                check(one, settings, tokenizer)
        new = [index for index in range(how.replicas) if index not in there]
        _refuse_without_room(ray, how, len(new))
        made = ray.remote(concurrency_groups={LOOK: 1})(Replica)
        started = time.monotonic()
        for index in new:
            made.options(
                name=replica_name(how.name, index),
                namespace=NAMESPACE,
                lifetime="detached",
                max_restarts=-1,
                max_task_retries=_RETRIES,
                num_gpus=how.num_gpus,
                num_cpus=how.num_cpus,
                runtime_env={"env_vars": environment()},
            ).remote(settings.model_dump(mode="json"))
        try:
            said = Actors(ray, how.name, how.patience_s).identities()
        except BaseException:
            _kill(ray, how.name, new)
            raise
        for line in _lines(how.name, dict(zip(sorted({*there, *new}), said, strict=True))):
            say(line)
        say(f"{len(new)} started in {time.monotonic() - started:.1f} s, {len(there)} there before.")
    finally:
        ray.shutdown()


def status(how: RaySettings, say: Say) -> None:
    """Every teacher on the cluster. Raises ConfigError where there is none."""
    ray = connect(how.address)
    try:
        teachers = standing(ray)
        if not teachers:
            replicas(ray, how.name)
        for name, indices in teachers.items():
            handles = replicas(ray, name)
            asked = [handle.identity.options(concurrency_group=LOOK).remote() for handle in handles]
            ready, _ = ray.wait(asked, num_returns=len(asked), timeout=_LOOK_S)
            known = [ray.get(one) if one in ready else None for one in asked]
            said = dict(zip(indices, known, strict=True))
            for line in _lines(name, said):
                say(line)
    finally:
        ray.shutdown()


def stop(how: RaySettings, say: Say) -> None:
    """End the replicas of a name. Raises ConfigError where there are none."""
    ray = connect(how.address)
    try:
        indices = standing(ray).get(how.name, [])
        if not indices:
            replicas(ray, how.name)
        _kill(ray, how.name, indices)
        say(f"The teacher {how.name!r} is stopped ({len(indices)} replicas).")
        begun = None if standing(ray) else head.begun(ray)
    finally:
        ray.shutdown()
    if begun is not None:
        head.end(begun)
        say("It was the last: the Ray cluster that was begun for it on this machine has ended.")


def _kill(ray: Any, name: str, indices: list[int]) -> None:
    for index in indices:
        try:
            ray.kill(ray.get_actor(replica_name(name, index), NAMESPACE), no_restart=True)
        except ValueError:
            continue  # it is gone already
    ends = time.monotonic() + 30
    while set(standing(ray).get(name, [])) & set(indices) and time.monotonic() < ends:
        time.sleep(0.1)


def _refuse_without_room(ray: Any, how: RaySettings, count: int) -> None:
    """Raises ConfigError where the nodes of the cluster, all of them free, have no room for the replicas."""
    if not count:
        return
    room, has = 0, {"GPU": 0.0, "CPU": 0.0}
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        own = {name: float(node["Resources"].get(name, 0)) for name in has}
        wanted = {"GPU": how.num_gpus, "CPU": how.num_cpus}
        fits = [own[name] / need for name, need in wanted.items() if need]
        room += math.floor(min(fits, default=count) + 1e-9)
        has = {name: has[name] + own[name] for name in has}
    if room < count:
        raise ConfigError(
            f"The Ray cluster has {has['GPU']:g} GPUs and {has['CPU']:g} CPUs, and {count} replicas of "
            f"teacher.ray.num_gpus={how.num_gpus:g} and num_cpus={how.num_cpus:g} do not fit; lower one of"
            " the three (num_gpus=0 keeps the teacher on a CPU)."
        )


def _lines(name: str, said: dict[int, Identity | Failed | None]) -> list[str]:
    """A line about each replica; None: it has not said yet what it is."""
    lines = []
    for index, one in said.items():
        if one is None:
            text = "begins, or begins again"
        elif isinstance(one, Failed):
            text = f"could not be loaded: {one.reason}"
        else:
            text = (
                f"{one.settings['path']}, {one.settings['dtype']} on {one.device}, digest {one.digest[:16]}, "
                f"process {one.pid} of {one.host}"
            )
        lines.append(f"{replica_name(name, index)}: {text}")
    return lines
