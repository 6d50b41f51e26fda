"""The story of a run on real parts: generated games, the native engine, the shipped models, all records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.load import load as load_records
from analysis.plan import freeze, read_plan
from analysis.plan_check import check
from sage.config.components import conf_dir
from sage.config.load import load
from sage.errors import ConfigError
from sage.launch.execute import execute
from sage.records.rundir import RunDir
from sage.records.tables import read

SMALL = [
    "env.generated.train=12",
    "env.generated.valid_seen=6",
    "env.generated.valid_unseen=6",
    "env.games=generated",
    "env.turn_budget=6",
    "trainer.steps=2",
    "trainer.tasks_per_step=3",
    "speed.checkpoint_every=1",
    "speed.threads=1",
    "evaluation.limit=3",
    "tracking.mlflow=false",
]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path_factory.getbasetemp() / "games"))


def one(tmp_path: Path, *overrides: str) -> RunDir:
    outcome = execute(load([*SMALL, f"launch.runs_dir={tmp_path}", *overrides]), export=False)
    assert outcome.state == "done", outcome.reason
    assert outcome.folder is not None
    return RunDir(outcome.folder)


def numbers(folder: RunDir) -> list[object]:
    """Everything recorded but times."""
    rows: list[object] = []
    for table in ("episodes", "turns", "steps"):
        data = read(folder.path, table)
        timed = ("seconds", "latency", "speed_", "time")
        keep = [c for c in data.column_names if not any(word in c for word in timed)]
        rows.append(data.select(keep).to_pylist())
    return rows


def test_a_run_leaves_complete_records(tmp_path: Path) -> None:
    folder = one(tmp_path)
    episodes = read(folder.path, "episodes").to_pylist()
    turns = read(folder.path, "turns").to_pylist()
    steps = read(folder.path, "steps").to_pylist()
    evaluated = [(e["step"], e["split"], e["task"]) for e in episodes if e["phase"] == "eval"]
    assert len(evaluated) == len(set(evaluated)) == 2 * 2 * 3  # before and after, two splits, each game once
    assert [s["step"] for s in steps] == [1, 2]
    assert len(turns) == sum(e["turns"] for e in episodes)
    trained = [t for t in turns if t["phase"] == "train"]
    assert all(t["label"] is not None and t["weight"] is not None for t in trained)
    asked = [t for t in trained if t["label"] in ("SKIP", "WEAK", "STRONG")]
    assert all(t["judge_reply"] for t in asked)
    assert all(0 < t["confidence"] <= 1 for t in trained if t["weight"])
    assert all(t["expert_distance_before"] is not None for t in turns)
    # Z s_t averages to one over the batch's student tokens (spec, section 5).
    for step in steps:
        batch = [t for t in trained if t["step"] == step["step"] - 1]
        mean = sum(t["effective_weight"] * t["answer_tokens"] for t in batch) / step["student_tokens"]
        assert mean == pytest.approx(1.0, rel=1e-5)
    assert {"run.json", "config.yaml", "status.json", "provenance.json", "summary.json", "log.txt"} <= {
        p.name for p in folder.path.iterdir()
    }
    provenance = json.loads((folder.path / "provenance.json").read_text())
    assert set(provenance["models"]) == {"student", "teacher"}


def test_the_same_config_gives_the_same_numbers_and_another_seed_others(tmp_path: Path) -> None:
    first = numbers(one(tmp_path / "a"))
    assert first == numbers(one(tmp_path / "b"))
    assert first[1] != numbers(one(tmp_path / "c", "seed=1"))[1]


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    folder = one(tmp_path)
    again = execute(load([*SMALL, f"launch.runs_dir={tmp_path}"]), export=False)
    assert again.state == "skipped"
    assert again.folder == folder.path


def test_a_run_killed_after_a_checkpoint_goes_on_to_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = numbers(one(tmp_path / "whole"))

    from sage.records.recorder import Recorder, StepReport

    class Killed(Exception):
        pass

    real = Recorder.stepped

    def stepped(self: Recorder, report: StepReport) -> None:
        if report.step == 2:
            raise Killed("the power is gone")
        real(self, report)

    overrides = [*SMALL, f"launch.runs_dir={tmp_path / 'cut'}"]
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "stepped", stepped)
        outcome = execute(load(overrides), export=False)
    assert outcome.state == "failed"
    assert "the power is gone" in outcome.reason
    outcome = execute(load(overrides), export=False)
    assert outcome.state == "done"
    assert outcome.folder is not None
    assert numbers(RunDir(outcome.folder)) == whole


PRESETS = sorted(path.stem for path in (conf_dir() / "method").glob("*.yaml"))


@pytest.mark.parametrize("method", [name for name in PRESETS if name != "base"])
def test_every_preset_trains(tmp_path: Path, method: str) -> None:
    short = ("trainer.steps=1", "evaluation.before=false", "evaluation.after=false", "env.turn_budget=4")
    folder = one(tmp_path, f"method={method}", *short)
    (step,) = read(folder.path, "steps").to_pylist()
    assert step["stepped"]
    assert step["relative_weight_change"] > 0
    if load([f"method={method}"]).normalization.name == "none":
        assert step["z"] == 1.0
    turns = read(folder.path, "turns").to_pylist()
    asks = load([f"method={method}"]).intervention.query is not None
    assert (step["judge_queries"] + step["judge_cached"] > 0) == asks
    assert all(turn["label"] is not None for turn in turns)


def test_the_teacher_plays_where_it_is_told_to(tmp_path: Path) -> None:
    settings = ("rollout.temperature=0", "trainer.steps=1", "evaluation.after=false")
    taught = one(tmp_path / "sft", "method=sft", "evaluation.before=false", *settings)
    (step,) = read(taught.path, "steps").to_pylist()
    likelihood = [
        turn["teacher_logprob"] for turn in read(taught.path, "turns").to_pylist() if turn["answer_tokens"]
    ]
    # Greedy play of the teacher: its own tokens are its likeliest, and the loss is the student's surprise.
    assert min(likelihood) > -1.0
    assert step["loss"] > 0
    own = one(tmp_path / "opd", "method=opd", "evaluation.before=false", *settings)
    answers = [read(folder.path, "turns").column("answer").to_pylist() for folder in (taught, own)]
    assert answers[0] != answers[1]


def test_a_second_run_of_the_same_teacher_asks_nothing_twice(tmp_path: Path) -> None:
    line = ("evaluation.before=false", "evaluation.after=false", f"launch.judge_cache={tmp_path}/replies.db")
    first, second = (one(tmp_path / name, *line) for name in "ab")
    asked, free = (read(folder.path, "steps").to_pylist() for folder in (first, second))
    assert sum(step["judge_queries"] for step in asked) > 0
    assert sum(step["judge_queries"] + step["judge_tokens"] for step in free) == 0
    assert [step["loss"] for step in asked] == [step["loss"] for step in free]


def test_the_expert_plays_what_is_imitated_also_in_worker_processes(tmp_path: Path) -> None:
    line = ("method=sft_expert", "env.turn_budget=30", "trainer.steps=1", "evaluation.before=false")
    folders = [
        one(tmp_path / str(n), *line, "evaluation.after=false", f"speed.workers={n}") for n in (0, 1)
    ]
    assert numbers(folders[0]) == numbers(folders[1])
    episodes, turns = (read(folders[0].path, table).to_pylist() for table in ("episodes", "turns"))
    assert all(episode["won"] for episode in episodes)
    assert all(turn["answer"] == f"Thought: {turn['thought']}\nAction: {turn['action']}" for turn in turns)
    assert {turn["label"] for turn in turns} == {"ALWAYS"}
    (step,) = read(folders[0].path, "steps").to_pylist()
    assert step["teacher_play_tokens"] == 0
    assert json.loads((folders[0].path / "summary.json").read_text())["ledger"]["tokens"]["played"] == 0


def test_the_student_ends_what_the_teacher_has_begun(tmp_path: Path) -> None:
    line = ("method=tcod_b2f", "env.turn_budget=30", "trainer.steps=1", "trainer.tasks_per_step=6")
    folder = one(tmp_path, *line, "evaluation.before=false", "evaluation.after=false")
    episodes, turns = (read(folder.path, table).to_pylist() for table in ("episodes", "turns"))
    given = [turn for turn in turns if turn["phase"] == "given"]
    trained = [turn for turn in turns if turn["phase"] == "train"]
    begun = [episode for episode in episodes if episode["given_turns"]]
    assert begun
    assert len(given) == sum(episode["given_turns"] for episode in begun)
    assert all(turn["label"] is None and turn["divergence"] is None for turn in given)
    assert all(turn["label"] == "ALWAYS" and turn["divergence"] is not None for turn in trained)
    for episode in begun:
        own = [turn["turn"] for turn in trained if turn["task"] == episode["task"]]
        assert own == list(range(episode["given_turns"], episode["given_turns"] + episode["turns"]))
    (step,) = read(folder.path, "steps").to_pylist()
    assert step["student_tokens"] == sum(turn["answer_tokens"] for turn in trained)
    assert step["teacher_play_tokens"] > step["student_tokens"]


def test_a_random_choice_is_the_same_in_every_run(tmp_path: Path) -> None:
    line = ("method=random_intervention", "confidence=shuffled", "evaluation.before=false")
    first, second = (numbers(one(tmp_path / name, *line)) for name in "ab")
    assert first == second


@pytest.mark.parametrize("content", ["", "{", "[]", '{"sha256": 3}', "{}"])
def test_a_damaged_freeze_is_refused_in_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.yaml").write_text("")
    (tmp_path / "x.frozen.json").write_text(content)
    with pytest.raises(ConfigError, match=r"launch.plan=.*x.yaml cannot be used: .*x.frozen.json "):
        one(tmp_path / "runs", f"launch.plan={tmp_path}/x.yaml")


def test_a_run_carries_the_hash_of_its_frozen_plan(tmp_path: Path) -> None:
    plan = tmp_path / "x.yaml"
    plan.write_text((conf_dir() / "plan" / "ablation_alfworld.yaml").read_text())
    line = ("trainer.steps=0", "evaluation.splits=[valid_seen]", f"launch.plan={plan}")
    with pytest.raises(ConfigError, match="has not been frozen; freeze it before the first run"):
        one(tmp_path / "runs", *line)
    frozen = freeze(plan, tmp_path / "runs")
    folder = one(tmp_path / "runs", *line)
    assert json.loads((folder.path / "provenance.json").read_text())["plan_sha256"] == frozen["sha256"][0]
    records = load_records([str(tmp_path / "runs")])
    conditions = check(read_plan(plan), records).drop_duplicates("condition").set_index("condition")
    # The plan's methods are others, so nothing of it is complete; what the run carries was read.
    assert records.runs["plan"].tolist() == frozen["sha256"].tolist()
    assert conditions.loc["plan frozen and unchanged", "met"]
    assert conditions.loc["freeze in the ledger", "met"]
    assert not conditions.loc["set complete", "met"]


def test_never_intervening_changes_nothing_and_counts_the_skipped_steps(tmp_path: Path) -> None:
    folder = one(tmp_path, "intervention=never")
    steps = read(folder.path, "steps").to_pylist()
    assert not any(s["stepped"] for s in steps)
    assert all(s["relative_weight_change"] == 0 for s in steps)
    assert json.loads((folder.path / "summary.json").read_text())["skipped_steps"] == 2


def test_the_base_preset_evaluates_only(tmp_path: Path) -> None:
    folder = one(tmp_path, "method=base")
    assert read(folder.path, "steps").num_rows == 0
    assert set(read(folder.path, "episodes").column("phase").to_pylist()) == {"eval"}


def test_a_teacher_equal_to_the_student_gives_loss_zero(tmp_path: Path) -> None:
    steps = read(one(tmp_path, "teacher.path=sage://tiny-student", "method=opd").path, "steps").to_pylist()
    assert all(abs(s["loss"]) < 1e-7 for s in steps)


def test_the_judge_s_batch_and_guesses_are_the_run_s() -> None:
    from contextlib import ExitStack

    from sage.policy.prompts import choose_style
    from sage.training.judging import judge_of
    from tests.tiny_models import tiny_lm

    config = load(["speed.judge_batch=3", "speed.draft_tokens=0", "launch.judge_cache=null"])
    with ExitStack() as stack:
        judge = judge_of(config, choose_style(config.prompt, config.student.path), tiny_lm(0), stack)
        assert (judge.batch, judge.draft_tokens) == (3, 0)  # type: ignore[attr-defined]
