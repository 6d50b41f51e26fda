"""A run whose model or environment fails: nothing of it is a score, and the same line tries again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sage.config.load import load
from sage.episode import Episode, Status, Task
from sage.launch.execute import Outcome, execute
from sage.policy.models.load import LanguageModel, load_model
from sage.records.tables import read
from sage.training.not_ok import TooManyNotOk, refuse_not_ok
from tests.test_run import SMALL


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path_factory.getbasetemp() / "games"))


def episodes_of(ok: int, broken: int) -> list[Episode]:
    made = [Episode(Task(f"t{i}", "e", "s", "k", "g"), status=Status.LOST) for i in range(ok + broken)]
    for episode in made[ok:]:
        episode.status, episode.error = Status.POLICY_ERROR, "The model failed: no memory"
    return made


def test_more_than_the_allowed_share_not_ok_is_refused_with_the_first_error() -> None:
    refuse_not_ok(episodes_of(19, 1), 0.05, "valid", 0)
    refuse_not_ok([], 0.05, "valid", 0)
    with pytest.raises(
        TooManyNotOk, match=r"^2 of 20 .* of valid .*t18, ended policy_error: The model"
    ) as caught:
        refuse_not_ok(episodes_of(18, 2), 0.05, "valid", 3)
    assert (caught.value.step, len(caught.value.episodes)) == (3, 20)
    with pytest.raises(TooManyNotOk, match="3 of 3"):
        refuse_not_ok(episodes_of(0, 3), 1.0, "valid", 0)


def evaluated(tmp_path: Path, *overrides: str) -> Outcome:
    config = [*SMALL, "task=evaluate", "evaluation.splits=[valid_seen]", "evaluation.limit=6"]
    return execute(load([*config, f"launch.runs_dir={tmp_path}", *overrides]), export=False)


def break_model(monkeypatch: pytest.MonkeyPatch, fails: Callable[[torch.Tensor], bool]) -> None:
    """Every model of a run runs out of memory where `fails` says so of the ids of a forward."""

    def broken(*arguments: Any, **named: Any) -> LanguageModel:
        lm = load_model(*arguments, **named)
        model = copy.deepcopy(lm.model)

        def check(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
            if fails(inputs[0]):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        model.get_input_embeddings().register_forward_pre_hook(check)
        return replace(lm, model=model)

    monkeypatch.setattr("sage.training.setup.load_model", broken)


def opening_of_one_game(folder: Path) -> Callable[[torch.Tensor], bool]:
    """Fails on a forward that reads the scene of the first game whole."""
    scene = read(folder, "episodes").column("scene").to_pylist()[0]
    lm = load_model(load(SMALL).student)
    ids = lm.tokenizer(scene, add_special_tokens=False)["input_ids"][5:45]

    def fails(given: torch.Tensor) -> bool:
        rows = given.tolist() if given.ndim == 2 else [given.tolist()]
        return any(row[i : i + len(ids)] == ids for row in rows for i in range(len(row)))

    return fails


def test_an_evaluation_that_loses_an_episode_fails_and_the_same_line_plays_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluated(tmp_path / "whole")
    assert whole.state == "done"
    assert whole.folder is not None
    with monkeypatch.context() as patch:
        break_model(patch, opening_of_one_game(whole.folder))
        failed = evaluated(tmp_path / "runs")
    assert (failed.state, failed.exit_code, failed.success) == ("failed", 1, None)
    assert failed.reason.startswith("1 of 6 episodes of the evaluation of valid_seen after 0 steps")
    assert "policy_error: The model failed: CUDA out of memory" in failed.reason
    assert failed.folder is not None
    assert read(failed.folder, "episodes").num_rows == 0  # what survived is no score
    (aside,) = (failed.folder / "set_aside").iterdir()
    assert str(aside) in (failed.folder / "log.txt").read_text(encoding="utf-8")
    rows = read(aside, "episodes").to_pylist()
    assert sorted(row["ok"] for row in rows) == [False] + [True] * 5
    assert {row["phase"] for row in rows} == {"failed"}

    again = evaluated(tmp_path / "runs")
    assert (again.state, again.folder) == ("done", failed.folder)
    assert again.success == whole.success
    assert read(failed.folder, "episodes").num_rows == 6


def test_a_larger_share_can_be_allowed_on_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluated(tmp_path / "whole")
    assert whole.folder is not None
    break_model(monkeypatch, opening_of_one_game(whole.folder))
    assert evaluated(tmp_path / "runs").state == "failed"
    allowed = evaluated(tmp_path / "runs", "evaluation.max_not_ok=0.2")
    assert (allowed.state, allowed.run) == ("done", whole.run)
    assert allowed.folder is not None
    ok = read(allowed.folder, "episodes").column("ok").to_pylist()
    assert (ok.count(True), ok.count(False)) == (5, 1)


def test_a_run_in_which_no_episode_is_ok_fails_whatever_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        break_model(patch, lambda ids: True)
        failed = evaluated(tmp_path, "evaluation.max_not_ok=1")
    assert (failed.state, failed.exit_code) == ("failed", 1)
    assert failed.reason.startswith("Out of memory in the comparison of 'sage://tiny-student")
    assert "(CUDA out of memory. Tried to allocate 2.00 GiB)" in failed.reason
    assert evaluated(tmp_path, "evaluation.max_not_ok=1").state == "done"


def test_less_memory_than_a_whole_batch_needs_changes_no_record_but_the_retries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def records(outcome: Outcome) -> list[dict[str, Any]]:
        assert outcome.state == "done", outcome.reason
        assert outcome.folder is not None
        rows = read(outcome.folder, "episodes").to_pylist()
        return [{k: v for k, v in row.items() if k not in ("seconds", "retries")} for row in rows]

    whole = records(evaluated(tmp_path / "whole", "speed.engine=hf"))
    break_model(monkeypatch, lambda ids: ids.shape[0] > 4)
    small = evaluated(tmp_path / "small", "speed.engine=hf")
    assert records(small) == whole
    assert small.folder is not None
    assert any(read(small.folder, "episodes").column("retries").to_pylist())
