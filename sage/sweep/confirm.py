"""`python -m sage confirm sweep=...`: the winner, the baselines and the references on fresh seeds and games.

The best of many trials looks better on the games and seeds it was chosen on than it is. Here nothing is
chosen any more: the runs use seeds and games that no trial has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from sage.errors import ConfigError
from sage.records.intervals import welch_error
from sage.sweep import store
from sage.sweep.search import point_overrides, show
from sage.sweep.settings import Objective, SweepSettings
from sage.sweep.value import value_of

RunAll = Callable[[Sequence[list[str]]], Sequence[Path | None]]


def confirm(settings: SweepSettings, study: Any, run_all: RunAll) -> None:
    """Run what is missing and print the table. Raises ConfigError where the study has no finished trial."""
    arms = contestants(settings, study)
    how = settings.confirm
    shared = [f"evaluation.splits=[{how.split}]", "evaluation.after=true"]
    keys = [(name, seed) for name in arms for seed in how.seeds]
    folders = run_all([[*arms[name], *shared, f"seed={seed}"] for name, seed in keys])
    objective = [Objective(metric="success", direction="maximize", split=how.split)]
    rates: dict[str, dict[int, float]] = {name: {} for name in arms}
    for (name, seed), folder in zip(keys, folders, strict=True):
        value = value_of(folder, objective) if folder is not None else None
        if value is not None:
            rates[name][seed] = value.figures[0]
    print(table(settings, rates), flush=True)


def contestants(settings: SweepSettings, study: Any) -> dict[str, list[str]]:
    """Name to overrides: the winner(s) first, then the baselines, then the references."""
    done = store.finished(study)
    if not done:
        raise ConfigError(
            f"The study {settings.study!r} has no finished trial to confirm; "
            "run python -m sage -m sweep=... first."
        )
    best = study.best_trials if len(settings.objectives) > 1 else [study.best_trial]
    arms = {f"winner: {show(t.params)}": point_overrides(t.params) for t in best}
    taken = [t.params for t in best]
    for point in settings.baselines:
        if point not in taken:
            arms[f"baseline: {show(point)}"] = point_overrides(point)
    return arms | {f"reference: {name}": list(words) for name, words in settings.references.items()}


def table(settings: SweepSettings, rates: dict[str, dict[int, float]]) -> str:
    """Mean and sd over runs, and the winner's lead over each arm with Welch's 95 % interval. It says that it
    confirms only where no run is missing."""
    how = settings.confirm
    winner = list(next(iter(rates.values())).values())
    wanted, done = len(rates) * len(how.seeds), sum(map(len, rates.values()))
    head = "Confirmed" if done == wanted else f"Not confirmed yet, {done} of {wanted} runs are finished:"
    lines = [f"{head} on {how.split} with seeds {how.seeds}, which no trial has used; success in %:"]
    width = max(map(len, rates))
    for i, (name, by_seed) in enumerate(rates.items()):
        runs = list(by_seed.values())
        if not runs:
            lines.append(f"  {name:<{width}}  no finished run")
            continue
        spread = f" sd {100 * stdev(runs):4.1f}" if len(runs) > 1 else ""
        lead = f"  winner leads by {welch(winner, runs)}" if i and winner else ""
        lines.append(f"  {name:<{width}}  {100 * fmean(runs):5.1f}{spread}, {len(runs)} runs{lead}")
    lines.append("Welch 95 % intervals on run means, not adjusted for several comparisons.")
    return "\n".join(lines)


def welch(a: Sequence[float], b: Sequence[float]) -> str:
    """Difference of the means of two groups of runs in points, with Welch's interval; without one where a
    group has fewer than two runs or no spread."""
    difference = 100 * (fmean(a) - fmean(b))
    if len(a) < 2 or len(b) < 2:
        return f"{difference:+.1f} points"
    va, vb = stdev(a) ** 2, stdev(b) ** 2
    if va + vb == 0:
        return f"{difference:+.1f} points"
    try:
        from scipy.stats import t
    except ImportError:
        return f"{difference:+.1f} points (no interval: pip install scipy)"
    error, freedom = welch_error(va, len(a), vb, len(b))
    half = 100 * float(t.ppf(0.975, freedom)) * error
    return f"{difference:+.1f} points [{difference - half:.1f}, {difference + half:.1f}]"
