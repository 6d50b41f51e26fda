"""Pre-registration: a plan is frozen before the runs, the runs carry its hash, and only then is a result
confirmatory.

A plan is `conf/plan/<name>.yaml` (fields: `FIELDS`). Freezing writes `<name>.frozen.json` beside it with the
SHA-256 of the plan's canonical JSON, the commit and the time; it is written once and never replaced. The
hash ignores comments and key order, and nothing else. Format version 1; read by `report` and `plan check`.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from analysis.cells import AVERAGES
from analysis.errors import Refusal
from analysis.load import Records
from analysis.power import binomial_residual, plannable, standard_error

FORMAT_VERSION = 1
FIELDS = {
    "title": str,
    "hypotheses": list,
    "metric": str,
    "estimand": str,
    "environments": list,
    "splits": list,
    "source": (str, list),
    "seeds": list,
    "manifests": dict,
    "retries": str,
    "alpha": float,
    "power": float,
    "assumptions": dict,
}
OPTIONAL = {"average": str}
"""`average`: how episodes become a run's number, as in `compare --average` (default micro). With `splits`
the hypotheses are about the macro-average over `splits`: one test each, however many splits there are."""
HYPOTHESIS = {"name": str, "method": str, "baseline": str, "direction": str, "margin": (int, float)}
DIRECTIONS = ("greater", "less", "equivalent")
ESTIMANDS = ("recipe on this benchmark", "recipe on new games")
ASSUMPTIONS = ("rate", "run_sd", "games")


@dataclass(frozen=True)
class Plan:
    """A validated plan. `content` is the parsed file, `sha256` the hash that runs carry."""

    content: dict[str, Any]
    sha256: str
    path: Path

    @property
    def methods(self) -> list[str]:
        """Every method that a hypothesis names."""
        names = {h[side] for h in self.content["hypotheses"] for side in ("method", "baseline")}
        return sorted(names)


def read_plan(path: str | Path) -> Plan:
    """Read and validate; refuses a missing, unknown or mistyped field with its name."""
    import yaml

    path = Path(path)
    if not path.exists():
        raise Refusal(f"There is no plan {path}.")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise Refusal(f"{path.name} is not a mapping.")
    _fields(content, FIELDS, path.name, OPTIONAL)
    if content.get("average", "micro") not in AVERAGES:
        raise Refusal(f"{path.name}: average is one of {', '.join(AVERAGES)}.")
    if not content["hypotheses"]:
        raise Refusal(f"{path.name} has no hypothesis.")
    for number, hypothesis in enumerate(content["hypotheses"], 1):
        _fields(hypothesis, HYPOTHESIS, f"{path.name}, hypothesis {number}")
        if hypothesis["direction"] not in DIRECTIONS:
            raise Refusal(f"{path.name}, hypothesis {number}: direction is one of {', '.join(DIRECTIONS)}.")
        if hypothesis["direction"] == "equivalent" and not hypothesis["margin"] > 0:
            raise Refusal(f"{path.name}, hypothesis {number}: equivalence needs a margin above 0.")
    if content["estimand"] not in ESTIMANDS:
        raise Refusal(f"{path.name}: estimand is one of {', '.join(map(repr, ESTIMANDS))}.")
    if len(set(content["seeds"])) != len(content["seeds"]) or len(content["seeds"]) < 2:
        raise Refusal(f"{path.name}: seeds must be at least two different numbers.")
    lacking = [name for name in ASSUMPTIONS if name not in content["assumptions"]]
    if lacking:
        raise Refusal(f"{path.name}: assumptions lacks {', '.join(lacking)}.")
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return Plan(content, hashlib.sha256(canonical.encode()).hexdigest(), path)


def _fields(
    content: dict[str, Any],
    fields: dict[str, Any],
    where: str,
    optional: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    known = fields | dict(optional)
    lacking, unknown = [name for name in fields if name not in content], sorted(set(content) - set(known))
    if lacking:
        raise Refusal(f"{where} lacks {', '.join(lacking)}.")
    if unknown:
        raise Refusal(f"{where} has unknown field(s) {', '.join(unknown)}; known are {', '.join(known)}.")
    for name, kind in known.items():
        if name in content and not isinstance(content[name], kind):
            wanted = " or ".join(k.__name__ for k in kind) if isinstance(kind, tuple) else kind.__name__
            raise Refusal(f"{where}: {name} must be {wanted}, not {content[name]!r}.")


def frozen_path(path: Path) -> Path:
    """Where the frozen record of a plan lies."""
    return path.with_suffix(".frozen.json")


def freeze(path: str | Path, time: str | None = None) -> pd.DataFrame:
    """Freeze a plan now (or at `time`, ISO 8601 with zone). Refuses a plan that was frozen with another
    content."""
    plan = read_plan(path)
    target = frozen_path(plan.path)
    if target.exists():
        earlier = json.loads(target.read_text(encoding="utf-8"))
        if earlier["sha256"] != plan.sha256:
            raise Refusal(
                f"{plan.path.name} was frozen on {earlier['time']} with another content; a changed plan "
                f"is a new plan: "
                "give it a new name."
            )
        return pd.DataFrame([earlier])
    moment = _moment(time) if time else datetime.now(UTC)
    record = {
        "format": FORMAT_VERSION,
        "plan": plan.path.name,
        "sha256": plan.sha256,
        "time": moment.isoformat(timespec="seconds"),
        "commit": _commit(plan.path.parent),
    }
    target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return pd.DataFrame([record])


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Refusal(f"{text!r} is not a time in ISO 8601.") from None
    if moment.tzinfo is None:
        raise Refusal(f"{text!r} has no time zone; write 2026-11-23T12:00:00+00:00.")
    return moment


def _commit(folder: Path) -> str:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def detectables(plan: Plan) -> pd.DataFrame:
    """What the plan can see under its own assumptions, per environment and split, against each hypothesis'
    margin."""
    content = plan.content
    assumed = content["assumptions"]
    runs = len(content["seeds"])
    residual = assumed.get("residual", binomial_residual(assumed["rate"]))
    se = standard_error(
        runs,
        assumed["games"],
        assumed["run_sd"],
        residual,
        assumed.get("method_game_var", 0.0),
        content["estimand"] == "recipe on new games",
    )
    splits = 1 if content.get("average") == "splits" else len(content["splits"])
    count = len(content["hypotheses"]) * len(content["environments"]) * splits
    rows = []
    for hypothesis in content["hypotheses"]:
        # Holm's first step is Bonferroni's: the smallest p is judged at alpha / count.
        effect = plannable(se, runs, content["alpha"] / count, content["power"])
        margin = float(hypothesis["margin"])
        enough = (
            "no margin named" if margin == 0 else "yes" if effect <= margin else "no: more runs are needed"
        )
        rows.append(
            {
                "hypothesis": hypothesis["name"],
                "method": hypothesis["method"],
                "baseline": hypothesis["baseline"],
                "direction": hypothesis["direction"],
                "margin": margin,
                "runs": runs,
                "games": assumed["games"],
                "detectable": plannable(se, runs, content["alpha"], content["power"]),
                "detectable_after_holm": effect,
                "sees_its_margin": enough,
            }
        )
    return pd.DataFrame(rows)


def check(plan: Plan, records: Records) -> pd.DataFrame:
    """Is a result of these records confirmatory? One row per condition: `condition`, `met`, `detail`.

    The plan was frozen and not changed since; every run that its hypotheses need exists and is done; each
    carries the plan's hash; each started after the freeze; the game manifests are the planned ones.
    """
    content = plan.content
    target = frozen_path(plan.path)
    frozen = json.loads(target.read_text(encoding="utf-8")) if target.exists() else None
    same = frozen is not None and frozen["sha256"] == plan.sha256
    detail = (
        "never frozen"
        if not frozen
        else f"frozen {frozen['time']}"
        if same
        else "changed after it was frozen"
    )
    rows = [{"condition": "plan frozen and unchanged", "met": same, "detail": detail}]
    runs = records.runs[
        records.runs["method"].isin(plan.methods) & records.runs["env"].isin(content["environments"])
    ]
    runs = runs[runs["seed"].isin(content["seeds"])]
    done = {(r.method, r.env, r.seed) for r in runs.itertuples() if r.used}
    needed = {(m, e, s) for m in plan.methods for e in content["environments"] for s in content["seeds"]}
    lacking = sorted(needed - done)
    first = f"; first: {lacking[0][0]} on {lacking[0][1]}, seed {lacking[0][2]}" if lacking else ""
    rows.append(
        {
            "condition": "set complete",
            "met": not lacking,
            "detail": f"{len(needed) - len(lacking)} of {len(needed)} runs done{first}",
        }
    )
    used = runs[runs["used"].astype(bool)]
    carrying = int((used["plan"] == plan.sha256).sum())
    rows.append(
        {
            "condition": "runs carry the plan's hash",
            "met": len(used) > 0 and carrying == len(used),
            "detail": f"{carrying} of {len(used)} runs",
        }
    )
    late = [] if not frozen else [r.run for r in used.itertuples() if not _after(r.started, frozen["time"])]
    rows.append(
        {
            "condition": "runs started after the freeze",
            "met": same and len(used) > 0 and not late,
            "detail": "no freeze to compare with"
            if not frozen
            else f"{len(used) - len(late)} of {len(used)} runs",
        }
    )
    rows.append(_manifests(content["manifests"], used, records))
    extra = sorted(
        set(records.runs.loc[records.runs["method"].isin(plan.methods), "seed"]) - set(content["seeds"])
    )
    rows.append(
        {
            "condition": "no run beyond the planned seeds",
            "met": not extra,
            "detail": f"unplanned seeds: {', '.join(map(str, extra))}" if extra else "none",
        }
    )
    return pd.DataFrame(rows)


def _after(started: str, frozen: str) -> bool:
    try:
        moment = datetime.fromisoformat(started)
    except ValueError:
        return False
    return moment.tzinfo is not None and moment > datetime.fromisoformat(frozen)


def _manifests(planned: dict[str, str], used: pd.DataFrame, records: Records) -> dict[str, Any]:
    wrong = []
    for row in used.itertuples():
        actual = str(records.provenance.get(row.run, {}).get("manifest_digest", ""))
        wanted = planned.get(row.env, "")
        if not wanted or not actual.startswith(wanted):
            wrong.append(row.run)
    detail = f"{len(used) - len(wrong)} of {len(used)} runs"
    if not planned:
        detail = "the plan names no manifest"
    return {"condition": "planned game manifests", "met": len(used) > 0 and not wrong, "detail": detail}


def confirmatory(plan: Plan, records: Records, draws: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """The plan's hypotheses, tested as planned: Welch on run means, Holm over all of them, the named
    direction.

    Only the planned seeds, methods, splits and source are used. `status` is `confirmatory` where every
    condition of
    `check` is met, else `exploratory: …` with the first condition that is not.
    """
    from analysis.compare import RECIPE, compare
    from analysis.significance import holm

    content = plan.content
    conditions = check(plan, records)
    unmet = conditions[~conditions["met"]]
    status = "confirmatory" if not len(unmet) else f"exploratory: {unmet.iloc[0]['condition']} is not met"
    planned = _only_planned(plan, records)
    rows = []
    for hypothesis in content["hypotheses"]:
        margin = float(hypothesis["margin"]) if hypothesis["direction"] == "equivalent" else None
        frame = compare(
            planned,
            hypothesis["baseline"],
            metric=content["metric"],
            average=content.get("average", "micro"),
            margin=margin,
            draws=draws,
            seed=seed,
            level=1 - content["alpha"],
            methods=[hypothesis["method"], hypothesis["baseline"]],
        )
        for row in frame.to_dict("records"):
            rows.append({"hypothesis": hypothesis["name"], "direction": hypothesis["direction"], **row})
    result = pd.DataFrame(rows)
    if not len(result):
        raise Refusal("No hypothesis of the plan has episodes on its splits.")
    equivalent = result["direction"] == "equivalent"
    result["p_tested"] = result["p"].where(~equivalent, result.get("p_equivalent"))
    # With one run on a side `compare` tests on the games, which says nothing about a recipe.
    result.loc[result["estimand"] != RECIPE, ["p_tested", "low", "high"]] = float("nan")
    result["p_holm"] = holm(result["p_tested"])
    wanted = result["direction"].map({"greater": 1, "less": -1, "equivalent": 0})
    right_way = (result["difference"] * wanted > 0) | equivalent
    significant = result["p_holm"] < content["alpha"]
    result["verdict"] = "not shown"
    result.loc[significant & right_way, "verdict"] = "supported"
    result.loc[significant & ~right_way, "verdict"] = "contradicted"
    result.loc[result["p_tested"].isna(), "verdict"] = "cannot tell (one run has no spread)"
    result["status"] = status
    keep = [
        "hypothesis",
        "env",
        "split",
        "method",
        "baseline",
        "direction",
        "runs",
        "runs_baseline",
        "difference",
        "low",
        "high",
        "p_tested",
        "p_holm",
        "detectable",
        "verdict",
        "status",
    ]
    return result[keep]


def _only_planned(plan: Plan, records: Records) -> Records:
    from dataclasses import replace

    content = plan.content
    runs = records.runs[
        records.runs["seed"].isin(content["seeds"])
        & records.runs["method"].isin(plan.methods)
        & records.runs["env"].isin(content["environments"])
    ]
    sources = content["source"] if isinstance(content["source"], list) else [content["source"]]
    episodes = records.episodes[
        records.episodes["run"].isin(set(runs["run"]))
        & records.episodes["split"].isin(content["splits"])
        & records.episodes["source"].isin(sources)
    ]
    return replace(records, runs=runs, episodes=episodes)
