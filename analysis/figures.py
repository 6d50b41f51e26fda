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
WIDE = 12.4
"""Width of every figure in inches: that of the page's tables."""
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


def line_styles(palette: dict[str, str]) -> dict[str, dict[str, Any]]:
    """How each method's line is drawn: methods of one colour by their dashes, and the baseline wide and below
    the others, so that it is seen where they lie on it."""
    seen: dict[str, int] = {}
    styles: dict[str, dict[str, Any]] = {}
    for method, colour in palette.items():
        number = seen[colour] = seen.get(colour, -1) + 1
        below = {"linewidth": 5.0, "zorder": 1.9} if colour == BASELINE_COLOUR else {"linewidth": 1.6}
        styles[method] = {"color": colour, "linestyle": ("-", "--", ":", "-.")[number % 4], **below}
    return styles


def _wrapped(name: str, width: int) -> str:
    """A name in lines that break after its underscores."""
    return fill(name.replace("_", "_ "), width).replace("_ ", "_")


def _panels(count: int) -> tuple[Figure, Any]:
    """A figure with as many panels, up to three in a row."""
    across = min(3, count)
    down = -(-count // across)
    figure = _figure(WIDE, 3.3 * down)
    axes = figure.subplots(down, across, squeeze=False, sharey=True)
    for axis in axes.ravel()[count:]:
        axis.set_visible(False)
    return figure, axes


def _legend_columns(names: Iterable[str]) -> int:
    """As many as the names leave room for across a figure."""
    names = list(names)
    return max(1, min(6, len(names), int(WIDE / (0.55 + 0.085 * max(map(len, names), default=1)))))


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
    figure = _figure(WIDE, 0.75 * len(places) + 0.36 * rows + 0.5)
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
    places = list(curves.groupby(["env", "split"], sort=True))
    figure, axes = _panels(len(places))
    styles = line_styles(palette)
    for axis, ((env, split), group) in zip(axes.ravel(), places, strict=False):
        for method, part in group.groupby("method", sort=True):
            part = part.sort_values("step")
            axis.plot(part["step"], part["mean"], "o", markersize=3.5, label=method, **styles[method])
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
    figure = _figure(WIDE, 2.1 * len(pairs) + 0.6)
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
    figure = _figure(WIDE, 3.9 * down)
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


def spread_bars(components: pd.DataFrame) -> Figure:
    """The sd that each source makes, with its interval: a panel for each source, a bar for each method and
    split."""
    labels = components["method"] + " · " + components["split"]
    order = sorted(labels.unique(), reverse=True)
    present = [name for name in PARTS if (components["component"] == name).any()]
    figure = _figure(WIDE, 0.32 * len(order) + 1.1)
    axes = figure.subplots(1, len(present), squeeze=False, sharey=True)
    for axis, name in zip(axes[0], present, strict=True):
        part = components[components["component"] == name]
        part = part.set_index(labels[part.index]).reindex(order)
        ends = np.stack([part["sd"] - part["low"], part["high"] - part["sd"]]).clip(min=0.0)
        axis.barh(order, part["sd"], color=PARTS[name], alpha=0.75, height=0.7)
        axis.errorbar(part["sd"], order, xerr=ends, fmt="none", ecolor="#212529", elinewidth=1.3, capsize=3)
        axis.set_title(name)
        axis.set_xlim(left=0)
        axis.grid(axis="y", visible=False)
    figure.supxlabel("sd of a single play, with its interval", fontsize=10)
    return figure


def pairs_by_seed(means: pd.DataFrame, palette: dict[str, str], metric: str = "won") -> Figure:
    """One line per seed from the baseline's run to the method's, a panel for each contrast."""
    panels = list(means.groupby(["env", "source", "split", "method"], sort=True))
    down = -(-len(panels) // 6)
    across = max(3, -(-len(panels) // down))
    figure = _figure(WIDE, 2.7 * down)
    axes = figure.subplots(down, across, squeeze=False, sharey=True)
    for axis in axes.ravel()[len(panels) :]:
        axis.set_visible(False)
    for axis, ((_, _, split, method), part) in zip(axes.ravel(), panels, strict=False):
        for row in part.itertuples():
            ends = row.mean_baseline, row.mean
            axis.plot((0, 1), ends, "o-", color=palette[method], markersize=4, lw=1.3)
        for mean, alike in part.groupby(part["mean"].round(6)):
            named = ", ".join(map(str, sorted(alike["seed"])))
            axis.annotate(named, (1, mean), (5, 0), textcoords="offset points", fontsize=8, va="center")
        centre = part["mean_baseline"].mean(), part["mean"].mean()
        axis.plot((0, 1), centre, color="#212529", linewidth=3, alpha=0.35, zorder=1.9)
        axis.set_xticks((0, 1), [_wrapped(name, 14) for name in (part["baseline"].iloc[0], method)])
        axis.set_xlim(-0.25, 1.35)
        axis.set_title(_wrapped(split, 24))
    for row in axes:
        row[0].set_ylabel(_metric_name(metric))
    return figure


def power_curves(table: pd.DataFrame, observed: Sequence[tuple[str, int]] = ()) -> Figure:
    """Detectable difference against runs per method, one line per sd over runs; `observed` marks runs that
    exist."""
    figure = _figure(WIDE, 3.0)
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
    places = list(table.groupby(["env", "split"], sort=True))
    figure, axes = _panels(len(places))
    styles = line_styles(palette)
    for axis, ((env, split), group) in zip(axes.ravel(), places, strict=False):
        for method, part in group.groupby("method", sort=True):
            axis.step(part["tau"], part["share"], where="mid", label=method, **styles[method])
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
    figure = _figure(WIDE, 2.8 * len(places))
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
