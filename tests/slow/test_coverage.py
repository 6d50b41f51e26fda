"""Coverage and false positives of the headline procedures, with fewer studies than
`benchmarks/coverage.py`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

spec = importlib.util.spec_from_file_location(
    "coverage_study", Path(__file__).parents[2] / "benchmarks" / "coverage.py"
)
coverage = importlib.util.module_from_spec(spec)
spec.loader.exec_module(coverage)

pytestmark = pytest.mark.slow
REPS = 300
LOW = 0.93 - 2.6 * np.sqrt(0.93 * 0.07 / REPS)
"""An interval that covers 93 % falls below this in one of 200 tests."""
HIGH = 0.07 + 2.6 * np.sqrt(0.07 * 0.93 / REPS)
CELLS = [(runs, sd) for runs in coverage.RUNS for sd in coverage.SEED_SDS]


@pytest.mark.parametrize(("runs", "sd"), CELLS)
def test_intervals_of_a_difference(runs, sd):
    found = coverage.comparison(runs, sd, REPS, draws=600)
    for name in ("two-way calibrated, new games", "two-way calibrated, these games", "Welch, these games"):
        assert found[name] >= LOW, name


@pytest.mark.parametrize(("runs", "sd"), CELLS)
def test_intervals_of_a_rate_and_of_components(runs, sd):
    found = coverage.single(runs, sd, REPS) | coverage.components(runs, sd, REPS)
    for name in (
        "Student over runs, these games",
        "Wilson, one checkpoint",
        "variance of training run",
        "variance of game",
    ):
        assert found[name] >= LOW, name


@pytest.mark.parametrize(("runs", "sd"), CELLS)
def test_false_positives(runs, sd):
    found = coverage.false_positives(runs, sd, REPS)
    for name in ("Welch on run means", "run-label permutation", "TOST at its margin"):
        assert found.get(name, 0.0) <= HIGH, name


def test_kappa():
    assert coverage.kappa(100, REPS) >= LOW
