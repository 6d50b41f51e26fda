"""Every YAML composes and validates; a refusal is one sentence; what is outside the package works alike."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sage.config.components import GROUPS, conf_dir
from sage.config.known import known_settings
from sage.config.load import load
from sage.config.schema import RunConfig
from sage.config.validate import validate
from sage.errors import ConfigError

CONF = conf_dir()
OUTSIDE = Path(__file__).parents[1] / "outside" / "conf"
NO_OPTIONS = ("sweep", "plan", "accelerate")
OPTIONS = sorted((p.parent.name, p.stem) for p in CONF.glob("*/*.yaml") if p.parent.name not in NO_OPTIONS)
SWEEPS = sorted(path.stem for path in (CONF / "sweep").glob("*.yaml"))


def test_every_folder_has_options() -> None:
    groups = {group for group, _ in OPTIONS}
    assert {"env", "student", "teacher", "method", "rollout", "trainer", *GROUPS} <= groups


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_validates(group: str, option: str) -> None:
    if group == "recipe":  # the settings that go with one environment
        assert load([f"env={option}"]).env.name == option
        return
    # A server gives the likeliest tokens alone, and says so of a divergence that needs more.
    beside = ["divergence=top_k"] if (group, option) == ("teacher", "server") else []
    config = load([f"{group}={option}", *beside])
    if group in ("budget", "study"):
        return
    chosen = getattr(config, group)
    if group in GROUPS:
        assert chosen.name == option
    elif group == "method":
        assert chosen == option


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_sweep_composes_and_validates(sweep: str) -> None:
    assert load([f"sweep={sweep}"]).method


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_says_what_it_is(group: str, option: str) -> None:
    lines = (CONF / group / f"{option}.yaml").read_text().splitlines()
    assert next(line for line in lines if not line.startswith("# @package")).startswith("# ")


def test_an_explicit_choice_wins_over_the_preset() -> None:
    config = load(["confidence=none", "method=sage_opd", "intervention=never"])
    assert (config.intervention.name, config.confidence.name, config.normalization.name) == (
        "never",
        "none",
        "all_token",
    )
    assert load(["method=opd"]).intervention.name == "always"


def test_the_prompt_follows_the_environment() -> None:
    config = load(["env=alfworld"])
    assert "household" in config.prompt.styles["react"].system


def test_yaml_is_the_only_home_of_defaults() -> None:
    assert [name for name, field in RunConfig.model_fields.items() if not field.is_required()] == []


def test_a_config_survives_json() -> None:
    config = load(["method=no_norm", "seed=3"])
    assert validate(config.model_dump(mode="json")) == config


REFUSALS = {
    "trainer.lerning_rate=3": "'trainer.lerning_rate' is not a setting; did you mean 'trainer.learning_rate'",
    "+trainer.lerning_rate=3": "'trainer.lerning_rate' is not a setting; did you mean 'trainer.learning_",
    "learning_rate=3": "'learning_rate' is not a setting; did you mean 'trainer.learning_rate'?",
    "interventon=always": "'interventon' is not a setting; did you mean 'intervention'?",
    "env=alfwrld": "env=alfwrld is not known; did you mean env=alfworld?",
    "teacher=gpt": "teacher=gpt is not known; it is one of hub, ray, server, smollm2, tiny, tiny_strong.",
    "trainer=3": "trainer=3 is not known; it is one of default, equal_teacher_tokens.",
    "confidence.kind=hard": "is not a setting of the chosen confidence; confidence=threshold has it.",
    "+env.generated.vlid_seen=1": "did you mean 'env.generated.valid_seen'?",
    "+confidence.x=1": "'confidence.x' is not a setting; confidence has",
    "launch.on_existing=skp": "is not one of skip, resume, rerun, error; did you mean 'skip'?",
    "env.name=alfred": "env.name='alfred' is not known; known are",
    "seed=-1": "seed=-1 is refused: input should be greater than or equal to 0.",
    "seed=one": "seed='one' is refused: input should be a valid integer",
    "evaluation.splits=valid_unseen": "where a list is expected: write 'evaluation.splits=[valid_unseen]'.",
    "seed=0,1": "'seed=0,1' names several values: put -m in front to run each of them",
    "seed": "The argument 'seed' is not understood; settings are changed by key=value.",
    "rollout.temperature=[1": "The argument 'rollout.temperature=[1' is not understood",
    "~trainer.steps": "The setting 'trainer.steps' is missing.",
    "student.path=???": "The config cannot be resolved at 'student.path'",
    "seed=${nothing}": "The config cannot be resolved at 'seed'",
    "plugins=[no.such.module]": "The plugin 'no.such.module' cannot be imported",
    "zzz.qqq=1": "'zzz.qqq' is not a setting.",
    "+speed.vllm.dtype=float16": "'dtype' is no argument of vLLM that is known to change speed and memory",
    "+speed.vllm.quantization=fp8": "speed.vllm never changes a result",
    "speed.vllm.max_model_len=9": "'speed.vllm' takes any key, put in with a plus: +speed.vllm.",
}


@pytest.mark.parametrize("override", REFUSALS)
def test_a_refusal_is_one_sentence_with_the_nearest_right_name(override: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load([override])
    sentence = str(refused.value)
    assert REFUSALS[override] in sentence
    assert "\n" not in sentence
    assert sentence.endswith((".", "?"))


def test_vllm_has_room_for_a_whole_episode_or_is_refused() -> None:
    line = ["rollout.decoder=vllm", "rollout.max_context=4096"]
    assert load([*line, "+speed.vllm.max_model_len=4096"]).speed.vllm == {"max_model_len": 4096}
    with pytest.raises(ConfigError, match=r"max_model_len=2048 is less than rollout\.max_context=4096"):
        load([*line, "+speed.vllm.max_model_len=2048"])
    assert load(["+speed.vllm.max_model_len=64"]).speed.vllm  # nothing decodes with it


def test_all_problems_are_counted() -> None:
    with pytest.raises(ConfigError, match=r"steps=-1 is refused.*\(1 more after that\.\)"):
        load(["trainer.steps=-1", "trainer.tasks_per_step=0"])


def test_known_settings_are_dotted_and_complete() -> None:
    names = known_settings()
    assert {"seed", "env", "env.generated.train", "confidence.tau", "trainer.steps"} <= set(names)


# The command line -----------------------------------------------------------------------------------------


def sage(*arguments: str, folder: Path, code: str = "") -> subprocess.CompletedProcess[str]:
    """`python -m sage`, or `code` in its place, in an empty folder."""
    root = str(Path(__file__).parents[2])
    command = [sys.executable, *(["-c", code] if code else ["-m", "sage"]), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, f"{root}/sweeps"])}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("wrong", ["trainer.lerning_rate=1", "seed=x", "env=alfwrld", "method=opdd"])
def test_a_wrong_line_costs_one_line_and_code_2(wrong: str, tmp_path: Path) -> None:
    ended = sage(wrong, folder=tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert len(ended.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_line_of_a_multirun_starts_nothing(tmp_path: Path) -> None:
    ended = sage("-m", "seed=0,x", folder=tmp_path)
    assert ended.returncode == 2
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "seed=x" in ended.stderr
    assert not list(tmp_path.glob("runs/*/"))


def test_help_lists_every_option_with_what_it_is(tmp_path: Path) -> None:
    ended = sage("--help", "--config-dir", str(OUTSIDE), folder=tmp_path)
    assert ended.returncode == 0
    for group, option in OPTIONS:
        assert f"{group}={option}" in ended.stdout
    assert "env=dummy" in ended.stdout


def test_cfg_job_prints_the_config_and_leaves_nothing(tmp_path: Path) -> None:
    ended = sage("--cfg", "job", "seed=7", folder=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "seed: 7" in ended.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["trainer.stps=1"], ["seed=x"]])
def test_answers_come_without_heavy_imports(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from sage.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'mlflow', 'transformers', 'pandas', 'pyarrow', 'optuna', 'rich'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))"
    )
    ended = sage(*arguments, folder=tmp_path, code=code)
    assert ended.stdout.splitlines()[-1] == "HEAVY []"


# From outside the package ---------------------------------------------------------------------------------

DUMMIES = [f"{group}=dummy" for group in GROUPS]


def test_a_component_of_each_group_from_outside_composes_and_validates(tmp_path: Path) -> None:
    plugin = "plugins=[tests.outside.plugin]"
    ended = sage("--config-dir", str(OUTSIDE), plugin, *DUMMIES, "tracking=none", folder=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    written = next(tmp_path.glob("runs/*/attempt_1/config.yaml")).read_text()
    assert written.count("name: dummy") == len(GROUPS)


def test_a_yaml_file_with_a_slip_is_named_in_one_sentence(tmp_path: Path) -> None:
    mine = tmp_path / "conf" / "confidence" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("name: none\nname: top1\n")
    ended = sage("--config-dir", str(mine.parents[1]), "confidence=mine", folder=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "mine.yaml" in ended.stderr
    assert "duplicate key name" in ended.stderr


def test_the_searchpath_works_too(tmp_path: Path) -> None:
    place = f"hydra.searchpath=[file://{OUTSIDE}]"
    ended = sage("--cfg", "job", place, "env=dummy", folder=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "name: dummy" in ended.stdout


def test_a_name_without_its_plugin_is_refused(tmp_path: Path) -> None:
    ended = sage("--config-dir", str(OUTSIDE), "env=dummy", folder=tmp_path)
    assert ended.returncode == 2
    assert "env.name='dummy' is not known; known are alfworld" in ended.stderr
