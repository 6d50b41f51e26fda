"""The report as one HTML page: styles, plots and the reader's data are inside it."""

from __future__ import annotations

import html
from importlib import resources

from analysis import figures
from analysis.reader import as_json, sample
from analysis.records import Records
from analysis.report.headlines import headlines
from analysis.report.section import Section
from analysis.report.table import table_html


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
