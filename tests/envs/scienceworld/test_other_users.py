"""Who may give orders to the JVM: this process, and no other user of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sage.envs.scienceworld import jvm

ATTACK = """
import os, sys
port, file, token, user = int(sys.argv[1]), sys.argv[2], sys.stdin.read(), int(sys.argv[3])
from py4j.java_gateway import GatewayParameters, JavaGateway
if user:
    os.setgid(user)
    os.setuid(user)
gateway = JavaGateway(gateway_parameters=GatewayParameters(port=port, auth_token=token or None))
gateway.jvm.java.io.FileOutputStream(file).close()
"""
"""Makes a file as the JVM's owner, with the token that comes on the standard input or without any."""

NOBODY = 65534

with_proc = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads what runs from /proc")


def attack(simulator: jvm.Simulator, file: Path, token: str = "") -> bool:
    """Whether another process, as another user where this one may become one, has the JVM write `file`."""
    port = simulator._gateway.gateway_parameters.port
    user = 0 if token or os.getuid() else NOBODY
    subprocess.run(
        [sys.executable, "-c", ATTACK, str(port), str(file), str(user)],
        input=token,
        text=True,
        capture_output=True,
        timeout=120,
    )
    return file.exists()


def test_orders_without_the_token_are_refused_and_the_simulator_lives_on(
    simulator: jvm.Simulator, tmp_path: Path
) -> None:
    token = simulator._gateway.gateway_parameters.auth_token
    assert not attack(simulator, tmp_path / "attacked")
    assert not attack(simulator, tmp_path / "guessed", token="0" * len(token))
    # With it the same orders are carried out: the attack is a real one.
    assert attack(simulator, tmp_path / "owner", token=token)
    session = simulator.open()
    simulator.load(session, "find-animal", 225, "easy")
    assert simulator.step(session, "look around")[0]


@with_proc
def test_the_token_is_on_no_command_line_and_in_no_environment(simulator: jvm.Simulator) -> None:
    token = simulator._gateway.gateway_parameters.auth_token
    assert len(token) >= 32
    for name in ("cmdline", "environ"):
        assert token.encode() not in Path(f"/proc/{simulator.pid}/{name}").read_bytes()


@with_proc
def test_it_listens_on_the_loopback_address_only(simulator: jvm.Simulator) -> None:
    inodes = {
        os.readlink(link).removeprefix("socket:[").rstrip("]")
        for link in Path(f"/proc/{simulator.pid}/fd").iterdir()
        if os.path.lexists(link) and os.readlink(link).startswith("socket:[")
    }
    listening = [
        fields[1].rpartition(":")[0]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for fields in (line.split() for line in Path(table).read_text().splitlines()[1:])
        if fields[3] == "0A" and fields[9] in inodes
    ]
    loopback = {"0100007F", "0" * 16 + "FFFF0000" + "0100007F", "0" * 24 + "01000000"}
    assert listening
    assert set(listening) <= loopback
