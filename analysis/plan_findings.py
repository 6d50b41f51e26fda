"""What a condition of a plan finds, and the records that it is a rule about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import pandas as pd

from analysis.plan import Plan
from analysis.plan_rows import runs_by_name
from analysis.records import Records
from sage.records.schema import EPISODES

MET, NOT_MET, UNKNOWN = "met", "not met", "cannot be known"
ANY = "all"
"""Stands for every hypothesis, in rows about the plan itself."""
SAME_TIME_S = 120.0
"""status.json and the ledger write the start of a run within this many seconds."""


@dataclass(frozen=True)
class Arms:
    """What a hypothesis is judged on: the planned runs of its two methods, as the records have them."""

    plan: Plan
    records: Records
    methods: tuple[str, ...]

    @cached_property
    def runs(self) -> pd.DataFrame:
        """Rows of the run list: the planned methods, environments and seeds, done or not."""
        runs = runs_by_name(self.records)
        return runs[
            runs["method"].isin(self.methods)
            & runs["env"].isin(self.plan.content["environments"])
            & runs["seed"].isin(self.plan.seeds)
        ]

    @cached_property
    def used(self) -> pd.DataFrame:
        """Those that are done."""
        return self.runs[self.runs["used"].astype(bool)]

    @cached_property
    def episodes(self) -> pd.DataFrame:
        """Their last evaluations on the planned splits."""
        episodes = self.records.episodes
        if not len(episodes):
            return pd.DataFrame(columns=list(EPISODES))
        mine = episodes["run"].isin(set(self.used["run"])) & episodes["phase"].eq("eval")
        chosen = episodes[mine & episodes["split"].isin(self.plan.content["splits"])]
        last = chosen.groupby(["run", "split"], observed=True)["step"].transform("max")
        return chosen[chosen["step"] == last]

    def entries(self, run: str, *events: str) -> list[tuple[int, dict[str, Any]]]:
        """(position, line) of a run's lines in the ledger."""
        lines = enumerate(self.records.ledger.entries)
        return [(i, e) for i, e in lines if e["event"] in events and e.get("run", e["digest"][:12]) == run]


@dataclass(frozen=True)
class Finding:
    """How a condition ended, what was found, and what would mend it."""

    verdict: str
    detail: str
    way_out: str = ""


def all_of(good: Iterable[Any], wrong: Iterable[str], way_out: str) -> Finding:
    """Met where nothing is wrong and something is good; the detail names the first wrong one."""
    good, wrong = list(good), list(wrong)
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return Finding(NOT_MET, f"{wrong[0]}{more}", way_out)
    if not good:
        return Finding(NOT_MET, "no planned run is done", "run the plan's runs")
    return Finding(MET, f"{len(good)} of {len(good)} runs")


def seconds_between(first: str, second: str) -> float:
    try:
        return abs((datetime.fromisoformat(first) - datetime.fromisoformat(second)).total_seconds())
    except (ValueError, TypeError):
        return float("inf")
