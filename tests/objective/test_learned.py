"""The learned intervention: features by hand, scikit-learn's probabilities, the hybrid, and a fit on real
records."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from sage.config.load import load
from sage.config.registry import interventions
from sage.episode import Failure, Label, TurnScore
from sage.launch.execute import execute
from sage.objective.intervention.base import JudgeReply, TurnContext, no_judge
from sage.objective.intervention.fit import fit, held_out, main, training_turns
from sage.objective.intervention.learned import Learned
from sage.objective.intervention.rates import WORDS
from sage.objective.intervention.turn_features import NAMES, Seen, features
from sage.records.tables import read_frame
from tests.tiny_models import make_episode

COMMON = {"name": "learned", "weak_weight": 0.5, "sees_feedback": True, "max_new_tokens": 8, "turn_budget":
30}


def seen(observation: str, action: str, feedback: str, failure: str = "none", **numbers: float) -> Seen:
    return Seen(
        observation,
        action,
        feedback,
        failure,
        answer_tokens=int(numbers.get("tokens", 10)),
        reward=numbers.get("reward", 0.0),
        student_entropy=numbers.get("entropy"),
        student_logprob=numbers.get("logprob"),
    )


def random_data(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(count, len(NAMES))) * draw.uniform(0.1, 9, len(NAMES))
    noise = draw.gumbel(size=(count, 3))
    words = (rows @ draw.normal(size=(len(NAMES), 3)) * 0.2 + noise).argmax(axis=1)
    return rows, words


def test_features_by_hand() -> None:
    turns = [
        seen("You are in a room.", "go to desk 1", "On the desk 1, you see a mug 2.", tokens=20, entropy=0.5),
        seen("On the desk 1, you see a mug 2.", "take mug 2", "Nothing happens.", "no_effect", logprob=-0.25),
        seen("Nothing happens.", "take mug 2", "Nothing happens.", "no_effect"),
    ]
    rows = [dict(zip(NAMES, row, strict=True)) for row in features("put a mug on the shelf.", turns, 30)]
    assert [row["position"] for row in rows] == pytest.approx([0, 1 / 30, 2 / 30])
    assert [row["action_repeats"] for row in rows] == [0, 0, 1]
    assert [row["same_action"] for row in rows] == [0, 0, 1]
    assert [row["feedback_seen"] for row in rows] == [0, 0, 1]
    assert [row["failed_before"] for row in rows] == [0, 0, 1]
    assert [row["failure_share"] for row in rows] == [0, 0, 0.5]
    assert [row["answer_length"] for row in rows] == [2, 1, 1]
    assert rows[0]["student_entropy"] == 0.5
    assert rows[1]["student_surprise"] == 0.25
    # The goal's words are mug and shelf.
    assert [row["goal_in_observation"] for row in rows] == [0, 0.5, 0]
    assert [row["goal_in_action"] for row in rows] == [0, 0.5, 0.5]
    assert rows[1]["action_in_observation"] == 0.5  # mug, but not take


def test_a_turn_does_not_know_the_later_ones() -> None:
    turns = [seen(f"o{i}", f"go {i}", f"f{i}") for i in range(5)]
    assert features("a goal", turns[:3], 30) == features("a goal", turns, 30)[:3]


def test_probabilities_are_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression

    rows, words = random_data()
    rule = Learned.model_validate({**COMMON, "ask_below": 0.0, **fit(rows, words)})
    scaled = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    expected = LogisticRegression(max_iter=2000).fit(scaled, words).predict_proba(scaled)
    found = np.array([rule.probabilities(row) for row in rows])
    np.testing.assert_allclose(found, expected, atol=1e-4)  # six digits of every coefficient are kept


def test_a_judge_of_two_words_is_learnt_and_one_of_one_word_refused() -> None:
    rows, words = random_data()
    two = np.where(words == 2, 1, words)
    rule = Learned.model_validate({**COMMON, "ask_below": 0.0, **fit(rows, two)})
    found = np.array([rule.probabilities(row) for row in rows])
    assert (found[:, 2] < 1e-12).all()
    assert ((found.argmax(axis=1) == two).mean()) > 0.6
    with pytest.raises(ValueError, match="one word only"):
        fit(rows, np.ones(len(rows), int))


def test_asking_more_agrees_more_and_saves_less() -> None:
    rows, words = random_data()
    table = held_out(fit(rows, words), rows, words)
    assert table["agreement"].is_monotonic_increasing
    assert table["queries_saved"].is_monotonic_decreasing
    assert table.iloc[0]["queries_saved"] == 1
    assert table.iloc[-1][["agreement", "kappa"]].tolist() == [1, 1]


def flat_rule(ask_below: float, intercepts: Sequence[float]) -> Learned:
    zeros = [0.0] * len(NAMES)
    return Learned.model_validate(
        {
            **COMMON,
            "ask_below": ask_below,
            "features": list(NAMES),
            "mean": zeros,
            "scale": [1.0] * len(NAMES),
            "coefficients": [zeros] * 3,
            "intercepts": list(intercepts),
        }
    )


def test_the_hybrid_asks_only_where_it_is_unsure_and_never_about_failures() -> None:
    episode = make_episode(0, 3, failures={1: Failure.EMPTY})
    turns = [TurnContext(episode, turn, TurnScore()) for turn in episode.turns]
    sure, unsure = [9.0, 0.0, 0.0], [0.2, 0.0, 0.0]
    never = flat_rule(0.0, unsure)
    assert never.query is None
    assert [d.label for d in never.decide(turns, no_judge, None)] == [Label.SKIP, Label.DET_FAIL, Label.SKIP]
    asked: list[int] = []

    def ask(contexts: Sequence[TurnContext]) -> list[JudgeReply]:
        asked.extend(c.turn.index for c in contexts)
        return [JudgeReply(Label.STRONG, "STRONG", tokens=5) for _ in contexts]

    assert flat_rule(0.8, sure).decide(turns, ask, None)[0].label is Label.SKIP
    assert asked == []
    found = flat_rule(0.8, unsure).decide(turns, ask, None)
    assert asked == [0, 2]
    assert [(d.label, d.reply) for d in found] == [
        (Label.STRONG, "STRONG"),
        (Label.DET_FAIL, ""),
        (Label.STRONG, "STRONG"),
    ]


def test_numbers_of_another_version_are_refused() -> None:
    with pytest.raises(ValidationError, match="fit it again"):
        Learned.model_validate({**flat_rule(0.0, [0, 0, 0]).model_dump(), "features": ["position"]})
    with pytest.raises(ValidationError, match="3 rows of"):
        flat_rule(0.0, [0, 0])


SMALL = [
    *("env.generated.train=12", "env.generated.valid_seen=6", "env.generated.valid_unseen=6"),
    *("env.games=generated", "env.turn_budget=8", "trainer.steps=2", "trainer.tasks_per_step=4"),
    *("speed.threads=1", "intervention.weak_weight=0.3", "tracking.mlflow=false"),
    *("evaluation.before=false", "evaluation.after=false"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two judged runs on real parts."""
    folder = tmp_path_factory.mktemp("judged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAGE_CACHE", str(tmp_path_factory.getbasetemp() / "games"))
        for seed in (0, 1):
            outcome = execute(load([*SMALL, f"launch.runs_dir={folder}", f"seed={seed}"]), export=False)
            assert outcome.state == "done", outcome.reason
    return folder


def test_fitted_on_real_records_it_runs_without_a_query_and_as_a_hybrid(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "games"))
    option = tmp_path / "conf" / "intervention" / "mine.yaml"
    assert main([str(runs), "--write", str(option)]) == 0
    assert "on 1 runs it has not seen" in capsys.readouterr().out
    rule = interventions.build(yaml.safe_load(option.read_text()))
    assert isinstance(rule, Learned)
    assert (rule.turn_budget, rule.weak_weight, rule.ask_below) == (8, 0.3, 0.0)  # as the runs had it
    labels = {}
    for below in (0, 1):
        line = [
            *(sys.executable, "-m", "sage", "--config-dir", str(tmp_path / "conf"), "intervention=mine"),
            *(f"intervention.ask_below={below}", *SMALL, f"launch.runs_dir={tmp_path / 'runs'}"),
        ]
        done = subprocess.run(line, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (attempt,) = [
            p
            for p in (tmp_path / "runs").glob("*/attempt_1")
            if f"ask_below: {float(below)}" in (p / "config.yaml").read_text()
        ]
        asked = int(read_frame(attempt, "steps")["judge_queries"].sum())
        assert (asked > 0) == (below == 1)
        labels[below] = read_frame(attempt, "turns")["label"].tolist()
        # What the rule saw while it trained and what is read back from the records are the same features.
        for row, label, _ in training_turns(attempt, 8) if below == 0 else []:
            chances = rule.probabilities(row)
            assert label in ("DET_FAIL", WORDS[chances.index(max(chances))])
    judged = next(p for p in runs.glob("*/attempt_1") if "\nseed: 0\n" in (p / "config.yaml").read_text())
    first = read_frame(judged, "turns")
    # Asked about everything, it is the judge: the first step, before any weight has moved, is the same.
    everything = labels[1][: int((first["step"] == 0).sum())]
    assert everything == first[first["step"] == 0]["label"].tolist()


def test_runs_that_differ_in_what_a_word_means_are_refused_in_a_sentence(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(runs, tmp_path / "runs")
    changed = next(iter(copy.glob("*/attempt_1"))) / "run.json"
    changed.write_text(changed.read_text().replace('"weak_weight": 0.3', '"weak_weight": 0.7'))
    assert main([str(copy)]) == 2
    assert "differ in weak_weight" in capsys.readouterr().err


def test_runs_without_a_judge_are_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    assert "at least two are needed, one to fit and one to hold out" in capsys.readouterr().err


def test_a_damaged_folder_is_a_note_and_the_runs_beside_it_are_fitted(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(runs)]) == 0
    alone = capsys.readouterr().out
    copy = shutil.copytree(runs, tmp_path / "runs")
    first, second = sorted(copy.glob("*/attempt_1"))
    for name in ("cut", "foreign", "turns", "unjudged"):
        shutil.copytree(first, copy / name / "attempt_1")
    (copy / "cut" / "attempt_1" / "run.json").write_text("{", encoding="utf-8")
    (copy / "foreign" / "attempt_1" / "status.json").unlink()
    (copy / "foreign" / "attempt_1" / "run.json").unlink()
    turns = copy / "turns" / "attempt_1" / "turns.parquet"
    turns.write_bytes(turns.read_bytes()[:-9])
    record = copy / "unjudged" / "attempt_1" / "run.json"
    record.write_text(record.read_text().replace('"turn_budget"', '"budget"'))
    shutil.copytree(second, second.parent / "attempt_2")  # the same turns must not be on both sides
    assert main([str(copy)]) == 0
    told = capsys.readouterr()
    assert told.out == alone
    notes = sorted(told.err.splitlines())
    assert [note.partition(" ")[0].removeprefix(f"{copy}/") for note in notes] == sorted(
        [
            "cut/attempt_1/run.json",
            "foreign/attempt_1",
            "turns/attempt_1/turns.parquet",
            "unjudged/attempt_1/run.json",
            f"{second.parent.name}/attempt_1",
        ]
    )


def test_a_place_that_cannot_be_written_is_one_sentence(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main([str(runs), "--write", str(tmp_path / "file" / "mine.yaml")]) == 2
    assert capsys.readouterr().err.startswith(f"--write {tmp_path}/file/mine.yaml: ")
