"""How often a judge gave each word, overall and by turn: what a rate-matched random control needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from analysis.agreement import filtered
from analysis.errors import Refusal
from analysis.question import EVERYTHING, Question

if TYPE_CHECKING:
    from analysis.records import Records

WORDS = ["SKIP", "WEAK", "STRONG"]


def tables(records: Records, question: Question = EVERYTHING) -> dict[str, pd.DataFrame]:
    """`rates`: one row per method, env and turn position (`all` for the whole), shares of the three words
    and n.

    Training turns that were judged count; deterministic failures and unreadable replies do not.
    """
    turns = filtered(records, question)
    judged = turns[turns["label"].isin(WORDS)]
    rows = []
    for (method, env), cell in judged.groupby(["method", "env"], sort=True):
        for position, group in [("all", cell), *cell.groupby("turn", sort=True)]:
            counts = group["label"].value_counts()
            shares = {word.lower(): counts.get(word, 0) / len(group) for word in WORDS}
            rows.append({"method": method, "env": env, "turn": str(position), **shares, "n": len(group)})
    if not rows:
        raise Refusal("No training turn here was labelled SKIP, WEAK or STRONG; give runs that had a judge.")
    return {"rates": pd.DataFrame(rows)}


def write_option(rates: pd.DataFrame, path: Path) -> None:
    """Write the rates of one method and environment as an option of the config group `intervention`.

    `python -m sage --config-dir DIR intervention=NAME` with DIR/intervention/NAME.yaml then draws at these
    rates and asks nobody. Raises Refusal where there is more than one method or environment.
    """
    cells = rates[["method", "env"]].drop_duplicates()
    if len(cells) > 1:
        names = ", ".join(f"{m} on {e}" for m, e in cells.itertuples(index=False))
        raise Refusal(
            f"--write needs one method and environment, here are {names}; give fewer runs, or --env."
        )
    whole = rates[rates["turn"] == "all"].iloc[0]
    last = pd.to_numeric(rates["turn"], errors="coerce").max()
    by_turn = rates.set_index("turn")
    positions = []
    for turn in range(int(last) + 1):
        row = by_turn.loc[str(turn)] if str(turn) in by_turn.index else whole
        positions.append(_shares(row))
    skip, weak, strong = _shares(whole)
    lines = [
        f"# Labels at the rates of {whole['method']} on {whole['env']} ({int(whole['n'])} turns); no query.",
        "defaults:",
        "  - /intervention@rule: never",
        "name: randomized",
        "weak_weight: 0.5",
        "epsilon: 1.0",
        f"rates: {{skip: {skip}, weak: {weak}, strong: {strong}, by_turn: {positions}}}",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _shares(row: pd.Series) -> list[float]:
    """Six digits that still add up to one."""
    skip, weak = round(float(row["skip"]), 6), round(float(row["weak"]), 6)
    return [skip, weak, round(1 - skip - weak, 6)]
