"""What the scripts of generated pages share: a page is written, or compared with what would be written."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent


def write_or_check(page: Path, text: str) -> int:
    """Write the page, or with `--check` on the command line only look at it: exit code 1 where it differs.

    A page that the text names as `docs/….md`, as docstrings do, becomes a link to it.
    """
    text = re.sub(r"(?<![\w/`(])docs/([\w/]+\.md)\b|\(docs/([\w/]+\.md)\)", partial(_link, page), text)
    if "--check" not in sys.argv[1:]:
        page.parent.mkdir(exist_ok=True)
        page.write_text(text, encoding="utf-8")
        return 0
    if page.exists() and page.read_text("utf-8") == text:
        return 0
    name = page.relative_to(DOCS.parent).as_posix()
    print(f"{name} is not current; run `python docs/{Path(sys.argv[0]).name}`.", file=sys.stderr)
    return 1


def _link(page: Path, found: re.Match[str]) -> str:
    there = DOCS / (found[1] or found[2])
    link = f"[{there.stem.replace('_', ' ')}]({os.path.relpath(there, page.parent)})"
    return link if found[1] else f"({link})"


def row(cells: Iterable[str]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def inline(value: Any) -> str:
    """YAML in one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {inline(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(inline, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def with_block(page: Path, lines: Iterable[str]) -> str:
    """The page's text with `lines` between its two comments `<!-- made by docs/<script> -->` and
    `<!-- end -->`, whichever script this is."""
    script = Path(sys.argv[0]).name
    start, end = f"<!-- made by docs/{script} -->\n", "<!-- end -->"
    before, _, rest = page.read_text("utf-8").partition(start)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{page.name} has no place for what docs/{script} makes.")
    return f"{before}{start}\n" + "\n".join(lines) + f"\n\n{end}{after}"
