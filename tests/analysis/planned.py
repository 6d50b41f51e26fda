"""A small study with a frozen plan in the project's own format: identities, run folders, seals, ledger.

Only the episodes are drawn here instead of played, so that the study takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from analysis.plan import freeze, read_plan
from sage.config.load import load as load_config
from sage.records import provenance, run_ledger
from sage.records.identity import Identity
from sage.records.rundir import RunDir, new_attempt
from sage.records.schema import EPISODES

GAMES = 24
SEEDS = (0, 1, 2)
RATES = {"opd": 0.2, "sage_opd": 0.85}
MANIFEST = "5ca1ab1e" * 8
SMALL = ("tracking.mlflow=false", "evaluation.splits=[valid_unseen]", "env.games=generated")
ARMS = {
    "opd": ["intervention", "confidence", "normalization"],
    "sage_opd": ["intervention", "confidence", "normalization"],
}
PLAN: dict[str, Any] = {
    "format": 2,
    "title": "A small study",
    "metric": "won",
    "estimand": "recipe on this benchmark",
    "design": "independent",
    "environments": ["alfworld"],
    "splits": ["valid_unseen"],
    "source": "generated",
    "seeds": list(SEEDS),
    "manifests": {"alfworld": MANIFEST[:12]},
    "games": {"valid_unseen": GAMES},
    "retries": 1,
    "not_ok": 0.05,
    "arms": ARMS,
    "alpha": 0.05,
    "power": 0.8,
    "hypotheses": [
        {"name": "better", "method": "sage_opd", "baseline": "opd", "direction": "greater", "margin": 0.1}
    ],
    "assumptions": {"rate": 0.3, "run_sd": 0.05, "games": GAMES},
}


def write_plan(folder: Path, name: str = "plan.yaml", **changes: Any) -> Path:
    """The plan's file, with `changes`."""
    path = folder / name
    path.write_text(yaml.safe_dump({**PLAN, **changes}), encoding="utf-8")
    return path


def outcomes(method: str, seed: int, rate: float | None = None) -> pd.DataFrame:
    """The evaluation of one run: a row for each game, with its status."""
    rng = np.random.default_rng([seed, len(method)])
    rate = (RATES[method] if rate is None else rate) + 0.04 * (seed - 1)
    won = rng.random(GAMES) < rate
    return pd.DataFrame(
        {"task": [f"game-{g:02d}" for g in range(GAMES)], "status": np.where(won, "won", "lost")}
    )


def write_run(
    runs: Path,
    method: str,
    seed: int,
    plan: str | None,
    overrides: Sequence[str] = (),
    played: pd.DataFrame | None = None,
    manifest: str = MANIFEST,
    finish: bool = True,
) -> RunDir:
    """One run as `python -m sage` leaves it; `plan` is the hash that it carries."""
    line = [f"method={method}", f"seed={seed}", f"launch.runs_dir={runs}", *SMALL, *overrides]
    config = load_config(line)
    identity = Identity.of(config, manifest)
    folder = new_attempt(runs, identity, config)
    folder.start(steps=config.trainer.steps)
    run_ledger.append(runs, "start", identity.digest, run=identity.run, attempt=folder.attempt)
    provenance.write(folder.path, manifest_digest=manifest, models={}, plan_sha256=plan)
    episodes = outcomes(method, seed) if played is None else played
    ok = ~episodes["status"].isin(["env_error", "policy_error"])
    won = episodes["status"].eq("won").where(ok)
    names = {"run": identity.run, "method": method, "env": "alfworld", "source": "generated", "seed": seed}
    key = {"phase": "eval", "step": config.trainer.steps, "split": "valid_unseen", "task_type": "pick"}
    episodes = episodes.assign(**names, **key, rollout=0, ok=ok, won=won, turns=9, error="", game_sha256="")
    episodes.reindex(columns=list(EPISODES)).to_parquet(folder.path / "episodes.parquet", index=False)
    if finish:
        folder.done()
    else:
        folder.fail("The disk is full.")
    return folder


def write_planned(
    root: Path,
    change: Callable[[str, int], dict[str, Any]] = lambda method, seed: {},
    **plan_changes: Any,
) -> tuple[Path, Path]:
    """(plan, runs): a plan that is frozen and then carried out; `change` gives a run other options."""
    plan, runs = write_plan(root, **plan_changes), root / "runs"
    freeze(plan, runs)
    for method in RATES:
        for seed in SEEDS:
            write_run(runs, method, seed, read_plan(plan).sha256, **change(method, seed))
    return plan, runs
