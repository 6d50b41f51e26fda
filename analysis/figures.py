"""The plots. Each takes a table of this package and returns a matplotlib figure; `svg` makes equal bytes of
equal data.

One colour per method throughout a report, the baseline grey; a figure says in its title what its bands are.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLOURS = ("#0b6e99", "#d9480f", "#5f3dc4", "#2b8a3e", "#c2255c", "#8f6a00", "#087f5b", "#495057")
BASELINE_COLOUR = "#868e96"
LABEL_COLOURS = {
    "DET_FAIL": "#862e9c",
    "STRONG": "#c92a2a",
    "FALLBACK": "#e8590c",
    "WEAK": "#fab005",
    "SKIP": "#2f9e44",
    "ALWAYS": "#1971c2",
    "NEVER": "#adb5bd",
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with dollar signs is a name
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e9ecef",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.dpi": 100,
}


def colours(methods: Iterable[str], baseline: str | None = None) -> dict[str, str]:
    """A fixed colour per method, by name order."""
    others = sorted({str(method) for method in methods} - {baseline})
    chosen = {method: COLOURS[i % len(COLOURS)] for i, method in enumerate(others)}
    return chosen | ({baseline: BASELINE_COLOUR} if baseline else {})


def _figure(width: float, height: float) -> Figure:
    matplotlib.rcParams.update(STYLE)
    return Figure(figsize=(width, height), layout="constrained")


def svg(figure: Figure, name: str) -> str:
    """The figure as an inline SVG element; `name` keeps the ids of several figures on one page apart."""
    buffer = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Element ids such as axes_1 repeat between figures; nothing refers to them.
    text = re.sub(
        r' id="(?:figure|axes|patch|line2d|text|matplotlib|legend|xtick|ytick|PolyC|LineC)[^"]*"', "", text
    )
    return text


def dashes(palette: dict[str, str]) -> dict[str, str]:
    """A line style per method, so that two methods of one colour are told apart."""
    seen: dict[str, int] = {}
    styles = {}
    for method, colour in palette.items():
        styles[method] = ("-", "--", ":", "-.")[seen.get(colour, 0) % 4]
        seen[colour] = seen.get(colour, 0) + 1
    return styles


def _legend_columns(names: Iterable[str]) -> int:
    """As many as the names leave room for across 7.2 inches."""
    names = list(names)
    return max(1, min(4, len(names), int(7.2 / (0.55 + 0.085 * max(map(len, names), default=1)))))


def _legend_below(figure: Figure, axis: Any) -> None:
    """The methods of `axis` below the figure, which grows by the rows that takes."""
    handles, names = axis.get_legend_handles_labels()
    columns = _legend_columns(names)
    figure.set_figheight(figure.get_figheight() + 0.2 * max(0, -(-len(names) // columns) - 1))
    figure.legend(handles, names, loc="outside lower center", ncols=columns)


def save(figure: Figure, path: Path) -> None:
    """Write to a file; the suffix chooses the format."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": path.stem}):
        metadata: dict[str, Any] = {"Date": None, "Creator": None} if path.suffix == ".svg" else {}
        figure.savefig(path, metadata=metadata)


def forest(compared: pd.DataFrame, palette: dict[str, str]) -> Figure:
    """Differences to the baseline with their headline intervals; splits in panels one below the other."""
    places = list(compared.groupby(["env", "source", "split"], sort=True))
    rows = sum(len(group) for _, group in places)
    figure = _figure(7.2, 0.75 * len(places) + 0.36 * rows + 0.5)
    axes = figure.subplots(
        len(places), 1, squeeze=False, sharex=True, height_ratios=[len(g) + 0.6 for _, g in places]
    )
    for axis, ((env, source, split), group) in zip(axes[:, 0], places, strict=True):
        group = group.sort_values("difference", kind="stable").reset_index(drop=True)
        for y, row in group.iterrows():
            colour = palette.get(row["method"], COLOURS[0])
            if not np.isnan(row["low"]):
                axis.plot(
                    [row["low"], row["high"]], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt"
                )
            axis.plot(row["difference"], y, "o", color=colour, markersize=6)
        axis.axvline(0, color="#212529", linewidth=0.9)
        axis.set_yticks(range(len(group)), group["method"])
        axis.set_ylim(-0.6, len(group) - 0.4)
        axis.set_title(fill(f"{env} · {split} · {source} games", 70))
        axis.grid(axis="y", visible=False)
    axes[-1, 0].set_xlabel(
        f"difference to {compared['baseline'].iloc[0]} ({_metric_name(compared['metric'].iloc[0])})"
    )
    return figure


def _metric_name(metric: str) -> str:
    return "success rate" if metric == "won" else metric


def learning_curves(curves: pd.DataFrame, palette: dict[str, str], metric: str = "won") -> Figure:
    """Mean over runs at each evaluated step, band from the lowest to the highest run."""
    lines = dashes(palette)
    places = list(curves.groupby(["env", "split"], sort=True))
    figure = _figure(7.2, 2.9 * ((len(places) + 1) // 2))
    axes = figure.subplots((len(places) + 1) // 2, min(2, len(places)), squeeze=False, sharey=True)
    for axis in axes.ravel()[len(places) :]:
        axis.set_visible(False)
    for axis, ((env, split), group) in zip(axes.ravel(), places, strict=False):
        for method, part in group.groupby("method", sort=True):
            part = part.sort_values("step")
            axis.plot(
                part["step"], part["mean"], "o", color=palette[method], markersize=3.5, label=method,
                linestyle=lines[method],
            )  # fmt: skip
            axis.fill_between(
                part["step"], part["lowest"], part["highest"], color=palette[method], alpha=0.13, lw=0
            )
        axis.set_title(f"{env} · {split}")
        axis.set_xlabel("optimizer steps")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].set_ylabel(_metric_name(metric))
    _legend_below(figure, axes[0, 0])
    return figure


def label_shares(by_step: pd.DataFrame, by_turn: pd.DataFrame) -> Figure:
    """Stacked shares of the labels over training (left) and over turn positions (right), one row per
    method."""
    pairs = list(by_step.groupby(["method", "env"], sort=True))
    figure = _figure(7.2, 2.1 * len(pairs) + 0.6)
    axes = figure.subplots(len(pairs), 2, squeeze=False, sharey=True)
    names: list[str] = [name for name in LABEL_COLOURS if name in by_step or name in by_turn]
    for (left, right), ((method, env), steps) in zip(axes, pairs, strict=True):
        turns = by_turn[(by_turn["method"] == method) & (by_turn["env"] == env)]
        present = [name for name in names if name in steps and steps[name].fillna(0).any()]
        parts = [steps[name].fillna(0) for name in present]
        left.stackplot(steps["step"], parts, colors=[LABEL_COLOURS[n] for n in present], labels=present, lw=0)
        bottom = np.zeros(len(turns))
        for name in present:
            share = turns[name].fillna(0).to_numpy() if name in turns else np.zeros(len(turns))
            right.bar(
                turns["turn_bin"].astype(str), share, bottom=bottom, color=LABEL_COLOURS[name], width=0.85
            )
            bottom += share
        left.set_title(f"{method} · {env}")
        left.set_ylabel("share of turns")
        left.set_ylim(0, 1)
        left.margins(x=0)
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        for axis in (left, right):
            axis.grid(visible=False)
    axes[-1, 0].set_xlabel("optimizer steps")
    axes[-1, 1].set_xlabel("turn position")
    by_name = dict(zip(*reversed(axes[0, 0].get_legend_handles_labels()), strict=True))
    for row in axes[1:]:
        by_name |= dict(zip(*reversed(row[0].get_legend_handles_labels()), strict=True))
    figure.legend(by_name.values(), by_name.keys(), loc="outside lower center", ncols=min(6, len(by_name)))
    return figure


def reliability(table: pd.DataFrame) -> Figure:
    """Share of right labels against the teacher's confidence, one panel per method and environment; below
    each, how many turns each bin holds."""
    places = list(table.groupby(["method", "env"], sort=True))
    across = min(3, len(places))
    down = -(-len(places) // across)
    figure = _figure(max(4.6, 2.4 * across), 3.9 * down)
    axes = figure.subplots(
        2 * down, across, squeeze=False, sharex=True, sharey="row", height_ratios=[3.2, 1] * down
    )
    for axis in axes.ravel():
        axis.set_visible(False)
    for number, ((method, env), part) in enumerate(places):
        row, column = divmod(number, across)
        upper, lower = axes[2 * row, column], axes[2 * row + 1, column]
        upper.plot([0, 1], [0, 1], color="#adb5bd", linewidth=1, linestyle="--")
        error = np.abs(np.stack([part["right"] - part["low"], part["high"] - part["right"]]))
        upper.errorbar(
            part["confidence"], part["right"], error, fmt="o", color=COLOURS[0], markersize=5, capsize=0
        )
        upper.set_ylim(0, 1.02)
        upper.set_title(f"{method} · {env}")
        lower.bar((part["from"] + part["to"]) / 2, part["turns"], width=0.09, color=COLOURS[0], alpha=0.7)
        lower.set_xlabel("confidence c_t")
        lower.set_xlim(0, 1)
        lower.tick_params(labelbottom=True)
        if column == 0:
            upper.set_ylabel("judge agrees with oracle")
            lower.set_ylabel("turns")
        for axis in (upper, lower):
            axis.set_visible(True)
    return figure


PARTS = {
    "training run": "#0b6e99",
    "game": "#74b816",
    "run × game": "#d9480f",
    "decoding noise": "#adb5bd",
    "run × game + decoding": "#e8a27c",
}


def variance_bars(components: pd.DataFrame) -> Figure:
    """Share of each component in the variance of a method's mean."""
    labels = components["method"] + " · " + components["split"]
    order = sorted(labels.unique(), reverse=True)
    figure = _figure(7.2, 0.34 * len(order) + 1.2)
    axis = figure.subplots()
    left = np.zeros(len(order))
    for name, colour in PARTS.items():
        part = components[components["component"] == name]
        if not len(part):
            continue
        share = part.set_index(labels[part.index])["share_of_mean"].reindex(order).fillna(0).to_numpy()
        axis.barh(order, share, left=left, color=colour, label=name, height=0.72)
        left += share
    axis.set_xlim(0, 1)
    axis.set_xlabel("share of the variance of the method's mean")
    axis.grid(axis="y", visible=False)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def power_curves(table: pd.DataFrame, observed: Sequence[tuple[str, int]] = ()) -> Figure:
    """Detectable difference against runs per method, one line per sd over runs; `observed` marks runs that
    exist."""
    figure = _figure(7.2, 3.0)
    axis = figure.subplots()
    groups = list(table.groupby(["run_sd", "games"], sort=True))
    for i, ((sd, games), part) in enumerate(groups):
        shade = matplotlib.colormaps["viridis"](0.15 + 0.7 * i / max(1, len(groups) - 1))
        axis.plot(
            part["runs"],
            part["detectable"],
            "o-",
            color=shade,
            markersize=3.5,
            label=f"sd {sd:g}, {games} games",
        )
    for name, runs in observed:
        axis.axvline(runs, color="#868e96", linewidth=0.9, linestyle=":")
        axis.annotate(
            name, (runs, axis.get_ylim()[1]), fontsize=8, color="#495057", rotation=90, va="top", ha="right"
        )
    axis.set_ylim(bottom=0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("runs per method")
    axis.set_ylabel("detectable difference")
    axis.legend(ncols=2)
    return figure


def profiles(table: pd.DataFrame, palette: dict[str, str], metric: str = "won") -> Figure:
    """Share of run × task type means that reach τ."""
    lines = dashes(palette)
    places = list(table.groupby(["env", "split"], sort=True))
    figure = _figure(7.2, 2.9 * ((len(places) + 1) // 2))
    axes = figure.subplots((len(places) + 1) // 2, min(2, len(places)), squeeze=False, sharey=True)
    for axis in axes.ravel()[len(places) :]:
        axis.set_visible(False)
    for axis, ((env, split), group) in zip(axes.ravel(), places, strict=False):
        for method, part in group.groupby("method", sort=True):
            axis.step(
                part["tau"], part["share"], lines[method], where="mid", color=palette[method], label=method
            )
            axis.fill_between(
                part["tau"], part["low"], part["high"], step="mid", color=palette[method], alpha=0.1, lw=0
            )
        axis.set_title(f"{env} · {split}")
        axis.set_xlabel(f"{_metric_name(metric)} τ")
        axis.set_xlim(group["tau"].min(), group["tau"].max())
    axes[0, 0].set_ylabel("share that reaches τ")
    _legend_below(figure, axes[0, 0])
    return figure


def sweep(table: pd.DataFrame, key: str) -> Figure:
    """Objective over the setting, interval over runs; the winner's corrected score as a hollow mark."""
    places = list(table.groupby(["env", "split"], sort=True))
    figure = _figure(7.2, 2.8 * len(places))
    axes = figure.subplots(len(places), 1, squeeze=False)
    for axis, ((env, split), group) in zip(axes[:, 0], places, strict=True):
        x = np.arange(len(group))
        error = np.stack([group["mean"] - group["low"], group["high"] - group["mean"]])
        axis.errorbar(x, group["mean"], np.nan_to_num(error), fmt="o", color=COLOURS[0], capsize=0)
        best = np.flatnonzero(group["best"])
        axis.plot(
            x[best], group["corrected"].to_numpy()[best], "o", mfc="white", mec=COLOURS[1], markersize=8
        )
        axis.set_xticks(x, [str(value) for value in group[key]])
        axis.set_title(f"{env} · {split}   (hollow: the winner without its selection bias)")
        axis.set_xlabel(key)
    return figure
