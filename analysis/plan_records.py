"""Conditions about what the runs hold: files as they were written, code, settings, games, pairs, gaps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from analysis.pairs import differing
from analysis.plan import Plan
from analysis.plan_findings import MET, NOT_MET, UNKNOWN, Arms, Finding, all_of
from sage.config.moved import new_name
from sage.records.run_ledger import records_digest

ALWAYS_DIFFERENT = ("method", "name", "seed")
"""Settings that tell arms and runs apart by their nature."""


def as_written(arms: Arms) -> Finding:
    """Tables, config and provenance are what the run wrote at its end, by status.json and by the ledger."""
    wrong, unknown = [], []
    for row in arms.runs.itertuples():
        who = f"{row.method}, seed {row.seed}"
        touched, digests = arms.records.touched.get(row.run, ()), arms.records.digests.get(row.run, {})
        ends = [e for _, e in arms.entries(row.run, "done") if e.get("attempt") == row.attempt]
        if touched:
            wrong.append(f"{who}: {touched[0]}")
        elif digests and ends and ends[-1].get("records") != records_digest(digests):
            wrong.append(f"{who}: the digests in status.json are not those that the ledger has")
        elif row.used and not (digests and ends):
            unknown.append(f"{who} has no digests of its records, or no end in the ledger")
    if unknown and not wrong:
        return Finding(UNKNOWN, unknown[0], "run with a version that writes them")
    return all_of(
        arms.used["run"], wrong, "restore the records as they were written, or run anew under a new plan"
    )


def one_source(arms: Arms) -> Finding:
    """All runs were made by the same code."""
    found: dict[str, list[str]] = {}
    for row in arms.used.itertuples():
        code = arms.records.provenance.get(row.run, {}).get("code") or {}
        digest = arms.records.digests.get(row.run, {}).get("source") or code.get("source_sha256") or ""
        found.setdefault(str(digest), []).append(f"{row.method}, seed {row.seed}")
    if "" in found:
        return Finding(UNKNOWN, f"{found[''][0]} does not say which code made it")
    if len(found) > 1:
        few = min(found.items(), key=lambda item: len(item[1]))
        detail = f"{len(found)} versions of the code; {few[0][:12]} made {', '.join(few[1][:3])} alone"
        return Finding(NOT_MET, detail, "run the arms with one version of the code")
    return all_of(arms.used["run"], [], "")


def configs(arms: Arms) -> Finding:
    """Settings are equal key by key, but for the seed and for what the plan declares of an arm."""
    declared = arms.plan.content.get("arms")
    flats = {
        row.run: (row.method, row.env, arms.records.configs.get(row.run, {}))
        for row in arms.used.itertuples()
    }
    if not flats or not all(flat for *_, flat in flats.values()):
        return Finding(UNKNOWN, "these records have no settings")
    within, between = differing_settings(flats.values())
    if within:
        wrong = [f"runs of one arm differ in {key}" for key in sorted(within)]
        return all_of([], wrong, "run all seeds of an arm alike")
    if declared is None:
        if not between:
            return Finding(MET, "the arms differ in nothing but their names")
        listed = ", ".join(sorted(between)[:6])
        return Finding(
            UNKNOWN,
            f"the plan declares no arms; they differ in {listed}",
            "a new plan declares under arms what each method may differ in",
        )
    allowed = [prefix for method in arms.methods for prefix in map(_today, declared.get(method, []))]
    wrong = [
        f"the arms differ in {key} ({_values(flats, key)}), which the plan does not declare"
        for key in sorted(between)
        if not is_of(key, allowed)
    ]
    return all_of(arms.used["run"], wrong, "run the arms alike, or declare the difference in a new plan")


def differing_settings(
    flats: Iterable[tuple[str, str, Mapping[str, Any]]],
) -> tuple[set[str], set[str]]:
    """Settings in which runs of one (method, env) differ, and those in which methods of one environment do;
    a setting of the first kind is not in the second. Takes (method, env, settings) of each run."""
    flats, within, between = list(flats), set(), set()
    for env in {env for _, env, _ in flats}:
        here = [(method, flat) for method, where, flat in flats if where == env]
        for key in {key for _, flat in here for key in flat if not is_of(key, ALWAYS_DIFFERENT)}:
            values: dict[str, set[str]] = {}
            for method, flat in here:
                values.setdefault(method, set()).add(repr(flat.get(key, "(not there)")))
            if any(len(found) > 1 for found in values.values()):
                within.add(key)
            elif len(set.union(*values.values())) > 1:
                between.add(key)
    return within, between


def _today(setting: str) -> str:
    return new_name(setting) or setting


def is_of(key: str, prefixes: Iterable[str]) -> bool:
    """Whether a setting is one of `prefixes`, or of a group of that name."""
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)


def _values(flats: dict[str, tuple[str, str, dict[str, Any]]], key: str) -> str:
    found = {method: str(flat.get(key, "not there")) for method, _, flat in flats.values()}
    return ", ".join(f"{method}: {value[:40]}" for method, value in sorted(found.items()))


def manifests(arms: Arms) -> Finding:
    """The runs' games are those of the manifests that the plan names."""
    planned = arms.plan.content["manifests"]
    if not planned:
        return Finding(
            NOT_MET, "the plan names no manifest", "name the games of each environment in a new plan"
        )
    wrong = []
    for row in arms.used.itertuples():
        actual = str(arms.records.provenance.get(row.run, {}).get("manifest_digest", ""))
        wanted = planned.get(row.env, "")
        if not wanted or not actual.startswith(wanted):
            wrong.append(
                f"{row.method}, seed {row.seed} played {actual[:12] or 'unknown games'}, planned are {wanted}"
            )
    return all_of(arms.used["run"], wrong, "run on the planned games")


def each_game_once(arms: Arms) -> Finding:
    """Every run played the same games of each planned split, each once, and as many as the plan says."""
    planned, wrong = arms.plan.content.get("games") or {}, []
    for (env, split), group in arms.episodes.groupby(["env", "split"], sort=True, observed=True):
        wrong += _unlike_games(group, str(env), str(split), arms.plan)
    done = {(row.run, split) for row in arms.used.itertuples() for split in arms.plan.content["splits"]}
    have = (
        set(zip(arms.episodes["run"], arms.episodes["split"], strict=True)) if len(arms.episodes) else set()
    )
    wrong += [f"run {run} was not evaluated on {split}" for run, split in sorted(done - have)]
    if not wrong and not planned and arms.plan.format > 1:
        return Finding(
            NOT_MET, "the plan names no number of games", "state games: {split: number} in a new plan"
        )
    return all_of(arms.used["run"], wrong, "play every planned game once in every run")


def _unlike_games(group: pd.DataFrame, env: str, split: str, plan: Plan) -> list[str]:
    """What is wrong with the games of one split."""
    wrong = []
    sources, planned = plan.content["source"], plan.content.get("games") or {}
    other = sorted(set(group["source"]) - set(sources if isinstance(sources, list) else [sources]))
    if other:
        wrong.append(f"{env} {split} has {other[0]} games, which are not the planned ones")
    everyone, twice = set(group["task"]), group.duplicated(["run", "task", "rollout"])
    if twice.any():
        row = group[twice].iloc[0]
        wrong.append(f"{row['method']}, seed {row['seed']} played {row['task']} of {split} more than once")
    plays = group.groupby(["run", "task"], observed=True).size()
    if plays.nunique() > 1:
        wrong.append(f"games of {env} {split} were not played equally often")
    for _, mine in group.groupby("run", observed=True):
        gone = sorted(everyone - set(mine["task"]))
        if gone:
            who = f"{mine['method'].iloc[0]}, seed {mine['seed'].iloc[0]}"
            wrong.append(f"{who} lacks {len(gone)} games of {split}, first {gone[0]}")
    if split in planned and len(everyone) != planned[split]:
        wrong.append(f"{env} {split} has {len(everyone)} games, planned are {planned[split]}")
    return wrong


def few_gaps(arms: Arms) -> Finding:
    """No run has more episodes that are not ok than the plan's ceiling."""
    ceiling = arms.plan.content.get("not_ok")
    shares: dict[str, float] = {}
    for (method, seed, _), mine in (
        arms.episodes.groupby(["method", "seed", "run"]) if len(arms.episodes) else ()
    ):
        shares[f"{method}, seed {seed}"] = 1 - float(mine["ok"].mean())
    worst = max(shares.values(), default=0.0)
    if ceiling is None and worst > 0:
        return Finding(UNKNOWN, f"the plan has no ceiling; a run has {worst:.1%} of its episodes not ok")
    wrong = [
        f"{who} has {share:.1%} of its episodes not ok; the ceiling is {ceiling:.1%}"
        for who, share in shares.items()
        if ceiling is not None and share > ceiling
    ]
    return all_of(
        shares, wrong, "mend what broke, and run the failed runs again as the rule for retries allows"
    )


def are_pairs(arms: Arms) -> Finding:
    """Where the design pairs runs, the arms' runs of one seed share games, student and random streams."""
    design = arms.plan.content.get("design", "independent")
    if design == "independent":
        return Finding(MET, "the design takes runs as independent")
    wrong, silent = [], []
    for _, group in arms.used.groupby(["env", "seed"], sort=True):
        first, *others = group.itertuples()
        for other in others:
            mine, theirs = (arms.records.pairs.get(row.run, {}) for row in (first, other))
            keys = differing(mine, theirs)
            if keys:
                wrong.append(
                    f"{first.method} and {other.method}, seed {first.seed} differ in {', '.join(keys)}"
                )
            if not mine or not theirs:
                silent.append(f"{first.method} and {other.method}, seed {first.seed}")
    if silent and not wrong:
        return Finding(UNKNOWN, f"{silent[0]} do not say what they share")
    return all_of(
        arms.used["run"], wrong, "run the arms from one student on one set of games, under a new plan"
    )
