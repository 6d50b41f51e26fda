"""The commands of `python -m analysis`: what each asks, and which function answers.

Invariant: a command only parses, calls the `tables` function of the module of its name, and prints. Notes on
runs that are not in the numbers go to stderr on every command; a refusal is one sentence and exit code 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.errors import Refusal

if TYPE_CHECKING:
    import pandas as pd

    from analysis.load import Records

Tables = dict[str, "pd.DataFrame"]

INPUTS = """\
INPUT is any number of
  runs/                     a directory with run directories (or one of them)
  episodes.csv              one row per played game: method, env, split, seed, task, won (docs/analysis.md)
  mlflow:EXPERIMENT@URI     an MLflow experiment; without @URI it takes MLFLOW_TRACKING_URI
"""

EPILOG = """\
three questions, three intervals
  this checkpoint on games like these    summary (Wilson, per run), compare --checkpoints (McNemar)
  this recipe on this benchmark          compare: Welch on run means; the run is the unit
  this recipe on new games               compare: the interval, from the two-way bootstrap over runs and games

a first look
  python -m analysis summary runs/
  python -m analysis compare runs/ --baseline opd
  python -m analysis report runs/ --baseline opd --out report/
  python -m analysis published ../shared/published/sage_opd_tables.csv

`python -m analysis <command> --help` explains a command, docs/analysis.md all of them, docs/statistics.md
the methods.
"""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description="Statistics over records of agent runs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    _add_summary(commands)
    _add_compare(commands)
    _add_published(commands)
    return parser


def _command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], Tables],
    text: str,
    *,
    inputs: bool = True,
    choice: bool = True,
) -> argparse.ArgumentParser:
    first = text.strip().splitlines()[0]
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=first,
        description=text,
        epilog=INPUTS if inputs else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    if inputs:
        parser.add_argument("inputs", nargs="+", metavar="INPUT", help="where the records are (see below)")
        parser.add_argument(
            "--vary",
            action="append",
            default=[],
            metavar="KEY",
            help="config key (or CSV column) whose values make methods of their own; repeatable",
        )
        parser.add_argument("--env", help="only this environment")
        parser.add_argument("--split", help="only this split")
        parser.add_argument("--source", help="only games of this source (official, generated, …)")
    if choice:
        parser.add_argument(
            "--step", type=int, help="the evaluation at this optimizer step (default: each run's last)"
        )
        parser.add_argument(
            "--games",
            choices=("all", "common"),
            default="all",
            help="common: compare on the games that all runs played, instead of refusing",
        )
        parser.add_argument("--metric", default="won", help="numeric episode column (default won)")
    parser.add_argument("--level", type=float, default=0.95, help="confidence level (default 0.95)")
    parser.add_argument(
        "--format",
        choices=("text", "csv", "md", "tex", "json"),
        default="text",
        help="how tables are printed",
    )
    parser.add_argument("--table", help="print only this table of the command")
    parser.add_argument(
        "--csv-dir", metavar="DIR", help="also write every table there as CSV, with all digits"
    )
    return parser


def _records(args: argparse.Namespace, *tables: str) -> Records:
    from analysis.load import load

    records = load(args.inputs, tables=("episodes", *tables), vary=args.vary)
    for note in records.notes:
        print(f"note: {note}", file=sys.stderr)
    return records


def _choice(args: argparse.Namespace, *more: str) -> dict[str, Any]:
    names = ("env", "split", "source", "step", "games", *more)
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def _list(text: str | None) -> list[str] | None:
    return [part.strip() for part in text.split(",") if part.strip()] if text else None


def _add_summary(commands: Any) -> None:
    def run(args: argparse.Namespace) -> Tables:
        from analysis.summary import tables

        return tables(_records(args), args.level, args.metric, **_choice(args))

    _command(
        commands,
        "summary",
        run,
        """\
How each method did: mean, spread over runs, intervals.

One row per method, environment and split: runs (and runs that did not finish), episodes that are not ok, the
mean over games (mean_micro) and over task types (mean_macro), the sd over runs and Student's interval over
runs. Then the same per task type, and each run with its Wilson interval.""",
    )


def _add_compare(commands: Any) -> None:
    def run(args: argparse.Namespace) -> Tables:
        from analysis.compare import tables

        return tables(
            _records(args),
            args.baseline,
            metric=args.metric,
            average=args.average,
            family=_list(args.family),
            margin=args.margin,
            draws=args.draws,
            seed=args.seed,
            level=args.level,
            paired_checkpoints=args.checkpoints,
            **_choice(args),
        )

    parser = _command(
        commands,
        "compare",
        run,
        """\
Each method against a baseline: is the difference real, and could we have seen it?

Interval (low, high): calibrated two-way bootstrap; runs and games are resampled, games jointly for both
methods. p: Welch's t-test on run means; the run is the unit. p_permutation: exact relabelling of runs, from
5 runs a side on. p_holm for the declared --family, q_bh (false discovery rate) for everything else.
detectable: the true difference that this number of runs with this spread finds with power 0.8; read it
before reading "not shown" as "no effect".""",
    )
    parser.add_argument("--baseline", required=True, help="method to compare with")
    parser.add_argument("--family", help="methods of the declared family, comma-separated (Holm over them)")
    parser.add_argument(
        "--margin", type=float, help="equivalence margin in the metric's unit, e.g. 0.05 (TOST)"
    )
    parser.add_argument(
        "--average",
        choices=("micro", "macro"),
        default="micro",
        help="micro: games count alike; macro: task types do",
    )
    parser.add_argument("--draws", type=int, default=10_000, help="bootstrap draws")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    parser.add_argument(
        "--checkpoints", action="store_true", help="also McNemar for every pair of runs with one seed"
    )


def _add_published(commands: Any) -> None:
    def run(args: argparse.Namespace) -> Tables:
        from analysis.published import tables

        return tables(args.csv, args.baseline, args.method)

    parser = _command(
        commands,
        "published",
        run,
        """\
Printed tables under the magnifier: impossible percentages, what a difference is worth, duplicated rows.

Reads a CSV with one printed number per row: table, student, teacher, method, benchmark, split, metric, value,
n_episodes (docs/analysis.md). Prints the percentages that no whole number of episodes gives (GRIM) and the n
that would fit, every printed difference to the baseline with its interval and p value, whether averages are
the mean of their parts, and rows that print the same numbers.""",
        inputs=False,
        choice=False,
    )
    parser.add_argument("csv", metavar="CSV", help="the printed numbers")
    parser.add_argument(
        "--baseline", default="opd", help="method that the others are compared with (default opd)"
    )
    parser.add_argument(
        "--method", default="sage_opd", help="method whose claims are judged (default sage_opd)"
    )


def _print(tables: Tables, form: str, only: str | None) -> None:
    from analysis.render import render

    if only is not None and only not in tables:
        raise Refusal(f"This command has no table {only!r}; it has {', '.join(tables)}.")
    for name, frame in tables.items():
        if only is not None and name != only:
            continue
        if only is None and form in ("text", "md"):
            print(f"\n## {name}\n")
        sys.stdout.write(render(frame, form))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 on success, 2 on a refusal."""
    args = build_parser().parse_args(argv)
    try:
        tables = args.run(args)
        if args.csv_dir:
            folder = Path(args.csv_dir)
            folder.mkdir(parents=True, exist_ok=True)
            for name, frame in tables.items():
                frame.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
        _print(tables, args.format, args.table)
    except Refusal as refusal:
        print(f"refused: {refusal}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
    return 0
