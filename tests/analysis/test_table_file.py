"""Files and options as people really have them: read as they are meant, or refused in one sentence."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

from analysis.cli import main
from analysis.episodes import NOT_OK, STATUSES
from analysis.errors import Refusal
from analysis.load import from_episodes, load
from sage.episode import Status
from tests.analysis.synthetic import episode_table

COLUMNS = ["method", "env", "split", "seed", "task", "won"]


@pytest.fixture
def table():
    return episode_table({"opd": 0.0, "mine": 0.4}, seeds=(0, 1, 2), games=8)[COLUMNS]


def one_sentence(capsys, *words):
    """The refusal on stderr: one line, not long, and nothing on stdout."""
    out = capsys.readouterr()
    assert out.out == ""
    lines = [line for line in out.err.splitlines() if not line.startswith("note:")]
    assert len(lines) == 1, out.err
    assert lines[0].startswith("refused: ")
    assert len(lines[0]) < 400
    for word in words:
        assert word in lines[0], lines[0]


def as_text(frame, **options):
    return frame.to_csv(index=False, **options).encode()


WRONG_FILES = {
    "empty": (lambda t: b"", ["is empty", "method, env, split, seed, task"]),
    "blank line": (lambda t: b"\n", ["is empty"]),
    "header only": (lambda t: as_text(t.iloc[:0]), ["header and no episode"]),
    "semicolons": (lambda t: as_text(t, sep=";"), ["by semicolons", "commas"]),
    "tabs": (lambda t: as_text(t, sep="\t"), ["by tabs", "commas"]),
    "utf-16": (lambda t: as_text(t).decode().encode("utf-16"), ["UTF-16", "UTF-8"]),
    "utf-16 without a mark": (lambda t: as_text(t).decode().encode("utf-16-le"), ["UTF-16"]),
    "latin-1": (lambda t: as_text(t.assign(task="Küche")).decode().encode("latin-1"), ["not UTF-8", "0xfc"]),
    "upper case": (lambda t: as_text(t.rename(columns=str.upper)), ["'METHOD'", "lower case"]),
    "padded": (lambda t: as_text(t.rename(columns={"won": " won"})), ["' won'", "'won'"]),
    "a column twice": (lambda t: as_text(pd.concat([t, t["won"]], axis=1)), ["the column won 2 times"]),
    "a row too long": (lambda t: as_text(t) + b"opd,e,s,0,g,1,9\n", ["not one table"]),
    "every row too long": (lambda t: as_text(t).replace(b"\nopd", b"\n9,opd"), ["not one table"]),
    "text scores": (lambda t: as_text(t.assign(score="good")), ["'good' in the column score", "row 2"]),
    "endless score": (lambda t: as_text(t.assign(score=np.inf)), ["in the column score"]),
    "None": (lambda t: as_text(t.assign(method="None")), ["48 rows whose method is 'None'"]),
    "no method": (lambda t: as_text(t.assign(method="")), ["48 rows without a method"]),
    "no seed": (lambda t: as_text(t.assign(seed=np.nan)), ["48 rows without a seed"]),
    "text seed": (lambda t: as_text(t.assign(seed="a")), ["the seed a"]),
    "half a seed": (lambda t: as_text(t.assign(seed=0.5)), ["the seed 0.5"]),
    "blank won": (lambda t: as_text(t.assign(won="")), ["48 episodes without a value in won", "row 2"]),
    "won in words": (lambda t: as_text(t.assign(won="yes")), ["'yes'", "0/1"]),
    "half a step": (lambda t: as_text(t.assign(step=1.5)), ["whole number in the column step"]),
    "a phase": (lambda t: as_text(t.assign(phase="test")), ["the phase 'test'", "eval or train"]),
    "rows twice": (lambda t: as_text(pd.concat([t, t])), ["48 duplicated episodes", "column rollout"]),
}


@pytest.mark.parametrize("case", WRONG_FILES)
def test_a_wrong_file_is_refused_in_one_sentence(case, table, tmp_path, capsys):
    content, words = WRONG_FILES[case]
    (tmp_path / "mine.csv").write_bytes(content(table))
    assert main(["compare", str(tmp_path / "mine.csv"), "--baseline", "opd"]) == 2
    one_sentence(capsys, *words)


def test_a_byte_order_mark_quotes_and_gzip_are_read(table, tmp_path):
    want = from_episodes(table).episodes["won"].tolist()
    marked = b"\xef\xbb\xbf" + as_text(table, quoting=1)
    (tmp_path / "marked.csv").write_bytes(marked)
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress(marked))
    for name in ("marked.csv", "packed.csv.gz"):
        assert load([tmp_path / name]).episodes["won"].tolist() == want


def test_a_parquet_file_is_held_to_the_same(table, tmp_path, capsys):
    table.assign(method="None").to_parquet(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"no parquet")
    for name, word in (("a", "whose method is 'None'"), ("b", "no Parquet file")):
        assert main(["summary", str(tmp_path / f"{name}.parquet")]) == 2
        one_sentence(capsys, word)


def test_what_is_not_there_names_what_is(table, tmp_path, capsys):
    (tmp_path / "mine.csv").write_bytes(as_text(table))
    (tmp_path / "folder").mkdir()
    for name, word in (
        ("minee.csv", "there is a mine.csv beside it"),
        ("nowhere/mine.csv", "there is no folder"),
        ("folder", "no attempt_<n> directory"),
    ):
        assert main(["summary", str(tmp_path / name)]) == 2
        one_sentence(capsys, word)


WRONG_OPTIONS = {
    "--level 95": ["95", "0.95"],
    "--level 1": ["no confidence level"],
    "--level nan": ["no confidence level"],
    "--level high": ["'high'"],
    "--draws 0": ["0", "from 100 on"],
    "--draws -5": ["-5"],
    "--draws many": ["many"],
    "--seed -1": ["-1"],
    "--margin 0": ["positive"],
    "--margin -0.05": ["positive"],
    "--step -1": ["-1"],
    "--average mean": ["'mean'"],
    "--metric f1": ["no column f1"],
    "--baseline odp": ["'odp'", "mine, opd"],
    "--family nobody": ["nobody"],
    "--split nowhere": ["split=nowhere"],
    "--vary seed": ["seed tells plays of one setting apart"],
    "--nonsense 1": ["--nonsense"],
}


@pytest.mark.parametrize("words", WRONG_OPTIONS)
def test_a_wrong_option_is_refused_in_one_sentence(words, table, tmp_path, capsys):
    (tmp_path / "mine.csv").write_bytes(as_text(table))
    line = ["compare", str(tmp_path / "mine.csv"), "--baseline", "opd", *words.split()]
    assert main(line) == 2
    one_sentence(capsys, *WRONG_OPTIONS[words])


def test_other_commands_refuse_too(table, tmp_path, capsys):
    path = str(tmp_path / "mine.csv")
    (tmp_path / "mine.csv").write_bytes(as_text(table))
    for line, word in (
        (["thresholds", path, "--key", "seed"], "seed tells plays of one setting apart"),
        (["thresholds", path, "--key", "task"], "task tells plays of one setting apart"),
        (["report", path, "--baseline", "odp", "--out", str(tmp_path / "r")], "methods here are mine, opd"),
        (["variance", path, "--baseline", "odp"], "methods here are mine, opd"),
        (["power", "--games", "0"], "whole numbers from 1 on"),
        (["power", "--runs", "2.5"], "whole numbers from 2 on"),
    ):
        assert main(line) == 2
        one_sentence(capsys, word)
    assert not (tmp_path / "r").exists()


def test_statuses_in_other_spelling_are_read_with_a_note(table):
    words = np.where(table.pop("won") == 1, "Won", " Lost")
    records = from_episodes(table.assign(status=words), "mine.csv")
    assert records.episodes["won"].tolist() == [float(word == "Won") for word in words]
    (note,) = records.notes
    assert note.startswith("mine.csv: in the column status ")
    assert "'Won' as won" in note


@pytest.mark.parametrize(
    ("word", "nearest"), [("wonn", "won"), ("succes", None), ("env-error", "env_error"), ("", None)]
)
def test_an_unknown_status_is_refused_with_the_known_and_the_nearest(table, word, nearest):
    table.pop("won")
    with pytest.raises(Refusal, match="holds the status") as refusal:
        from_episodes(table.assign(status=["won", word] * 24))
    sentence = str(refusal.value)
    assert all(status.value in sentence for status in Status)
    assert (f"the nearest is {nearest}" in sentence) == (nearest is not None)
    assert "24 rows" in sentence


def test_the_known_statuses_are_those_of_the_episodes():
    assert set(STATUSES) == {status.value for status in Status}
    assert set(NOT_OK) == {status.value for status in Status if not status.is_ok}


def test_won_against_its_status_is_refused(table):
    status = np.where(table["won"] == 1, "won", "lost")
    assert len(from_episodes(table.assign(status=status)).episodes) == 48
    for wrong in ("won", "lost"):
        with pytest.raises(Refusal, match="contradict each other"):
            from_episodes(table.assign(status=wrong))
    records = from_episodes(table.assign(status=np.where(table["won"] == 1, "env_error", "lost")))
    assert records.episodes["won"].sum() == 0
    assert records.notes == (
        f"table: {table['won'].sum()} wins of episodes whose status says that they are not ok do not count.",
    )
    with pytest.raises(Refusal, match=r"ok = True beside the status policy_error"):
        from_episodes(table.assign(won=0, status="policy_error", ok=True))


def test_a_blank_won_is_fine_where_the_status_says_why(table):
    status = np.where(table["won"] == 1, "won", "policy_error")
    won = np.where(table["won"] == 1, "1", "")
    episodes = from_episodes(table.assign(status=status, won=won)).episodes
    assert episodes["ok"].tolist() == (status == "won").tolist()
    assert episodes["won"].notna().tolist() == (status == "won").tolist()


def test_a_name_with_spaces_around_it_is_one_method_with_a_note(table):
    padded = table.assign(method=[f"{name} " if i % 2 else name for i, name in enumerate(table["method"])])
    records = from_episodes(padded, "mine.csv")
    assert set(records.runs["method"]) == {"opd", "mine"}
    assert "'opd ' as opd" in records.notes[0]
