"""The teacher as a run sees it, over replicas in this process: what goes where, what becomes of errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sage.config.load import load
from sage.errors import ConfigError, TeacherLost
from sage.policy.decoding.generate import reply
from sage.policy.models.hidden_states import head, hidden_states
from sage.policy.models.load import LanguageModel, load_model
from sage.teacher.elsewhere import Part
from sage.teacher.ray.actor import Replica
from sage.teacher.ray.identity import Identity
from sage.teacher.ray.teacher import RayTeacher
from sage.teacher.ray.wire import Answered, Failed

CONFIG = load(
    ["teacher=ray", "teacher.path=sage://tiny-teacher", "teacher.ray.num_gpus=0", "teacher.dtype=float32"]
)
HOW = {"batch": 2, "engine": "auto", "draft_tokens": 10}
ROWS = [list(range(5, 40)), list(range(60, 72))]
AT = [[3, 10, 33], [0, 10]]


class Here:
    """`Actors` without Ray: replicas of this process, asked in turn and at once."""

    name = "sage-teacher"

    def __init__(self, replicas: Sequence[Any]) -> None:
        self.replicas = replicas
        self.asked: list[tuple[int, str, tuple[Any, ...]]] = []
        self.instead: Any = None

    def __len__(self) -> int:
        return len(self.replicas)

    def ask(self, method: str, *arguments: Any) -> Any:
        turn = len(self.asked) % len(self.replicas)
        self.asked.append((turn, method, arguments))
        return self.instead or getattr(self.replicas[turn], method)(*arguments)

    def wait(self, said: Any) -> Any:
        return said


@pytest.fixture(scope="module")
def replica() -> Replica:
    return Replica(CONFIG.teacher.model_dump(mode="json"))


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load_model(load(["teacher.path=sage://tiny-teacher"]).teacher)


@pytest.fixture
def two(replica: Replica, lm: LanguageModel) -> RayTeacher:
    said = replica.identity()
    assert isinstance(said, Identity)
    actors: Any = Here([replica, replica])
    return RayTeacher(actors, said, CONFIG.teacher, lm.tokenizer, HOW)


def test_states_times_head_are_those_of_the_model_here_to_the_last_bit(
    two: RayTeacher, lm: LanguageModel
) -> None:
    with torch.no_grad():
        wanted = hidden_states(lm, ROWS, AT)
    assert torch.equal(two.states(ROWS, AT), wanted)
    assert torch.equal(two.head().logits(wanted, 1500), head(lm).logits(wanted, 1500))
    assert two.states(ROWS, [[], []]).shape == (0, wanted.shape[1])
    assert two.shape().weights == lm.model.get_output_embeddings().weight.nbytes


def test_what_was_prepared_is_asked_once_and_goes_round_the_replicas(two: RayTeacher) -> None:
    actors: Any = two.actors
    before = len(actors.asked)
    parts = [Part.of(ROWS, AT), Part.of(ROWS[:1], AT[:1]), Part.of(ROWS[1:], [[]])]
    two.prepare(parts)
    first = [two.states(part.sequences, part.positions) for part in parts]
    asked = actors.asked[before:]
    assert [method for _, method, _ in asked] == ["states", "states"], "what asks about nothing is not asked"
    assert {turn for turn, _, _ in asked} == {0, 1}
    sent = asked[0][2][0]
    assert [len(row) for row in sent] == [34, 11], "nothing is sent behind what is asked about"
    assert torch.equal(two.states(*parts[0]), first[0]), "asked again, it is read again"
    assert len(actors.asked) == before + 3


def test_replies_are_the_model_s_and_go_to_the_replicas_in_batches(
    two: RayTeacher, lm: LanguageModel
) -> None:
    prompts = [[7 + i, 20, 31, 44 + i] for i in range(5)]
    actors: Any = two.actors
    before = len(actors.asked)
    assert two.reply(prompts, [("", "")] * 5, 6, None) == reply(lm, prompts, 6, batch=2)
    assert [len(arguments[0]) for _, _, arguments in actors.asked[before:]] == [2, 2, 1]
    alone: Any = Here(actors.replicas[:1])
    two.actors = alone
    assert two.reply(prompts, [("", "")] * 5, 6, None) == reply(lm, prompts, 6, batch=2)
    assert [len(arguments[0]) for _, _, arguments in alone.asked] == [5]


def test_a_bad_answer_is_what_a_model_here_would_raise_or_a_lost_teacher(two: RayTeacher) -> None:
    actors: Any = two.actors
    outcomes = {
        Failed("memory", "CUDA out of memory"): (MemoryError, "on the teacher's actor: CUDA out of memory"),
        Failed("model", "ValueError: x"): (RuntimeError, "on the teacher's actor: ValueError: x"),
        Failed("refused", "No file."): (TeacherLost, "cannot be used: No file."),
        Answered("f" * 64, None): (TeacherLost, "has other weights than at the start .digest ffffffff"),
    }
    for answer, (kind, sentence) in outcomes.items():
        actors.instead = answer
        with pytest.raises(kind, match=sentence):
            two.states(ROWS, AT)


def test_a_run_goes_on_with_the_weights_that_it_began_with(two: RayTeacher, tmp_path: Path) -> None:
    record = tmp_path / "teacher_ray.json"
    two.same_as_before(tmp_path)
    two.same_as_before(tmp_path)
    known = json.loads(record.read_text())
    assert (known["digest"], known["replicas"], known["name"]) == (two.digest, 2, "sage-teacher")
    two.digest = "0" * 64
    with pytest.raises(ConfigError, match=r"began with a teacher of the digest .* launch.on_existing=rerun"):
        two.same_as_before(tmp_path)


def test_half_precision_travels_and_float32_arrives(replica: Replica, lm: LanguageModel) -> None:
    said = replica.identity()
    assert isinstance(said, Identity)
    assert CONFIG.teacher.ray is not None
    ray = CONFIG.teacher.ray.model_copy(update={"transfer": "float16"})
    actors: Any = Here([replica])
    half = RayTeacher(
        actors, replace(said), CONFIG.teacher.model_copy(update={"ray": ray}), lm.tokenizer, HOW
    )
    with torch.no_grad():
        wanted = hidden_states(lm, ROWS, AT)
    came = half.states(ROWS, AT)
    assert came.dtype == torch.float32
    assert torch.equal(came, wanted.half().float())
    assert actors.asked[-1][2][2] == "float16"
