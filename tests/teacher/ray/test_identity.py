"""What a replica says of itself, and what travels between a run and an actor; all of it without Ray."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sage.config.load import load
from sage.config.schema import TeacherSettings
from sage.errors import ConfigError
from sage.policy.models.hidden_states import hidden_states
from sage.policy.models.load import LanguageModel, load_model
from sage.teacher.ray.actor import Replica
from sage.teacher.ray.cluster import connect, environment, listening
from sage.teacher.ray.head import _give_token
from sage.teacher.ray.identity import Identity, check
from sage.teacher.ray.manage import manage
from sage.teacher.ray.wire import Answered, Failed, pack, unpack

WORDS = ["teacher=ray", "teacher.path=sage://tiny-teacher", "teacher.ray.num_gpus=0", "teacher.dtype=float32"]


def settings(*more: str) -> TeacherSettings:
    return load([*WORDS, *more]).teacher


@pytest.fixture(scope="module")
def replica() -> Replica:
    return Replica(settings().model_dump(mode="json"))


@pytest.fixture(scope="module")
def here() -> LanguageModel:
    return load_model(load(["teacher.path=sage://tiny-teacher"]).teacher)


def identity(replica: Replica) -> Identity:
    said = replica.identity()
    assert isinstance(said, Identity)
    return said


def test_a_replica_is_the_teacher_that_its_settings_name(replica: Replica, here: LanguageModel) -> None:
    said = identity(replica)
    check(said, settings(), here.tokenizer)
    check(
        said,
        settings(f"teacher.ray.digest={said.digest[:12]}", "teacher.path=sage://tiny-teacher-strong"),
        here.tokenizer,
    )
    assert said.digest == here.digest
    assert (said.rows, said.width) == tuple(here.model.get_output_embeddings().weight.shape)


def test_every_difference_is_one_sentence(replica: Replica, here: LanguageModel) -> None:
    said = identity(replica)
    wrong = {
        "teacher.path=sage://tiny-teacher-strong": "started with teacher.path='sage://tiny-teacher', and the",
        "teacher.dtype=bfloat16": "was started with teacher.dtype='float32', and the config says 'bfloat16'",
        "teacher.thinking=true": "was started with teacher.thinking=False",
        "teacher.revision=main": "was started with teacher.revision=None",
        "+teacher.model_kwargs.device_map=cpu": "was started with teacher.model_kwargs={}",
        "teacher.attn_implementation=eager": "was started with teacher.attn_implementation=None",
        "teacher.ray.digest=0123456789": "teacher.ray.digest=0123456789 says otherwise",
    }
    for setting, sentence in wrong.items():
        with pytest.raises(ConfigError, match=sentence.replace("{}", r"\{\}")) as error:
            check(said, settings(setting), here.tokenizer)
        assert len(str(error.value)) < 400
    for changed, sentence in (
        (replace(said, tokenizer="another"), "has another tokenizer or chat template than"),
        (replace(said, format=0), "was started by another version of sage-opd"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            check(changed, settings(), here.tokenizer)


def test_a_replica_reads_what_the_model_here_reads_to_the_last_bit(
    replica: Replica, here: LanguageModel
) -> None:
    rows = [list(range(5, 40)), list(range(60, 72)), []]
    at = [[3, 10, 33], [0, 11], []]
    said = replica.states(rows, at, None)
    assert isinstance(said, Answered)
    with torch.no_grad():
        wanted = hidden_states(here, rows, at)
    assert said.digest == here.digest
    assert torch.equal(unpack(said.content), wanted)
    half = replica.states(rows, at, "float16")
    assert isinstance(half, Answered)
    assert unpack(half.content).dtype == torch.float16
    torch.testing.assert_close(unpack(half.content).float(), wanted, rtol=1e-3, atol=1e-3)
    weight, bias = replica.head(2, 7).content
    assert bias is None
    assert torch.equal(unpack(weight), here.model.get_output_embeddings().weight[2:7])


def test_what_fails_at_an_actor_is_a_sentence_and_no_exception(tmp_path: Path, replica: Replica) -> None:
    plain = settings().model_dump(mode="json")
    broken = Replica({**plain, "path": str(tmp_path / "nothing")})
    for said in (broken.identity(), broken.states([[1]], [[0]], None)):
        assert isinstance(said, Failed)
        assert (said.kind, "nothing" in said.reason) == ("refused", True)
    said = replica.states([[10**9]], [[0]], None)
    assert isinstance(said, Failed)
    assert said.kind == "model"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_tensor_arrives_as_it_was_sent(dtype: torch.dtype) -> None:
    sent = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(unpack(pack(sent)), sent)
    assert unpack(pack(sent[:0])).shape == (0, 7)


def test_a_state_that_a_half_cannot_hold_is_not_sent_as_infinity() -> None:
    with pytest.raises(OverflowError, match="a hidden state of 7e\\+04 has no place in float16"):
        pack(torch.tensor([1.0, 70_000.0]), "float16")


def test_what_cannot_be_is_refused_at_the_door() -> None:
    refused: dict[str, str] = {
        "teacher.ray.address=ray://head:10001": "is that of a Ray client",
        "teacher.ray.address=me:secret@head:6379": "is no address of a Ray cluster; it is auto, or host:port",
        "teacher.ray.name=a/b": "is no name",
        "rollout.player=teacher": "rollout.player=teacher has the teacher play",
        "curriculum=tcod_b2f": "curriculum=tcod_b2f has the teacher play",
        "teacher.ray.digest=xyz": "digest",
    }
    for setting, sentence in refused.items():
        with pytest.raises(ConfigError, match=sentence) as error:
            load([*WORDS, setting])
        assert "secret" not in str(error.value)
    both: Any = load(["teacher=server", "divergence=top_k"]).teacher.server
    with pytest.raises(ValueError, match="on a server or on Ray, not on both"):
        TeacherSettings.model_validate({**settings().model_dump(), "server": both.model_dump()})
    with pytest.raises(ConfigError, match="is about a teacher on Ray"):
        manage("status", load([]).teacher)


def test_a_cluster_that_does_not_listen_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="pip install 'sage-opd[ray]'")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert listening("auto") is None
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
    assert listening("auto") is None, "a cluster that has ended leaves its note"
    with pytest.raises(ConfigError, match=r"There is no Ray cluster on this machine.*teacher start"):
        connect("auto")


def test_an_actor_finds_this_package_and_a_token_is_its_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sage

    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    assert environment()["PYTHONPATH"] == f"{Path(sage.__file__).parents[1]}:/somewhere"
    file = tmp_path / "ray" / "token"
    _give_token(file)
    token = file.read_text()
    assert (len(token), file.stat().st_mode & 0o777) == (64, 0o600)
    _give_token(file)
    assert file.read_text() == token
