"""The report as Markdown, without plots."""

from __future__ import annotations

from analysis import render
from analysis.report.head import Head
from analysis.report.section import Brief, Section


def markdown(sections: list[Section], head: Head, brief: Brief) -> str:
    """The report as Markdown, without plots."""
    plain = render.markdown_text
    lines = [f"# {plain(brief.title)}\n", f"**{head.status}: {plain(head.verdict)}** {plain(head.why)}\n"]
    if brief.time:
        lines.append(f"{plain(brief.time)}\n")
    lines += [f"- {name}: {plain(value)}" for name, value in head.facts] + [""]
    lines += [f"- {plain(line)}" for line in head.lines] + [""]
    for section in sections:
        lines.append(f"## {plain(section.title)}{f' ({section.tag})' if section.tag else ''}\n")
        for part in section.parts:
            if part.frame is not None:
                lines += [f"**{plain(part.text)}**\n", render.markdown(part.frame)]
            elif part.figure is None:
                lines.append(f"{plain(part.text)}\n")
    return "\n".join(lines)
