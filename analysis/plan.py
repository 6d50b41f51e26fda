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
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from analysis.errors import Refusal
from analysis.plan_looks import FIELD, boundaries, check_looks, expected, schedule
from analysis.power import binomial_residual, standard_error
from analysis.power_designs import plannable_in
from analysis.question import AVERAGES, DESIGNS
from sage.config.moved import modern_label

PLAN_FORMAT = 2
"""Of new plans. One without the field `format` is of format 1: it stays readable, and what it does not say
cannot be known when it is checked."""
NEW_GAMES = "recipe on new games"
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
    "retries": (int, str),
    "alpha": float,
    "power": float,
    "assumptions": dict,
}
OF_FORMAT_2 = {"format": int, "design": str, "games": dict, "not_ok": float, "arms": dict}
"""What format 2 asks for beside `FIELDS`.

`design`: how runs are compared (`analysis.designs`): `independent`, or `paired` by seed, or `blocked` over
all of the plan's methods. The latter two assume a `correlation` of paired run means under `assumptions`.
`games`: number of games of each split. `not_ok`: the largest share of a run's episodes that may be not ok.
`arms`: per method the settings (dotted; a group stands for all in it) in which it may differ from the other
arms. `retries` is a number there: how often a failed run may start again."""
OPTIONAL = {"average": str, "other_plans": int, FIELD: dict}
"""`other_plans`: how many other plans are frozen beside these runs (default 0). `average`: how episodes
become a run's number, as in `compare --average` (default micro). With `splits` the hypotheses are about the
macro-average over `splits`: one test each, however many splits there are. `looks`: when the plan is looked
at before its end (`analysis.plan_looks`; format 2)."""
HYPOTHESIS = {"name": str, "method": str, "baseline": str, "direction": str, "margin": (int, float)}
DIRECTIONS = ("greater", "less", "equivalent")
ESTIMANDS = ("recipe on this benchmark", NEW_GAMES)
ASSUMPTIONS = ("rate", "run_sd", "games")


@dataclass(frozen=True)
class Plan:
    """A validated plan. `content` is the parsed file, `sha256` the hash that runs carry."""

    content: dict[str, Any]
    sha256: str
    path: Path
    draws: int = 2000
    seed: int = 0
    """Both of the intervals that stand beside the tests."""
    upto: int | None = None
    """With looks: how many of the seeds, from the first on, are looked at; None for all."""

    @property
    def seeds(self) -> list[int]:
        """The seeds that are looked at."""
        return list(self.content["seeds"][: self.upto])

    @property
    def format(self) -> int:
        """1 for plans without the field."""
        return int(self.content.get("format", 1))

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
    if "format" in content:
        _fields(content, FIELDS | OF_FORMAT_2, path.name, OPTIONAL)
        _check_format_2(content, path.name)
    else:
        _fields(content, FIELDS, path.name, OPTIONAL)
    if content.get("average", "micro") not in AVERAGES:
        raise Refusal(f"{path.name}: average is one of {', '.join(AVERAGES)}.")
    _check_hypotheses(content["hypotheses"], path.name)
    _call_as_today(content)
    if content["estimand"] not in ESTIMANDS:
        raise Refusal(f"{path.name}: estimand is one of {', '.join(map(repr, ESTIMANDS))}.")
    if len(set(content["seeds"])) != len(content["seeds"]) or len(content["seeds"]) < 2:
        raise Refusal(f"{path.name}: seeds must be at least two different numbers.")
    check_looks(content, path.name)
    lacking = [name for name in ASSUMPTIONS if name not in content["assumptions"]]
    if lacking:
        raise Refusal(f"{path.name}: assumptions lacks {', '.join(lacking)}.")
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return Plan(content, hashlib.sha256(canonical.encode()).hexdigest(), path)


def _call_as_today(content: dict[str, Any]) -> None:
    """Methods by the names that loaded records give them, where an option in one is called otherwise now."""
    for hypothesis in content["hypotheses"]:
        hypothesis |= {side: modern_label(hypothesis[side]) for side in ("method", "baseline")}
    if isinstance(content.get("arms"), dict):
        content["arms"] = {modern_label(str(name)): keys for name, keys in content["arms"].items()}


def _check_hypotheses(hypotheses: list[Any], where: str) -> None:
    """Refuse a plan without a hypothesis, and one that says nothing that could be tested."""
    if not hypotheses:
        raise Refusal(f"{where} has no hypothesis.")
    for number, hypothesis in enumerate(hypotheses, 1):
        _fields(hypothesis, HYPOTHESIS, f"{where}, hypothesis {number}")
        if hypothesis["direction"] not in DIRECTIONS:
            raise Refusal(f"{where}, hypothesis {number}: direction is one of {', '.join(DIRECTIONS)}.")
        if hypothesis["direction"] == "equivalent" and not hypothesis["margin"] > 0:
            raise Refusal(f"{where}, hypothesis {number}: equivalence needs a margin above 0.")


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


def _check_format_2(content: dict[str, Any], where: str) -> None:
    """Refuse values of the fields of format 2 that mean nothing."""
    if content["format"] != PLAN_FORMAT:
        raise Refusal(
            f"{where} has format {content['format']}; this version reads {PLAN_FORMAT}, or none (1)."
        )
    if content["design"] not in DESIGNS:
        raise Refusal(
            f"{where}: the design {content['design']!r} is not known; it is one of {', '.join(DESIGNS)}."
        )
    if content["design"] != "independent" and not _is_correlation(content["assumptions"].get("correlation")):
        raise Refusal(
            f"{where}: a {content['design']} design assumes a correlation of runs with one seed, between -1 "
            "and 1, under assumptions; `compare` prints that of earlier runs as pair_correlation."
        )
    if not isinstance(content["retries"], int) or content["retries"] < 0:
        raise Refusal(
            f"{where}: retries is a rule, the number of times that a failed run may be started again (0, 1, "
            f"…), not {content['retries']!r}."
        )
    if not 0 <= content["not_ok"] < 1:
        raise Refusal(f"{where}: not_ok is a share of episodes such as 0.02, not {content['not_ok']}.")
    if content.get("other_plans", 0) < 0:
        raise Refusal(
            f"{where}: other_plans is the number of other plans frozen beside these runs, from 0 on."
        )
    _check_games(content, where)
    _check_arms(content, where)


def _check_games(content: dict[str, Any], where: str) -> None:
    wrong = [split for split in content["splits"] if not _is_count(content["games"].get(split))]
    if wrong or set(content["games"]) - set(content["splits"]):
        raise Refusal(
            f"{where}: games names each of its splits and no other with its number, as in valid_unseen: 134."
        )


def _check_arms(content: dict[str, Any], where: str) -> None:
    methods = {h[side] for h in content["hypotheses"] for side in ("method", "baseline")}
    for method in sorted(methods | set(content["arms"])):
        keys = content["arms"].get(method)
        if method not in methods or not isinstance(keys, list) or not all(isinstance(k, str) for k in keys):
            raise Refusal(
                f"{where}: arms lists for each method of a hypothesis the settings in which it differs, as "
                f"in [intervention, confidence], or []; {method} is not so."
            )


def _is_correlation(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1 < value < 1


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def frozen_path(path: Path) -> Path:
    """Where the frozen record of a plan lies."""
    return path.with_suffix(".frozen.json")


def frozen_record(path: Path) -> dict[str, Any] | None:
    """What was written when the plan at `path` was frozen; None where it never was."""
    target = frozen_path(path)
    if not target.exists():
        return None
    try:
        record = json.loads(target.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not all(
        isinstance(record.get(key), str) for key in ("sha256", "time")
    ):
        raise Refusal(
            f"{target.name} is not what freezing a plan writes; take it out of the way and freeze the plan "
            "again: the ledger beside the runs keeps the time of the first freeze."
        )
    return record


def freeze(path: str | Path, runs: str | Path = "runs") -> pd.DataFrame:
    """Freeze a plan now: a line in the ledger beside the runs in `runs`, and `<plan>.frozen.json`.

    The ledger's line is what counts, and its time is the clock's. A plan that was frozen before gets a line
    in a ledger that has none of it (a plan that came with the code, say), and keeps its frozen file. Refuses
    a plan that was frozen with another content.
    """
    from sage.records import run_ledger

    plan = read_plan(path)
    earlier = frozen_record(plan.path)
    if earlier is not None and earlier["sha256"] != plan.sha256:
        raise Refusal(
            f"{plan.path.name} was frozen on {earlier['time']} with another content; a changed plan is a new "
            "plan: give it a new name."
        )
    folder = Path(runs)
    before = [entry for entry in run_ledger.read(folder).of("freeze") if entry["digest"] != plan.sha256]
    known = [entry for entry in run_ledger.read(folder).of("freeze") if entry["digest"] == plan.sha256]
    entry = known[0] if known else run_ledger.append(folder, "freeze", plan.sha256, plan=plan.path.name)
    if earlier is None:
        record = {
            "format": plan.format,
            "plan": plan.path.name,
            "sha256": plan.sha256,
            "time": entry["time"],
            "commit": _commit(plan.path.parent),
            **boundaries(plan.content),
        }
        frozen_path(plan.path).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    record = frozen_record(plan.path) or {}
    others = len({other["digest"] for other in before})
    return pd.DataFrame([record | {"ledger": entry["time"], "other_plans_here": others}])


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
    design = content.get("design", "independent")
    methods = len(plan.methods)
    se, count = assumed_error(plan), tests_of(plan)
    rows = []
    for hypothesis in content["hypotheses"]:
        # Holm's first step is Bonferroni's: the smallest p is judged at alpha / count.
        effect = plannable_in(design, se, runs, methods, content["alpha"] / count, content["power"])
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
                "design": design,
                "runs": runs,
                "games": assumed["games"],
                "detectable": plannable_in(design, se, runs, methods, content["alpha"], content["power"]),
                "detectable_after_holm": effect,
                "sees_its_margin": enough,
            }
        )
    return pd.DataFrame(rows)


def assumed_error(plan: Plan) -> float:
    """Standard error of a difference at the plan's end, under its assumptions."""
    assumed, design = plan.content["assumptions"], plan.content.get("design", "independent")
    return standard_error(
        len(plan.content["seeds"]),
        assumed["games"],
        assumed["run_sd"],
        assumed.get("residual", binomial_residual(assumed["rate"])),
        assumed.get("method_game_var", 0.0),
        plan.content["estimand"] == NEW_GAMES,
        0.0 if design == "independent" else float(assumed["correlation"]),
    )


def tests_of(plan: Plan) -> int:
    """How many tests Holm's correction counts: hypotheses × environments × splits."""
    content = plan.content
    splits = 1 if content.get("average") == "splits" else len(content["splits"])
    return len(content["hypotheses"]) * len(content["environments"]) * splits


def foreseen(plan: Plan) -> dict[str, pd.DataFrame]:
    """`detectables`; of a plan with looks also its schedule, and what the looks do under its assumptions to
    the hypothesis with the smallest margin, at Holm's first step."""
    found = {"power": detectables(plan)}
    if FIELD in plan.content:
        margins = [float(h["margin"]) for h in plan.content["hypotheses"] if h["direction"] != "equivalent"]
        sd = assumed_error(plan) * len(plan.content["seeds"]) ** 0.5
        alpha = plan.content["alpha"] / tests_of(plan)
        found["looks"] = schedule(plan.content)
        found["expected"] = expected(plan.content, sd, min(margins, default=0.0), alpha)
    return {name: frame for name, frame in found.items() if len(frame)}
