"""What a page asks, answered from run folders: each as recorded, live, damaged, or old."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sage.config.load import load
from sage.records.rows import RunKey
from sage.records.rundir import new_attempt
from sage.records.tables import DamagedRecords, Tables, arrow_schema, read
from sage.view.answers import PLACE, Answers
from sage.view.library import Library, rates_of_summary, rates_of_tables
from sage.view.rows import Rows
from tests.view.made import GAMES, TURNS, make_pair, make_run, record_evaluation, words

TRAINED = {"phase": "train", "step": 0, "split": "train", "task": "train/game-0", "rollout": 0}
EVALUATED = {"phase": "eval", "step": 2, "split": "valid_unseen", "task": "valid_unseen/game-1", "rollout": 0}


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below with its time and bytes."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_the_list_has_state_method_progress_and_success_with_its_interval(answers: Answers) -> None:
    found = answers.runs()
    assert (found["notes"], found["waiting"]) == ([], 0)
    opd = next(run for run in found["runs"] if run["method"] == "opd")
    assert (opd["state"], opd["seed"], opd["env"], opd["step"], opd["steps"]) == (
        "done",
        "0",
        "alfworld",
        2,
        2,
    )
    (rate,) = opd["success"]
    assert (rate["split"], rate["step"], rate["won"], rate["n"], rate["before"]) == (
        *("valid_unseen", 2, 3, 4),
        0.75,
    )
    assert 0 < rate["low"] < rate["rate"] == 0.75 < rate["high"] < 1


def test_a_summary_and_the_tables_tell_the_same(runs: Path) -> None:
    for path in runs.glob("*/attempt_1"):
        assert rates_of_tables(path) == rates_of_summary(json.loads((path / "summary.json").read_text()))


def test_a_run_has_its_steps_moments_and_settings(answers: Answers, keys: dict[str, str]) -> None:
    run = answers.run(keys["sage_opd"])
    assert run["steps_table"]["loss"] == [1.0, 0.5]
    assert [(m["phase"], m["step"], m["n"], m["won"]) for m in run["moments"]] == [
        *(("eval", 0, 4, 3), ("train", 0, 2, 1), ("train", 1, 2, 1), ("eval", 2, 4, 3)),
    ]
    assert run["settings"]["intervention.name"] == "judge"
    assert run["settings"] != answers.run(keys["opd"])["settings"]
    assert run["tokens"]["rows"] == 2 * sum(
        len(words(turn["answer"])) for turn in answers.episode(keys["sage_opd"], TRAINED)["turns"]
    )
    assert run["tokens"]["bytes"] > 0


def test_episodes_come_page_by_page(answers: Answers, keys: dict[str, str]) -> None:
    key = keys["opd"]
    whole = answers.episodes(key, {"phase": "eval"})
    assert whole["total"] == 2 * GAMES
    pages = [answers.episodes(key, {"phase": "eval"}, offset, 3)["rows"] for offset in (0, 3, 6)]
    assert [row for page in pages for row in page] == whole["rows"]
    won = answers.episodes(key, {"phase": "eval", "step": 2, "won": True})
    assert [row["task"] for row in won["rows"]] == [f"valid_unseen/game-{n}" for n in (0, 1, 3)]
    trained = answers.episodes(key, {"phase": "train", "step": 0})["rows"]
    assert [row["has_tokens"] for row in trained] == [True, False]


def test_an_episode_has_its_turns_its_tokens_and_what_the_judge_was_asked(
    answers: Answers, keys: dict[str, str], runs: Path
) -> None:
    found = answers.episode(keys["sage_opd"], TRAINED)
    assert found["episode"]["status"] == "won"
    assert [turn["label"] for turn in found["turns"]] == ["SKIP", "STRONG", "FALLBACK"]
    for turn in found["turns"]:
        tokens = found["tokens"][str(turn["turn"])]
        assert tokens["text"] == words(turn["answer"])
        assert tokens["position"] == list(range(len(tokens["text"])))
        assert tokens["word_1"] == tokens["text"]
        assert turn["answer"] in turn["judge_question"] or turn["action"] in turn["judge_question"]
        assert turn["observation"] in turn["judge_question"]
    evaluated = answers.episode(keys["sage_opd"], EVALUATED)
    assert len(evaluated["turns"]) == TURNS
    assert evaluated["tokens"] == {}
    assert {turn["judge_question"] for turn in evaluated["turns"]} == {None}
    with pytest.raises(KeyError):
        answers.episode(keys["sage_opd"], {**TRAINED, "task": "another"})


def test_filters_find_turns_that_fit_all_of_them(answers: Answers, keys: dict[str, str]) -> None:
    key = keys["sage_opd"]
    strong = answers.turns(key, ["strong"])
    assert strong["total"] == 4
    assert {(row["turn"], row["label"]) for row in strong["rows"]} == {(1, "STRONG")}
    assert answers.turns(key, ["strong", "progress"])["total"] == 0
    assert answers.turns(key, ["strong", "skip"])["total"] == 0
    assert answers.turns(key, ["fallback"])["total"] == 4
    assert answers.turns(key, ["no_effect", "evaluation"])["total"] == 2 * GAMES
    assert answers.turns(key, [])["total"] == 2 * GAMES * TURNS + 4 * TURNS


def test_looking_writes_nothing(runs: Path, answers: Answers, keys: dict[str, str]) -> None:
    before = everything(runs)
    for key in keys.values():
        answers.run(key)
        answers.episodes(key, {})
        answers.turns(key, ["strong"])
        answers.episode(key, TRAINED)
    assert everything(runs) == before


def test_a_run_that_goes_on_is_seen_as_it_grows(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", "sage_opd", ends=False)
    answers = Answers(Library([tmp_path / "runs"]))
    first = answers.runs()
    (line,) = first["runs"]
    assert (line["state"], line["step"], line["steps"]) == ("running", 2, 2)
    assert line["success"][0]["step"] == 0
    tables, key = Tables(run.path), line["key"]
    assert [m["phase"] for m in answers.run(key)["moments"]] == ["eval", "train", "train"]
    row = read(run.path, "episodes").to_pylist()[0]
    record_evaluation(tables, RunKey(row["run"], "sage_opd", "alfworld", "generated", 0), "sage_opd", 2)
    answers.library.refresh(0.0)
    second = answers.runs()
    assert second["version"] != first["version"]
    assert second["runs"][0]["success"][0]["step"] == 2
    assert len(answers.run(key)["moments"]) == 4
    tables.consolidate()
    assert len(answers.run(key)["moments"]) == 4
    assert answers.episode(key, TRAINED)["tokens"]


def test_the_time_left_is_that_of_the_steps_left(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", "opd", ends=False, steps=2)
    status = json.loads((run.path / "status.json").read_text()) | {"steps": 10}
    (run.path / "status.json").write_text(json.dumps(status))
    (line,) = Answers(Library([tmp_path / "runs"])).runs()["runs"]
    assert line["left_s"] == pytest.approx((4.0 + 2.0) / 2 * 8)


def damage(path: Path, how: str) -> None:
    if how == "cut table":
        data = (path / "turns.parquet").read_bytes()
        (path / "turns.parquet").write_bytes(data[: len(data) // 2])
    elif how == "no run.json":
        (path / "run.json").unlink()
    elif how == "foreign status":
        (path / "status.json").write_text("[1, 2")
    elif how == "pipe":
        (path / "summary.json").unlink()
        os.mkfifo(path / "summary.json")
    elif how == "no tables":
        for table in path.glob("*.parquet"):
            table.unlink()


@pytest.mark.parametrize(
    ("reason", "state"), [("stopped by SIGINT", "stopped"), ("The judge failed.", "failed")]
)
def test_who_was_stopped_has_not_failed(tmp_path: Path, reason: str, state: str) -> None:
    run = make_run(tmp_path, "opd", steps=2)
    status = json.loads((run.path / "status.json").read_text()) | {"state": "failed", "reason": reason}
    (run.path / "status.json").write_text(json.dumps(status))
    (found,) = Answers(Library([tmp_path])).runs()["runs"]
    assert (found["state"], found["reason"]) == (state, reason)


@pytest.mark.parametrize("how", ["cut table", "no run.json", "foreign status", "pipe", "no tables"])
def test_a_damaged_folder_is_a_note_and_stops_no_other(how: str, tmp_path: Path) -> None:
    answers = Answers(Library([make_pair(tmp_path / "runs")]))
    keys = {run["method"]: run["key"] for run in answers.runs()["runs"]}
    damaged = answers.library.entry(keys["opd"]).path
    damage(damaged, how)
    answers = Answers(Library([tmp_path / "runs"]))
    found = {run["key"]: run for run in answers.runs()["runs"]}
    assert found[keys["sage_opd"]]["notes"] == []
    assert answers.run(keys["sage_opd"])["moments"]
    if how != "cut table":
        assert len(found[keys["opd"]]["notes"]) == 1
        assert len(found[keys["opd"]]["notes"][0]) < 400
    if how == "cut table":
        with pytest.raises(DamagedRecords, match=r"turns\.parquet"):
            answers.episode(keys["opd"], TRAINED)
        run = answers.run(keys["opd"])
        assert ["turns.parquet" in note for note in run["notes"]] == [True]
        assert (run["steps_table"]["loss"], len(run["moments"])) == ([1.0, 0.5], 4)


def test_records_from_before_there_were_tokens_are_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", "sage_opd")
    (run.path / "tokens.parquet").unlink()
    answers = Answers(Library([tmp_path / "runs"]))
    (line,) = answers.runs()["runs"]
    assert line["notes"] == []
    assert answers.run(line["key"])["tokens"] == {"rows": 0, "bytes": 0}
    assert answers.episode(line["key"], TRAINED)["tokens"] == {}
    assert not any(row["has_tokens"] for row in answers.episodes(line["key"], {})["rows"])


def test_the_same_run_in_two_places_has_two_keys(tmp_path: Path) -> None:
    make_run(tmp_path / "runs", "opd")
    shutil.copytree(tmp_path / "runs", tmp_path / "copy")
    found = Answers(Library([tmp_path / "runs", tmp_path / "copy"])).runs()["runs"]
    assert len({run["key"] for run in found}) == 2
    assert sorted(run["where"].split("/")[0] for run in found) == ["copy", "runs"]


def test_a_folder_without_runs_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = Answers(Library([tmp_path / "empty"])).runs()
    assert found["runs"] == []
    assert "has no records of runs" in found["notes"][0]


def test_rows_are_read_from_the_row_groups_that_hold_them(tmp_path: Path, runs: Path) -> None:
    (source,) = [p for p in runs.glob("*/attempt_1") if "opd" in (p / "run.json").read_text()][:1]
    table = pq.read_table(source / "turns.parquet")
    folder = tmp_path / "attempt_1"
    folder.mkdir()
    pq.write_table(table, folder / "turns.parquet", row_group_size=5)
    rows = Rows()
    where = {name: TRAINED[name] for name in PLACE}
    found = rows.find(folder, "turns", where)
    assert rows.take("turns", found) == [
        row for row in table.to_pylist() if all(row[name] == where[name] for name in PLACE)
    ]
    everything_ = rows.find(folder, "turns", {})
    assert rows.take("turns", everything_) == table.to_pylist()
    assert rows.find(folder, "turns", {"label": [None]}) == rows.find(folder, "turns", {"phase": "eval"})


def test_few_keys_are_kept_and_a_changed_file_is_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "attempt_1"
    run = make_run(tmp_path / "runs", "opd", steps=1)
    table = pq.read_table(run.path / "episodes.parquet")
    folder.mkdir()
    pq.write_table(table, folder / "episodes.parquet")
    rows = Rows(kept=1)
    assert len(rows.find(folder, "episodes", {})) == table.num_rows
    pq.write_table(table.slice(0, 2), folder / "episodes.parquet")
    assert len(rows.find(folder, "episodes", {})) == 2
    assert len(rows.find(run.path, "episodes", {})) == table.num_rows


def test_a_run_that_records_no_tokens_and_one_that_has_only_begun_are_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", "sage_opd")
    pq.write_table(arrow_schema("tokens").empty_table(), run.path / "tokens.parquet")
    begun = new_attempt(tmp_path / "runs", run.identity(), load(["method=sage_opd", "tracking=none"]))
    begun.start(steps=3)
    Tables(begun.path).resume(0)
    answers = Answers(Library([tmp_path / "runs"]))
    first, second = answers.runs()["runs"]
    assert answers.episode(first["key"], TRAINED)["tokens"] == {}
    assert answers.turns(first["key"], ["strong"])["total"] == 4
    assert (second["state"], second["success"], second["step"]) == ("running", [], 0)
    found = answers.run(second["key"])
    assert (found["moments"], found["tokens"]["rows"], found["steps_table"]["loss"]) == ([], 0, [])
    assert answers.episodes(second["key"], {"phase": "train"})["total"] == 0
    assert answers.turns(second["key"], ["strong"])["rows"] == []
