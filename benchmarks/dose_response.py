"""How runs end against the dose of a spoilt teacher (`teacher.spoil`): a table, and a picture with intervals.

    python benchmarks/dose_response.py runs/ --plot docs/evidence/results/positive_control.png

A line is a preset and what the teacher is spoilt with; a point the mean over runs with its t interval over
run means (the run is the unit), which has no less spread than the games leave to chance.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.errors import Refusal
from analysis.figures import COLOURS, save
from analysis.intervals import t_interval
from analysis.load import load
from analysis.runmeans import RunMeans, least_variance
from benchmarks.study_table import (
    check_alike,
    check_gaps,
    check_points,
    last_evaluation,
    results,
    say,
    setting,
    settings_of,
    table_and_picture,
)

DOSE, OTHER = "teacher.spoil", "teacher.spoil_with"
NOTE = (
    "Intervals: 95 %, uncorrected, Student's t over the runs of a point. The plan's own verdicts are of a "
    "seed-blocked ANOVA with Holm's correction: "
    "python -m analysis plan check conf/plan/positive_control.yaml --records RUNS"
)


def ends(inputs: Sequence[str], split: str) -> pd.DataFrame:
    """One row a run and ok game of the last evaluation of `split`: line, dose, run, task, won. Raises Refusal
    for runs of several studies, for two of one line, dose and seed, where a run lacks too many games, and
    where none has a dose."""
    records = load(inputs)
    configs = settings_of(records)
    dosed = {run: flat for run, flat in configs.items() if flat.get(DOSE) is not None}
    nothing = Refusal(f"No finished run with {DOSE} has an evaluation on {split} there.")
    if not dosed:
        raise nothing
    if len(dosed) < len(configs):
        say(f"Left out, for want of {DOSE}: {', '.join(sorted(set(configs) - set(dosed)))}.")
    check_alike(dosed, (DOSE, OTHER))
    lines = {run: f"{flat['method']}, {setting(flat, OTHER)}" for run, flat in dosed.items()}
    check_points(dosed, {run: f"{line} at dose {float(dosed[run][DOSE]):g}" for run, line in lines.items()})
    episodes = last_evaluation(records, split, dosed)
    if episodes.empty:
        raise nothing
    for run, won in results(episodes).iterrows():
        check_gaps({str(run): won.isna()}, f"{lines[str(run)]} with seed {dosed[str(run)]['seed']}")
    dose = episodes["run"].map(lambda run: float(dosed[run][DOSE]))
    episodes = episodes.assign(dose=dose, line=episodes["run"].map(lines))
    return episodes[episodes["ok"].astype(bool)].copy()


def table(episodes: pd.DataFrame) -> pd.DataFrame:
    """One row a line and dose: runs, mean, and the 95 % interval of the mean over runs."""
    rows = []
    for (line, dose), cell in episodes.groupby(["line", "dose"]):
        by_game = cell.pivot_table(index="run", columns="task", values="won", aggfunc="mean").astype(float)
        means = by_game.mean(axis=1).to_numpy()
        row = {"line": line, "dose": dose, "runs": len(means), "mean": means.mean()}
        if len(means) > 1:
            weights = np.full(by_game.shape[1], 1 / by_game.shape[1])
            sample = RunMeans(means, least_variance(by_game.to_numpy(), weights))
            row["low"], row["high"] = t_interval(sample)
        rows.append(row)
    return pd.DataFrame(rows)


def plot(found: pd.DataFrame, split: str, path: Path) -> None:
    """Lines over the dose with their intervals; what was run at one dose alone is a point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axis = figure.subplots()
    for number, (line, cell) in enumerate(found.groupby("line")):
        cell = cell.sort_values("dose")
        x = cell["dose"] + 0.012 * (number - found["line"].nunique() / 2)
        half = [cell["mean"] - cell["low"], cell["high"] - cell["mean"]] if "low" in cell else None
        axis.errorbar(
            x, cell["mean"], yerr=half, marker="o", capsize=3, label=str(line).replace("_", " "),
            color=COLOURS[number % len(COLOURS)], linestyle="-" if number < len(COLOURS) else "--",
        )  # fmt: skip
    axis.set_xlabel("dose: share of the other model's logits on spoilt turns")
    axis.set_ylabel(f"games won, {split}")
    axis.set_ylim(0, None)
    axis.set_title("bars: 95 % intervals, uncorrected, Student's t over runs", fontsize="small")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    save(figure, path)


def main(words: Sequence[str] | None = None) -> int:
    return table_and_picture(words, __doc__, lambda runs, split: table(ends(runs, split)), plot, NOTE)


if __name__ == "__main__":
    sys.exit(main())
