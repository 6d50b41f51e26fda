"""Equivalence under looks in the blocked design, simulated as the plan of the sharp nulls tests it; printed
and written into docs/evidence/coverage.md.

    nice -n 15 python benchmarks/equivalence_looks.py --reps 10000 --write docs/evidence/coverage.md

A study is that of conf/plan/sharp_nulls.yaml: nine methods, ten seeds, its looks, eight hypotheses on two
sets of 134 games, Holm over the sixteen. Rates and spreads are those seen in it (results/sharp_nulls.md):
runs of one method spread by 3.3 points; the blocked test took a sd of paired differences of 2.7 points on
generated games and 3.1 on official ones; the pairs of the fourteen equivalences themselves differed by 2.1.
A difference at the margin is one on exactly these games: the margin is what these games make of 3 points.
The two sets are drawn apart; in a real study they share their runs. The tests are computed for all studies
at once, and the first ones of a cell are held against what `analysis` makes of them, look by look.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from analysis.designs import design_of, error_at_margin
from analysis.group_sequential import Looks
from analysis.plan import read_plan
from analysis.plan_looks import looks_of
from analysis.significance import equivalence, holm
from analysis.simulate import World
from analysis.simulate_pairs import PairedWorld
from benchmarks.coverage import Studies, main
from benchmarks.coverage_paired import CHECKED, blocked_tests, table_of

PLAN = Path(__file__).parent.parent / "conf" / "plan" / "sharp_nulls.yaml"
SEED_SD = 0.01
"""With their games' chance the runs of a method then spread by 3.2 to 3.4 points."""
WIDE = 4.0
"""Times the sd over runs that the others have: a method whose runs spread by 5 points."""
CHUNK = 250
RATES = (0.67, 0.52)
"""Success on the plan's sets of games: generated, official."""


@dataclass(frozen=True)
class Spread:
    """The share of a run's luck that its seed brings, on generated and on official games, and the method
    whose runs spread more."""

    correlations: tuple[float, float]
    wide: str | None = None


SPREADS = {
    "alike": Spread((0.85, 0.78)),
    "sage_opd's runs more": Spread((0.85, 0.78), "sage_opd"),
    "sft's runs more, others' pairs closer": Spread((0.94, 0.94), "sft"),
}
RAISED = {
    "all 14 at the margin": ("sage_opd", "oracle_intervention", "confidence_only"),
    "two at the margin, twelve 0": ("oracle_intervention",),
    "all 14 are 0": (),
}
"""The methods that are a margin better than the others: with them so many contrasts are at the margin."""


@dataclass(frozen=True)
class Contrast:
    """A hypothesis of the plan: numbers of its two arms, and whether it says that they are equal."""

    pair: tuple[int, int]
    equivalent: bool


@dataclass(frozen=True)
class Planned:
    """What the plan says."""

    arms: tuple[str, ...]
    contrasts: tuple[Contrast, ...]
    looks: Looks
    games: tuple[int, ...]
    margin: float
    alpha: float

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Planned:
        """A plan with looks whose hypotheses have one margin."""
        number = {name: i for i, name in enumerate(content["arms"])}
        hypotheses, looks = content["hypotheses"], looks_of(content)
        (margin,) = {h["margin"] for h in hypotheses}
        assert looks is not None
        contrasts = (
            Contrast((number[h["method"]], number[h["baseline"]]), h["direction"] == "equivalent")
            for h in hypotheses
        )
        games = tuple(content["games"].values())
        return cls(tuple(number), tuple(contrasts), looks, games, margin, content["alpha"])


def p_at_looks(values: np.ndarray, plan: Planned, margin: np.ndarray) -> np.ndarray:
    """[studies, contrasts, looks] p of the planned tests in one place, each look's own; `values` [studies,
    arms, seeds, games], `margin` [studies]."""
    games = values.shape[3]
    means = values.mean(axis=3, dtype=float)
    found = np.empty((len(values), len(plan.contrasts), len(plan.looks.after)))
    for look, seeds in enumerate(plan.looks.after):
        least = np.sqrt(margin * (1 - margin) / games / seeds)  # `analysis.designs.error_at_margin`
        for row, contrast in enumerate(plan.contrasts):
            gap, se, df, _ = blocked_tests(means[:, :, :seeds], games, contrast.pair)
            if contrast.equivalent:
                found[:, row, look] = special.stdtr(df, (np.abs(gap) - margin) / np.maximum(se, least))
            else:
                found[:, row, look] = 2 * special.stdtr(df, -np.abs(gap) / se)
    return found


def shipped_p_at_looks(values: np.ndarray, plan: Planned, margin: float) -> np.ndarray:
    """[contrasts, looks] the same of one study's [arms, seeds, games], by `analysis` alone."""
    design = design_of("blocked")
    found = np.empty((len(plan.contrasts), len(plan.looks.after)))
    for look, seeds in enumerate(plan.looks.after):
        table = table_of(values[:, :seeds].astype(float))
        for row, contrast in enumerate(plan.contrasts):
            method, baseline = (f"m{arm}" for arm in contrast.pair)
            test = design.test(table, method, baseline).test
            se = error_at_margin(design, table, method, baseline, test.se, margin)
            equal = equivalence(test.difference, se, test.df, margin)
            found[row, look] = equal if contrast.equivalent else test.p
    return found


def p_of_study(p: np.ndarray, plan: Planned) -> np.ndarray:
    """[studies, contrasts] p at the last look, from those at all looks. It only ever falls from look to look,
    and Holm's with it: what is shown at any look is shown at the last."""
    of_looks = {True: plan.looks.one_sided_p_value, False: plan.looks.p_value}
    columns = [[of_looks[c.equivalent](row) for row in p[:, i]] for i, c in enumerate(plan.contrasts)]
    return np.array(columns).T


def draw(
    plan: Planned, raised: tuple[str, ...], spread: Spread, size: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each set of games ([studies, arms, seeds, games] of wins, margins [studies])."""
    drawn, up = [], np.isin(plan.arms, raised)
    spreads = tuple(WIDE if arm == spread.wide else 1.0 for arm in plan.arms)
    for rate, correlation, games in zip(RATES, spread.correlations, plan.games, strict=True):
        world = PairedWorld(World(seed_sd=SEED_SD, games=games, method_game_sd=0.0), correlation, spreads)
        rates = [float(r) for r in rate + plan.margin * up]
        won, chance = world.draw(rates, plan.looks.after[-1], size, rng)
        here = chance.mean(axis=2, dtype=float)
        margin = np.full(size, plan.margin)
        if raised:
            margin = here[:, up].mean(axis=1) - here[:, ~up].mean(axis=1)
        drawn.append((won, margin))
    return drawn


def cell(raised: tuple[str, ...], spread: Spread, reps: int, key: list[int]) -> dict[str, object]:
    """One row: how often an equivalence is shown, of those at the margin and of those of methods alike."""
    plan, rng = Planned.of(read_plan(PLAN).content), np.random.default_rng(key)
    last, whole, variances = [], [], []
    for start in range(0, reps, CHUNK):
        drawn = draw(plan, raised, spread, min(CHUNK, reps - start), rng)
        p = [p_at_looks(values, plan, margin) for values, margin in drawn]
        for here, (values, margin) in zip(p, drawn, strict=True):
            for i in range(min(CHECKED, len(values)) if start == 0 else 0):
                shipped = shipped_p_at_looks(values[i], plan, float(margin[i]))
                np.testing.assert_allclose(here[i], shipped, rtol=1e-6, atol=1e-12)
        last.append(np.concatenate([here[:, :, -1] for here in p], axis=1))
        whole.append(np.concatenate([p_of_study(here, plan) for here in p], axis=1))
        variances.append([_variances(values, plan) for values, _ in drawn])
    of_pairs, taken = (100 * np.sqrt(np.mean(variances, axis=0))).T
    row: dict[str, object] = {
        "sd of pairs, points": ", ".join(f"{sd:.1f}" for sd in of_pairs),
        "sd that the test takes, points": ", ".join(f"{sd:.1f}" for sd in taken),
    }
    return row | _shown(plan, np.isin(plan.arms, raised), np.concatenate(last), np.concatenate(whole))


def _variances(values: np.ndarray, plan: Planned) -> tuple[float, float]:
    """Of the seed differences of the equivalences, mean over them and studies: what they are, and what the
    blocked test takes them for."""
    means = values.mean(axis=3, dtype=float)
    pairs = [c.pair for c in plan.contrasts if c.equivalent]
    of_pairs = [(means[:, a] - means[:, b]).var(axis=1, ddof=1).mean() for a, b in pairs]
    taken = [(blocked_tests(means, values.shape[3], pair)[1] ** 2).mean() * means.shape[2] for pair in pairs]
    return float(np.mean(of_pairs)), float(np.mean(taken))


def _shown(plan: Planned, up: np.ndarray, last: np.ndarray, whole: np.ndarray) -> dict[str, float]:
    """Shares, from [studies, contrasts of all places] p of ten seeds looked at once, and p of the looks."""
    equal = np.array([c.equivalent for c in plan.contrasts] * len(plan.games))
    apart = np.array([up[c.pair[0]] != up[c.pair[1]] for c in plan.contrasts] * len(plan.games))
    after_holm = np.array([holm(p) for p in whole]) < plan.alpha
    found: dict[str, float] = {}
    for truth, rows in (("at the margin", equal & apart), ("0", equal & ~apart)):
        if rows.any():
            found[f"{truth}: ten seeds, no looks"] = float((last[:, rows] < plan.alpha).mean())
            found[f"{truth}: shown at any look"] = float((whole[:, rows] < plan.alpha).mean())
            found[f"{truth}: shown after Holm"] = float(after_holm[:, rows].mean())
    if (equal & apart).any():
        found["at the margin: any shown after Holm"] = float(after_holm[:, equal & apart].any(axis=1).mean())
    return found


def equivalence_looks(reps: int) -> pd.DataFrame:
    """Which differences are at the margin × how runs spread."""
    rows = []
    for i, (truth, raised) in enumerate(RAISED.items()):
        for j, (kind, spread) in enumerate(SPREADS.items()):
            place: dict[str, object] = {"true differences": truth, "spreads": kind}
            rows.append(place | cell(raised, spread, reps, [33, i, j]))
            print(rows[-1], file=sys.stderr, flush=True)
    return pd.DataFrame(rows)


STUDIES: Studies = {
    "equivalence_looks": (
        "Equivalence within 3 points under looks after 5, 7 and 10 seeds, blocked design (nominal 0.05)",
        equivalence_looks,
    )
}


if __name__ == "__main__":
    main(STUDIES, __doc__)
