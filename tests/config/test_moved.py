"""Names that settings had before they moved: read among overrides, refused in files."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sage.config.compose import compose
from sage.config.known import known_settings
from sage.config.load import load
from sage.config.moved import MOVED, label_as_hashed, modern_label, renamed
from sage.config.plain import canonical_json
from sage.config.validate import validate
from sage.errors import ConfigError
from sage.launch.study import expand, read
from sage.records.identity import Identity, recorded_settings
from tests.config.test_load import sage


def test_every_new_name_is_a_setting_and_no_old_one_is() -> None:
    known = set(known_settings())
    assert set(MOVED.values()) <= known
    assert not set(MOVED) & known


def test_an_old_name_on_the_line_becomes_the_new_one_and_that_is_said() -> None:
    words, notes = renamed(["-m", "rollout.slots=3,4", "+rollout.vllm.max_model_len=9", "seed=0"])
    assert words == ["-m", "speed.slots=3,4", "+speed.vllm.max_model_len=9", "seed=0"]
    assert [note.partition(";")[0] for note in notes] == [
        "rollout.slots is speed.slots now",
        "rollout.vllm.max_model_len is speed.vllm.max_model_len now",
    ]
    assert renamed(["speed.slots=3", "rollout.top_p=1"]) == (["speed.slots=3", "rollout.top_p=1"], [])


def test_the_old_engine_vllm_was_a_choice_of_who_samples() -> None:
    assert renamed(["rollout.engine=vllm"])[0] == ["rollout.decoder=vllm"]
    assert renamed(["rollout.engine=hf"])[0] == ["speed.engine=hf"]
    assert renamed(["rollout.engine=hf,vllm"]) == (["rollout.engine=hf,vllm"], [])


@pytest.mark.parametrize("old", ["trainer.micro_batch=2", "+trainer.micro_batch=2"])
def test_an_override_from_python_reads_an_old_name_and_says_so(
    old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if old.startswith("+"):  # the plus is for what is not there yet, and the new name is
        with pytest.raises(ConfigError, match="micro_batch"):
            load([old])
    else:
        assert load([old]).speed.micro_batch == 2
    assert "trainer.micro_batch is speed.micro_batch now" in capsys.readouterr().err


def test_in_a_file_an_old_name_is_refused_with_the_new_one() -> None:
    plain = OmegaConf.to_container(compose([]), resolve=True)
    assert isinstance(plain, dict)
    plain["trainer"]["micro_batch"] = 2
    with pytest.raises(ConfigError, match=r"'trainer\.micro_batch' is 'speed\.micro_batch' now"):
        validate(plain)


def test_the_command_line_reads_an_old_name_and_says_so(tmp_path: Path) -> None:
    ended = sage("--cfg", "job", "trainer.threads=3", folder=tmp_path)
    assert ended.returncode == 0
    assert "threads: 3" in ended.stdout
    note = "trainer.threads is speed.threads now; its old name is read for one release more.\n"
    assert ended.stderr == note


OLD_RULES = [("dealt", "permuted"), ("matched", "rate_matched"), ("explore", "randomized")]


@pytest.mark.parametrize(("old", "new"), OLD_RULES)
def test_the_old_name_of_a_rule_is_read_as_the_new_one_and_said(
    old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load([f"intervention={old}"]) == load([f"intervention={new}"])
    note = f"intervention={old} is intervention={new} now; its old name is read for one release more.\n"
    assert capsys.readouterr().err == note


def test_an_old_name_is_read_wherever_a_rule_is_chosen_on_the_line() -> None:
    words = ["intervention=dealt,judge,explore", "intervention@intervention.rule=matched", "seed=0"]
    now = ["intervention=permuted,judge,randomized", "intervention@intervention.rule=rate_matched", "seed=0"]
    assert renamed(words)[0] == now
    assert len(renamed(words)[1]) == 3
    others = ["confidence=dealt", "method=matched", "name=opd+intervention=dealt", "--config-name=explore"]
    assert renamed(others) == (others, [])


def test_plain_data_with_the_old_name_of_a_rule_is_read_as_the_new_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = load(["intervention=inverted", "intervention@intervention.rule=permuted"]).model_dump(mode="json")
    plain["intervention"]["rule"]["name"] = "dealt"
    assert validate(plain).intervention.rule.name == "permuted"  # type: ignore[attr-defined]
    assert "intervention=dealt is intervention=permuted now" in capsys.readouterr().err


def test_a_file_of_options_that_names_an_old_rule_is_refused_with_the_new_one(tmp_path: Path) -> None:
    preset = tmp_path / "conf" / "method" / "mine.yaml"
    preset.parent.mkdir(parents=True)
    preset.write_text(
        "# @package _global_\ndefaults:\n  - override /intervention: dealt\nmethod: mine\n", encoding="utf-8"
    )
    ended = sage("--config-dir", str(tmp_path / "conf"), "method=mine", "--cfg", "job", folder=tmp_path)
    assert ended.returncode == 2
    assert "intervention=dealt is intervention=permuted now" in ended.stderr


def test_a_study_with_the_old_name_of_a_rule_makes_the_runs_of_the_new_one() -> None:
    matrices = [{"plan": "mine", "seed": [0, 1], "intervention": ["dealt", "judge"]}]
    study = read({"matrices": matrices, "budget": None, "fixed": ["trainer.threads=1"]})
    jobs, note = expand(study, [])
    assert note == ""
    assert all({"speed.threads=1", "launch.plan=mine"} <= set(job) for job in jobs)
    assert [word for job in jobs for word in job if word.startswith("intervention")] == [
        *["intervention=permuted", "intervention=judge"] * 2
    ]


@pytest.mark.parametrize(("old", "new"), OLD_RULES)
def test_a_run_keeps_the_id_that_it_had_under_the_old_name(old: str, new: str) -> None:
    config = load(["intervention=inverted", f"intervention@intervention.rule={new}"])
    now = Identity.of(config, "m" * 64)
    assert now.fields["intervention"]["rule"]["name"] == new
    fields = copy.deepcopy(now.fields)
    fields["intervention"]["rule"]["name"] = old
    fields["name"] = fields["name"].replace(f"name={new}", f"name={old}")
    fields["rollout"]["gold"] = fields["rollout"].pop("demonstration")
    before = Identity(fields, "m" * 64)
    by_hand = {"identity": 1, "schema": 2, "manifest": "m" * 64, "config": fields}
    assert now.digest == before.digest == hashlib.sha256(canonical_json(by_hand).encode()).hexdigest()
    assert recorded_settings(before.to_json()) == recorded_settings(now.to_json())
    assert now.recipe == before.recipe


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sage_opd+intervention=dealt", "sage_opd+intervention=permuted"),
        ("opd+intervention=explore+confidence=none", "opd+intervention=randomized+confidence=none"),
        ("opd+intervention.rule.name=matched+seed=1", "opd+intervention.rule.name=rate_matched+seed=1"),
        ("sage_opd+intervention=dealt[trainer.steps=2]", "sage_opd+intervention=permuted[trainer.steps=2]"),
        ("dealt", "dealt"),
        ("my intervention=dealt", "my intervention=dealt"),
        ("opd+intervention=dealt_by_me", "opd+intervention=dealt_by_me"),
        ("opd+rule=dealt", "opd+rule=dealt"),
    ],
)
def test_what_tables_call_a_run_has_todays_name_of_a_rule(name: str, expected: str) -> None:
    assert modern_label(name) == expected
    assert modern_label(expected) == expected


def test_the_old_command_that_lists_runs_is_read_and_says_its_new_name(tmp_path: Path) -> None:
    line = ("seed=0,1", "task=evaluate")
    old, new = (sage(word, *line, folder=tmp_path) for word in ("plan", "list"))
    assert old.returncode == new.returncode == 0
    assert old.stdout == new.stdout
    assert (old.stderr, new.stderr) == ("plan is list now; its old name is read for one release more.\n", "")


# Settings that kept their group -----------------------------------------------------------------------------

BEFORE = {
    ("method=stable_opd",): "8adb75fb21e1",
    ("method=stable_opd", "rollout.gold.weight=0.25"): "c0bdeaa7d14b",
    ("method=opd", "rollout.gold.player=expert", "rollout.gold.weight=0.25"): "fb373296ad56",
    (
        *("method=opd", "rollout.gold.player=expert", "rollout.gold.weight=0.25"),
        *("intervention=judge", "confidence=top1"),  # its name is longer than 100 characters today
    ): "1cb34ab863a6",
    (
        *("method=opd", "rollout.gold.player=expert", "rollout.gold.weight=0.25"),
        *("intervention=judge", "confidence.teacher_temperature=2"),  # one that says a digest
    ): "65b3aefba1ac",
}
"""Ids of the commit 52ebe13, for a manifest that is called m sixty-four times."""


@pytest.mark.parametrize("line", BEFORE)
def test_a_run_whose_setting_is_called_otherwise_now_keeps_its_id_and_its_recipe(
    line: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    today = [word.replace("rollout.gold", "rollout.demonstration") for word in line]
    now = Identity.of(load(today), "m" * 64)
    assert capsys.readouterr().err == ""
    assert now.run == BEFORE[line]
    assert "demonstration" in now.fields["rollout"]
    fields = copy.deepcopy(now.fields)
    fields["rollout"]["gold"] = fields["rollout"].pop("demonstration")
    fields["name"] = fields["name"].replace("rollout.demonstration", "rollout.gold")
    record = Identity(fields, "m" * 64).to_json()
    by_hand = {"identity": 1, "schema": 2, "manifest": "m" * 64, "config": fields}
    assert record["digest"] == hashlib.sha256(canonical_json(by_hand).encode()).hexdigest() == now.digest
    assert recorded_settings(record) == recorded_settings(now.to_json())
    assert Identity.of(load(list(line)), "m" * 64) == now
    assert capsys.readouterr().err.count("is rollout.demonstration.") == sum("gold" in word for word in line)


def test_plain_data_with_the_old_name_of_a_setting_is_read_as_the_new_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = load(["method=stable_opd"]).model_dump(mode="json")
    plain["rollout"]["gold"] = plain["rollout"].pop("demonstration") | {"weight": 0.5}
    assert validate(plain).rollout.demonstration.weight == 0.5
    note = "rollout.gold is rollout.demonstration now; its old name is read for one release more.\n"
    assert capsys.readouterr().err == note
    assert "gold" in plain["rollout"]  # what was given is left as it was


def test_a_setting_that_is_there_under_both_its_names_is_refused_with_the_new_one() -> None:
    plain = load(["method=stable_opd"]).model_dump(mode="json")
    plain["rollout"]["gold"] = dict(plain["rollout"]["demonstration"])
    with pytest.raises(ConfigError, match=r"'rollout\.gold' is 'rollout\.demonstration' now"):
        validate(plain)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("stable_opd+rollout.gold.weight=0.5", "stable_opd+rollout.demonstration.weight=0.5"),
        (
            "opd+intervention=dealt+rollout.gold.player=expert[weight=0.5]",
            "opd+intervention=permuted+rollout.demonstration.player=expert[weight=0.5]",
        ),
        ("rollout.gold.weight=0.5", "rollout.gold.weight=0.5"),
        ("opd+rollout.golden=1", "opd+rollout.golden=1"),
    ],
)
def test_what_tables_call_a_run_has_todays_name_of_a_setting(name: str, expected: str) -> None:
    assert modern_label(name) == expected
    assert label_as_hashed(expected) in (name, name.replace("permuted", "dealt"))
