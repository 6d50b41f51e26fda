"""Study files: every cell composes, the line wins, a plan is claimed by the declared runs alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sage.config.components import conf_dir
from sage.config.load import load
from sage.errors import ConfigError
from sage.launch.study import expand, read
from sage.records.preregistration import plan_hash
from tests.launch.test_multirun import sage

STUDIES = sorted(path.stem for path in (conf_dir() / "study").glob("*.yaml"))
TWO = {
    "budget": "lab",
    "fixed": ["evaluation.before=false"],
    "matrices": [
        {"plan": "p", "env": ["a"], "seed": [0, 1], "method": ["opd", "sage_opd"]},
        {"env": ["b"], "seed": [0], "method": ["opd"], "confidence.tau": [0.5, None]},
    ],
}


def section(name: str) -> dict[str, Any]:
    content = yaml.safe_load((conf_dir() / "study" / f"{name}.yaml").read_text())
    return {"fixed": [], **content["hydra"]["sweeper"]}


def is_there(job: list[str]) -> bool:
    """An environment that is not part of this checkout has no YAML, and its cells are left out."""
    chosen = [word.partition("=")[2] for word in job if word.startswith("env=")]
    return all((conf_dir() / "env" / f"{name}.yaml").exists() for name in chosen)


def points(study: dict[str, Any], *arguments: str) -> list[str]:
    return [" ".join(job) for job in expand(read(study), arguments)[0]]


@pytest.mark.parametrize("name", STUDIES)
def test_every_cell_of_every_study_composes_and_its_plan_is_frozen(name: str) -> None:
    jobs, _ = expand(read(section(name)), ())
    assert len({tuple(job) for job in jobs}) == len(jobs)
    # One seed: the others differ in nothing that is composed.
    kept = [job for job in jobs if "seed=0" in job and is_there(job)]
    assert kept
    configs = [load([f"study={name}", *job]) for job in kept]
    for config in configs:
        plan_hash(config.launch.plan)


def test_a_declared_run_is_the_run_that_the_plan_s_own_line_makes() -> None:
    ((job,), _) = expand(read(section("table4")), ["seed=3", "method=no_norm"])
    assert job[-1] == "launch.plan=ablation_alfworld"
    plain = load(["method=no_norm", "seed=3"])
    assert load(["study=table4", *job]).digest_fields() == plain.digest_fields()
    assert plan_hash("ablation_alfworld") == plan_hash(str(conf_dir() / "plan" / "ablation_alfworld.yaml"))


def test_the_union_of_the_products_in_the_order_of_the_file() -> None:
    head = "evaluation.before=false budget=lab"
    assert points(TWO) == [
        f"{head} env=a seed=0 method=opd launch.plan=p",
        f"{head} env=a seed=0 method=sage_opd launch.plan=p",
        f"{head} env=a seed=1 method=opd launch.plan=p",
        f"{head} env=a seed=1 method=sage_opd launch.plan=p",
        f"{head} env=b seed=0 method=opd confidence.tau=0.5",
        f"{head} env=b seed=0 method=opd confidence.tau=null",
    ]


def test_what_is_typed_wins_over_the_file() -> None:
    typed = points(TWO, "seed=7", "method=opd", "env=a", "confidence.tau=0.1,0.2", "budget=smoke")
    assert typed == [
        f"evaluation.before=false env=a seed=7 method=opd confidence.tau={tau} budget=smoke"
        for tau in ("0.1", "0.2")
    ]
    assert points(TWO, "evaluation.before=true")[0].startswith("budget=lab env=a")


def test_an_environment_on_the_line_chooses_among_those_declared() -> None:
    assert all("env=b" in run and "confidence.tau" in run for run in points(TWO, "env=b"))
    assert len(points(TWO, "env=b")) == 2
    assert len(points(TWO, "env=c")) == 6  # declared nowhere: every matrix takes it
    assert set(points(TWO, "env=a,c")) == {*points(TWO, "env=a"), *points(TWO, "env=c")}


@pytest.mark.parametrize(
    ("word", "claims"),
    [
        ("seed=0", True),
        ("launch.workers=2", True),
        ("speed.threads=1", True),
        ("+speed.vllm.max_model_len=64", True),
        ("env.data=/data", True),
        ("plugins=[mine]", False),
        ("+speedy=1", False),
        ("hydra/launcher=ray", True),
        ("tracking=none", True),
        ("trainer.steps=2", False),
        ("budget=paper", False),
        ("+intervention.x=1", False),
    ],
)
def test_only_the_declared_runs_claim_the_plan(word: str, claims: bool) -> None:
    jobs, note = expand(read(TWO), [word])
    assert any("launch.plan=p" in job for job in jobs) == claims
    assert bool(note) != claims
    if not claims:
        assert f"({word.partition('=')[0]} on the line), so they do not claim its plan p." in note


@pytest.mark.parametrize("word", ["seed=7", "method=sft", "env=c"])
def test_a_seed_a_method_or_an_environment_that_was_not_declared_claims_no_plan(word: str) -> None:
    jobs, note = expand(read(TWO), [word])
    assert not any("launch.plan=p" in job for job in jobs)
    assert note == f"The study does not declare {word}, so those runs do not claim its plan p."


def test_naming_the_study_on_the_line_as_one_does_leaves_its_runs_their_plan() -> None:
    jobs, note = expand(read(TWO), ["study=two", "env=a", "launch.workers=2"])
    assert note == ""
    assert all("launch.plan=p" in job for job in jobs)


def test_the_declared_among_several_seeds_claim_the_plan() -> None:
    claiming = [job for job in expand(read(TWO), ["seed=1,7", "env=a"])[0] if "launch.plan=p" in job]
    assert len(claiming) == 2
    assert all("seed=1" in job for job in claiming)


def test_a_plan_that_is_typed_is_claimed() -> None:
    jobs, note = expand(read(TWO), ["trainer.steps=2", "launch.plan=mine"])
    assert note == ""
    assert all("launch.plan=mine" in job for job in jobs)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"matrices": [{"method": "opd"}]}, "Matrix 1 of the study: method needs a list of values."),
        ({"matrices": [{"seed": []}]}, "Matrix 1 of the study: seed needs a list of values."),
        ({"matrices": [{"plan": ["a", "b"], "seed": [0]}]}, "Matrix 1 of the study names several plans"),
        ({"matrices": []}, "hydra.sweeper.matrices is refused: list should have at least 1 item"),
        ({"seeds": [1]}, "'hydra.sweeper.seeds' is not a setting of a study file"),
    ],
)
def test_a_file_that_is_wrong_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read({**TWO, **change})
    assert str(refused.value).startswith(sentence)


def test_the_command_line_lists_and_runs_a_study(tmp_path: Path) -> None:
    (tmp_path / "conf" / "study").mkdir(parents=True)
    (tmp_path / "conf" / "study" / "mine.yaml").write_text(
        "# @package _global_\n# Of my own.\ndefaults:\n  - override /hydra/sweeper: study\n"
        "hydra:\n  sweeper:\n    matrices:\n"
        "      - {seed: [0, 1], confidence: [none, top1]}\n      - {seed: [0, 5], confidence: [none]}\n"
    )
    place = f"hydra.searchpath=[file://{tmp_path / 'conf'}]"
    code, out, err = sage(tmp_path, "list", "study=mine", place)
    assert (code, err) == (0, "")
    assert "5 runs: 5 absent; nothing was run" in out
    code, out, err = sage(tmp_path, "-m", "study=mine", place, "seed=1")
    assert (code, err) == (0, "")
    assert "2 runs: 2 done" in out
    assert len(list(tmp_path.glob("runs/*/attempt_1"))) == 2
    code, _, err = sage(tmp_path, "study=mine", place)
    assert (code, err) == (2, "study=mine is a study of many runs: python -m sage -m study=mine.\n")
    code, _, err = sage(tmp_path, "-m", "seed=0", "launch.plan=no_such")
    assert code == 2
    assert err.startswith("Nothing was started: in the run 'seed=0 ")
    assert "launch.plan=no_such does not exist; it is a plan's file, or one of ablation_alfworld" in err


