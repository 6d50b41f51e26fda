"""What selecting turns gains along the axes of `study=when_it_matters`: a table, a picture with intervals.

    python benchmarks/when_it_matters.py runs/ --plot when_it_matters.png

The gain of a method is the mean over seeds of its games won minus those of `opd` with the same seed and
settings; its interval is Student's over seeds (the pair is the unit), no narrower than the games leave to
chance. `more` is the gain there minus the gain at the origin, seed by seed: what the axis adds.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import Refusal
from analysis.figures import COLOURS, save
from analysis.intervals import t_interval
from analysis.load import load
from analysis.runmeans import RunMeans, least_variance_of_pairs
from benchmarks.study_table import check_alike, last_evaluation, table_and_picture

AXES = {
    "teacher.path": "teacher",
    "rollout.perturb": "first turns at random",
    "trainer.steps": "training steps",
}
SAME = ("env.name", "env.games", "divergence.name", "trainer.tasks_per_step", "student.path")
BASELINE = "opd"


def _places(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """Axis and value of each run; the origin, which has the most frequent value of every axis, is ("", "").
    Raises Refusal where runs differ in more than the axes and the method, or lie off two axes."""
    check_alike(configs.values(), SAME)
    settings = pd.DataFrame.from_dict(
        {run: {key: str(flat.get(key)) for key in AXES} for run, flat in configs.items()}, orient="index"
    )
    origin = settings.mode().iloc[0]
    places = {}
    for run, row in settings.iterrows():
        off = [key for key in AXES if row[key] != origin[key]]
        if len(off) > 1:
            raise Refusal(f"Run {run} is off the origin in {' and '.join(off)}: an axis changes one thing.")
        places[str(run)] = (off[0], row[off[0]]) if off else ("", "")
    return places


def gains(inputs: Sequence[str], split: str) -> pd.DataFrame:
    """One row a method, place, seed and game that both have played: axis, value, method, seed, task, gain
    (wins minus the baseline's). Raises Refusal where nothing has a partner."""
    records = load(inputs)
    if not records.configs:
        raise Refusal("No finished run is there.")
    places = _places(records.configs)
    won = last_evaluation(records, split).groupby(["run", "task"])["won"].mean().astype(float)
    played = set(won.index.get_level_values("run"))
    runs: dict[tuple[str, str, str, int], pd.Series] = {}
    for run, flat in records.configs.items():
        place = (*places[run], str(flat["method"]), int(flat["seed"]))
        if place in runs:
            raise Refusal(
                f"Run {run} is not the only one of {place[2]} with seed {place[3]} at its place; runs may "
                "differ in the axes, the method and the seed alone: name those of one study."
            )
        if run in played:
            runs[place] = won.loc[run]
    found, alone = [], []
    for (axis, value, method, seed), mine in runs.items():
        if method == BASELINE:
            continue
        partner = runs.get((axis, value, BASELINE, seed))
        if partner is None:
            alone.append(f"{method} with seed {seed}")
        else:
            gain = (mine - partner).dropna().rename("gain").reset_index()
            found.append(gain.assign(axis=axis, value=value, method=method, seed=seed))
    if not found:
        raise Refusal(f"No run has a partner {BASELINE} with its seed and settings and games of {split}.")
    if alone:
        print(f"Left out, for want of a partner {BASELINE}: {', '.join(alone)}.", file=sys.stderr)
    return pd.concat(found, ignore_index=True)


def _with_interval(gaps: pd.DataFrame, name: str, differences: int = 1) -> dict[str, float]:
    """Mean over pairs and its interval, of one row a seed and one column a game. differences: how many
    differences of two runs an entry is made of."""
    least = differences * least_variance_of_pairs(gaps.to_numpy(), np.full(gaps.shape[1], 1 / gaps.shape[1]))
    sample = RunMeans(gaps.mean(axis=1).to_numpy(), least)
    low, high = t_interval(sample)
    return {name: sample.mean, f"{name}_low": low, f"{name}_high": high}


def table(found: pd.DataFrame) -> pd.DataFrame:
    """One row a method and place: pairs, gain with its 95 % interval, and what the axis adds with its own."""
    gaps = {
        place: cell.pivot(index="seed", columns="task", values="gain")
        for place, cell in found.groupby(["method", "axis", "value"])
    }
    rows = []
    for (method, axis, value), here in gaps.items():
        row = {
            "method": method,
            "axis": AXES.get(axis, "origin"),
            "value": Path(value).name,
            "pairs": len(here),
        }
        row |= _with_interval(here, "gain")
        origin = gaps.get((method, "", ""))
        if axis and origin is not None:
            more = (here - origin).dropna(how="all").dropna(axis=1, how="all")
            row |= _with_interval(more, "more", differences=2)
        rows.append(row)
    return pd.DataFrame(rows).sort_values(["method", "axis"], key=lambda names: names.replace("origin", ""))


def plot(found: pd.DataFrame, split: str, path: Path) -> None:
    """A panel an axis, the origin at its left; a line a method, with its intervals. Raises Refusal where
    there is the origin alone."""
    from matplotlib.figure import Figure

    axes = [name for name in AXES.values() if (found["axis"] == name).any()]
    if not axes:
        raise Refusal("There are runs at the origin alone: no axis to draw.")
    figure = Figure(figsize=(3.4 * len(axes), 3.8), layout="constrained")
    panels = figure.subplots(1, len(axes), sharey=True, squeeze=False)[0]
    for panel, name in zip(panels, axes, strict=True):
        for number, method in enumerate(sorted(found["method"].unique())):
            here = found[(found["method"] == method) & found["axis"].isin(["origin", name])]
            here = here.sort_values("axis", key=lambda axis: axis != "origin")
            half = [100 * (here["gain"] - here["gain_low"]), 100 * (here["gain_high"] - here["gain"])]
            panel.errorbar(
                np.arange(len(here)) + 0.06 * number, 100 * here["gain"], yerr=half, marker="o", capsize=3,
                color=COLOURS[number], label=method.replace("_", " ") if panel is panels[0] else None,
            )  # fmt: skip
        ticks = ["origin", *found.loc[found["axis"] == name, "value"].unique()]
        panel.set_xticks(range(len(ticks)), ticks)
        panel.set_xlim(-0.4, len(ticks) - 0.5)
        panel.axhline(0, color="#868e96", linewidth=1)
        panel.set_title(name)
    panels[0].set_ylabel(f"gain over {BASELINE}, points of {split}")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    save(figure, path)


def main(words: Sequence[str] | None = None) -> int:
    return table_and_picture(words, __doc__, lambda runs, split: table(gains(runs, split)), plot)


if __name__ == "__main__":
    sys.exit(main())
