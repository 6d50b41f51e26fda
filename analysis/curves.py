"""How evaluations went over training."""

from __future__ import annotations

import pandas as pd

from analysis.records import Records


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
