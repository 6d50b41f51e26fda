"""Is a result confirmatory? The conditions of a frozen plan, one by one, for each hypothesis.

Every condition is a rule about the records of the two arms of a hypothesis, and ends as `met`, `not met` or
`cannot be known` (a plan frozen in format 1 says less than is asked here, and records without a ledger or
digests show less). A result is confirmatory where all of them are met. Each row has the way out.

None of this is a lock: who can write the records, the ledger and the plan can write all three anew. It makes
honest work provable, and slips visible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import pandas as pd

from analysis.load import Records
from analysis.plan import Plan, frozen_record
from analysis.plan_rows import runs_by_name
from sage.records.run_ledger import records_digest
from sage.records.schema import EPISODES

MET, NOT_MET, UNKNOWN = "met", "not met", "cannot be known"
ANY = "all"
"""Stands for every hypothesis, in rows about the plan itself."""
SAME_TIME_S = 120.0
"""status.json and the ledger write the start of a run within this many seconds."""
ALWAYS_DIFFERENT = ("method", "name", "seed")
"""Settings that tell arms and runs apart by their nature."""


@dataclass(frozen=True)
class Arms:
    """What a hypothesis is judged on: the planned runs of its two methods, as the records have them."""

    plan: Plan
    records: Records
    methods: tuple[str, ...]

    @cached_property
    def runs(self) -> pd.DataFrame:
        """Rows of the run list: the planned methods, environments and seeds, done or not."""
        runs = runs_by_name(self.records)
        return runs[
            runs["method"].isin(self.methods)
            & runs["env"].isin(self.plan.content["environments"])
            & runs["seed"].isin(self.plan.seeds)
        ]

    @cached_property
    def used(self) -> pd.DataFrame:
        """Those that are done."""
        return self.runs[self.runs["used"].astype(bool)]

    @cached_property
    def episodes(self) -> pd.DataFrame:
        """Their last evaluations on the planned splits."""
        episodes = self.records.episodes
        if not len(episodes):
            return pd.DataFrame(columns=list(EPISODES))
        mine = episodes["run"].isin(set(self.used["run"])) & episodes["phase"].eq("eval")
        chosen = episodes[mine & episodes["split"].isin(self.plan.content["splits"])]
        last = chosen.groupby(["run", "split"], observed=True)["step"].transform("max")
        return chosen[chosen["step"] == last]

    def entries(self, run: str, *events: str) -> list[tuple[int, dict[str, Any]]]:
        """(position, line) of a run's lines in the ledger."""
        lines = enumerate(self.records.ledger.entries)
        return [(i, e) for i, e in lines if e["event"] in events and e.get("run", e["digest"][:12]) == run]


@dataclass(frozen=True)
class Finding:
    """How a condition ended, what was found, and what would mend it."""

    verdict: str
    detail: str
    way_out: str = ""


def _all(good: Iterable[Any], wrong: Iterable[str], way_out: str, what: str = "runs") -> Finding:
    """Met where nothing is wrong and something is good; the detail names the first wrong one."""
    good, wrong = list(good), list(wrong)
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return Finding(NOT_MET, f"{wrong[0]}{more}", way_out)
    if not good:
        return Finding(NOT_MET, "no planned run is done", "run the plan's runs")
    return Finding(MET, f"{len(good)} of {len(good)} {what}")


def frozen(plan: Plan) -> Finding:
    """The plan's file is what it was when it was frozen."""
    record = frozen_record(plan.path)
    if record is None:
        return Finding(
            NOT_MET, "never frozen", f"freeze it before the first run: plan freeze {plan.path.name}"
        )
    if record["sha256"] != plan.sha256:
        return Finding(
            NOT_MET, "changed after it was frozen", "a changed plan is a new plan: give it a new name"
        )
    return Finding(MET, f"frozen {record['time']}")


def freeze_position(plan: Plan, records: Records) -> int | None:
    """Position of the plan's first freeze in the ledger."""
    lines = enumerate(records.ledger.entries)
    return next((i for i, e in lines if e["event"] == "freeze" and e["digest"] == plan.sha256), None)


def frozen_in_ledger(plan: Plan, records: Records) -> Finding:
    """The freeze is a line of the ledger beside the runs; its time counts, whatever the frozen file says."""
    way_out = "freeze the plan beside the runs before the first one: plan freeze PLAN --runs DIR"
    if not records.ledger.entries:
        return Finding(UNKNOWN, "these runs have no ledger", way_out)
    place = freeze_position(plan, records)
    if place is None:
        return Finding(NOT_MET, "the ledger beside these runs has no freeze of this plan", way_out)
    time, said = records.ledger.entries[place]["time"], (frozen_record(plan.path) or {}).get("time", "")
    other = "" if _seconds_between(time, said) <= SAME_TIME_S else f"; the frozen file says {said}"
    return Finding(MET, f"frozen {time}{other}")


def unbroken(plan: Plan, records: Records) -> Finding:
    """The chain of the ledger's lines holds."""
    if not records.ledger.entries:
        return Finding(UNKNOWN, "these runs have no ledger")
    if records.ledger.problems:
        return Finding(NOT_MET, records.ledger.problems[0], "report what happened; the result is exploratory")
    return Finding(MET, f"{len(records.ledger.entries)} lines")


def other_plans(plan: Plan, records: Records) -> Finding:
    """As many other plans were frozen here before this one's runs as the plan owns up to."""
    if not records.ledger.entries:
        return Finding(UNKNOWN, "these runs have no ledger")
    runs = set(records.runs.loc[records.runs["plan"] == plan.sha256, "run"])
    first = len(records.ledger.entries)
    for place, entry in enumerate(records.ledger.entries):
        if entry["event"] == "start" and entry.get("run") in runs:
            first = min(first, place)
    before = records.ledger.entries[:first]
    found = {e["digest"]: e.get("plan", "") for e in before if e["event"] == "freeze"}
    found.pop(plan.sha256, None)
    declared = int(plan.content.get("other_plans", 0))
    names = f": {', '.join(sorted(found.values())[:3])}" if found else ""
    detail = f"{len(found)} other plans were frozen here before its runs{names}; it declares {declared}"
    if len(found) == declared:
        return Finding(MET, detail)
    return Finding(NOT_MET, detail, "report every plan that was frozen; state their number as other_plans")


def complete(arms: Arms) -> Finding:
    """Every planned method, environment and seed has a run that is done."""
    content = arms.plan.content
    needed = {(m, e, s) for m in arms.methods for e in content["environments"] for s in arms.plan.seeds}
    done = {(r.method, r.env, r.seed) for r in arms.used.itertuples()}
    lacking = sorted(needed - done)
    if not lacking:
        return Finding(MET, f"{len(needed)} of {len(needed)} runs done")
    method, env, seed = lacking[0]
    found = arms.runs[(arms.runs["method"] == method) & (arms.runs["seed"] == seed) & ~arms.runs["used"]]
    why = f" ({found['state'].iloc[0]}: {found['reason'].iloc[0]})" if len(found) else ""
    first = f"first missing: {method} on {env}, seed {seed}{why}"
    detail = f"{len(needed) - len(lacking)} of {len(needed)} runs done; {first}"
    return Finding(NOT_MET, detail, "finish it, or report the plan as not carried out")


def once(arms: Arms) -> Finding:
    """One finished attempt of each run, here and in the ledger; one run of each method and seed."""
    wrong = []
    for key, group in arms.used.groupby(["method", "env", "seed"], sort=True):
        if len(group) > 1:
            wrong.append(f"{key[0]} on {key[1]} has seed {key[2]} in runs {', '.join(group['run'])}")
    for row in arms.used.itertuples():
        others = arms.records.others.get(row.run, {})
        finished = [name for name, state in others.items() if state == "done"]
        ended = {int(entry.get("attempt", 0)) for _, entry in arms.entries(row.run, "done")}
        if finished:
            listed = ", ".join(f"{name} {state}" for name, state in others.items())
            rates = _rates_of(arms, row.run)
            wrong.append(
                f"{row.method}, seed {row.seed} was finished more than once ({listed}; attempt {row.attempt} "
                f"is in the numbers{rates})"
            )
        elif len(ended) > 1:
            numbers = ", ".join(map(str, sorted(ended)))
            wrong.append(f"{row.method}, seed {row.seed} was finished as attempts {numbers} by the ledger")
    way_out = (
        "a run that is done is not run again: report its first finished attempt, and the others beside it"
    )
    return _all(arms.used["run"], wrong, way_out)


def _rates_of(arms: Arms, run: str) -> str:
    mine = arms.episodes[arms.episodes["run"] == run] if len(arms.episodes) else arms.episodes
    return f": success {mine['won'].mean():.3f}" if len(mine) else ""


def retries(arms: Arms) -> Finding:
    """No run was started again more often than the plan's rule allows."""
    rule = arms.plan.content["retries"]
    if not isinstance(rule, int):
        return Finding(UNKNOWN, f"the plan's retries are prose: {rule[:80]}", "state a number in a new plan")
    wrong, listed = [], []
    for row in arms.runs.itertuples():
        others = arms.records.others.get(row.run, {})
        known = {entry.get("attempt") for _, entry in arms.entries(row.run, "start", "resume")}
        again = max(len(others), len(known | {row.attempt}) - 1)
        listed += [f"{row.method} seed {row.seed} {name} {state}" for name, state in others.items()]
        if again > rule:
            wrong.append(
                f"{row.method}, seed {row.seed} was started {again + 1} times; the rule allows {rule} more"
            )
    found = _all(arms.runs["run"], wrong, "report the runs as they are; the rule is part of the plan")
    extra = f"; other attempts: {', '.join(listed[:5])}" if listed else ""
    return Finding(found.verdict, found.detail + extra, found.way_out)


def carry_the_hash(arms: Arms) -> Finding:
    """Each run names the plan that it serves."""
    wrong = [
        f"{row.method}, seed {row.seed} carries {row.plan[:12] or 'no plan'}"
        for row in arms.used.itertuples()
        if row.plan != arms.plan.sha256
    ]
    return _all(arms.used["run"], wrong, "run with launch.plan=PLAN after the freeze")


def after_the_freeze(arms: Arms) -> Finding:
    """Each run began after the freeze by the order of the ledger's lines, which no clock decides."""
    if not arms.records.ledger.entries:
        return Finding(
            UNKNOWN, "these runs have no ledger", "run with a version that keeps runs/ledger.jsonl"
        )
    place = freeze_position(arms.plan, arms.records)
    wrong = []
    for row in arms.used.itertuples():
        starts = arms.entries(row.run, "start", "resume")
        if not starts:
            wrong.append(f"{row.method}, seed {row.seed} has no start in the ledger")
        elif place is None or starts[0][0] < place:
            wrong.append(f"{row.method}, seed {row.seed} began {starts[0][1]['time']}, before the freeze")
    return _all(arms.used["run"], wrong, "new seeds, run after the freeze, under a new plan")


def start_times(arms: Arms) -> Finding:
    """status.json and the ledger agree on when a run began."""
    if not arms.records.ledger.entries:
        return Finding(UNKNOWN, "these runs have no ledger")
    wrong = []
    for row in arms.used.itertuples():
        starts = [e for _, e in arms.entries(row.run, "start") if e.get("attempt") == row.attempt]
        if starts and _seconds_between(starts[0]["time"], row.started) > SAME_TIME_S:
            wrong.append(
                f"{row.method}, seed {row.seed} began {row.started} by status.json and "
                f"{starts[0]['time']} by the ledger"
            )
    return _all(arms.used["run"], wrong, "the records were changed: find out by what, and report it")


def _seconds_between(first: str, second: str) -> float:
    try:
        return abs((datetime.fromisoformat(first) - datetime.fromisoformat(second)).total_seconds())
    except (ValueError, TypeError):
        return float("inf")


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
    return _all(
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
    return _all(arms.used["run"], [], "")


def configs(arms: Arms) -> Finding:
    """Settings are equal key by key, but for the seed and for what the plan declares of an arm."""
    declared = arms.plan.content.get("arms")
    flats = {
        row.run: (row.method, row.env, arms.records.configs.get(row.run, {}))
        for row in arms.used.itertuples()
    }
    if not flats or not all(flat for *_, flat in flats.values()):
        return Finding(UNKNOWN, "these records have no settings")
    within, between = set(), set()
    for env in {env for _, env, _ in flats.values()}:
        here = [(method, flat) for method, where, flat in flats.values() if where == env]
        keys = {key for _, flat in here for key in flat if not _is_of(key, ALWAYS_DIFFERENT)}
        for key in keys:
            values: dict[str, set[str]] = {}
            for method, flat in here:
                values.setdefault(method, set()).add(repr(flat.get(key, "(not there)")))
            if any(len(found) > 1 for found in values.values()):
                within.add(key)
            elif len(set.union(*values.values())) > 1:
                between.add(key)
    if within:
        return _all(
            [],
            [f"runs of one arm differ in {key}" for key in sorted(within)],
            "run all seeds of an arm alike",
        )
    if declared is None:
        if not between:
            return Finding(MET, "the arms differ in nothing but their names")
        listed = ", ".join(sorted(between)[:6])
        return Finding(
            UNKNOWN,
            f"the plan declares no arms; they differ in {listed}",
            "a new plan declares under arms what each method may differ in",
        )
    allowed = [prefix for method in arms.methods for prefix in declared.get(method, [])]
    strange = sorted(key for key in between if not _is_of(key, allowed))
    wrong = [
        f"the arms differ in {key} ({_values(flats, key)}), which the plan does not declare"
        for key in strange
    ]
    return _all(arms.used["run"], wrong, "run the arms alike, or declare the difference in a new plan")


def _is_of(key: str, prefixes: Iterable[str]) -> bool:
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
    return _all(arms.used["run"], wrong, "run on the planned games")


def each_game_once(arms: Arms) -> Finding:
    """Every run played the same games of each planned split, each once, and as many as the plan says."""
    wrong = []
    planned = arms.plan.content.get("games") or {}
    sources = arms.plan.content["source"]
    for (env, split), group in arms.episodes.groupby(["env", "split"], sort=True, observed=True):
        other = sorted(set(group["source"]) - set(sources if isinstance(sources, list) else [sources]))
        if other:
            wrong.append(f"{env} {split} has {other[0]} games, which are not the planned ones")
        everyone, twice = set(group["task"]), group.duplicated(["run", "task", "rollout"])
        if twice.any():
            row = group[twice].iloc[0]
            wrong.append(
                f"{row['method']}, seed {row['seed']} played {row['task']} of {split} more than once"
            )
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
    done = {(row.run, split) for row in arms.used.itertuples() for split in arms.plan.content["splits"]}
    have = (
        set(zip(arms.episodes["run"], arms.episodes["split"], strict=True)) if len(arms.episodes) else set()
    )
    wrong += [f"run {run} was not evaluated on {split}" for run, split in sorted(done - have)]
    if not wrong and not planned and arms.plan.format > 1:
        return Finding(
            NOT_MET, "the plan names no number of games", "state games: {split: number} in a new plan"
        )
    return _all(arms.used["run"], wrong, "play every planned game once in every run")


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
    return _all(
        shares, wrong, "mend what broke, and run the failed runs again as the rule for retries allows"
    )


def are_pairs(arms: Arms) -> Finding:
    """Where the design pairs runs, the arms' runs of one seed share games, student and random streams."""
    from analysis.pairs import differing

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
    return _all(
        arms.used["run"], wrong, "run the arms from one student on one set of games, under a new plan"
    )


def planned_seeds_only(arms: Arms) -> Finding:
    """No run of these methods has a seed that the plan does not name; those found are listed."""
    runs = arms.records.runs
    mine = runs[runs["method"].isin(arms.methods) & runs["env"].isin(arms.plan.content["environments"])]
    extra = sorted(set(mine["seed"]) - set(arms.plan.content["seeds"]))
    if not extra:
        return Finding(MET, "none")
    return Finding(
        NOT_MET, f"unplanned seeds: {', '.join(map(str, extra))}", "report them beside the plan's runs"
    )


OF_PLAN: tuple[tuple[str, Callable[[Plan, Records], Finding]], ...] = (
    ("freeze in the ledger", frozen_in_ledger),
    ("ledger unbroken", unbroken),
    ("other plans owned up to", other_plans),
)
OF_ARMS: tuple[tuple[str, Callable[[Arms], Finding]], ...] = (
    ("set complete", complete),
    ("one finished attempt per run", once),
    ("retries within the rule", retries),
    ("runs carry the plan's hash", carry_the_hash),
    ("runs started after the freeze", after_the_freeze),
    ("start times as in the ledger", start_times),
    ("records as they were written", as_written),
    ("one version of the code", one_source),
    ("settings equal but for the declared", configs),
    ("planned game manifests", manifests),
    ("each planned game once in every run", each_game_once),
    ("runs of one seed are pairs", are_pairs),
    ("not ok below the ceiling", few_gaps),
    ("no run beyond the planned seeds", planned_seeds_only),
)
