"""Whole runs with a teacher on a server: the loss of a local one, and what its failures make of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sage.config.load import load
from sage.errors import ConfigError
from sage.launch.execute import execute
from sage.policy.models.load import LanguageModel, load_model
from sage.records.tables import read
from tests.teacher.server.fake import FakeServer, Handler, serving, slow

SMALL = (
    *("env.games=generated", "env.generated.train=6", "env.generated.valid_seen=2"),
    *("env.generated.valid_unseen=2", "env.turn_budget=3", "env.evaluation_splits=[valid_seen]"),
    *("trainer.steps=2", "trainer.tasks_per_step=2", "trainer.warmup_steps=0", "evaluation.limit=1"),
    *("evaluation.before=false", "tracking=none", "speed.threads=1", "speed.checkpoint_every=1"),
    *("evaluation.after=false", "intervention.max_new_tokens=8", "divergence=top_k"),
)


@pytest.fixture(scope="module")
def shipped() -> LanguageModel:
    return load_model(load([]).teacher)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "games"))


def served(server: FakeServer, *more: str) -> list[str]:
    quick = (f"teacher.server.{name}" for name in ("wait_s=0.01", "deadline_s=20", "patience_s=2"))
    path = "teacher.path=sage://tiny-teacher"
    return [*SMALL, "teacher=server", path, f"teacher.server.address={server.address}", *quick, *more]


def steps(outcome: Any) -> list[dict[str, Any]]:
    assert outcome.folder is not None
    return read(outcome.folder, "steps").to_pylist()


def test_a_run_with_a_served_teacher_is_the_run_with_the_same_teacher_here(shipped: LanguageModel) -> None:
    here = execute(load([*SMALL, "teacher.path=sage://tiny-teacher"]))
    with serving(shipped) as server:
        there = execute(load(served(server)))
        by_sglang = None
        server.engine = "sglang"
        by_sglang = execute(load(served(server, "launch.on_existing=rerun")))
    assert (here.state, there.state, by_sglang.state) == ("done", "done", "done")
    for run in (there, by_sglang):
        for mine, theirs in zip(steps(here), steps(run), strict=True):
            assert theirs["loss"] == pytest.approx(mine["loss"], abs=1e-3)
            for name in ("student_tokens", "judge_queries", "teacher_tokens", "z", "mean_weight"):
                assert theirs[name] == pytest.approx(mine[name], rel=1e-4)
    turn = read(there.folder, "turns").to_pylist()[0]
    assert turn["teacher_entropy"] is None, "it cannot be known of the likeliest tokens"
    assert turn["top1"] is not None
    record = json.loads((there.folder / "teacher_server.json").read_text())
    assert record["served"] == {"engine": "vllm", "model": "tiny", "root": "/models/tiny", "reach": 4096}


def test_a_server_that_is_gone_for_good_fails_the_run_and_the_same_line_goes_on(
    shipped: LanguageModel,
) -> None:
    def dies(server: FakeServer, handler: Handler, answer: Any) -> bool:
        handler.send(503, {})
        return True

    with serving(shipped) as server:
        whole = execute(load(served(server, "name=whole", "launch.runs_dir=whole")))
        line = served(server, "name=whole")
        probes = {"count": 0}

        def after_the_first_step(server: FakeServer, handler: Handler, answer: Any) -> bool:
            probes["count"] += handler.path == "/v1/completions" and len(answer["choices"]) > 1
            return dies(server, handler, answer) if probes["count"] > 1 else False

        server.always = after_the_first_step
        failed = execute(load(line))
        assert (failed.state, failed.exit_code) == ("failed", 1)
        assert "does not answer (status 503" in failed.reason
        assert "newest checkpoint" in failed.reason
        server.always = None
        resumed = execute(load(line))
    assert resumed.state == "done"
    assert resumed.folder == failed.folder
    assert [row["loss"] for row in steps(resumed)] == pytest.approx(
        [row["loss"] for row in steps(whole)], abs=1e-6
    )
    assert all(row["episodes_not_ok"] == 0 for row in steps(resumed)), "no agent has failed"


def test_a_run_is_not_resumed_with_another_teacher(shipped: LanguageModel) -> None:
    student = load_model(load([]).student)
    with serving(shipped) as server:
        server.always = slow(0)
        line = served(server)
        first = execute(load([*line, "trainer.steps=1", "name=one"]))
    assert first.folder is not None
    with serving(student) as other:
        from sage.teacher.places import load_teacher

        config = load(served(other))
        with pytest.raises(ConfigError, match=r"The run began with the teacher 'tiny' .*other probabilities"):
            load_teacher(config, folder=first.folder)


def test_what_a_server_cannot_give_is_refused_at_the_door() -> None:
    base = ["teacher=server", "divergence=top_k"]
    refused = {
        "divergence=reverse_kl": "divergence=reverse_kl needs the teacher's whole distribution",
        "divergence=jsd": "divergence=jsd needs",
        "divergence=anchored": "divergence=anchored needs",
        "confidence=entropy": "confidence=entropy needs",
        "confidence.teacher_temperature=0.5": "teacher_temperature other than 1",
        "divergence.k=17": "needs the 17 likeliest tokens, and teacher.server.most_likeliest=16",
        "rollout.player=teacher": "rollout.player=teacher has the teacher play",
        "curriculum=tcod_b2f": "curriculum=tcod_b2f has the teacher play",
    }
    with pytest.raises(ConfigError, match="divergence=anchored needs the teacher's whole distribution"):
        load(["teacher=server", "method=stable_opd"])
    for setting, sentence in refused.items():
        with pytest.raises(ConfigError, match=sentence) as error:
            load([*base, setting])
        assert len(str(error.value)) < 400
    taken = [
        ["confidence=margin"],
        ["confidence=none"],
        ["confidence=shuffled"],
        ["confidence=entropy_aware"],
        ["confidence=threshold"],
        ["method=opd"],
        ["divergence=sampled_token", "rollout.temperature=1"],
        ["divergence=nll"],
    ]
    for settings in taken:
        load([*base, *settings])
    load([*base, "divergence=reverse_kl", "task=evaluate"])
