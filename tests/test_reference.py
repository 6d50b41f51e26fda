"""The generated pages of docs/reference are current, and whole."""

from __future__ import annotations

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


@pytest.mark.parametrize("script", ["make_settings.py", "make_records.py"])
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
