"""Files and options as people really have them: read as they are meant, or refused in one sentence."""

from __future__ import annotations

import gzip
from decimal import Decimal

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
    "endless text score": (lambda t: as_text(t.assign(score="-Infinity")), ["-inf in the column score"]),
    "a score beyond squares": (lambda t: as_text(t.assign(score=1e300)), ["1e+300", "at most 1e+100"]),
    "a seed beyond 64 bits": (lambda t: as_text(t.assign(seed=str(2**63))), [f"the seed {2**63}"]),
    "a seed that rounds": (lambda t: as_text(t.assign(seed="1e30")), ["the seed 1e+30"]),
    "a true seed": (lambda t: as_text(t.assign(seed=t["seed"] > 0)), ["the seed False"]),
    "a title above": (lambda t: b"\n\n" + as_text(t), ["begins with a blank line"]),
    "old line ends": (lambda t: as_text(t).replace(b"\n", b"\r"), ["CR alone"]),
    "semicolons beside a comma": (lambda t: b'"a,b";' + as_text(t, sep=";"), ["by semicolons"]),
    "packed": (lambda t: gzip.compress(as_text(t)), ["packed by gzip", ".csv.gz"]),
    "a workbook": (lambda t: b"PK\x03\x04" + as_text(t), ["a workbook"]),
    "utf-32": (lambda t: as_text(t).decode().encode("utf-32"), ["UTF-32"]),
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


def test_a_packed_file_that_ends_early_is_refused(table, tmp_path, capsys):
    (tmp_path / "torn.csv.gz").write_bytes(gzip.compress(as_text(table))[:-60])
    assert main(["summary", str(tmp_path / "torn.csv.gz")]) == 2
    one_sentence(capsys, "torn.csv.gz cannot be read")


def test_an_ending_in_capitals_is_the_same_ending(table, tmp_path):
    (tmp_path / "MINE.CSV").write_bytes(as_text(table))
    table.to_parquet(tmp_path / "MINE.PARQUET")
    for name in ("MINE.CSV", "MINE.PARQUET"):
        assert load([tmp_path / name]).episodes["won"].tolist() == table["won"].tolist()


def test_types_of_a_parquet_file_are_read_as_words_and_numbers_or_refused(table, tmp_path, capsys):
    words = table["won"].map({1: " Won", 0: "lost"})
    read = {
        "categories": table.astype({"method": "category"}).assign(status=words.astype("category")),
        "numbers as names": table.assign(method=table["method"].map({"opd": 7, "mine": 8})),
        "decimals": table.assign(won=[Decimal(int(won)) for won in table["won"]], score=Decimal("0.5")),
    }
    for name, frame in read.items():
        frame.to_parquet(tmp_path / "a.parquet")
        episodes = load([tmp_path / "a.parquet"]).episodes
        assert episodes["won"].tolist() == table["won"].tolist(), name
        assert set(episodes["method"]) <= {"opd", "mine", "7", "8"}
    wrong = {
        "b'opd' in the column method": table.assign(method=table["method"].map(str.encode)),
        "of the type ndarray": table.assign(method=[[name] for name in table["method"]]),
        "the seed 2026-01-02": table.assign(seed=pd.Timestamp("2026-01-02")),
        "Timestamp('2026-01-02": table.assign(score=pd.Timestamp("2026-01-02")),
    }
    for word, frame in wrong.items():
        frame.to_parquet(tmp_path / "a.parquet")
        assert main(["summary", str(tmp_path / "a.parquet")]) == 2
        one_sentence(capsys, word)


@pytest.mark.parametrize("other", ["OPD", "o pd", "opd\u200b", "o-pd"])
def test_names_that_look_alike_are_kept_apart_and_said(table, other):
    more = table[table["method"] == "opd"].assign(method=other)
    records = from_episodes(pd.concat([table, more]))
    assert set(records.runs["method"]) == {"opd", "mine", other}
    (note,) = records.notes
    assert repr(other) in note
    assert "write one name" in note


def test_names_that_differ_in_more_are_not_called_alike(table):
    for other in ("opd2", "opd+tau=-1", "sage_opd"):
        more = table[table["method"] == "opd"].assign(method=other)
        assert from_episodes(pd.concat([table, more, more.assign(method="opd+tau=1")])).notes == ()


def test_a_metric_is_a_number_about_the_play(table, tmp_path, capsys):
    graded = table.assign(grade=0.5, words="x", endless=np.inf, gaps=np.where(table.index == 3, np.nan, 1.0))
    (tmp_path / "mine.csv").write_bytes(as_text(graded))
    line = [str(tmp_path / "mine.csv"), "--metric"]
    for command in (["summary"], ["variance"], ["compare", "--baseline", "opd"]):
        assert main([*command, *line, "grade"]) == 0
        capsys.readouterr()
        for metric, word in {
            "words": "it holds 'x'",
            "task": "is no metric",
            "seed": "is no metric",
            "ok": "is no metric",
            "endless": "it holds 'inf'",
            "sucess": "the nearest is success",
        }.items():
            assert main([*command, *line, metric]) == 2
            one_sentence(capsys, word)
    report = ["report", "--baseline", "opd", "--out", str(tmp_path / "r")]
    assert main([*report, *line, "words"]) == 2
    one_sentence(capsys, "it holds 'x'")


def test_a_folder_that_cannot_be_written_is_one_sentence(table, tmp_path, capsys):
    (tmp_path / "mine.csv").write_bytes(as_text(table))
    path = str(tmp_path / "mine.csv")
    for line in (
        ["summary", path, "--csv-dir", path],
        ["report", path, "--baseline", "opd", "--draws", "200", "--out", f"{path}/report"],
    ):
        assert main(line) == 2
        one_sentence(capsys, "mine.csv", "cannot be used")


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
    "--draws 1000000000": ["1000000"],
    "--margin 5": ["5 points", "0.05"],
    "--margin nan": ["positive"],
    "--margin 0": ["positive"],
    "--margin -0.05": ["positive"],
    "--step -1": ["-1"],
    "--average mean": ["'mean'"],
    "--metric f1": ["no column f1"],
    "--baseline odp": ["'odp'", "mine, opd", "nearest is opd"],
    "--baseline OPD": ["'OPD'", "nearest is opd"],
    "--family nobody": ["nobody"],
    "--family opd": ["opd, the baseline"],
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
        (["sweep", path, "--key", "seed"], "seed tells plays of one setting apart"),
        (["sweep", path, "--key", "task"], "task tells plays of one setting apart"),
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
    for gap in NOT_OK:
        with pytest.raises(Refusal, match=f"contradict each other, first won = 1 with the status {gap}"):
            from_episodes(table.assign(status=np.where(table["won"] == 1, gap, "lost")))
        assert not from_episodes(table.assign(won=0, status=gap)).episodes["ok"].any()
    for said in ("no", "off"):
        with pytest.raises(Refusal, match=f"column ok holds '{said}'"):
            from_episodes(table.assign(ok=said))
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
