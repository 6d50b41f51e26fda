"""Which episodes the report's trajectory reader holds, and what of them."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from analysis.skipped import EPISODE

PER_METHOD = 12
"""Episodes of each method: as many won as lost ones where there are, the latest steps first."""
MAX_TEXT = 1200
"""Longer texts are cut, with a mark: the page must stay a page."""


def sample(turns: pd.DataFrame, per_method: int = PER_METHOD) -> list[dict[str, Any]]:
    """Episodes for the reader as plain data, the same ones for the same records."""
    if not len(turns):
        return []
    heads = turns.drop_duplicates(EPISODE)
    heads = heads.sort_values(
        ["method", "step", "seed", "task", "rollout"], ascending=[True, False, True, True, True]
    )
    chosen = []
    for _, group in heads.groupby("method", sort=True):
        won = group[group["won"].fillna(False).astype(bool)]
        lost = group.drop(won.index)
        take = max(per_method // 2, per_method - len(lost))
        some = won.head(take)
        chosen.append(
            pd.concat([some, lost.head(per_method - len(some))]).sort_values(EPISODE, kind="stable")
        )
    wanted = pd.concat(chosen)[EPISODE]
    picked = turns.merge(wanted, on=EPISODE, how="inner").sort_values(
        ["method", *EPISODE, "turn"], kind="stable"
    )
    return [_episode(group) for _, group in picked.groupby(["method", *EPISODE], sort=True)]


def _episode(group: pd.DataFrame) -> dict[str, Any]:
    first = group.iloc[0]
    return {
        **{name: str(first[name]) for name in ("method", "phase", "split", "task", "task_type", "status")},
        "seed": int(first["seed"]),
        "step": int(first["step"]),
        "turns": [_turn(row) for row in group.to_dict("records")],
    }


def _turn(row: dict[str, Any]) -> dict[str, Any]:
    def number(name: str) -> float | None:
        value = row.get(name)
        return None if value is None or pd.isna(value) else round(float(value), 4)

    def whole(name: str) -> int | None:
        value = number(name)
        return None if value is None else int(value)

    def text(name: str) -> str:
        value = row.get(name)
        value = "" if value is None or pd.isna(value) else str(value)
        return value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + " … (cut)"

    return {
        "turn": int(row["turn"]),
        **{name: text(name) for name in ("observation", "thought", "action", "feedback", "judge_reply")},
        **{name: text(name) for name in ("label", "failure", "oracle")},
        **{name: number(name) for name in ("weight", "effective_weight", "confidence")},
        "before": whole("expert_distance_before"),
        "after": whole("expert_distance_after"),
    }


def as_json(data: Any) -> str:
    """JSON that may stand inside a script element, whatever text it holds.

    A script element ends at `</script` and changes its state at `<!--` and `<script`; so no `<` is left.
    ASCII, because a lone half of a surrogate pair could not be written to the page.
    """
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
