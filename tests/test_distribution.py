"""What is looked for in a wheel and an sdist; `nox -s build` makes them."""

from __future__ import annotations

from tests.distribution import IN_SDIST, MOST_MIB, expected, git_files, wrong_with_sdist, wrong_with_wheel


def test_settings_and_studies_are_moved_into_the_package_and_the_rest_stays_out() -> None:
    settings = ["conf/config.yaml", "conf/sweep", "sweeps/hydra_plugins/a.py"]
    tracked = ["sage/run.py", *settings, "tests/b.py", "x.md"]
    assert expected(tracked, ["tau.yaml"]) == {
        "sage/run.py",
        "sage/conf/config.yaml",
        "sage/conf/sweep/tau.yaml",
        "hydra_plugins/a.py",
    }


def test_what_is_missing_too_much_or_too_large_is_a_line_each() -> None:
    names = ["sage/run.py", "sage/runs/mlflow.db", "sage_opd-0.1.dist-info/METADATA"]
    lines = wrong_with_wheel(names, (MOST_MIB + 1) * 2**20, {"sage/run.py", "sage/conf/config.yaml"})
    assert lines == [
        "sage/conf/config.yaml is not in the wheel",
        "sage/runs/mlflow.db is in the wheel and not in git",
        "the wheel has 31.0 MiB, and at most 30 are allowed",
    ]
    assert wrong_with_wheel(["sage/run.py"], 1, {"sage/run.py"}) == []


def test_the_sdist_has_the_example_and_the_texts() -> None:
    assert wrong_with_sdist([f"sage_opd-0.1/{name}" for name in IN_SDIST]) == []
    (line,) = wrong_with_sdist([f"sage_opd-0.1/{name}" for name in IN_SDIST if name != "CITATION.cff"])
    assert line == "CITATION.cff is not in the sdist"


def test_the_packages_bring_their_models_settings_and_marks_of_types() -> None:
    wanted = expected(git_files(), [])
    assert {"sage/py.typed", "analysis/py.typed", "pretrain/py.typed", "sage/conf/config.yaml"} <= wanted
    assert "sage/assets/tiny-teacher-strong/model.safetensors" in wanted
    assert not any(name.startswith(("tests/", "docs/", "benchmarks/")) for name in wanted)
