"""What the tables of one study's runs share: which runs belong together, how they ended, the command line.

Invariant: a run, or a game of one, never disappears from a table without a word. What is left out is said on
stderr; what would make a mean one of other games, or of two recipes, is refused.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.errors import Refusal
from analysis.plan_records import differing_settings, is_of
from analysis.records import Records
from sage.config.schema import CAME_LATER

PICTURES = (".png", ".svg", ".pdf")
METHOD_SETTINGS = ("intervention", "confidence", "normalization")
"""In which methods may differ: what the arms of the studies' plans declare."""
NOT_OK = 0.02
"""Largest share of the games that a run or a pair may lack: `not_ok` of the studies' plans."""
SHOWN = 3
"""Settings, runs or values that a sentence names; of more it says how many."""

Settings = Mapping[str, Mapping[str, Any]]
"""Of each run, flattened."""


def say(sentence: str) -> None:
    """Beside the table, not in it."""
    print(sentence, file=sys.stderr)


def setting(flat: Mapping[str, Any], key: str) -> Any:
    """A run's value; of a setting that is younger than the run, or idle in it, the one that changes
    nothing."""
    return flat.get(key, CAME_LATER.get(key))


def settings_of(records: Records) -> dict[str, Mapping[str, Any]]:
    """Of each finished run; the others are said. Raises Refusal where there is none, or one has no
    settings."""
    for row in records.unused.itertuples():
        why = f": {str(row.reason).rstrip('.')}" if row.reason else ""
        say(f"Left out: run {row.run} ({row.method}, seed {row.seed}); its state is {row.state}{why}.")
    runs = records.runs.loc[records.runs["used"].astype(bool), "run"]
    if runs.empty:
        raise Refusal("No finished run is there.")
    found: dict[str, Mapping[str, Any]] = {str(run): records.configs.get(run) or {} for run in runs}
    if silent := [run for run, flat in found.items() if not {"method", "seed"} <= set(flat)]:
        raise Refusal(f"Run {silent[0]} has no settings, which say where a run belongs: name run folders.")
    return found


def _listed(words: Sequence[str]) -> str:
    """`a, b, c and 4 more`"""
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more


def check_alike(configs: Settings, varied: Sequence[str]) -> None:
    """Raises Refusal where runs of one method differ in more than `varied`, seed and name, or methods in more
    than these and `METHOD_SETTINGS`."""
    within, between = differing_settings((str(flat["method"]), "", flat) for flat in configs.values())
    wrong = sorted(
        {key for key in within if not is_of(key, varied)}
        | {key for key in between if not is_of(key, (*varied, *METHOD_SETTINGS))}
    )
    if not wrong:
        return
    values = {run: _brief(flat.get(wrong[0])) for run, flat in configs.items()}
    rarest = Counter(values.values()).most_common()[-1][0]
    odd = next(run for run, value in values.items() if value == rarest)
    found = {key: sorted({_brief(flat.get(key)) for flat in configs.values()}) for key in wrong}
    told = [f"{key} ({_listed(values_there)})" for key, values_there in found.items()]
    raise Refusal(
        f"The runs differ in {_listed(told)}, and may in {', '.join(varied)} and their method's settings "
        f"alone; run {odd} has {rarest}: name those of one study."
    )


def _brief(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 20 else f"{text[:9]}…{text[-9:]}"


def check_points(configs: Settings, points: Mapping[str, str]) -> None:
    """`points`: where in the table each run belongs, in words. Raises Refusal where two runs of one point
    share a seed, or have names that differ: a pilot beside the study's runs."""
    first: dict[tuple[str, Any], str] = {}
    for run, point in points.items():
        seed, name = configs[run]["seed"], configs[run].get("name")
        other = first.setdefault((point, seed), run)
        if other != run:
            raise Refusal(
                f"Runs {other} and {run} are both {point} with seed {seed}: name the runs of one study."
            )
        like = first.setdefault((point, "any seed"), run)
        if configs[like].get("name") != name:
            raise Refusal(
                f"Runs {like} ({configs[like].get('name')}) and {run} ({name}) are both {point} and have "
                "different names, as a pilot beside a study: name the runs of one study."
            )


def last_evaluation(records: Records, split: str, runs: Iterable[str]) -> pd.DataFrame:
    """The episodes of each run's last evaluation of `split`, those that are not ok too. Says which runs have
    none."""
    wanted, episodes = list(runs), records.episodes
    if episodes.empty:
        raise Refusal("The runs have no episodes.")
    here = (episodes["split"] == split) & (episodes["phase"] == "eval") & episodes["run"].isin(wanted)
    episodes = episodes[here]
    without = [run for run in wanted if run not in set(episodes["run"])]
    if without and len(episodes):
        say(f"Left out, for want of an evaluation on {split}: {', '.join(without)}.")
    return episodes[episodes["step"] == episodes.groupby("run")["step"].transform("max")].copy()


def results(episodes: pd.DataFrame) -> pd.DataFrame:
    """[runs, plays] won or not, one column for each (task, rollout) that any run has; nan where a run has it
    not, or not ok."""
    plays = pd.MultiIndex.from_frame(episodes[["task", "rollout"]].drop_duplicates()).sort_values()
    ok = episodes[episodes["ok"].astype(bool)]
    won = ok.assign(won=ok["won"].astype(float)).pivot_table(
        index="run", columns=["task", "rollout"], values="won", aggfunc="mean"
    )
    return won.reindex(index=sorted(set(episodes["run"])), columns=plays)


def check_gaps(lacking: Mapping[str, pd.Series], who: str) -> None:
    """`lacking`: of each run of a mean whether it lacks a play. Says what the mean is without, and raises
    Refusal where that is more than `NOT_OK`."""
    gone = pd.concat(lacking, axis=1)
    some = gone.any(axis=1)
    if not some.any():
        return
    counts = ", ".join(f"run {run} lacks {int(n)}" for run, n in gone.sum().items() if n)
    told = f"{who} is without {int(some.sum())} of {len(some)} games ({counts}, not ok or not played)"
    if some.mean() > NOT_OK:
        raise Refusal(f"{told}, and {NOT_OK:.0%} may be: mend what broke and run it again.")
    tasks = sorted({str(task) for task, _ in some.index[some]})
    say(f"{told}: {_listed(tasks)}.")


def table_and_picture(
    words: Sequence[str] | None,
    doc: str | None,
    table: Callable[[Sequence[str], str], pd.DataFrame],
    plot: Callable[[pd.DataFrame, str, Path], None],
    note: str,
) -> int:
    """Run folders, `--split` and `--plot`: prints the table of (folders, split) with a note on what it shows,
    and draws it where asked. The exit code: 2 for what is refused."""
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
        blank = {name: found[name].astype(object).where(found[name].notna(), "") for name in found}
        print(pd.DataFrame(blank).to_string(index=False, float_format=lambda x: f"{x:.3f}"))
        print(note)
        if args.plot:
            plot(found, args.split, args.plot)
            print(f"Picture: {args.plot}")
    except Refusal as error:
        print(error, file=sys.stderr)
        return 2
    return 0
