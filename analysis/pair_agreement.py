"""How alike two methods end where they share a seed: game by game, by seed, split and step.

Runs of one seed train on the same games with the same random numbers, so until their weights differ they
play the same tokens, and afterwards often end alike. Agreement is the share of games with the same outcome;
beside it stands that of runs with different seeds, which is what pairs are worth more than.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.check import check_configs, check_unique, of_place
from analysis.errors import Refusal
from analysis.pairs import correlation, differing
from analysis.question import Question
from analysis.records import Records

PLACE = ["env", "source", "split", "phase", "step"]
GAME = ["task", "rollout"]


def agreement(records: Records, question: Question) -> pd.DataFrame:
    """One row for each seed that both methods have, evaluation or training step, and split.

    `agreement` is over the `games` that both have ok; `only_first` and `only_second` are won by one of the
    two; `other_seeds` is the agreement of the first method's run with the second's runs of other seeds (nan
    with one seed). `no_pair` names what two runs of one seed do not share and should. `same_text` is the
    share of those games in which every answer is the same, where the records have turns.
    """
    (method, other), episodes = two_methods(question), _chosen(records, question)
    texts = _texts(records)
    rows = []
    for key, here in episodes.groupby(PLACE, sort=True, observed=True):
        place = dict(zip(PLACE, key, strict=True))
        first, second = (
            {int(s): g for s, g in here[here["method"] == m].groupby("seed")} for m in (method, other)
        )
        for seed in sorted(set(first) & set(second)):
            mine, theirs = first[seed], second[seed]
            both = _joined(mine, theirs)
            if not len(both):
                continue
            apart = [_joined(mine, run) for s, run in second.items() if s != seed]
            runs = mine["run"].iloc[0], theirs["run"].iloc[0]
            won, lost = both["won_x"].astype(bool), both["won_y"].astype(bool)
            rows.append(
                place
                | {
                    "seed": seed,
                    "first": method,
                    "second": other,
                    "games": len(both),
                    "not_ok": int((~mine["ok"]).sum() + (~theirs["ok"]).sum()),
                    "agreement": float((won == lost).mean()),
                    "other_seeds": _mean([(p["won_x"] == p["won_y"]).mean() for p in apart if len(p)]),
                    "only_first": int((won & ~lost).sum()),
                    "only_second": int((~won & lost).sum()),
                    "same_text": _same_text(both, runs, place, texts),
                    "no_pair": ", ".join(
                        differing(records.pairs.get(runs[0], {}), records.pairs.get(runs[1], {}))
                    ),
                }
            )
    if not rows:
        raise Refusal(f"{method} and {other} have no game of one seed, split and step in common.")
    return pd.DataFrame(rows)


def correlations(records: Records, question: Question) -> pd.DataFrame:
    """One row for each split and evaluation: the correlation of paired run means with its interval, the sd
    over runs of both methods and of the differences. Empty where no two seeds are shared."""
    (method, other), episodes = two_methods(question), _chosen(records, question)
    episodes = episodes[(episodes["phase"] == "eval") & episodes["ok"]]
    rows = []
    for key, here in episodes.groupby(PLACE, sort=True, observed=True):
        means = here.astype({"won": float}).groupby(["method", "seed"])["won"].mean().unstack(0)
        means = means.reindex(columns=[method, other]).dropna()
        if len(means) < 2:
            continue
        a, b = means[method].to_numpy(), means[other].to_numpy()
        alike = correlation(a, b, question.level)
        rows.append(
            dict(zip(PLACE, key, strict=True))
            | {
                "pairs": len(means),
                "first": method,
                "second": other,
                "difference": float((a - b).mean()),
                "sd_first": float(a.std(ddof=1)),
                "sd_second": float(b.std(ddof=1)),
                "sd_difference": float((a - b).std(ddof=1)),
                "correlation": alike.value,
                "low": alike.low,
                "high": alike.high,
            }
        )
    return pd.DataFrame(rows)


def two_methods(question: Question) -> tuple[str, str]:
    """The question's two methods. Raises Refusal for another number."""
    names = question.methods or ()
    if len(names) != 2:
        raise Refusal(f"--methods takes two methods, as in opd,sage_opd, not {','.join(names)!r}.")
    return names[0], names[1]


def _chosen(records: Records, question: Question) -> pd.DataFrame:
    check_configs(records)
    episodes, methods = records.episodes, two_methods(question)
    there = sorted(set(episodes["method"])) if len(episodes) else []
    for name in methods:
        if name not in there:
            raise Refusal(
                f"There is no finished run of {name!r}; methods here are {', '.join(there) or 'none'}."
            )
    if methods[0] == methods[1]:
        raise Refusal(f"{methods[0]} is held against itself; name two methods.")
    episodes = episodes[of_place(episodes, question)]
    if not len(episodes):
        raise Refusal("No episode of these methods matches that environment, split and source.")
    check_unique(episodes)
    return episodes.assign(ok=episodes["ok"].astype(bool))


def _joined(mine: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Games that both have ok, side by side."""
    columns = [*GAME, "won"]
    return mine.loc[mine["ok"], columns].merge(theirs.loc[theirs["ok"], columns], on=GAME)


def _mean(values: list[Any]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _texts(records: Records) -> dict[tuple[Any, ...], str] | None:
    """All answers of an episode as one text; None where the records have no turns."""
    turns = records.turns
    if not len(turns) or "answer" not in turns:
        return None
    key = ["run", "phase", "step", "split", *GAME]
    ordered = turns.sort_values("turn", kind="stable")
    joined = ordered.groupby(key, observed=True)["answer"].agg(lambda texts: "\x1f".join(map(str, texts)))
    return dict(joined.items())


def _same_text(
    both: pd.DataFrame,
    runs: tuple[str, str],
    place: dict[str, Any],
    texts: dict[tuple[Any, ...], str] | None,
) -> float:
    if texts is None:
        return float("nan")
    same = []
    for task, rollout in both[GAME].itertuples(index=False):
        rest = (place["phase"], place["step"], place["split"], task, rollout)
        same.append(texts.get((runs[0], *rest)) == texts.get((runs[1], *rest)))
    return _mean(same)
