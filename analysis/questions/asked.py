"""What a question is made of."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from analysis.records import Records
    from analysis.report.section import Brief, Section

Tables = dict[str, "pd.DataFrame"]
Fill = Callable[["Section", "Records", "Brief"], None]


@dataclass(frozen=True)
class Asked:
    """One question: its command, and its section in the report; a question may lack either."""

    text: str = ""
    """Help of the command; its first line is that of the overview. Empty: no command."""
    options: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    """Declares the options that only this question has."""
    tables: Callable[[argparse.Namespace], Tables] | None = None
    """Answers the command line."""
    inputs: bool = True
    """Whether the command names records."""
    choice: bool = True
    """Whether it can choose among evaluations (`--step`, `--metric`, …)."""
    former: str = ""
    """Name that the command had in the last release, and still answers to."""
    title: str = ""
    """Heading of its section."""
    section: Fill | None = None
    """Fills its section; a Refusal becomes the sentence that says why it is empty."""
    rank: int = 0
    """Sections stand in the order of these."""
