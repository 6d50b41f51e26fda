"""What a run takes of its machine: sampled, read back, and sent to MLflow once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sage.records.rundir import RunDir
from sage.records.system import FILE, Samples, Usage, sampling


def test_samples_come_while_the_block_runs_and_stop_with_it(run: RunDir) -> None:
    run.start()
    with sampling(run, 0.05):
        end = time.monotonic() + 60
        while not (run.path / FILE).exists() or len((run.path / FILE).read_text().splitlines()) < 3:
            assert time.monotonic() < end
            time.sleep(0.05)
    numbered = Samples(run.path).new()
    assert [number for number, _ in numbered] == list(range(len(numbered)))
    sample = numbered[-1][1]
    assert {"time", "cpu_cores_busy", "memory_mib"} <= set(sample)
    assert sample["time"] == pytest.approx(time.time(), abs=120)
    assert 10 < sample["memory_mib"] < 100_000
    with sampling(run, 0):
        pass
    assert Samples(run.path).new() == numbered


def test_the_memory_of_children_counts() -> None:
    usage = Usage()
    alone = usage.sample()["memory_mib"]
    code = "x = b'1' * (200 * 2**20); print('there', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        both = usage.sample()["memory_mib"]
        child.communicate("\n")
    assert both - alone > 190


def test_what_comes_later_is_read_once_and_a_cut_line_waits_for_its_end(tmp_path: Path) -> None:
    samples = Samples(tmp_path)
    assert samples.new() == []
    file = tmp_path / FILE
    file.write_text(json.dumps({"time": 1.0, "memory_mib": 5}) + '\n{"time": 2')
    assert samples.new() == [(0, {"time": 1.0, "memory_mib": 5.0})]
    assert samples.new() == []
    with file.open("a") as end:
        end.write('.0}\nno sample\n{"time": 3.0}\n')
    assert samples.new() == [(1, {"time": 2.0}), (3, {"time": 3.0})]
