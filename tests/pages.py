"""What README and the guide tell a reader to type, taken from the pages themselves.

A block is fenced or indented by four spaces. Commands stand in blocks without a language and in `sh` ones,
one a line (or more, with a backslash), `#` behind them for what they do. A block of YAML, TOML or Python that
begins with a comment of a path (`# conf/study/mine.yaml`, behind Hydra's `# @package` where there is one) is
a file that the reader writes there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs" / "guide"
_SHELL = ("", "sh", "bash")
_FENCE = re.compile(r"```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?<=\n\n)((?:    .*\n(?:(?=    )|(?=\n|\Z)))+)")


@dataclass(frozen=True)
class Block:
    """Of a page: its language (empty where it has none) and its text, in the order of the page."""

    page: Path
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The path of the file that a reader writes with it."""
        named = re.match(r"(?:# @package .*\n)?# ([\w./-]+\.(?:ya?ml|toml|py))(?::.*)?\n", self.text)
        return named[1] if named and self.language not in _SHELL else None

    @property
    def excerpt(self) -> str | None:
        """The path of the file that a block is part of: its first line is `# in <path>`."""
        named = re.match(r"# in (\S+)\n", self.text)
        return named[1] if named and self.language not in _SHELL else None

    @property
    def commands(self) -> list[str]:
        """One for each line, without its comment."""
        if self.language not in _SHELL:
            return []
        joined = re.sub(r"\\\n\s*", "", self.text)
        lines = (re.split(r"(?:^|\s+)#\s", line)[0].strip() for line in joined.splitlines())
        return [line for line in lines if line]


def pages() -> list[Path]:
    """README first, then the guide in the order of the site's menu."""
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    return [ROOT / "README.md", *(ROOT / "docs" / name for name in re.findall(r"guide/\w+\.md", menu))]


def blocks(page: Path) -> list[Block]:
    """Those of a page, in its order."""
    text = page.read_text(encoding="utf-8")
    found = [(m.start(), m[1], m[2]) for m in _FENCE.finditer(text)]
    plain = _FENCE.sub(lambda m: re.sub(r"[^\n]", "x", m[0]), text)
    found += [
        (m.start(), "", re.sub("^    ", "", m[1], flags=re.MULTILINE)) for m in _INDENTED.finditer(plain)
    ]
    return [Block(page, language, body) for _, language, body in sorted(found)]
