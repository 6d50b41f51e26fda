"""A million episodes and ten thousand draws: time and peak memory of `compare`, on at most 2 threads.

    python benchmarks/analysis_bootstrap.py            # 8 methods × 10 runs × 12,500 games, 10,000 draws
    python benchmarks/analysis_bootstrap.py --small    # seconds, any machine

Prints the time to build the table of episodes apart (reading a file is not what is measured), then selection
with every check, the comparison itself, and the process's peak memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import time

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "2")

import numpy as np
import pandas as pd

from analysis.check import select
from analysis.compare import compare
from analysis.load import from_episodes
from analysis.question import Question


def million(methods: int, runs: int, games: int) -> pd.DataFrame:
    """Episodes of `methods` × `runs` × `games`, won at 50 to 60 %."""
    rng = np.random.default_rng(0)
    method, seed, game = (grid.ravel() for grid in np.mgrid[:methods, :runs, :games])
    return pd.DataFrame(
        {
            "method": pd.Categorical.from_codes(method, [f"method_{i}" for i in range(methods)]).astype(
                object
            ),
            "env": "alfworld",
            "split": "valid_unseen",
            "source": "generated",
            "seed": seed,
            "task": pd.Categorical.from_codes(game, [f"game-{i:06d}" for i in range(games)]).astype(object),
            "task_type": pd.Categorical.from_codes(game % 6, list("abcdef")).astype(object),
            "won": (rng.random(len(game)) < 0.5 + 0.012 * method).astype(int),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--draws", type=int, default=10_000)
    args = parser.parse_args()
    shape = (3, 5, 200) if args.small else (8, 10, 12_500)
    records = from_episodes(million(*shape))
    started, used = time.perf_counter(), time.process_time()
    select(records)
    checked = time.perf_counter()
    frame = compare(records, Question(baseline="method_0", draws=args.draws))
    done, used = time.perf_counter(), time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"episodes {len(records.episodes):,}, draws {args.draws:,}, comparisons {len(frame)}")
    print(f"selection and checks {checked - started:.2f} s")
    print(f"compare, selection included {done - checked:.2f} s")
    print(f"processor time of both {used:.2f} s, load average {os.getloadavg()[0]:.1f}")
    print(f"peak memory of the process {peak:.2f} GiB")


if __name__ == "__main__":
    main()
