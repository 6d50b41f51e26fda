"""A DataFrame as text, Markdown, LaTeX or JSON, with numbers rounded for reading. CSV keeps every digit."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

P_COLUMNS = ("p", "p_", "q_")
LEVEL, ABOUT = "interval_level", "interval_of"
"""Columns that say the level of `low` and `high` (a fraction), and what they are an interval of. Where all
rows agree the heads say it instead."""


def shown(value: Any, column: str = "") -> str:
    """One cell: p values to 3 digits, other floats to 3 or 4 significant digits, missing as an empty
    string."""
    kind = type(value).__name__
    if value is None or value is pd.NA or value is pd.NaT:
        return ""
    if kind in ("bool", "bool_"):
        return "yes" if value else "no"
    return number(float(value), column) if kind.startswith("float") else str(value)


def number(value: float, column: str = "") -> str:
    """A float of a column; what is not a number is an empty string."""
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if abs(value) < 1e-12:
        value = 0.0  # what rounding leaves of a difference of equal numbers
    if column == "p" or column.startswith(P_COLUMNS[1:]):
        return "<0.001" if 0 <= value < 0.001 else f"{value:.3f}"
    size = abs(value)
    return f"{value:.3g}" if size < 1 else f"{value:.4g}" if size < 1e5 else f"{value:.0f}"


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign, `+0.120`; what rounds to nothing has none."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def cells_of(frame: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Header and rows as strings."""
    header = [str(name) for name in frame.columns]
    columns = [[shown(value, name) for value in frame.iloc[:, i]] for i, name in enumerate(header)]
    return header, [list(row) for row in zip(*columns, strict=True)] if len(frame) else []


def numeric_columns(frame: pd.DataFrame) -> list[bool]:
    """True where a column is right-aligned."""
    return [
        pd.api.types.is_numeric_dtype(frame.iloc[:, i]) and not pd.api.types.is_bool_dtype(frame.iloc[:, i])
        for i in range(frame.shape[1])
    ]


def which_interval(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The frame without `LEVEL` and `ABOUT`, and `, 99 %, new games`, what to write behind the name of `low`
    and `high`; the frame as it is and nothing where it has no such columns, or rows differ in them."""
    if not len(frame) or not {LEVEL, ABOUT} <= set(frame) or len(frame[[LEVEL, ABOUT]].drop_duplicates()) > 1:
        return frame, ""
    level, about = frame[[LEVEL, ABOUT]].iloc[0]
    return frame.drop(columns=[LEVEL, ABOUT]), f", {100 * level:.4g} %, {about}"


def _with_heads(frame: pd.DataFrame) -> pd.DataFrame:
    """Bounds apart, each with the level in its head."""
    frame, which = which_interval(frame)
    return frame.rename(columns={end: f"{end}{which}" for end in ("low", "high")})


def with_intervals(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[bool]]:
    """Bounds `x_low` and `x_high` (or `low` and `high`) as one column of text; which columns align right."""
    frame, which = which_interval(frame)
    numeric = dict(zip(frame.columns, numeric_columns(frame), strict=True))
    result, right = {}, []
    for name in frame.columns:
        stem, bound = name[: -len("low")], name.rpartition("_")[2]
        if bound == "low" and f"{stem}high" in frame:
            bounds = zip(frame[name], frame[f"{stem}high"], strict=True)
            head = f"{stem[:-1]} interval" if stem else f"interval{which}"
            result[head] = [_interval(low, high) for low, high in bounds]
            right.append(True)
        elif not (bound == "high" and f"{name[: -len('high')]}low" in frame):
            result[name] = frame[name]
            right.append(numeric[name])
    return pd.DataFrame(result, index=frame.index), right


def _interval(low: float, high: float) -> str:
    return "" if pd.isna(low) else f"[{shown(low)}, {shown(high)}]"


def text(frame: pd.DataFrame, width: int = 200) -> str:
    """Aligned columns for a terminal, bounds in one; a table wider than `width` becomes a block a record."""
    frame, right = with_intervals(frame)
    header, rows = cells_of(frame)
    if not rows:
        return "(no rows)\n"
    sizes = [max(len(header[i]), *(len(row[i]) for row in rows)) for i in range(len(header))]
    if sum(sizes) + 2 * len(sizes) > width:
        return _blocks(header, rows)

    def line(values: list[str]) -> str:
        parts = [v.rjust(n) if r else v.ljust(n) for v, n, r in zip(values, sizes, right, strict=True)]
        return "  ".join(parts).rstrip()

    return "\n".join([line(header), line(["-" * n for n in sizes]), *(line(row) for row in rows)]) + "\n"


def _blocks(header: list[str], rows: list[list[str]]) -> str:
    size = max(len(name) for name in header)
    blocks = [
        "\n".join(f"{n.ljust(size)}  {v}" for n, v in zip(header, row, strict=True) if v) for row in rows
    ]
    return "\n\n".join(blocks) + "\n"


_MARKDOWN = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {sign: f"\\{sign}" for sign in "\\`*[]|~$"} | {"\n": " "}
)


def markdown_text(text: str) -> str:
    """Plain text as it reads in Markdown: no tag, link, picture, code or table cell of its own."""
    return text.translate(_MARKDOWN)


def markdown(frame: pd.DataFrame) -> str:
    """A GitHub table."""
    frame = _with_heads(frame)
    header, rows = cells_of(frame)
    rule = ["---:" if right else "---" for right in numeric_columns(frame)]
    lines = [[markdown_text(cell) for cell in line] for line in (header, *rows)]
    lines.insert(1, rule)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "α": r"$\alpha$",
    "τ": r"$\tau$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
}


def latex(frame: pd.DataFrame, caption: str = "", label: str = "") -> str:
    """A booktabs table environment; needs `\\usepackage{booktabs}`."""
    frame = _with_heads(frame)
    header, rows = cells_of(frame)

    def line(values: list[str]) -> str:
        return " & ".join("".join(LATEX.get(sign, sign) for sign in value) for value in values) + r" \\"

    spec = "".join("r" if right else "l" for right in numeric_columns(frame))
    lines = [r"\begin{table}", r"\centering"]
    if caption:
        lines.append(rf"\caption{{{''.join(LATEX.get(sign, sign) for sign in caption)}}}")
    if label:
        lines.append(rf"\label{{{label}}}")
    lines += [rf"\begin{{tabular}}{{{spec}}}", r"\toprule", line(header), r"\midrule"]
    lines += [line(row) for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def render(frame: pd.DataFrame, form: str) -> str:
    """`form` is text, csv, md, tex or json."""
    if form == "csv":
        return frame.to_csv(index=False, lineterminator="\n")
    if form == "json":
        return frame.to_json(orient="records", indent=1, double_precision=15) + "\n"
    return {"text": text, "md": markdown, "tex": latex}[form](frame)
