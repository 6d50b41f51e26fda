"""Every line that README and guide tell a reader to type is one that the program it starts takes.

A run composes and validates, a study in every one of its cells, `analysis`, `accelerate` and the scripts
parse. So does what a page of evidence says was typed. A page cannot name a setting, an option or a launcher
that is not there.
"""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from sage.config.load import load
from sage.launch import cli
from sage.launch.study import expand, read
from tests.pages import ROOT, blocks, pages
from tests.scripts import Refused, parsed

EVIDENCE = sorted((ROOT / "docs" / "evidence").rglob("*.md"))
PAGES = [*pages(), ROOT / "docs" / "index.md", *sorted((ROOT / "docs" / "reference").glob("*.md")), *EVIDENCE]
_TYPED = r"(?:[A-Z_]+=\S+ )*(?:python (?:-m )?|nox -s |pytest )[\w.-][^`]*"
"""Evidence has lines that a program printed in its blocks, too, and what was typed in its sentences."""
OWN = ("env=drawers", "--config-dir", "study=mine")
"""Of the package of examples (tests/test_own_parts.py) and of files that the page has the reader write."""
OTHERS = {
    *(
        "pip",
        "pytest",
        "cp",
        "python3",
        "alfworld-download",
        "vllm",
        "mlflow",
        "optuna-dashboard",
        "tensorboard",
    ),
    "nox",
}
"""Programs whose words are not ours to read."""


def lines() -> list[tuple[str, str]]:
    """(page, line) of each command in a code block, and of ours in a table's or a sentence's code."""
    found = []
    for page in PAGES:
        typed = [command for block in blocks(page) for command in block.commands]
        typed += re.findall(r"`(python -m (?:sage|analysis) [^`]*)`", page.read_text(encoding="utf-8"))
        if page.parent.name == "reference":  # its blocks hold formulas too
            typed = [line for line in typed if line.startswith("python -m ")]
        elif page in EVIDENCE:
            typed = [line for line in typed if re.fullmatch(_TYPED, line)]
            typed += re.findall(rf"`({_TYPED})`", page.read_text(encoding="utf-8"))
        found += [(" ".join(line.split()), page.stem) for line in typed]
    return sorted((page, line) for line, page in dict(reversed(found)).items())


def words_of(line: str) -> list[str]:
    """Without the variables in front and the settings whose value is the reader's (`…`, `<path>`).

    A list of a folder's files stands for their names, an option in brackets is taken.
    """
    line = re.sub(r"\$\(ls (\S+) \|[^)]*\)", lambda found: _names(ROOT / found[1]), line)
    words = shlex.split(re.sub(r"\[(--\w+)\]", r"\1", line))
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    return [word for word in words if not re.match(r"[\w.]+=\S*[…<]", word)]


def _names(folder: Path) -> str:
    return ",".join(sorted(file.stem for file in folder.glob("*.yaml")))


@cache
def composed(overrides: tuple[str, ...]) -> None:
    """Cells that several lines share are composed once."""
    load(list(overrides))


def sage(words: list[str]) -> None:
    """As `python -m sage` reads them."""
    if words[:1] in (["view"], ["list"], ["confirm"]):
        words = [] if words[0] == "view" else words[1:]
    words, refusal = cli._of_command(words)
    assert refusal == ""
    overrides, studies = [], []
    for word in words:
        name, _, value = word.partition("=")
        if name.startswith(("hydra/", "hydra.")):
            launcher(name, value, words)
        elif name == "study":
            studies.append(value)
        elif name == "sweep":
            assert (ROOT / "sweeps" / f"{value}.yaml").is_file(), word
        elif not word.startswith("-") and word != "launch.until=decided":
            overrides.append(word)
    if not studies:
        return composed(tuple(first(word) for word in overrides))
    (name,) = studies
    return study(name, overrides)


def study(name: str, overrides: list[str]) -> None:
    """Its cells, and in the first of them what says how they are run."""
    how = [word for word in overrides if word.startswith(("launch.", "tracking"))]
    overrides = [word for word in overrides if word not in how]
    section = yaml.safe_load((ROOT / "conf" / "study" / f"{name}.yaml").read_text())["hydra"]["sweeper"]
    jobs, _ = expand(read({"fixed": [], **section}), overrides)
    one_seed = [job for job in jobs if f"seed={seed(jobs)}" in job]
    assert one_seed
    for job in one_seed:
        composed(tuple(job))
    composed((*one_seed[0], *map(first, how)))


def seed(jobs: list[list[str]]) -> str:
    """Of the first run."""
    return next(word.removeprefix("seed=") for word in jobs[0] if word.startswith("seed="))


def first(word: str) -> str:
    """The first of the values that a line has a setting take."""
    name, _, value = word.partition("=")
    several = "," in value and not value.startswith(("[", "{"))
    return f"{name}={value.split(',')[0]}" if several else word


def conf(group: str, name: str) -> bool:
    return (ROOT / "conf" / group / f"{name}.yaml").is_file()


def launcher(name: str, value: str, words: list[str]) -> None:
    """A launcher that there is, with a setting that its file has."""
    if name == "hydra/launcher":
        assert conf("hydra/launcher", value), value
    elif name.startswith("hydra.launcher."):
        (chosen,) = [word.partition("=")[2] for word in words if word.startswith("hydra/launcher=")]
        there: Any = yaml.safe_load((ROOT / "conf" / "hydra" / "launcher" / f"{chosen}.yaml").read_text())
        for key in name.split(".")[2:]:
            assert key in there, name
            there = there[key]
    else:
        known = (ROOT / "sage" / "sweep" / "settings.py").read_text(encoding="utf-8")
        assert re.search(rf"^    {name.split('.')[2]}: ", known, re.MULTILINE), name


def accelerate(words: list[str], line: str) -> None:
    """Its parser, its config, and the words behind `-m sage`."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    asked = launch_command_parser().parse_args(words)
    assert (asked.module, asked.training_script) == (True, "sage")
    if line.startswith("CUDA_VISIBLE_DEVICES="):
        gpus = line.split()[0].removeprefix("CUDA_VISIBLE_DEVICES=").split(",")
        assert asked.num_processes == len(gpus) * int(asked.num_machines or 1)
    read_config, _, _ = _validate_launch_command(asked)
    if read_config.use_fsdp:
        assert read_config.fsdp_reshard_after_forward in (False, "false")
    sage(asked.training_script_args)


def test_the_pages_have_the_commands_that_they_should() -> None:
    there = [line for _, line in lines()]
    assert len(there) > 80
    assert "python -m sage budget=smoke" in there
    for begin, least in {
        "accelerate launch": 6,
        "python -m sage teacher start": 5,
        "python -m analysis": 8,
    }.items():
        assert sum(begin in line for line in there) >= least, begin
    of_table_1 = [line for line in there if "-m study=paper_table1 budget=paper" in line]
    assert len(of_table_1) >= 4
    assert any(line.startswith("python -m sage check --memory 80") for line in there)


@pytest.mark.parametrize(("page", "line"), lines())
def test_a_command_of_a_page_is_one_that_the_program_takes(
    page: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(cli, "_Single", type("Single", (cli._Single,), {}))
    words = words_of(line)
    typed = " ".join(words)
    a_pattern = re.search(r"…|\.\.\.|<", typed) or re.fullmatch(r"python -m analysis \w+", typed)
    if a_pattern or {"--help", "--version", "--cfg"} & set(words):
        return
    if any(word.startswith(OWN) for word in words):
        return
    if words[:3] == ["python", "-m", "sage"]:
        sage([word for word in words[3:] if word != "-m"])
    elif words[:3] == ["python", "-m", "analysis"]:
        from analysis.cli import build_parser

        build_parser().parse_args(words[3:])
    elif words[:2] == ["accelerate", "launch"]:
        accelerate(words[2:], line)
    elif words[:2] == ["ray", "start"]:
        scripts = pytest.importorskip("ray.scripts.scripts", reason="pip install 'sage-opd[ray]'")
        scripts.start.make_context("start", words[2:])
    elif script := _script(words):
        _script_takes(script, words[3:] if words[1] == "-m" else words[2:])
    elif words[:2] == ["nox", "-s"]:
        assert f"\ndef {words[2]}(" in (ROOT / "noxfile.py").read_text(encoding="utf-8"), line
    else:
        assert words[0] in OTHERS or words[:2] == ["python", "-m"], line
        _files_are_there(words)


def _script(words: list[str]) -> Path | None:
    """The file of ours that Python is told to run, by its path or as a module."""
    if words[0] == "python" and words[1].endswith(".py"):
        return ROOT / words[1]
    if words[:2] == ["python", "-m"] and words[2].split(".")[0] in ("sage", "analysis", "pretrain"):
        return ROOT / f"{words[2].replace('.', '/')}.py"
    return None


def _script_takes(script: Path, words: list[str]) -> None:
    if script.is_relative_to(ROOT / "sage"):  # its parsers are built of parts
        assert script.is_file(), script
    else:
        parsed(script, words)
    if overrides := [word for word in words if re.match(r"[a-z_.]+=\S", word)]:
        sage(overrides)
    _files_are_there(words)


def _files_are_there(words: list[str]) -> None:
    for word in words:
        if word.startswith(("docs/", "conf/", "tests/", "benchmarks/", "constraints")):
            assert (ROOT / word).exists(), word


def test_the_command_test_itself_notices_a_wrong_word() -> None:
    for wrong in (["trainer.stepz=1"], ["study=paper_table1", "budget=papper"], ["teacher", "begin"]):
        with pytest.raises(Exception, match=r"stepz|papper|begin"):
            sage(wrong)
    for script, wrong in {
        "coverage": ["--repps", "2"],
        "gpu": ["--only", "rigth"],
        "bfloat16": ["2"],
    }.items():
        with pytest.raises(Refused, match=wrong[-1]):
            parsed(ROOT / "benchmarks" / f"{script}.py", wrong)
    with pytest.raises(AssertionError):
        sage(["study=smoke", "hydra/launcher=ray", "hydra.launcher.init.gpus=2"])
