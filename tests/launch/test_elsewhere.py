"""Runs as jobs of submitit and as tasks of a Ray cluster of two workers: the same states and failures."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launch.test_multirun import ROOT, TROUBLE, start, states

CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
for _ in range(2):
    cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def has(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'sage-opd[{package}]'")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real cluster: a head without CPUs and two workers with one each."""
    has("ray")
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    quiet |= {"RAY_raylet_start_wait_time_s": "180"}  # on a busy machine
    log = tmp_path_factory.mktemp("ray") / "cluster.log"
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        env={**os.environ, **quiet, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sweeps")])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log.open("w"),
        text=True,
    )
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    address = next((line.strip() for line in lines if ":" in line and " " not in line.strip()), "")
    assert address, log.read_text()[-3000:]
    yield address
    process.communicate("", timeout=60)


@pytest.fixture(params=["submitit_local", pytest.param("ray", marks=pytest.mark.slow)])
def launcher(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    if request.param == "ray":
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        return ("hydra/launcher=ray", f"hydra.launcher.init.address={request.getfixturevalue('cluster')}")
    has("submitit")
    return (f"hydra/launcher={request.param}",)


def sage(folder: Path, *arguments: str) -> tuple[int, str, str]:
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def test_failures_are_all_listed_and_what_is_done_is_skipped(
    tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    line = ("-m", "seed=0,1,2,3", "launch.workers=2", TROUBLE)
    code, out, err = sage(tmp_path, *line, *launcher)
    assert code == 1, err
    assert sorted(str(s["state"]) for s in states(tmp_path).values()) == ["done"] + ["failed"] * 3
    failed = [text.partition(" (its output")[0] for text in out.splitlines() if text.startswith("FAILED")]
    assert failed == [
        "FAILED seed=1: RuntimeError: the run was told to raise",
        "FAILED seed=2: SystemExit: 7",
        "FAILED seed=3: its process was killed by signal 9",
    ]
    # Another launcher goes on where this one was.
    code, out, _ = sage(tmp_path, "-m", "seed=0", "launch.workers=2", TROUBLE)
    assert code == 0
    assert "1 skipped" in out
    code, out, _ = sage(tmp_path, "-m", "seed=0,4", TROUBLE, *launcher)
    assert code == 0
    assert "1 done, 1 skipped" in out
    assert len(list(tmp_path.glob("runs/*/attempt_*"))) == 5


def test_a_signal_to_the_parent_ends_the_runs_elsewhere_marked(
    tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    trouble = "+env.trouble={0: hang, 1: hang, 2: hang}"
    process = start(tmp_path, "-m", "seed=0,1,2", "launch.workers=2", trouble, *launcher)
    wait_for(lambda: sum(s["phase"] == "nap" for s in states(tmp_path).values()) == 2)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 143, err
    assert all(str(s["reason"]).startswith("stopped by SIG") for s in states(tmp_path).values())
    for status in states(tmp_path).values():
        with pytest.raises(ProcessLookupError):
            os.kill(int(str(status["pid"])), 0)
    assert "not started" in out


def test_a_preempted_job_is_submitted_again_and_goes_on_in_its_attempt(tmp_path: Path) -> None:
    has("submitit")
    words = ("-m", "seed=0", "+env.trouble={0: hang}", "launch.on_existing=rerun")
    process = start(tmp_path, *words, "hydra/launcher=submitit_local")
    wait_for(lambda: any(s["phase"] == "nap" for s in states(tmp_path).values()))
    ((run, before),) = states(tmp_path).items()
    preempt(int(str(before["pid"])))
    wait_for(lambda: states(tmp_path)[run]["pid"] != before["pid"] and is_napping(states(tmp_path)[run]))
    process.terminate()
    process.communicate(timeout=180)
    assert process.returncode == 143
    assert states(tmp_path)[run]["reason"] == "stopped by SIGTERM"
    assert len(list(tmp_path.glob("runs/*/attempt_*"))) == 1


def is_napping(status: dict[str, object]) -> bool:
    return (status["state"], status["phase"]) == ("running", "nap")


def preempt(pid: int) -> None:
    """What SLURM sends before it takes the node away, to the process that submitit runs the job in."""
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGUSR2)


def wait_for(condition: object, seconds: float = 300.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_wrong_parameter_is_one_sentence(tmp_path: Path) -> None:
    has("submitit")
    words = ("-m", "seed=0", "+hydra.launcher.parameters.slurm_partion=x", "hydra/launcher=submitit_slurm")
    code, _, err = sage(tmp_path, *words)
    assert code == 2
    assert err.count("\n") == 1
    assert err.startswith("submitit refuses cluster 'slurm' with ")
