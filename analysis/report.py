"""The report: one self-contained HTML file, and the same as Markdown, LaTeX tables and CSV.

Invariant: the same records, options and time stamp give the same bytes. Nothing is fetched: styles, plots
and the reader's data are inside the page. A part that the records cannot support stays in the page as the
sentence that says why. What was pre-registered stands first and apart; everything else is marked exploratory.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import figures, render
from analysis.agreement import labelled
from analysis.agreement import tables as agreement_tables
from analysis.cells import cells, each_split
from analysis.check import select
from analysis.compare import RECIPE, compare
from analysis.controls import controls
from analysis.errors import Refusal
from analysis.load import Records
from analysis.plan import Plan, confirmatory, detectables, frozen_path, read_plan
from analysis.plan import check as check_plan
from analysis.power import table as power_table
from analysis.profile import interquartile_means, profiles
from analysis.published import tables as published_tables
from analysis.reader import as_json, sample
from analysis.skipped import tables as skipped_tables
from analysis.summary import per_run, per_task_type, run_list, summary
from analysis.thresholds import thresholds
from analysis.variance import contrast, precision, variance

WORDS = 28
"""A text cell longer than this may wrap."""


@dataclass
class Part:
    """One piece of a section: a paragraph, a table or a figure. `wide` tables are folded away in the page."""

    kind: str
    text: str = ""
    frame: pd.DataFrame | None = None
    figure: Figure | None = None
    name: str = ""
    folded: bool = False
    small: bool = False


@dataclass
class Section:
    """A headed part of the report."""

    title: str
    anchor: str
    tag: str = ""
    parts: list[Part] = field(default_factory=list)

    def say(self, text: str, kind: str = "how") -> None:
        """A paragraph."""
        self.parts.append(Part(kind, text))

    def table(self, name: str, frame: pd.DataFrame, caption: str = "", folded: bool = False) -> None:
        """A table; it is also written as CSV and LaTeX under `name`."""
        self.parts.append(Part("table", caption, frame=frame, name=name, folded=folded))

    def draw(self, name: str, figure: Figure, caption: str, small: bool = False) -> None:
        """A plot."""
        self.parts.append(Part("figure", caption, figure=figure, name=name, small=small))


@dataclass
class Options:
    """What `write_report` was asked."""

    baseline: str
    metric: str
    draws: int
    level: float
    seed: int
    choice: dict[str, Any]
    plan: Plan | None = None
    key: str | None = None
    published: str | None = None


def write_report(
    records: Records,
    out: Path,
    *,
    baseline: str,
    time: str = "",
    title: str = "Report",
    plan: str | None = None,
    key: str | None = None,
    published: str | None = None,
    metric: str = "won",
    draws: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    **choice: Any,
) -> dict[str, pd.DataFrame]:
    """Write `report.html`, `report.md`, `tables/*.csv` and `tables/*.tex` below `out`; returns the list of
    files."""
    options = Options(
        baseline, metric, draws, level, seed, choice, read_plan(plan) if plan else None, key, published
    )
    sections = build(records, options)
    out.mkdir(parents=True, exist_ok=True)
    (out / "tables").mkdir(exist_ok=True)
    written = {
        "report.html": page(sections, records, title, time),
        "report.md": markdown(sections, title, time),
    }
    for section in sections:
        for part in section.parts:
            if part.frame is not None:
                written[f"tables/{part.name}.csv"] = part.frame.to_csv(index=False, lineterminator="\n")
                written[f"tables/{part.name}.tex"] = render.latex(part.frame, part.text, f"tab:{part.name}")
    for name, text in written.items():
        (out / name).write_text(text, encoding="utf-8", newline="\n")
    rows = [{"file": name, "bytes": len(text.encode())} for name, text in written.items()]
    return {"files": pd.DataFrame(rows)}


def build(records: Records, options: Options) -> list[Section]:
    """All sections in order. A refusal inside one becomes its sentence."""
    palette = figures.colours(records.runs["method"], options.baseline)
    makers: list[tuple[str, str, Callable[[Section, Records, Options, dict[str, str]], None]]] = [
        ("Pre-registered hypotheses", "plan", _plan),
        ("What was measured", "summary", _summary),
        ("Against the baseline", "compare", _compare),
        ("Controls: what could bring the claims down", "controls", _controls),
        ("Where the spread comes from", "variance", _variance),
        ("The judge against the oracle", "agreement", _agreement),
        ("The skipped turns", "skipped", _skipped),
        ("The sweep", "sweep", _sweep),
        ("Printed tables", "published", _published),
        ("Provenance", "provenance", _provenance),
    ]
    sections = []
    for title, anchor, make in makers:
        if (anchor == "sweep" and not options.key) or (anchor == "published" and not options.published):
            continue
        section = Section(title, anchor)
        try:
            make(section, records, options, palette)
        except Refusal as refusal:
            section.say(f"Not in this report: {refusal}", "refusal")
        sections.append(section)
    return sections


def _plan(section: Section, records: Records, options: Options, palette: dict[str, str]) -> None:
    if options.plan is None:
        section.tag = "exploratory"
        section.say(
            "No plan was given, so everything in this report is exploratory: its p values help to choose "
            "what "
            "to test next and confirm nothing."
        )
        return
    conditions = check_plan(options.plan, records)
    met = bool(conditions["met"].all())
    section.tag = "confirmatory" if met else "exploratory"
    section.say(
        f"{options.plan.content['title']}. Plan {options.plan.path.name}, hash {options.plan.sha256[:12]}, "
        f"{'frozen' if frozen_path(options.plan.path).exists() else 'not frozen'}. Estimand: "
        f"{options.plan.content['estimand']}. A result is confirmatory only if every condition below is met."
    )
    section.table("plan_conditions", conditions, "Conditions of a confirmatory result")
    section.table("plan_power", detectables(options.plan), "What the plan can see under its own assumptions")
    result = confirmatory(options.plan, records, options.draws, options.seed)
    section.table(
        "plan_hypotheses", result, "Hypotheses as planned: Welch on run means, Holm over all of them"
    )


def _summary(section: Section, records: Records, options: Options, palette: dict[str, str]) -> None:
    section.say(
        "Means over the games of each run, then over runs. low and high: Student's interval over runs. micro "
        "weighs games alike, macro task types. Runs that did not finish and episodes that say nothing about "
        "the agent are counted, never scored as losses."
    )
    section.table("summary", summary(records, options.level, options.metric, **options.choice), "Methods")
    curves = learning_curve(records, options.metric)
    if curves["step"].nunique() > 1:
        section.draw(
            "learning_curves",
            figures.learning_curves(curves, palette, options.metric),
            "Evaluation over training: mean over runs, band from the lowest to the highest run.",
        )
        section.table("learning_curves", curves, "Numbers of the learning curves", folded=True)
    shape = profiles(records, options.metric, seed=options.seed, level=options.level, **options.choice)
    section.draw(
        "profiles",
        figures.profiles(shape, palette),
        "Performance profile: share of run × task type rates that reach τ; higher is better. Bands resample "
        "runs within task types and are for the eye only.",
    )
    section.table(
        "iqm",
        interquartile_means(records, options.metric, **options.choice),
        "Interquartile means of the rates",
        folded=True,
    )
    section.table(
        "per_task_type",
        per_task_type(records, options.level, options.metric, **options.choice),
        "By task type",
        folded=True,
    )
    section.table(
        "per_run",
        per_run(records, options.level, options.metric, **options.choice),
        "Each run, with the Wilson interval of its checkpoint",
        folded=True,
    )


def learning_curve(records: Records, metric: str = "won") -> pd.DataFrame:
    """Mean over runs at each evaluated step, with the lowest and highest run."""
    episodes = records.episodes
    episodes = episodes[(episodes["phase"] == "eval") & episodes["ok"]]
    keys = ["env", "split", "method", "step"]
    runs = episodes.groupby([*keys, "run"], observed=True)[metric].mean().reset_index()
    frame = runs.groupby(keys, sort=True, observed=True)[metric].agg(
        runs="size", mean="mean", lowest="min", highest="max"
    )
    return frame.reset_index()


SHORT = [
    "env",
    "source",
    "split",
    "method",
    "runs",
    "mean",
    "mean_baseline",
    "difference",
    "low",
    "high",
    "p",
    "p_permutation",
    "p_holm",
    "q_bh",
    "detectable",
    "verdict",
]


def _compare(section: Section, records: Records, options: Options, palette: dict[str, str]) -> None:
    section.tag = "exploratory"
    frame = compare(
        records,
        options.baseline,
        metric=options.metric,
        draws=options.draws,
        level=options.level,
        seed=options.seed,
        **options.choice,
    )
    section.say(
        f"Difference of each method to {options.baseline}. p asks whether the recipe differs on this "
        f"benchmark "
        "(Welch's t on run means; the run is the unit). The interval also allows for other games than these "
        "(calibrated two-way bootstrap). q_bh corrects for looking at many. detectable is the true "
        "difference "
        "that these runs would find with power 0.8: where it is large, “not shown” says little."
    )
    if (frame["estimand"] != RECIPE).any():
        section.say(
            "Rows with one run a side compare two checkpoints by McNemar's test; they say nothing about the "
            "recipe that made them.",
            "refusal",
        )
    section.draw(
        "forest",
        figures.forest(frame, palette),
        f"Differences to {options.baseline} with their {options.level:.0%} intervals.",
    )
    section.table("compare", frame[SHORT], "Against the baseline")
    section.table("compare_full", frame, "All columns", folded=True)


def _controls(section: Section, records: Records, options: Options, palette: dict[str, str]) -> None:
    section.tag = "exploratory"
    frame = controls(
        records,
        draws=options.draws,
        level=options.level,
        seed=options.seed,
        metric=options.metric,
        **options.choice,
    )
    run = frame[frame["verdict"] != "not run"]
    section.say(
        "One line per claim and split; p corrected by Holm over the claims that were run on the split. A "
        "claim "
        "“holds” only past that correction."
    )
    section.table("controls", run[["verdict", "line"]], "Verdicts")
    missing = sorted(set(frame.loc[frame["verdict"] == "not run", "claim"]) - set(run["claim"]))
    if missing:
        section.say("Not run: " + "; ".join(missing) + ".")
    section.table(
        "controls_full", frame.drop(columns="line"), "Numbers, with the claims that were not run", folded=True
    )


def _variance(section: Section, records: Records, options: Options, palette: dict[str, str]) -> None:
    frame = variance(records, options.level, options.metric, seed=options.seed, **options.choice)
    section.say(
        "Share of each source in the variance of a method's mean: training run (other seeds), game (other "
        "games), run × game, decoding (the same games again; separate only where games were repeated)."
    )
    section.draw("variance", figures.variance_bars(frame), "What the uncertainty of each mean is made of.")
    section.table("precision", precision(frame), "Standard error of the mean, now and with more of each")
    section.table("variance", frame, "Components with intervals of their sd", folded=True)
    pilot = contrast(records, options.baseline, options.metric, **options.choice)
    if len(pilot):
        section.table("pilot", pilot, "Spread as a pilot for the next study", folded=True)
        curves = power_table(
            games=sorted(set(pilot["games"].astype(int))),
            run_sds=sorted({round(float(pilot["run_sd"].quantile(q)), 3) for q in (0, 0.5, 1)} | {0.05}),
            residual=float(pilot["residual"].mean()),
        )
        runs = sorted(set(_run_counts(records, options)))
        section.draw(
            "power",
            figures.power_curves(curves, [(f"{n} runs", n) for n in runs]),
            "Difference that a study with so many runs a method finds with power 0.8, for the spread "
            "over runs "
            "found here (lowest, middle, highest) and for 0.05.",
        )
        section.table("power", curves, "Numbers of the power curves", folded=True)


def _run_counts(records: Records, options: Options) -> list[int]:
    counts = []
    for group in each_split(select(records, **options.choice)):
        table = cells(group, options.metric)
        counts += [len(table.rows(method)) for method in set(table.methods)]
    return counts


AGREEMENT = [
    "method",
    "env",
    "scope",
    "by",
    "group",
    "turns",
    "prevalence",
    "agreement",
    "kappa",
    "kappa_low",
    "kappa_high",
    "mcc",
    "sensitivity",
    "specificity",
    "auroc_confidence_right",
    "calibration_error",
]


def _agreement(section: Section, records: Records, options: Options, palette: dict[str, str]) -> None:
    found = agreement_tables(records, options.level, seed=options.seed, **_place(options))
    section.say(
        "Right label by the environment's expert: progress SKIP, no effect WEAK, harm STRONG. Scope "
        "judge: turns "
        "on which the teacher was asked; rule: deterministic failures too. prevalence: share of turns "
        "without "
        "progress; kappa falls with it at equal error rates. Intervals resample whole episodes."
    )
    columns = [name for name in AGREEMENT if name in found["agreement"]]
    main = found["agreement"]
    section.table("agreement", main.loc[main["by"] == "all", columns], "Agreement")
    title = "Decided (rows; deterministic failures count as STRONG) against right labels"
    section.table("confusion", found["confusion"], title)
    section.table(
        "agreement_groups",
        main.loc[main["by"] != "all", columns],
        "By task type, turn position and failure kind",
        folded=True,
    )
    judged = labelled(records, "judge", **_place(options))
    if judged["confidence"].notna().any():
        section.draw(
            "reliability",
            figures.reliability(found["reliability"]),
            "Is confidence a probability of the judge being right? On the dashed line it is.",
            small=True,
        )
    section.draw(
        "labels",
        figures.label_shares(found["labels_by_step"], found["labels_by_turn"]),
        "Labels over training and over turn positions.",
    )
    section.table("labels_by_step", found["labels_by_step"], "Label shares over training", folded=True)
    section.table("labels_by_turn", found["labels_by_turn"], "Label shares over turn positions", folded=True)


def _place(options: Options) -> dict[str, Any]:
    """Of the evaluation's choices only the environment and source apply to training turns."""
    return {name: options.choice[name] for name in ("env", "source") if options.choice.get(name)}


def _skipped(section: Section, records: Records, options: Options, palette: dict[str, str]) -> None:
    found = skipped_tables(records, options.level, seed=options.seed, **_place(options))
    section.say(
        "skipped_harm: share of the turns that moved away from the goal and were skipped all the same; "
        "supervised_progress: share of good turns that were supervised. A label never acts inside its own "
        "episode, so what follows a skipped turn describes the errors that the judge lets pass; it is no "
        "effect "
        "of skipping."
    )
    errors = found["errors"]
    section.table("skipped_errors", errors[errors["by"] == "all"], "Wrong decisions")
    section.table(
        "skipped_errors_by",
        errors[errors["by"] != "all"],
        "By distance, length, position, error and task type",
        folded=True,
    )
    section.table(
        "skipped_differences",
        found["differences"],
        "Standardised differences, supervised minus skipped (|0.1| counts as alike)",
    )
    section.table(
        "skipped_aftermath",
        found["aftermath"],
        "Expert steps gained in the turns after a wrongly skipped turn, and after matched supervised ones",
    )
    section.table("skipped_weighted", found["weighted"], "Weighted by logged propensities", folded=True)


def _sweep(section: Section, records: Records, options: Options, palette: dict[str, str]) -> None:
    section.tag = "exploratory"
    frame = thresholds(records, str(options.key), options.metric, seed=options.seed, **options.choice)
    section.say(
        "The best of many settings looks better than it is. selection_bias is what the choice adds; "
        "corrected "
        "has it taken off. Only fresh seeds and held-out games confirm a winner."
    )
    section.draw("sweep", figures.sweep(frame, str(options.key)), f"Objective over {options.key}.")
    section.table("thresholds", frame, "Settings")


def _published(section: Section, records: Records, options: Options, palette: dict[str, str]) -> None:
    found = published_tables(str(options.published), options.baseline)
    section.say(
        "Percentages that no whole number of episodes gives, and what each printed difference is worth."
    )
    section.table("published_impossible", found["impossible"], "Impossible percentages", folded=True)
    section.table("published_sizes", found["sizes"], "Number of episodes stated, and the one that fits best")
    if "claims" in found:
        section.table("published_claims", found["claims"], "Claims", folded=True)
    section.table(
        "published_duplicates", found["duplicates"], "Rows that print the same numbers", folded=True
    )


def _provenance(section: Section, records: Records, options: Options, palette: dict[str, str]) -> None:
    settings = {
        "baseline": options.baseline,
        "metric": options.metric,
        "bootstrap draws": options.draws,
        "confidence level": options.level,
        "seed": options.seed,
        **{name: value for name, value in options.choice.items() if value is not None},
    }
    section.table(
        "settings",
        pd.DataFrame([{"option": k, "value": str(v)} for k, v in settings.items()]),
        "How this report was made",
    )
    rows = []
    for run, data in sorted(records.provenance.items()):
        code, machine = data.get("code") or {}, data.get("machine") or {}
        rows.append(
            {
                "commit": str(code.get("commit") or "")[:12],
                "dirty": code.get("dirty"),
                "version": code.get("version"),
                "python": data.get("python"),
                "cpu": machine.get("cpu"),
                "games": str(data.get("manifest_digest") or "")[:12],
                "run": run,
            }
        )
    if rows:
        frame = pd.DataFrame(rows)
        keys = [name for name in frame if name != "run"]
        made = frame.groupby(keys, dropna=False, sort=True)["run"].size().rename("runs").reset_index()
        section.table("code", made, "Code, machine and games of the runs")
    section.table("runs", run_list(records), "Every run that was found", folded=True)


def headlines(sections: list[Section]) -> list[str]:
    """The report in a few sentences: planned hypotheses, then verdicts against the baseline."""
    lines = []
    tables = {
        part.name: part.frame for section in sections for part in section.parts if part.frame is not None
    }
    for row in _rows(tables, "plan_hypotheses"):
        lines.append(
            f"Planned: {row['hypothesis']} ({row['method']} against {row['baseline']} on {row['split']}): "
            f"{row['verdict']}, {row['difference']:+.3f}{_interval(row)}; {row['status']}."
        )
    for row in _rows(tables, "compare_full"):
        lines.append(
            f"{row['method']} on {row['env']} {row['split']}: {row['difference']:+.3f}{_interval(row)} "
            f"({row['runs']} and {row['runs_baseline']} runs): {row['verdict']}."
        )
    return lines


def _interval(row: dict[str, Any]) -> str:
    """` [low, high]`; nothing where one run a side leaves no interval."""
    return "" if np.isnan(row["low"]) else f" [{row['low']:+.3f}, {row['high']:+.3f}]"


def _rows(tables: dict[str, pd.DataFrame], name: str) -> list[dict[str, Any]]:
    frame = tables.get(name)
    return [] if frame is None else frame.to_dict("records")


def markdown(sections: list[Section], title: str, time: str) -> str:
    """The report as Markdown, without plots."""
    lines = [f"# {title}\n"]
    if time:
        lines.append(f"{time}\n")
    lines += [f"- {line}" for line in headlines(sections)] + [""]
    for section in sections:
        lines.append(f"## {section.title}{f' ({section.tag})' if section.tag else ''}\n")
        for part in section.parts:
            if part.frame is not None:
                lines += [f"**{part.text}**\n", render.markdown(part.frame)]
            elif part.figure is None:
                lines.append(f"{part.text}\n")
    return "\n".join(lines)


def page(sections: list[Section], records: Records, title: str, time: str) -> str:
    """The report as one HTML page."""
    files = resources.files("analysis")
    style = files.joinpath("page.css").read_text(encoding="utf-8")
    links = "".join(f'<a href="#{s.anchor}">{html.escape(s.title)}</a>' for s in sections)
    lead = "".join(f"<li>{html.escape(line)}</li>" for line in headlines(sections))
    body = [
        f"<header><h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(_subtitle(records, time))}</p></header>",
        f'<nav>{links}<a href="#reader">Trajectories</a></nav>',
    ]
    if lead:
        body.append(f'<div class="lead"><strong>In short</strong><ul>{lead}</ul></div>')
    if records.notes:
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in records.notes)
        body.append(
            f'<div class="notes"><strong>Not in the numbers, or worth knowing</strong><ul>{notes}</ul></div>'
        )
    body += [_section_html(section) for section in sections]
    body.append(_reader_html(records))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>\n{style}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def _subtitle(records: Records, time: str) -> str:
    used = records.runs[records.runs["used"].astype(bool)]
    text = (
        f"{len(used)} runs of {used['method'].nunique()} methods on "
        f"{', '.join(sorted(used['env'].unique()))}, "
        f"{len(records.episodes):,} episodes"
    )
    sources = (
        ", ".join(sorted(map(str, records.episodes["source"].unique()))) if len(records.episodes) else ""
    )
    text += f" ({sources} games)" if sources else ""
    return f"{text}. {time}" if time else f"{text}."


def _section_html(section: Section) -> str:
    tag = f' <span class="tag {section.tag}">{section.tag}</span>' if section.tag else ""
    parts = [f'<section id="{section.anchor}"><h2>{html.escape(section.title)}{tag}</h2>']
    for part in section.parts:
        if part.frame is not None:
            table = table_html(part.frame)
            caption = html.escape(part.text)
            if part.folded:
                parts.append(
                    f"<details><summary>{caption} ({len(part.frame)} rows)</summary>{table}</details>"
                )
            else:
                parts.append(f"<h3>{caption}</h3>{table}")
        elif part.figure is not None:
            drawn = figures.svg(part.figure, part.name)
            size = ' class="small"' if part.small else ""
            parts.append(f"<figure{size}>{drawn}<figcaption>{html.escape(part.text)}</figcaption></figure>")
        else:
            parts.append(f'<p class="{part.kind}">{html.escape(part.text)}</p>')
    return "\n".join(parts) + "</section>"


CONTEXT = (
    "env",
    "source",
    "split",
    "metric",
    "average",
    "baseline",
    "scope",
    "by",
    "group",
    "horizon",
    "kind",
)
"""Columns that go into a line below the table where every row has the same value."""


def table_html(frame: pd.DataFrame) -> str:
    """A table in a box of its own that scrolls sideways on a narrow screen.

    To fit a screen, columns without a single value are left out, and columns of `CONTEXT` with one value for
    all rows are said once below; the CSV beside the page has all of them.
    """
    same = {
        name: str(frame[name].iloc[0])
        for name in CONTEXT
        if len(frame) > 1 and name in frame and frame[name].nunique(dropna=False) == 1
    }
    empty = [name for name in frame if len(frame) and frame[name].isna().all()]
    note = ", ".join(f"{name} {value}" for name, value in same.items() if value != "all")
    frame = frame.drop(columns=[*same, *(name for name in empty if name not in same)])
    header, rows = render.cells_of(frame)
    right = render.numeric_columns(frame)
    head = "".join(f"<th{_class(r)}>{html.escape(n)}</th>" for n, r in zip(header, right, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{_class(r, v)}>{html.escape(v)}</td>" for v, r in zip(row, right, strict=True))
        + "</tr>"
        for row in rows
    )
    below = f'<p class="same">all rows: {html.escape(note)}</p>' if note else ""
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{below}'
    )


def _class(right: bool, value: str = "") -> str:
    if right:
        return ' class="num"'
    return ' class="words"' if len(value) > WORDS else ""


def _reader_html(records: Records) -> str:
    episodes = sample(records.turns)
    head = '<section id="reader"><h2>Trajectories</h2>'
    if not episodes:
        return head + '<p class="refusal">Not in this report: these records hold no turns.</p></section>'
    script = resources.files("analysis").joinpath("reader.js").read_text(encoding="utf-8")
    return (
        head
        + '<p class="how">Some recorded episodes of each method, won and lost, latest training steps first. '
        "The bar at the left of a turn has the colour of its label.</p>"
        '<div class="reader"><div class="pick">'
        '<label>method<select id="reader-method"></select></label>'
        '<label>outcome<select id="reader-outcome"></select></label>'
        '<label>episode<select id="reader-episode" size="8"></select></label>'
        '</div><div id="reader-turns"></div></div>'
        f'<script type="application/json" id="episodes">{as_json(episodes)}</script>'
        f'<script type="application/json" id="label-colours">{as_json(figures.LABEL_COLOURS)}</script>'
        f"<script>\n{script}</script></section>"
    )
