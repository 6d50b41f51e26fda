"""Plans and power with a design: what they need, what they test, what they can see."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from analysis.__main__ import main
from analysis.designs import design_of
from analysis.errors import Refusal
from analysis.load import load
from analysis.plan import detectables, read_plan
from analysis.plan_check import check, confirmatory
from analysis.power import detectable, plannable
from analysis.power_designs import Assumed, detectable_table, needed_in, needed_table, plannable_in, power_in
from analysis.render import render
from analysis.report.table import as_table
from tests.analysis.planned import PLAN, write_plan, write_planned

ASSUMED = PLAN["assumptions"] | {"correlation": 0.8}


def test_a_plan_that_pairs_names_the_correlation_that_it_assumes(tmp_path):
    for wrong in ({}, {"correlation": 1.0}, {"correlation": "high"}):
        path = write_plan(tmp_path, design="paired", assumptions=PLAN["assumptions"] | wrong)
        with pytest.raises(Refusal, match=r"a paired design assumes a correlation .* pair_correlation"):
            read_plan(path)
    with pytest.raises(
        Refusal, match="the design 'crossed' is not known; it is one of independent, paired, blocked"
    ):
        read_plan(write_plan(tmp_path, design="crossed"))


def test_a_plan_sees_by_its_design(tmp_path):
    seen = {
        design: detectables(read_plan(write_plan(tmp_path, design=design, assumptions=ASSUMED))).iloc[0]
        for design in ("independent", "paired", "blocked")
    }
    residual = 0.3 * 0.7 * 0.5
    se = np.sqrt(2 * (0.05**2 + residual / 24) / 3)
    assert seen["independent"]["detectable"] == pytest.approx(plannable(se, 3))
    assert seen["paired"]["detectable"] == pytest.approx(detectable(se * np.sqrt(0.2), 2))
    assert seen["blocked"]["detectable"] == pytest.approx(seen["paired"]["detectable"])  # two methods


@pytest.mark.parametrize("design", ["paired", "blocked"])
def test_a_paired_plan_is_tested_by_its_pairs_and_confirmatory(tmp_path, design):
    plan, runs = write_planned(tmp_path, design=design, assumptions=ASSUMED)
    records = load([runs])
    conditions = check(read_plan(plan), records).set_index("condition")
    assert conditions["met"].all(), conditions[~conditions["met"]][["verdict", "detail"]]
    assert "runs of one seed are pairs" in conditions.index
    row = confirmatory(read_plan(plan), records, draws=200).iloc[0]
    means = records.episodes.groupby(["method", "seed"])["won"].mean().unstack(0)
    assert row["p_tested"] == pytest.approx(stats.ttest_rel(means["sage_opd"], means["opd"]).pvalue)
    assert (row["test"], row["status"]) == (design_of(design).title, "confirmatory")


def test_planned_differences_say_the_level_of_their_interval_in_every_form(tmp_path, capsys):
    plan, runs = write_planned(tmp_path, design="paired", assumptions=ASSUMED, alpha=0.01)
    frame = confirmatory(read_plan(plan), load([runs]), draws=200)
    assert "interval, 99 %, new games  [" in render(frame, "text")
    assert "| low, 99 %, new games | high, 99 %, new games |" in render(frame, "md")
    assert r"low, 99 \%, new games & high, 99 \%, new games &" in render(frame, "tex")
    assert "interval, 99 %, new games" in [column.words for column in as_table(frame).columns]
    assert (frame["interval_level"].iloc[0], frame["interval_of"].iloc[0]) == (0.99, "new games")
    for form in ("text", "md", "tex"):
        assert "interval_level" not in render(frame, form)
    rows = pd.concat([frame, frame.assign(interval_level=0.9)], ignore_index=True)
    assert "interval_level" in render(rows, "md")  # rows that differ say it each

    out = tmp_path / "report"
    line = [
        "report",
        str(runs),
        "--plan",
        str(plan),
        "--baseline",
        "opd",
        "--draws",
        "200",
        "--out",
        str(out),
    ]
    assert main(line) == 0
    assert ">interval, 99 %, new games<" in (out / "report.html").read_text()
    page = (out / "report.md").read_text()
    assert "low, 99 %, new games" in page
    assert "(99 %, new games); confirmatory" in page
    capsys.readouterr()


def test_a_paired_plan_of_new_games_takes_pairs_and_games(tmp_path):
    plan, runs = write_planned(tmp_path, design="paired", assumptions=ASSUMED, estimand="recipe on new games")
    records = load([runs])
    row = confirmatory(read_plan(plan), records, draws=200).iloc[0]
    means = records.episodes.groupby(["method", "seed"])["won"].mean().unstack(0)
    on_these = stats.ttest_rel(means["sage_opd"], means["opd"]).pvalue
    assert on_these * (1 - 1e-9) <= row["p_tested"] < 0.05  # never surer than on these games
    assert row["test"] == "t, runs and games"


def test_a_plan_whose_runs_of_one_seed_are_no_pairs_is_not_confirmatory(tmp_path):
    other = {"overrides": ("student.dtype=bfloat16",)}
    arms = {name: [*keys, "student"] for name, keys in PLAN["arms"].items()}
    plan, runs = write_planned(
        tmp_path,
        lambda method, seed: other if method == "sage_opd" else {},
        design="paired",
        assumptions=ASSUMED,
        arms=arms,
    )
    conditions = check(read_plan(plan), load([runs])).set_index("condition")
    assert conditions.loc["runs of one seed are pairs", "verdict"] == "not met"
    assert "seed 0 differ in student" in conditions.loc["runs of one seed are pairs", "detail"]
    assert "are no pair" in conditions.loc["verdict the same in the worst case", "detail"]


def test_blocked_power_is_what_simulated_studies_find():
    """The rule of `analysis.blocked`, applied to runs that were not drawn for the plan."""
    from analysis.blocked import Blocks

    methods, runs, rng = 5, 4, np.random.default_rng(8)
    names = [f"m{i}" for i in range(methods) for _ in range(runs)]
    seeds = list(range(runs)) * methods
    effect = plannable_in("blocked", np.sqrt(2 / runs), runs, methods)
    hits = 0
    for _ in range(1000):
        y = rng.standard_normal((methods, runs)) + 3 * rng.standard_normal(runs)
        y[1] += effect
        hits += Blocks(y.ravel(), names, seeds).contrast("m1", "m0")[0].p < 0.05
    assert hits / 1000 == pytest.approx(0.8, abs=0.04)
    assert power_in("blocked", effect, np.sqrt(2 / runs), runs, methods) == pytest.approx(0.8, abs=0.01)


def test_seeds_needed_by_design():
    frame = needed_table((0.05,), Assumed(run_sds=(0.04,), correlation=0.83, methods=10))
    row = frame.iloc[0]
    assert row["paired"] < row["independent"] / 2
    assert row["blocked"] <= row["paired"]
    assert row["runs_needed"] == row["independent"]
    unlike = needed_table((0.1,), Assumed(run_sds=(0.04,), methods=10, design="paired")).iloc[0]
    assert unlike["runs_needed"] >= unlike["independent"]  # pairs that are not alike cost degrees of freedom
    assert needed_in("paired", 1e-6, 0.1, 0.0, Assumed()) is None
    for design in ("paired", "blocked"):
        n = int(row[design])
        assumed = Assumed(run_sds=(0.04,), correlation=0.83, methods=10, design=design)
        se = {m: detectable_table((m,), assumed) for m in (n - 1, n)}
        assert se[n]["detectable"].iloc[0] <= 0.0505 <= se[n - 1]["detectable"].iloc[0] * 1.01


def test_power_on_the_command_line(tmp_path, capsys):
    assert main(["power", "--design", "paired"]) == 2
    assert "--correlation" in capsys.readouterr().err
    line = [
        "power",
        "--design",
        "blocked",
        "--correlation",
        "0.8",
        "--run-sd",
        "0.04",
        "--effects",
        "0.05",
        "--runs",
        "3",
    ]
    assert main([*line, "--table", "needed", "--format", "csv"]) == 0
    header, values = capsys.readouterr().out.strip().splitlines()
    found = dict(zip(header.split(","), values.split(","), strict=True))
    assert found["runs_needed"] == found["blocked"]
    plan = write_plan(tmp_path, design="paired", assumptions=ASSUMED)
    assert yaml.safe_load(plan.read_text())["design"] == "paired"
    assert main(["power", "--plan", str(plan)]) == 0
