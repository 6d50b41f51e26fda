"""Coverage and false positives, with fewer studies than `benchmarks/coverage.py` and `coverage_turns.py`."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import coverage, coverage_no_spread, coverage_turns

pytestmark = pytest.mark.slow
REPS = 300
CELLS = [(runs, sd) for runs in coverage.RUNS for sd in coverage.SEED_SDS]


def least(reps, share=0.93):
    """An interval that covers `share` falls below this in one of 200 tests."""
    return share - 2.6 * np.sqrt(share * (1 - share) / reps)


LOW = least(REPS)
HIGH = 1 - least(REPS)


@pytest.mark.parametrize(("runs", "sd"), CELLS)
def test_intervals_of_a_difference(runs, sd):
    found = coverage.comparison(runs, sd, REPS, draws=600) | coverage.other_estimands(runs, sd, REPS, 600)
    for name, value in found.items():
        if "not " not in name:
            assert value >= LOW, name


@pytest.mark.parametrize(("runs", "sd"), CELLS)
def test_intervals_of_a_rate_and_of_components(runs, sd):
    found = coverage.single(runs, sd, REPS) | coverage.components(runs, sd, REPS)
    for name, value in found.items():
        if "not " not in name:
            # Run × game differs between few runs; its interval is the one that covers a little too little.
            assert value >= (least(REPS, 0.89) if name.startswith("run × game") else LOW), name


@pytest.mark.parametrize(("runs", "sd"), CELLS)
def test_false_positives(runs, sd):
    found = coverage.false_positives(runs, sd, REPS) | coverage.families(runs, sd, REPS)
    for name, value in found.items():
        if "(refused)" not in name and "(not used)" not in name:
            assert value <= HIGH, name


@pytest.mark.parametrize(("runs", "sd"), CELLS)
def test_intervals_over_turns(runs, sd):
    found = coverage_turns.coverage(runs, sd, 60, draws=300)
    for name, value in found.items():
        if "(not " not in name:
            assert value >= least(60), name


@pytest.mark.parametrize(("games", "rate"), [(60, 0.1), (134, 0.55)])
def test_two_checkpoints(games, rate):
    for name, value in coverage.checkpoints(rate, games, REPS).items():
        assert value >= LOW if name.startswith("coverage") else value <= HIGH, name


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("games", coverage_no_spread.GAMES)
@pytest.mark.parametrize("rate", coverage_no_spread.RATES)
def test_runs_without_spread(games, rate, alike):
    for name, value in coverage_no_spread.no_spread(games, rate, alike, REPS).items():
        if "coverage" in name:
            assert value >= LOW, name
        elif name == "Welch: smallest p":
            assert value > 1e-6
        elif "no floor" not in name:
            assert value <= 0.05, name
