"""A passage, and the JSON lines that a corpus of them is kept in.

A corpus file has Search-R1's format (that of `wiki-18.jsonl`): one `{"id": ..., "contents": ...}` a line,
where the first line of `contents` is the title in double quotes and the rest is the text.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Passage:
    title: str
    text: str

    @classmethod
    def of(cls, contents: str) -> Passage:
        """From a document's `contents`; a first line without quotes is a title too."""
        title, _, text = contents.partition("\n")
        return cls(title.strip().strip('"'), text.strip())

    @property
    def contents(self) -> str:
        return f'"{self.title}"\n{self.text}'


def write_corpus(path: Path, passages: Iterable[Passage]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number, passage in enumerate(passages):
            row = {"id": str(number), "contents": passage.contents}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_corpus(path: Path) -> list[Passage]:
    """Passages in the file's order (`.gz` files too). Raises OSError, or ValueError for another format."""
    opener = gzip.open if path.suffix == ".gz" else open
    passages = []
    with opener(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                passages.append(Passage.of(json.loads(line)["contents"]))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f'Line {number} of {path} is not {{"id": ..., "contents": ...}} ({error!r}).'
                ) from error
    return passages
