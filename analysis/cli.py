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
    _add_power(commands)
    _add_variance(commands)
    _add_agreement(commands)
    _add_rates(commands)
    _add_cost(commands)
    _add_skipped(commands)
    _add_controls(commands)
    _add_thresholds(commands)
    _add_published(commands)
    _add_plan(commands)
    _add_report(commands)
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


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise Refusal(f"{text!r} is not a list of numbers such as 3,5,10.") from None


def _add_power(commands: Any) -> None:
    def run(args: argparse.Namespace) -> Tables:
        from analysis import plan, power

        if args.plan:
            return {"plan": plan.detectables(plan.read_plan(args.plan))}
        shared: dict[str, Any] = {
            "games": [int(n) for n in _numbers(args.games)],
            "run_sds": _numbers(args.run_sd),
            "rate": args.rate,
            "new_games": args.new_games,
            "method_game_var": args.method_game_sd**2,
            "alpha": 1 - args.level,
            "power": args.power,
        }
        tables: Tables = {}
        if args.pilot:
            from analysis.load import load
            from analysis.variance import contrast

            if not args.baseline:
                raise Refusal("A pilot needs --baseline, the method that the others will be compared with.")
            pilot = contrast(load(args.pilot), args.baseline)
            tables["pilot"] = pilot
            shared |= {
                "games": sorted(set(pilot["games"].astype(int))),
                "run_sds": [round(sd, 4) for sd in sorted(set(pilot["run_sd"]))],
                "residual": float(pilot["residual"].mean()),
                "method_game_var": float(pilot["method_game_var"].mean()),
            }
        tables["detectable"] = power.table(runs=[int(n) for n in _numbers(args.runs)], **shared)
        tables["needed"] = power.needed_table(effects=_numbers(args.effects), **shared)
        if args.plot:
            from analysis.figures import power_curves, save

            save(power_curves(tables["detectable"]), Path(args.plot))
        return tables

    parser = _command(
        commands,
        "power",
        run,
        """\
Before the runs: what a plan can see, and the runs that an effect needs.

Two methods with the same number of runs each, on the same games, Welch's t on run means. Assumptions come
from the options, from a pilot (--pilot RECORDS --baseline opd), or from a plan (--plan conf/plan/x.yaml,
which is then checked against its own margins). run_sd is the sd over training runs of the true success rate;
0.04 to 0.06 is common. With 3 runs a side the detectable difference is 12 to 22 points, with 10 5 to 9.""",
        inputs=False,
        choice=False,
    )
    parser.add_argument("--plan", help="check this plan instead")
    parser.add_argument("--pilot", nargs="+", metavar="INPUT", help="records to estimate the spread from")
    parser.add_argument("--baseline", help="baseline of the pilot")
    parser.add_argument("--runs", default="3,5,8,10,15,20", help="runs per method")
    parser.add_argument("--games", default="134", help="games of the split")
    parser.add_argument("--run-sd", default="0.02,0.04,0.06,0.08", help="sd over runs of the true rate")
    parser.add_argument("--effects", default="0.03,0.05,0.08,0.10,0.15", help="effects to find the runs for")
    parser.add_argument("--rate", type=float, default=0.6, help="success rate of the baseline")
    parser.add_argument("--power", type=float, default=0.8)
    parser.add_argument("--new-games", action="store_true", help="plan for the recipe on new games")
    parser.add_argument(
        "--method-game-sd", type=float, default=0.1, help="how much the effect differs by game"
    )
    parser.add_argument("--plot", metavar="FILE.svg", help="also draw the curves")


def _add_variance(commands: Any) -> None:
    def run(args: argparse.Namespace) -> Tables:
        from analysis.variance import tables

        return tables(
            _records(args),
            level=args.level,
            metric=args.metric,
            draws=args.draws,
            seed=args.seed,
            **_choice(args),
        )

    parser = _command(
        commands,
        "variance",
        run,
        """\
Where the spread comes from: training run, game, run × game, decoding noise.

Crossed decomposition per method, env and split, with intervals; the share of the mean's variance that each
part makes and what would remove it; the standard error with twice or endlessly many runs, games or repeats;
and how much one checkpoint's success rate moves when the same games are played again. Decoding
noise needs repeats of a game.""",
    )
    _bootstrap_options(parser, 4000)


def _add_rates(commands: Any) -> None:
    def run(args: argparse.Namespace) -> Tables:
        from analysis.rates import tables, write_option

        found = tables(_records(args, "turns"), **_choice(args))
        if args.write:
            write_option(found["rates"], args.write)
            print(f"Wrote {args.write}.", file=sys.stderr)
        return found

    parser = _command(
        commands,
        "rates",
        run,
        """\
How often the judge said SKIP, WEAK and STRONG, overall and by turn position.

--write DIR/intervention/NAME.yaml makes them an option: python -m sage --config-dir DIR intervention=NAME
draws labels at these rates without a query, the cheap control for a judge.""",
        choice=False,
    )
    parser.add_argument("--write", type=Path, help="YAML file to write, of one method and environment")


def _add_cost(commands: Any) -> None:
    def run(args: argparse.Namespace) -> Tables:
        from analysis.cost import tables

        return tables(_records(args, "steps"), args.env)

    _command(
        commands,
        "cost",
        run,
        """\
What each method has cost: student tokens, teacher tokens (scored, judged, played) and seconds by phase.

Means over runs. Train with trainer=equal_teacher_tokens to compare methods at one cost of the teacher.""",
        choice=False,
    )


def _add_agreement(commands: Any) -> None:
    def run(args: argparse.Namespace) -> Tables:
        from analysis.agreement import filtered, judge_against_judge, tables

        records = _records(args, "turns")
        choice = _choice(args)
        if args.other:
            from analysis.load import load

            other = load(args.other, tables=("episodes", "turns"))
            both = judge_against_judge(
                filtered(records, **choice), filtered(other, **choice), args.level, args.draws, args.seed
            )
            return {"judges": both}
        return tables(records, args.level, args.draws, args.cluster, args.seed, **choice)

    parser = _command(
        commands,
        "agreement",
        run,
        """\
Judge against oracle, or judge against judge: confusion, kappa, MCC, AUROC of confidence, calibration.

Right label by the environment's expert: progress SKIP, no effect WEAK, harm STRONG. Per method and env, by
task type, turn position and failure kind. Intervals resample whole episodes. Read kappa beside the
prevalence: it falls with it. --other RECORDS compares two judges on the turns that both have judged.""",
        choice=False,
    )
    _bootstrap_options(parser, 2000)
    parser.add_argument(
        "--cluster", choices=("episode", "run", "game"), default="episode", help="what is resampled"
    )
    parser.add_argument("--other", nargs="+", metavar="INPUT", help="records of a second judge")


def _add_skipped(commands: Any) -> None:
    def run(args: argparse.Namespace) -> Tables:
        from analysis.skipped import tables

        return tables(
            _records(args, "turns"), args.level, args.draws, args.seed, args.horizon, **_choice(args)
        )

    parser = _command(
        commands,
        "skipped",
        run,
        """\
The skipped turns: which should not have been, what they are like, what came after them.

errors: wrong decisions by expert distance, trajectory length, turn position, error type and task type.
differences: standardised differences between supervised and skipped turns. aftermath: progress in the turns
after a wrongly skipped turn against matched supervised ones. weighted: means undone of the selection by
logged propensities (SNIPS, AIPW), refused with a reason where the rule leaves no overlap.""",
        choice=False,
    )
    _bootstrap_options(parser, 2000)
    parser.add_argument("--horizon", type=int, default=3, help="turns after the skipped one (default 3)")


def _add_controls(commands: Any) -> None:
    def run(args: argparse.Namespace) -> Tables:
        from analysis.controls import tables

        return tables(
            _records(args),
            margin=args.margin,
            draws=args.draws,
            level=args.level,
            seed=args.seed,
            metric=args.metric,
            **_choice(args),
        )

    parser = _command(
        commands,
        "controls",
        run,
        """\
The falsification table: each claim against the control that could bring it down, one verdict line each.

Judge against random, inverted, oracle, matched scale, feedback only, shuffled confidence, a second rollout
and a learned rule, by preset name. Holm over all claims that were run on a split. Claims whose arms are
missing are listed as not run.""",
    )
    _bootstrap_options(parser, 10_000)
    parser.add_argument("--margin", type=float, default=0.05, help="loss that still counts as as-well-as")


def _add_thresholds(commands: Any) -> None:
    def run(args: argparse.Namespace) -> Tables:
        from analysis.load import load
        from analysis.thresholds import confirmation, tables

        args.vary = [*args.vary, args.key]
        records = _records(args)
        found = tables(
            records,
            args.key,
            metric=args.metric,
            draws=args.draws,
            level=args.level,
            seed=args.seed,
            **_choice(args),
        )
        if args.confirm:
            if not args.baseline:
                raise Refusal("A confirmation needs --baseline.")
            fresh = load(args.confirm, vary=args.vary)
            found["confirmation"] = confirmation(records, fresh, args.key, args.baseline, args.metric)
        return found

    parser = _command(
        commands,
        "thresholds",
        run,
        """\
A sweep over one setting: objective by setting, how much the winner flatters itself, confirmation on fresh
seeds.

--key names the setting (a config key such as confidence.threshold, or a CSV column). selection_bias is what
choosing the best of all settings adds to its score; corrected has it taken off. --confirm RECORDS --baseline
METHOD compares the winner on runs with other seeds and other games; shared ones are refused.""",
    )
    parser.add_argument("--key", required=True, help="the setting that was swept")
    parser.add_argument("--confirm", nargs="+", metavar="INPUT", help="records of the confirmation runs")
    parser.add_argument("--baseline", help="baseline of the confirmation")
    _bootstrap_options(parser, 4000)


def _bootstrap_options(parser: argparse.ArgumentParser, draws: int) -> None:
    parser.add_argument("--draws", type=int, default=draws, help=f"bootstrap draws (default {draws})")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default 0)")


def _add_plan(commands: Any) -> None:
    def run(args: argparse.Namespace) -> Tables:
        from analysis import plan

        if args.action == "freeze":
            return {
                "frozen": plan.freeze(args.plan, args.time),
                "power": plan.detectables(plan.read_plan(args.plan)),
            }
        found = {"power": plan.detectables(plan.read_plan(args.plan))}
        if args.records:
            from analysis.load import load

            records = load(args.records)
            for note in records.notes:
                print(f"note: {note}", file=sys.stderr)
            found["conditions"] = plan.check(plan.read_plan(args.plan), records)
            found["confirmatory"] = plan.confirmatory(plan.read_plan(args.plan), records)
        return found

    parser = _command(
        commands,
        "plan",
        run,
        """\
Pre-registration: freeze a plan before the runs, check afterwards whether a result is confirmatory.

freeze writes <plan>.frozen.json with the plan's hash, the commit and the time, once. check prints what the
plan can see, and with --records whether the runs carry the hash, started after the freeze and are complete;
then it tests the hypotheses as planned. Runs carry the hash in provenance.json
(plan_sha256).""",
        inputs=False,
        choice=False,
    )
    parser.add_argument("action", choices=("freeze", "check"))
    parser.add_argument("plan", metavar="PLAN", help="conf/plan/<name>.yaml")
    parser.add_argument("--records", nargs="+", metavar="INPUT", help="runs to hold against the plan")
    parser.add_argument("--time", help="time stamp of the freeze (default: now)")


def _add_report(commands: Any) -> None:
    def run(args: argparse.Namespace) -> Tables:
        from analysis.report import write_report

        return write_report(
            _records(args, "turns", "steps"),
            Path(args.out),
            baseline=args.baseline,
            time=args.time,
            plan=args.plan,
            key=args.key,
            published=args.published,
            draws=args.draws,
            level=args.level,
            seed=args.seed,
            metric=args.metric,
            title=args.title,
            **_choice(args),
        )

    parser = _command(
        commands,
        "report",
        run,
        """\
Everything as one self-contained HTML file, with Markdown, LaTeX tables and CSV beside it.

Plots: effects, learning curves, labels over training and turn position, reliability, variance, power,
performance profile. A trajectory reader shows single episodes turn by turn. With --plan, what was
pre-registered stands apart from what was explored. The same records, options and --time give the
same files, byte for byte.""",
    )
    parser.add_argument("--baseline", required=True, help="method to compare with")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write into")
    parser.add_argument("--title", default="Report", help="title of the page")
    parser.add_argument("--time", default="", help="time stamp printed in the report (default: none)")
    parser.add_argument("--plan", help="conf/plan/<name>.yaml")
    parser.add_argument("--key", help="setting of a sweep among the records (as --key of thresholds)")
    parser.add_argument("--published", metavar="CSV", help="also check these printed tables")
    _bootstrap_options(parser, 10_000)


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
