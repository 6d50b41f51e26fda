"""What selecting turns gains along the axes of `study=when_it_matters`: a table, a picture with intervals.

    python benchmarks/when_it_matters.py runs/ --plot when_it_matters.png

The gain of a method is the mean over seeds of its games won minus those of `opd` with the same seed and
settings; its interval is Student's over seeds (the pair is the unit), no narrower than the games leave to
chance. `more` is the gain there minus the gain at the origin, seed by seed: what the axis adds. The origin is
where the runs are whose name ends in `_origin`, as in the study.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.errors import Refusal
from analysis.figures import COLOURS, save
from analysis.intervals import t_interval
from analysis.load import load
from analysis.runmeans import RunMeans, least_variance_of_pairs
from benchmarks.study_table import (
    Settings,
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

AXES = {
    "teacher.path": "teacher",
    "rollout.perturb": "first turns at random",
    "trainer.steps": "training steps",
}
BASELINE = "opd"
ORIGIN = "_origin"
"""How the names of the arms at the origin end."""
NOTE = (
    "Intervals: 95 %, uncorrected, paired t over seeds. The plan's own verdicts are of a seed-blocked ANOVA "
    "with Holm's correction: python -m analysis plan check conf/plan/when_it_matters.yaml --records RUNS"
)


def _origin(configs: Settings, values: Mapping[str, Mapping[str, str]]) -> Mapping[str, str]:
    """The axes' values of the runs that are named after it. Raises Refusal where there are none, or they
    differ."""
    there = [run for run, flat in configs.items() if str(flat.get("name")).endswith(ORIGIN)]
    if not there:
        raise Refusal(
            f"No finished run is at the origin, where every axis begins: no name ends in {ORIGIN} (in the "
            "study: opd_origin). Name the folder of those runs too."
        )
    first = values[there[0]]
    for run in there[1:]:
        if off := [key for key in AXES if values[run][key] != first[key]]:
            raise Refusal(
                f"Runs {there[0]} and {run} are both named {ORIGIN} and differ in {' and '.join(off)}: the "
                "origin is one place."
            )
    return first


def _places(configs: Settings) -> tuple[dict[str, tuple[str, str]], Mapping[str, str]]:
    """(axis and value of each run, ("", "") at the origin; the origin's value of each axis). Raises Refusal
    where runs differ in more than the axes and the method, or lie off two axes."""
    check_alike(configs, tuple(AXES))
    values = {run: {key: str(setting(flat, key)) for key in AXES} for run, flat in configs.items()}
    origin = _origin(configs, values)
    places = {}
    for run, mine in values.items():
        off = [key for key in AXES if mine[key] != origin[key]]
        if len(off) > 1:
            raise Refusal(f"Run {run} is off the origin in {' and '.join(off)}: an axis changes one thing.")
        places[run] = (off[0], mine[off[0]]) if off else ("", "")
    return places, origin


def _where(axis: str, value: str) -> str:
    return f"at {AXES[axis]} {value}" if axis else "at the origin"


def gains(inputs: Sequence[str], split: str) -> pd.DataFrame:
    """One row a method, place, seed and game that both have played: axis, value, the origin's value of that
    axis, method, seed, task, gain (wins minus the baseline's). Raises Refusal where nothing has a partner,
    and where a pair lacks too many games."""
    records = load(inputs)
    configs = settings_of(records)
    places, origin = _places(configs)
    check_points(
        configs, {run: f"{configs[run]['method']} {_where(*place)}" for run, place in places.items()}
    )
    won = results(last_evaluation(records, split, configs))
    runs = {(*places[run], str(configs[run]["method"]), int(configs[run]["seed"])): run for run in won.index}
    found, alone = [], []
    for (axis, value, method, seed), run in runs.items():
        if method == BASELINE:
            continue
        partner = runs.get((axis, value, BASELINE, seed))
        who = f"{method} with seed {seed}"
        if partner is None:
            alone.append(who)
            continue
        gain = won.loc[run] - won.loc[partner]
        lacking = {one: won.loc[one].isna() for one in (run, partner)}
        check_gaps(lacking, f"{who} {_where(axis, value)}, against {BASELINE},")
        by_task = gain.dropna().groupby("task").mean().rename("gain").reset_index()
        place = {"axis": axis, "value": value, "origin": origin.get(axis, "")}
        found.append(by_task.assign(**place, method=method, seed=seed))
    if not found:
        raise Refusal(f"No run has a partner {BASELINE} with its seed and settings and games of {split}.")
    if alone:
        say(f"Left out, for want of a partner {BASELINE}: {', '.join(alone)}.")
    return pd.concat(found, ignore_index=True)


def _with_interval(gaps: pd.DataFrame, name: str, differences: int = 1) -> dict[str, float]:
    """Mean over pairs and its interval, of one row a seed and one column a game. differences: how many
    differences of two runs an entry is made of."""
    least = differences * least_variance_of_pairs(gaps.to_numpy(), np.full(gaps.shape[1], 1 / gaps.shape[1]))
    sample = RunMeans(gaps.mean(axis=1).to_numpy(), least)
    low, high = t_interval(sample)
    return {name: sample.mean, f"{name}_low": low, f"{name}_high": high}


def _short(values: Iterable[str]) -> dict[str, str]:
    """What an axis shows of its values: of a path its last part, unless two would read alike."""
    found = {
        value: value.removeprefix("sage://") if value.startswith("sage://") else Path(value).name or value
        for value in values
    }
    return found if len(set(found.values())) == len(found) else {value: value for value in found}


def _in_order(value: str) -> tuple[int, float, str]:
    """Numbers by size, then words."""
    try:
        return (0, float(value), "")
    except ValueError:
        return (1, 0.0, value)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """One row a method and place: the axis, its value at the origin and here, pairs, gain with its 95 %
    interval, and what the axis adds with its own, over the pairs (`more_pairs`) of seeds that are at both."""
    gaps = {
        place: cell.pivot(index="seed", columns="task", values="gain")
        for place, cell in found.groupby(["method", "axis", "value"])
    }
    short = {
        axis: _short([*cell["value"].unique(), cell["origin"].iloc[0]])
        for axis, cell in found.groupby("axis")
        if axis
    }
    of_axis = found.drop_duplicates("axis").set_index("axis")["origin"]
    order = ["", *AXES]
    rows = []
    for method, axis, value in sorted(gaps, key=lambda at: (at[0], order.index(at[1]), _in_order(at[2]))):
        here, origin = gaps[method, axis, value], gaps.get((method, "", ""))
        row: dict[str, Any] = {"method": method, "axis": AXES.get(axis, "origin")}
        row["origin"] = short[axis][of_axis[axis]] if axis else ""
        row["value"] = short[axis][value] if axis else ""
        row |= {"pairs": len(here)} | _with_interval(here, "gain")
        if axis and origin is not None:
            more = (here - origin).dropna(how="all").dropna(axis=1, how="all")
            row["more_pairs"] = len(more)
            row |= _with_interval(more, "more", differences=2) if len(more) else {}
        rows.append(row)
    result = pd.DataFrame(rows)
    return result.astype({name: "Int64" for name in ("more_pairs",) if name in result})


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
        draw_axis(panel, found, name, labelled=panel is panels[0])
    panels[0].set_ylabel(f"gain over {BASELINE}, points of {split}")
    figure.suptitle("bars: 95 % intervals, uncorrected, paired t over seeds", fontsize="small")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    save(figure, path)


def draw_axis(panel: Any, found: pd.DataFrame, name: str, labelled: bool) -> None:
    """One axis: its values from the origin on, and what every method has of them."""
    mine = found[found["axis"] == name]
    ticks = {value: place for place, value in enumerate(sorted(mine["value"].unique(), key=_in_order), 1)}
    for number, method in enumerate(sorted(found["method"].unique())):
        here = found[(found["method"] == method) & found["axis"].isin(["origin", name])]
        x = np.array([ticks[row.value] if row.axis == name else 0 for row in here.itertuples()], float)
        half = [100 * (here["gain"] - here["gain_low"]), 100 * (here["gain_high"] - here["gain"])]
        panel.errorbar(
            x + 0.06 * number, 100 * here["gain"], yerr=half, marker="o", capsize=3,
            color=COLOURS[number % len(COLOURS)], label=method.replace("_", " ") if labelled else None,
        )  # fmt: skip
    start = mine["origin"].iloc[0]
    begin = f"origin: {start}" if len(start) < 10 else f"origin:\n{start}"
    panel.set_xticks(range(len(ticks) + 1), [begin, *ticks])
    panel.set_xlim(-0.4, len(ticks) + 0.5)
    panel.axhline(0, color="#868e96", linewidth=1)
    panel.set_title(name)


def main(words: Sequence[str] | None = None) -> int:
    return table_and_picture(words, __doc__, lambda runs, split: table(gains(runs, split)), plot, NOTE)


if __name__ == "__main__":
    sys.exit(main())
