"""The report as Markdown, without plots."""

from __future__ import annotations

from analysis import render
from analysis.report.headlines import headlines
from analysis.report.section import Section


def markdown(sections: list[Section], title: str, time: str) -> str:
    """The report as Markdown, without plots."""
    plain = render.markdown_text
    lines = [f"# {plain(title)}\n"]
    if time:
        lines.append(f"{plain(time)}\n")
    lines += [f"- {plain(line)}" for line in headlines(sections)] + [""]
    for section in sections:
        lines.append(f"## {plain(section.title)}{f' ({section.tag})' if section.tag else ''}\n")
        for part in section.parts:
            if part.frame is not None:
                lines += [f"**{plain(part.text)}**\n", render.markdown(part.frame)]
            elif part.figure is None:
                lines.append(f"{plain(part.text)}\n")
    return "\n".join(lines)
