"""Two recipes under one name are told apart by one rule, in every command, and never pooled."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from analysis.cli import main
from analysis.load import load
from sage.records.schema import RENAMED_COLUMNS
from tests.analysis.synthetic import Study, write_study


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two methods with three seeds each; the runs of `opd` are of two recipes."""
    study = Study({"opd": 0.0, "sage_opd": 0.5}, games=6, train_steps=2, episodes_per_step=1)
    root = write_study(tmp_path / "runs", study)
    mine = [path for path in sorted(root.glob("*/attempt_1")) if load([path]).runs["method"].iloc[0] == "opd"]
    change(mine[0] / "config.yaml", "trainer", steps=99)
    return root


def change(file: Path, group: str, **values: object) -> None:
    config = yaml.safe_load(file.read_text())
    config.setdefault(group, {}).update(values)
    file.write_text(yaml.safe_dump(config))


def test_recipes_that_share_a_name_get_what_differs_into_it(runs: Path) -> None:
    records = load([runs], tables=("episodes", "turns", "steps"))
    names = set(records.runs["method"])
    assert len(names) == 3
    assert "sage_opd" in names
    assert sum(name.startswith("opd[trainer.steps=") for name in names) == 2
    for table in (records.episodes, records.turns, records.steps):
        assert set(table["method"]) == names
    (note,) = records.notes
    assert note.startswith("opd is the name of 2 recipes on alfworld, which differ in trainer.steps; ")


def test_many_differences_become_a_digest_and_a_note_lists_them(runs: Path) -> None:
    first = next(p for p in sorted(runs.glob("*/attempt_1")) if "opd[" in load([runs]).runs.set_index("run")
                 .loc[p.parent.name, "method"])  # fmt: skip
    change(first / "config.yaml", "rollout", temperature=0.9, top_p=0.5, max_new_tokens=7)
    records = load([runs])
    named = [m for m in set(records.runs["method"]) if m.startswith("opd[recipe ")]
    assert len(named) >= 2
    assert any("rollout.max_new_tokens" in note for note in records.notes)


def test_a_varied_setting_is_not_told_twice(runs: Path) -> None:
    assert {m for m in load([runs], vary=["trainer.steps"]).runs["method"] if "99" in m} == {"opd[steps=99]"}


def test_runs_of_before_a_setting_and_its_columns_were_renamed_are_read_as_today_s(runs: Path) -> None:
    """Records as the commit 52ebe13 wrote them, and one that was begun then and ended now."""
    former = {new: old for old, new in RENAMED_COLUMNS.items()}
    attempts = sorted(runs.glob("*/attempt_1"))
    for number, attempt in enumerate(attempts):
        name, setting = ("rollout.gold", "gold") if number % 2 else ("rollout.demonstration", "demonstration")
        called = yaml.safe_load((attempt / "config.yaml").read_text())["method"]
        change(attempt / "config.yaml", "rollout", **{setting: {"player": "expert", "weight": 0.5}})
        file = attempt / "config.yaml"
        file.write_text(f"name: {called}+{name}.weight=0.5\n" + file.read_text())
        steps = pd.read_parquet(attempt / "steps.parquet")
        steps = steps.assign(demonstration_tokens=number, method=f"{called}+{name}.weight=0.5")
        if number % 2:
            steps = steps.rename(columns=former)
            steps.loc[1:, "method"] = f"{called}+rollout.demonstration.weight=0.5"  # went on today
        steps.to_parquet(attempt / "steps.parquet")
        for table in ("episodes", "turns"):
            frame = pd.read_parquet(attempt / f"{table}.parquet")
            frame.assign(method=f"{called}+{name}.weight=0.5").to_parquet(attempt / f"{table}.parquet")
    records = load([runs], tables=("episodes", "turns", "steps"))
    assert not set(records.steps) & set(former.values())
    assert set(records.steps["demonstration_tokens"]) == set(range(len(attempts)))
    assert len(records.unused) == 0
    plain = {name.partition("[")[0] for name in records.runs["method"]}
    assert plain == {"opd+rollout.demonstration.weight=0.5", "sage_opd+rollout.demonstration.weight=0.5"}
    assert records.runs.loc[records.runs["method"].str.startswith("sage_opd"), "config_id"].nunique() == 1
    for key in ("rollout.gold.weight", "rollout.demonstration.weight"):
        varied = load([runs], vary=[key])
        assert all("weight=0.5" in name for name in varied.runs["method"])


@pytest.mark.parametrize("command", [["summary"], ["cost"], ["variance"], ["rates"]])
def test_every_command_says_the_same_sentence(
    runs: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main([*command, str(runs)])
    shown = capsys.readouterr()
    assert "opd is the name of 2 recipes on alfworld" in shown.err
    if command[0] in ("summary", "cost"):
        assert "opd[trainer.steps=99]" in shown.out


def test_seeds_of_one_recipe_keep_one_name(runs: Path) -> None:
    other = [p for p in sorted(runs.glob("*/attempt_1")) if load([p]).runs["method"].iloc[0] == "sage_opd"]
    shutil.rmtree(runs / other[0].parent.name)
    assert (load([runs]).runs["method"] == "sage_opd").sum() == 2


def test_a_baseline_that_is_several_recipes_is_refused_with_their_names(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(runs), "--baseline", "opd"]) == 2
    said = capsys.readouterr().err
    assert "refused: 'opd' is the name of 2 recipes here; give the whole name of one as the baseline" in said
    assert "opd[trainer.steps=99]" in said
    assert main(["compare", str(runs), "--baseline", "opd[trainer.steps=99]"]) == 0
