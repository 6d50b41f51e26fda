"""What was measured: means, learning curves, profiles."""

from __future__ import annotations

import pandas as pd

from analysis import figures
from analysis.load import Records
from analysis.profile import interquartile_means, profiles
from analysis.report.section import Options, Section
from analysis.summary import tables


def fill(section: Section, records: Records, options: Options, palette: dict[str, str]) -> None:
    """Fill the section."""
    found = tables(records, options.level, options.metric, **options.choice)
    section.say(
        "Means over the games of each run, then over runs. low and high: Student's interval over runs. micro "
        "weighs games alike, macro task types. Runs that did not finish and episodes that say nothing about "
        "the agent are counted, never scored as losses."
    )
    if "score" in found["summary"] or options.metric.startswith("score"):
        section.say(
            "score: mean of the environment's own scores, with its interval over runs; score_clipped: the "
            "same with negative scores taken as 0."
        )
    section.table("summary", found["summary"], "Methods")
    left_out = options.choice.get("leave_out")
    if left_out:
        section.say(f"{len(left_out)} named tasks do not count in this report, except in the next table.")
        section.table("summary_all_tasks", found["summary_all_tasks"], "Methods, all tasks")
    if "macro_average" in found:
        section.table(
            "macro_average",
            found["macro_average"],
            "Macro-average over the splits of an environment: each split counts the same",
            folded=options.average != "splits",
        )
    curves = learning_curve(records, options.metric)
    if curves["step"].nunique() > 1:
        section.draw(
            "learning_curves",
            figures.learning_curves(curves, palette, options.metric),
            "Evaluation over training, on the games that every evaluation played: mean over runs, band "
            "from the lowest to the highest run.",
        )
        section.table("learning_curves", curves, "Numbers of the learning curves", folded=True)
    shape = profiles(records, options.metric, seed=options.seed, level=options.level, **options.choice)
    section.draw(
        "profiles",
        figures.profiles(shape, palette, options.metric),
        "Performance profile: share of run × task type means that reach τ; higher is better. Bands resample "
        "runs within task types and are for the eye only.",
    )
    section.table(
        "iqm",
        interquartile_means(records, options.metric, **options.choice),
        "Interquartile means of the rates",
        folded=True,
    )
    section.table("per_task_type", found["per_task_type"], "By task type", folded=True)
    section.table(
        "per_run", found["per_run"], "Each run, with the Wilson interval of its checkpoint", folded=True
    )


def learning_curve(records: Records, metric: str = "won") -> pd.DataFrame:
    """Mean over runs at each evaluated step, with the lowest and highest run.

    Only games that every evaluation of a split played count (`games`): an evaluation during training may take
    fewer, and a curve over different games would show their difference.
    """
    episodes = records.episodes
    episodes = episodes[(episodes["phase"] == "eval") & episodes["ok"]]
    place = ["env", "split"]
    times = episodes[[*place, "run", "step"]].drop_duplicates().groupby(place, observed=True).size()
    played = episodes[[*place, "task", "run", "step"]].drop_duplicates()
    played = played.groupby([*place, "task"], observed=True).size().rename("times").reset_index()
    played["all"] = times.rename("all").reindex(pd.MultiIndex.from_frame(played[place])).to_numpy()
    common = played.loc[played["times"] == played["all"], [*place, "task"]]
    episodes = episodes.merge(common, on=[*place, "task"])
    keys = [*place, "method", "step"]
    runs = episodes.groupby([*keys, "run"], observed=True)
    runs = runs.agg(value=(metric, "mean"), games=("task", "nunique")).reset_index()
    frame = runs.groupby(keys, sort=True, observed=True).agg(
        runs=("run", "size"),
        games=("games", "max"),
        mean=("value", "mean"),
        lowest=("value", "min"),
        highest=("value", "max"),
    )
    return frame.reset_index()
