"""What the tables of one study's runs share: which runs belong together, how they ended, the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.errors import Refusal
from analysis.records import Records

PICTURES = (".png", ".svg", ".pdf")


def check_alike(configs: Iterable[Mapping[str, Any]], keys: Iterable[str]) -> None:
    """Raises Refusal where runs differ in one of the settings `keys`."""
    flats = list(configs)
    for key in keys:
        if len(values := {str(flat.get(key)) for flat in flats}) > 1:
            raise Refusal(f"The runs differ in {key} ({', '.join(sorted(values))}): name those of one study.")


def last_evaluation(records: Records, split: str) -> pd.DataFrame:
    """Each run's episodes of the last evaluation of `split`, without those that are not ok."""
    episodes = records.episodes
    episodes = episodes[(episodes["split"] == split) & (episodes["phase"] == "eval") & episodes["ok"]]
    return episodes[episodes["step"] == episodes.groupby("run")["step"].transform("max")].copy()


def table_and_picture(
    words: Sequence[str] | None,
    doc: str | None,
    table: Callable[[Sequence[str], str], pd.DataFrame],
    plot: Callable[[pd.DataFrame, str, Path], None],
) -> int:
    """Run folders, `--split` and `--plot`: prints the table of (folders, split), and draws it where asked.
    The exit code: 2 for what is refused."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("runs", nargs="+", help="run folders")
    parser.add_argument("--split", default="valid_unseen")
    parser.add_argument("--plot", type=Path, help="where the picture goes")
    args = parser.parse_args(words)
    try:
        if args.plot and not args.plot.parent.is_dir():
            raise Refusal(f"--plot {args.plot}: there is no folder {args.plot.parent}.")
        if args.plot and args.plot.suffix not in PICTURES:
            raise Refusal(f"--plot {args.plot}: a picture ends in one of {', '.join(PICTURES)}.")
        found = table(args.runs, args.split)
        print(found.to_string(index=False, float_format=lambda x: f"{x:.3f}"))
        if args.plot:
            plot(found, args.split, args.plot)
            print(f"Picture: {args.plot}")
    except Refusal as error:
        print(error, file=sys.stderr)
        return 2
    return 0
