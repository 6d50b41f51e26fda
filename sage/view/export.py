"""The same page in one file: what its reader may ask is answered beforehand and lies in it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from sage.errors import ConfigError
from sage.view.answers import PLACE, Answers
from sage.view.page import as_inert_json, file_page
from sage.view.server import readable

MOST_MB = 40


def one_file(answers: Answers, episodes: int | None, most_mb: float = MOST_MB) -> tuple[str, str]:
    """(the page, a sentence about what it holds): every run, and of each evaluation and each step's training
    the first `episodes` games in the order of their names (those with tokens before them), so that runs of
    one seed hold the same ones.

    None takes all. Raises ConfigError where the page would be larger than `most_mb`: nothing is cut silently.
    """
    runs = answers.runs()
    while runs["waiting"]:
        answers.library.refresh(0.0)
        runs = answers.runs()
    held: dict[str, Any] = {"run": {}, "episodes": {}, "episode": {}}
    size, count, left = 0, 0, 0
    for line in runs["runs"]:
        key = line["key"]
        held["run"][key] = answers.run(key)
        chosen, skipped = _chosen(answers, key, episodes)
        held["episodes"][key], held["episode"][key] = chosen, {}
        left += skipped
        for place_key, found in _episodes(answers, key, chosen):
            held["episode"][key][place_key] = found
            size += len(as_inert_json(readable(found)))
            count += 1
            if size > most_mb * 1e6:
                raise ConfigError(
                    f"The page would hold more than {most_mb:g} MB (that is {count} episodes, and there are "
                    "more); name fewer runs, give --episodes N (of each evaluation and step), or --most-mb."
                )
    said = f"{count:,} episodes of {len(runs['runs']):,} runs"
    left_out = f"{left:,} further episodes are not in it (--episodes {episodes})" if left else ""
    made = time.strftime("%Y-%m-%d %H:%M")
    page = file_page(readable({"runs": runs, "made": made, "left_out": left_out, **held}))
    return page, f"{said}{'; ' + left_out if left_out else ''}, {len(page) / 1e6:.1f} MB"


def _chosen(answers: Answers, key: str, most: int | None) -> tuple[list[dict[str, Any]], int]:
    """The rows of the episodes that are taken, and how many are not."""
    rows = _all_rows(answers, key)
    if most is None:
        return rows, 0
    moments: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        moments.setdefault((row["phase"], row["step"], row["split"]), []).append(row)
    taken = {id(row) for group in moments.values() for row in sorted(group, key=_order)[:most]}
    kept = [row for row in rows if id(row) in taken]
    return kept, len(rows) - len(kept)


def _order(row: dict[str, Any]) -> tuple[bool, str, int]:
    return not row["has_tokens"], row["task"], row["rollout"]


def _all_rows(answers: Answers, key: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while True:
        found = answers.episodes(key, {}, offset=len(rows), limit=2_000)
        rows += found["rows"]
        if len(rows) >= found["total"] or not found["rows"]:
            return rows


def _episodes(answers: Answers, key: str, rows: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for row in rows:
        place = {name: row[name] for name in PLACE}
        words = [place["phase"], place["step"], place["split"], place["task"], place["rollout"]]
        yield json.dumps(words, ensure_ascii=False, separators=(",", ":")), answers.episode(key, place)
