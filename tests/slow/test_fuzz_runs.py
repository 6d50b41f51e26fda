"""200 damaged run folders: no traceback, no hang, and nothing taken for a result that is none.

Each input is a folder of two runs, one of them damaged in one to three ways (seeded). The table of runs, the
claim, `analysis`, the export and a resume read it. The other run must be as ever; the damaged one either
counts exactly what it counted, or is told in a note.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from analysis.errors import Refusal
from analysis.load import load as load_records
from sage.config.load import load
from sage.config.schema import RunConfig
from sage.errors import ConfigError
from sage.launch import table
from sage.launch.claim import claim, look_up
from sage.launch.row import Row
from sage.records import provenance
from sage.records.identity import Identity
from sage.records.mlflow import export as mlflow_export
from sage.records.rows import RunKey
from sage.records.rundir import RunDir, new_attempt
from sage.records.summary import summarize
from sage.records.tables import DamagedRecords, Tables
from tests.records import conftest as made

INPUTS = 200
FILES = (
    *(
        "status.json",
        "run.json",
        "summary.json",
        "provenance.json",
        "config.yaml",
        "owner.json",
        "mlflow.json",
    ),
    *("episodes.parquet", "turns.parquet", "steps.parquet", "log.txt", "checkpoints"),
)
JUNK: list[Any] = [
    *(None, True, -1, 0, 10**30, 1e308, "", "x" * 5000, "é\n漢", "\udc80", [], {}, [[[]]]),
    *({"a": {"b": 1}}, "../../etc", "running", "done", "9" * 400),
]


def set_key(path: Path, rng: random.Random) -> None:
    """Junk in the place of some value of a JSON file, at any depth."""
    data = json.loads(path.read_text(encoding="utf-8"))
    at = data
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = rng.choice(keys)
        if isinstance(at[key], dict | list) and at[key] and rng.random() < 0.6:
            at = at[key]
            continue
        if rng.random() < 0.2 and isinstance(at, dict):
            del at[key]
        else:
            at[key] = rng.choice(JUNK)
        break
    path.write_text(json.dumps(data), encoding="utf-8")


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 8, 200])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def damage(folder: Path, other: Path, rng: random.Random) -> str:
    """One damage; says which."""
    name = rng.choice(FILES)
    path = folder / name
    if not path.is_file():
        kind, change = rng.choice(AROUND)
        change(folder)
        return kind
    kinds: dict[str, Callable[[], object]] = {
        "empty": lambda: path.write_bytes(b""),
        "cut": lambda: os.truncate(path, rng.randrange(max(1, path.stat().st_size))),
        "flipped": lambda: flip(path, rng),
        "noise": lambda: path.write_bytes(rng.randbytes(rng.choice([1, 100, 10_000]))),
        "missing": path.unlink,
        "a folder": lambda: replaced(path, Path.mkdir),
        "a loop": lambda: replaced(path, lambda p: p.symlink_to(p.name)),
        "a pipe": lambda: replaced(path, os.mkfifo),
        "nowhere": lambda: replaced(path, lambda p: p.symlink_to("/nowhere/at/all")),
        "another run's": lambda: shutil.copyfile(other / name, path),
        "utf-16": lambda: path.write_bytes(path.read_bytes().decode("latin-1").encode("utf-16")),
        "nested": lambda: path.write_text("[" * rng.choice([10, 100_000]), encoding="utf-8"),
        "a device": lambda: replaced(path, lambda p: p.symlink_to("/dev/zero")),
    }
    if name.endswith(".json"):
        for _ in range(6):
            kinds[f"value {_}"] = lambda: set_key(path, rng)
    kind = rng.choice(list(kinds))
    try:
        kinds[kind]()
    except (ValueError, LookupError, RecursionError):  # damaged before in a way that leaves nothing to change
        path.write_bytes(b"{")
    return f"{name}: {kind}"


AROUND: list[tuple[str, Callable[[Path], object]]] = [
    (
        "attempt_1.bak",
        lambda folder: shutil.copytree(folder, folder.with_name("attempt_1.bak"), symlinks=True),
    ),
    ("attempt_2 a file", lambda folder: folder.with_name("attempt_2").write_bytes(b"x")),
    ("attempt_02", lambda folder: folder.with_name("attempt_02").mkdir(exist_ok=True)),
    ("attempt_2 empty", lambda folder: folder.with_name("attempt_2").mkdir(exist_ok=True)),
    ("attempt_1000000000000", lambda folder: folder.with_name("attempt_" + "9" * 40).mkdir(exist_ok=True)),
    ("parts of strangers", lambda folder: (folder / "parts" / "hello").mkdir(parents=True, exist_ok=True)),
    (
        "checkpoint empty",
        lambda folder: (folder / "checkpoints/step-000009").mkdir(parents=True, exist_ok=True),
    ),
]


@contextmanager
def at_most(seconds: int, told: str) -> Iterator[None]:
    """A hang becomes a failure."""

    def stop(*_: object) -> None:
        raise AssertionError(f"hangs: {told}")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, of seed 0 and 1."""
    root = tmp_path_factory.mktemp("fuzz") / "runs"
    for seed in (0, 1):
        config = config_of(root, seed)
        folder = new_attempt(root, Identity.of(config, "m"), config)
        folder.start(steps=3)
        provenance.write(folder.path, manifest_digest="m", models={"student": "a" * 64})
        record(folder)
        folder.write_json("summary.json", summarize(folder.path).to_json())
        folder.done(step=3, success=0.6)
        folder.log("done")
    return root


def record(folder: RunDir) -> None:
    """A whole history into an attempt that is claimed: three steps, evaluated before and after."""
    identity = folder.identity()
    before, made.KEY = (
        made.KEY,
        RunKey(identity.run, "sage_opd", "alfworld", "generated", identity.fields["seed"]),
    )
    try:
        made.record_run(folder.path).consolidate()
    finally:
        made.KEY = before


def config_of(root: Path, seed: int) -> RunConfig:
    return load([f"launch.runs_dir={root}", f"seed={seed}", "tracking.traces=0"])


def shown(rows: list[Row]) -> str:
    out = io.StringIO()
    board = table.Board(rows, Console(file=out, width=200))
    board.close(list_only=True)
    return out.getvalue()


def numbers(root: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What `analysis` counts of each run's folder, and its notes."""
    try:
        records = load_records([root], tables=("episodes", "turns", "steps"))
    except Refusal as refusal:
        return {}, (str(refusal),)
    counted = {}
    for row in records.runs[records.runs["used"].astype(bool)].itertuples():
        mine = records.episodes[records.episodes["run"] == row.run]
        sums = (len(mine), int(mine["won"].sum()), float(mine["score"].sum()), float(mine["turns"].sum()))
        name = row.method.partition("[")[0]  # what tells recipes apart depends on both runs
        counted[row.where] = (*sums, name, row.seed)
    return counted, records.notes


@pytest.mark.slow
def test_two_hundred_damaged_run_folders(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(17)
    silent = []
    whole, notes = numbers(runs)
    assert (len(whole), notes) == (2, ())
    healthy = Identity.of(config_of(runs, 1), "m").run
    for index in range(INPUTS):
        root = tmp_path / str(index) / "runs"
        shutil.rmtree(tmp_path / str(index - 1), ignore_errors=True)
        shutil.copytree(runs, root)
        config = config_of(root, 0)
        identity = Identity.of(config, "m")
        attempt, other = root / identity.run / "attempt_1", root / healthy / "attempt_1"
        what = f"{index}: " + ", ".join(damage(attempt, other, rng) for _ in range(rng.choice([1, 1, 2, 3])))
        with at_most(60, what):
            counted, notes = numbers(root)
            assert all(len(note) < 900 and "Traceback" not in note for note in notes), (what, notes)
            assert counted.get(f"{healthy}/attempt_1") == whole[f"{healthy}/attempt_1"], what
            mine = {where: value for where, value in counted.items() if where.startswith(identity.run)}
            as_ever = list(mine.values()) == [whole[f"{identity.run}/attempt_1"]]
            if not as_ever and not any(identity.run in note for note in notes):
                silent.append(f"analysis {what}")

            found = look_up(config, identity)
            beside = config_of(root, 1)
            other_found = look_up(beside, Identity.of(beside, "m"))
            assert (other_found.state, other_found.notes) == ("done", ()), what
            assert shown([Row("a", config, identity, found), Row("b", beside, identity, other_found)])
            if found.state != "done" and not found.notes:
                silent.append(f"claim {found.state} {what}")

            capsys.readouterr()
            code = mlflow_export.main([str(attempt), "--uri", f"sqlite:///{tmp_path}/mlflow.db"])
            said = capsys.readouterr()
            assert "Traceback" not in said.out + said.err, what
            assert code == 0 or (said.err.strip() and all(len(x) < 900 for x in said.err.splitlines())), what

            try:
                again = claim(config, identity)
            except ConfigError as refusal:
                if len(str(refusal)) >= 400:
                    silent.append(f"a long sentence {what}")
                continue
            if again.action != "skip":
                assert again.folder is not None
                try:
                    Tables(again.folder.path).resume(0)
                    record(again.folder)
                except DamagedRecords:
                    continue
                assert summarize(again.folder.path).steps == 3, what
                RunDir(again.folder.path).done()
    assert silent == []
