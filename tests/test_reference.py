"""The generated pages of docs/reference are current, and whole."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

import pytest
from pydantic import BaseModel

from sage.config.components import GROUPS, register_components
from sage.config.load import load
from sage.config.schema import CAME_LATER, NOT_A_RESULT, RunConfig
from sage.records.schema import TABLES
from tests.every_setting import settings_of

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"


def rows(page: str) -> dict[str, list[str]]:
    """The cells of each table row by its first one; of a name with several rows, the last."""
    lines = (REFERENCE / page).read_text(encoding="utf-8").splitlines()
    found = [re.split(r"(?<!\\)\|", line.strip("|")) for line in lines if line.startswith("| `")]
    return {cells[0].strip(" `"): [cell.strip() for cell in cells[1:]] for cells in found}


def named(setting: str) -> str:
    """As the page names it: what is the user's own name is `<name>`."""
    return re.sub(r"^prompt\.styles\.[^.]+\.", "prompt.styles.<name>.", setting)


@pytest.mark.parametrize("script", ["make_settings.py", "make_records.py", "make_paper_scale.py"])
def test_the_pages_of_reference_are_what_the_code_says(script: str) -> None:
    command = [sys.executable, f"docs/{script}", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_page_of_settings_names_every_setting_of_a_run() -> None:
    there = rows("settings.md")
    missing = [name for name, _ in settings_of(load([])) if named(name) not in there]
    assert not missing, missing


def _fields(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every setting by the classes alone, those of groups that may be absent too; parts have a test."""
    for name, info in kind.model_fields.items():
        if not prefix and name in GROUPS:
            continue
        kinds = () if get_origin(info.annotation) is dict else (info.annotation, *get_args(info.annotation))
        groups = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        yield from _fields(groups[0], f"{prefix}{name}.") if groups else [prefix + name]


def test_the_page_of_settings_names_those_of_groups_that_are_absent_by_default() -> None:
    there = rows("settings.md")
    names = set(_fields(RunConfig))
    assert {"teacher.server.address", "teacher.ray.replicas", "student.lora.rank"} <= names
    mapped = {"env", "prompt.styles"}
    missing = [n for n in names if n not in there and not any(n.startswith(m) for m in mapped)]
    assert not missing, missing
    for name in names:
        if name.startswith(("teacher.server.", "teacher.ray.", "student.lora.")):
            unseen = any(name == none or name.startswith(f"{none}.") for none in NOT_A_RESULT)
            assert (there[name][2] == "no") == unseen, name


def test_the_page_of_settings_names_every_setting_of_every_part_and_environment() -> None:
    """By their classes: what a class declares stands in the section of each option that is of it."""
    register_components()
    text = (REFERENCE / "settings.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### (\S+=\S+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    missing = []
    for group, registry in GROUPS.items():
        for name in registry.names():
            if f"{group}={name}" not in sections:
                continue  # registered, and no option of ours
            for field in registry.get(name).model_fields:
                if field != "name" and f"`{group}.{field}" not in sections[f"{group}={name}"]:
                    missing.append(f"{group}={name}: {field}")
    assert not missing, missing
    options = {f"{path.parent.name}={path.stem}" for path in (ROOT / "conf").glob("*/*.yaml")}
    assert {option for option in options if option.partition("=")[0] in GROUPS} == set(sections)


def test_every_setting_and_every_column_says_what_it_is() -> None:
    described = [*rows("settings.md").items(), *rows("records.md").items()]
    silent = [name for name, cells in described if not cells[-1]]
    assert not silent, silent


def test_the_page_says_no_where_the_run_id_does_not_see_a_setting() -> None:
    config = load([])
    seen = {*_leaves(config.digest_fields()), *CAME_LATER}  # these as soon as they say something
    there = rows("settings.md")
    for name, value in settings_of(config):
        if isinstance(value, (dict, BaseModel)):
            continue
        assert (there[named(name)][2] == "no") == (name not in seen), name


def test_the_page_of_records_has_every_column_with_its_type() -> None:
    text = (REFERENCE / "records.md").read_text(encoding="utf-8")
    for table, columns in TABLES.items():
        section = text.partition(f"## {table}.parquet\n")[2].partition("\n## ")[0]
        listed = re.findall(r"^\| `(\w+)` \| (\w+) \|", section, re.MULTILINE)
        assert listed == [(name, kind) for name, (kind, _) in columns.items()]


def _leaves(data: object, prefix: str = "") -> list[str]:
    if not isinstance(data, dict) or not data:
        return [prefix.rstrip(".")]
    return [leaf for key, value in data.items() for leaf in _leaves(value, f"{prefix}{key}.")]


def test_the_hours_of_table_1_are_those_of_a_sum_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """sage_opd, Qwen3-0.6B taught by 8B, 57 games side by side, 30 tokens an answer."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    paper_scale = importlib.import_module("paper_scale")
    games, turns, steps = 64, 30, 56
    tokens = games * (1_051 + 30 * 245.97)
    rollout = games / 57 * turns * 30 * 0.0121 + (tokens - games * turns * 30) / 129_000
    judge = games * turns * 530 / 3.29 / 21_200
    student = tokens / 28_000 + games * turns * 30 * 0.082 / 6_554
    step = rollout + judge + tokens / 21_200 + student
    hours = (steps * step + 2 * 274 / 64 * rollout) / 3_600
    fast, slow = paper_scale.run_hours("Qwen3-0.6B", "Qwen3-8B", "sage_opd")
    assert fast == pytest.approx(hours, rel=1e-3)
    assert 1.0 < fast < slow


def test_the_memory_of_table_1_is_what_the_plan_of_a_run_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    paper_scale = importlib.import_module("paper_scale")
    plan = paper_scale.plan_of("Qwen3-0.6B", "Qwen3-8B", here=True)
    # Weights 2, masters 4, moments 8 bytes of 596 M parameters, 2 of the teacher's 8,191 M; a token's keys
    # and values take 112 KiB.
    assert sum(plan.always.values()) == pytest.approx(14 * 596.05e6 + 2 * 8_190.7e6, rel=1e-3)
    assert plan.peak - sum(plan.always.values()) == pytest.approx(57 * 8_430 * 114_688, rel=1e-6)
    assert not paper_scale.plan_of("Qwen3-1.7B", "Qwen3-32B", here=True).fits
