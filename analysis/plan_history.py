"""Conditions about when things happened: freeze, starts and attempts, by the ledger beside the runs."""

from __future__ import annotations

from analysis.plan import Plan, frozen_record
from analysis.plan_findings import MET, NOT_MET, SAME_TIME_S, UNKNOWN, Arms, Finding, all_of, seconds_between
from analysis.records import Records


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
    other = "" if seconds_between(time, said) <= SAME_TIME_S else f"; the frozen file says {said}"
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
    return all_of(arms.used["run"], wrong, way_out)


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
    found = all_of(arms.runs["run"], wrong, "report the runs as they are; the rule is part of the plan")
    extra = f"; other attempts: {', '.join(listed[:5])}" if listed else ""
    return Finding(found.verdict, found.detail + extra, found.way_out)


def carry_the_hash(arms: Arms) -> Finding:
    """Each run names the plan that it serves."""
    wrong = [
        f"{row.method}, seed {row.seed} carries {row.plan[:12] or 'no plan'}"
        for row in arms.used.itertuples()
        if row.plan != arms.plan.sha256
    ]
    return all_of(arms.used["run"], wrong, "run with launch.plan=PLAN after the freeze")


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
    return all_of(arms.used["run"], wrong, "new seeds, run after the freeze, under a new plan")


def start_times(arms: Arms) -> Finding:
    """status.json and the ledger agree on when a run began."""
    if not arms.records.ledger.entries:
        return Finding(UNKNOWN, "these runs have no ledger")
    wrong = []
    for row in arms.used.itertuples():
        starts = [e for _, e in arms.entries(row.run, "start") if e.get("attempt") == row.attempt]
        if starts and seconds_between(starts[0]["time"], row.started) > SAME_TIME_S:
            wrong.append(
                f"{row.method}, seed {row.seed} began {row.started} by status.json and "
                f"{starts[0]['time']} by the ledger"
            )
    return all_of(arms.used["run"], wrong, "the records were changed: find out by what, and report it")


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
