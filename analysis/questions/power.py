"""`power`: what a plan can see, before the runs."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.errors import Refusal
from analysis.question import DESIGNS, Question
from analysis.questions import options, values
from analysis.questions.asked import Asked, Tables

if TYPE_CHECKING:
    import pandas as pd

TEXT = """\
Before the runs: what a plan can see, and the runs that an effect needs.

Two methods with the same number of runs each, on the same games, tested as --design says. The table designs
says how many seeds each design needs, if paired run means have the --correlation that is assumed
(pair_correlation of `compare`); a blocked one is over --methods methods. Assumptions come
from the options, from a pilot (--pilot RECORDS --baseline opd), or from a plan (--plan conf/plan/x.yaml,
which is then checked against its own margins). run_sd is the sd over training runs of the true success rate;
0.04 to 0.06 is common: 3 runs a side can then see a difference of 17 to 24 points, 10 one of 7 to 9."""


def own_options(parser: argparse.ArgumentParser) -> None:
    """Options of this question alone."""
    parser.add_argument("--plan", help="check this plan instead")
    parser.add_argument("--pilot", nargs="+", metavar="INPUT", help="records to estimate the spread from")
    parser.add_argument("--baseline", help="baseline of the pilot")
    parser.add_argument("--runs", default="3,5,8,10,15,20", help="runs per method")
    parser.add_argument("--games", default="134", help="games of the split")
    parser.add_argument("--run-sd", default="0.02,0.04,0.06,0.08", help="sd over runs of the true rate")
    parser.add_argument("--effects", default="0.03,0.05,0.08,0.10,0.15", help="effects to find the runs for")
    parser.add_argument("--rate", type=values.fraction, default=0.6, help="success rate of the baseline")
    parser.add_argument("--power", type=values.fraction, default=0.8)
    parser.add_argument("--new-games", action="store_true", help="plan for the recipe on new games")
    parser.add_argument(
        "--method-game-sd", type=values.amount, default=0.1, help="how much the effect differs by game"
    )
    parser.add_argument("--design", choices=DESIGNS, default=DESIGNS[0], help=f"default {DESIGNS[0]}")
    parser.add_argument(
        "--correlation",
        type=values.correlation,
        help="of the run means of two methods with one seed (paired and blocked need one)",
    )
    parser.add_argument(
        "--methods",
        type=values.whole(2, "a study"),
        default=4,
        help="methods of a blocked study (default 4)",
    )
    parser.add_argument("--plot", metavar="FILE.svg", help="also draw the curves")


def tables(args: argparse.Namespace) -> Tables:
    """Answers the command line."""
    from analysis import plan, power_designs

    if args.plan:
        seen = plan.foreseen(plan.read_plan(args.plan))
        return {"plan": seen.pop("power"), **seen}
    if args.design != "independent" and args.correlation is None:
        raise Refusal(
            f"--design {args.design} needs --correlation, that of the run means of two methods with one "
            "seed; `compare` prints it of earlier runs as pair_correlation."
        )
    tables: Tables = {}
    assumed = power_designs.Assumed(
        games=values.counts(args.games, 1, "games"),
        run_sds=values.numbers(args.run_sd),
        rate=args.rate,
        new_games=args.new_games,
        method_game_var=args.method_game_sd**2,
        alpha=1 - args.level,
        power=args.power,
        design=args.design,
        correlation=args.correlation or 0.0,
        methods=args.methods,
    )
    if args.pilot:
        tables["pilot"] = pilot = _pilot(args)
        assumed = replace(
            assumed,
            games=sorted(set(pilot["games"].astype(int))),
            run_sds=[round(sd, 4) for sd in sorted(set(pilot["run_sd"]))],
            residual=float(pilot["residual"].mean()),
            method_game_var=float(pilot["method_game_var"].mean()),
        )
    runs, effects = values.counts(args.runs, 2, "runs per method"), values.numbers(args.effects)
    tables["detectable"] = power_designs.detectable_table(runs, assumed)
    tables["needed"] = power_designs.needed_table(effects, assumed)
    if args.plot:
        from analysis.figures import power_curves, save

        save(power_curves(tables["detectable"]), Path(args.plot))
    return tables


def _pilot(args: argparse.Namespace) -> pd.DataFrame:
    """The spread that earlier records have."""
    from analysis.load import load
    from analysis.variance import contrast

    if not args.baseline:
        raise Refusal("A pilot needs --baseline, the method that the others will be compared with.")
    records = load(args.pilot)
    options.note(records)
    return contrast(records, Question(baseline=args.baseline))


ASKED = Asked(text=TEXT, options=own_options, tables=tables, inputs=False, choice=False)
