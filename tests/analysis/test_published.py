"""Printed tables: GRIM, differences, duplicates. The figures of the paper's own tables are pinned."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from statsmodels.stats.proportion import confint_proportions_2indep, proportions_ztest

from analysis.cli import main
from analysis.errors import Refusal
from analysis.load import from_episodes
from analysis.published import count_behind, differences, read_published, tables, to_published
from analysis.summary import per_run
from tests.analysis.synthetic import episode_table

HEADER = "table,student,teacher,method,benchmark,split,metric,value,n_episodes\n"
PAPER = HEADER + (
    "1,Qwen3-1.7B,Qwen3-8B,opd,alfworld,valid_unseen,success_rate_pct,61.94,134\n"
    "1,Qwen3-1.7B,Qwen3-8B,opd,alfworld,valid_unseen,mean_turns,17.67,134\n"
    "1,Qwen3-1.7B,Qwen3-8B,opd_two_rollouts,alfworld,valid_unseen,success_rate_pct,63.00,140\n"
    "1,Qwen3-1.7B,Qwen3-8B,sage_opd,alfworld,valid_unseen,success_rate_pct,70.15,134\n"
    "1,Qwen3-1.7B,Qwen3-8B,sage_opd,alfworld,valid_unseen,mean_turns,17.86,134\n"
)


@pytest.fixture
def paper(tmp_path):
    path = tmp_path / "paper.csv"
    path.write_text(PAPER)
    return tables(path)


def test_headline_difference(paper):
    row = paper["claims"].iloc[0]
    assert (row["wins"], row["wins_baseline"], row["n"]) == (94, 83, 134)
    assert row["z"] == pytest.approx(1.42, abs=0.005)
    assert row["p"] == pytest.approx(0.16, abs=0.005)
    z, p = proportions_ztest([94, 83], [134, 134])
    assert (row["z"], row["p"]) == pytest.approx((z, p))
    low, high = confint_proportions_2indep(94, 134, 83, 134, method="newcomb", compare="diff")
    assert (row["low_pct"], row["high_pct"]) == pytest.approx((100 * low, 100 * high))
    assert row["verdict"].startswith("not shown")


def test_impossible_percentage_is_listed_with_what_would_fit(paper):
    row = paper["impossible"].iloc[0]
    assert len(paper["impossible"]) == 1
    assert (row["printed"], row["n"]) == ("63.00", 140)
    assert row["nearest_possible"] == "62.86"
    assert "100" in row["n_that_fit"].split()


@pytest.mark.parametrize(
    ("value", "decimals", "n", "wins"),
    [
        (61.94, 2, 134, 83),
        (70.15, 2, 134, 94),
        (74.85, 2, 134, None),
        (54.26, 2, 140, None),
        (0.0, 2, 140, 0),
        (100.0, 2, 140, 140),
        (0.75, 2, 134, 1),
        (12.5, 1, 8, 1),
        (12.0, 0, 8, 1),
        (13.0, 0, 8, 1),
        (101.0, 0, 8, None),
    ],
)
def test_count_behind(value, decimals, n, wins):
    assert count_behind(value, decimals, n) == wins


@pytest.mark.parametrize("n", [1, 3, 7, 134, 140, 149])
@pytest.mark.parametrize("decimals", [0, 1, 2])
def test_every_true_percentage_passes(n, decimals):
    for wins in range(n + 1):
        printed = float(f"{100 * wins / n:.{decimals}f}")
        assert count_behind(printed, decimals, n) is not None


def test_our_own_tables_pass(tmp_path):
    records = from_episodes(episode_table({"opd": 0.0, "sage_opd": 0.4}, games=134))
    path = tmp_path / "own.csv"
    to_published(per_run(records)).to_csv(path, index=False)
    own = tables(path)
    assert len(own["grim"]) == 10
    assert own["impossible"].empty
    pd.testing.assert_frame_equal(tables(to_published(per_run(records)))["grim"], own["grim"])


def test_the_commands_check_files_and_our_own_runs(tmp_path, capsys):
    (tmp_path / "paper.csv").write_text(PAPER)
    episode_table({"opd": 0.0, "sage_opd": 0.4}, games=134).to_csv(tmp_path / "own.csv", index=False)
    assert main(["published", str(tmp_path / "paper.csv"), "--table", "claim_lines"]) == 0
    line = capsys.readouterr().out
    assert "94 and 83 of 134, +8.2 points" in line
    assert "z = 1.42" in line
    assert main(["published", "--own", str(tmp_path / "own.csv"), "--table", "impossible"]) == 0
    assert capsys.readouterr().out == "(no rows)\n"
    assert main(["published"]) == 2
    assert main(["published", "nowhere.csv"]) == 2


SHARED = Path(__file__).parents[3] / "shared" / "published" / "sage_opd_tables.csv"


@pytest.mark.skipif(not SHARED.exists(), reason="the paper's printed tables lie beside the repository")
def test_the_papers_tables():
    """Acceptance: z of the headline, and the percentages that no number of episodes gives."""
    found = tables(SHARED)
    headline = (
        found["claims"]
        .query(
            "table == '1' and student == 'Qwen3-1.7B' and teacher == 'Qwen3-8B' and split == 'valid_unseen'"
        )
        .iloc[0]
    )
    assert (headline["wins"], headline["wins_baseline"], headline["n"]) == (94, 83, 134)
    assert headline["z"] == pytest.approx(1.42, abs=0.005)
    assert len(found["impossible"]) == 36
    science = found["sizes"].query("benchmark == 'scienceworld'").iloc[0]
    assert (science["n"], science["impossible"]) == (150, 24)
    assert (science["best_n"], science["impossible_at_best_n"]) == (149, 1)


def test_the_n_that_fits_is_used_and_nearest_counts_are_said(tmp_path):
    """8 rates are whole numbers of 49 and not of 50: 49 is used and said, and one that fits neither is
    nearest."""
    path = tmp_path / "t.csv"
    rows = [("opd", 20), ("sage_opd", 31), *((f"m{i}", 3 + 2 * i) for i in range(6))]
    text = "".join(f"1,s,t,{name},b,x,success_rate_pct,{100 * wins / 49:.2f},50\n" for name, wins in rows)
    path.write_text(HEADER + text + "1,s,t,odd,b,x,success_rate_pct,50.00,50\n")
    found = tables(path)["differences"].set_index("method")
    row = found.loc["sage_opd"]
    assert (row["wins"], row["wins_baseline"], row["n"], row["n_stated"]) == (31, 20, 49, 50)
    assert row["counts"] == "exact"
    assert row["difference_pct"] == pytest.approx(100 * 11 / 49)
    assert found.loc["odd", "counts"] == "nearest"
    line = tables(path, method="odd")["claim_lines"]["claim"].iloc[0]
    assert "of 49 (50 stated, 49 fits more rows; nearest counts, not exact" in line
    with pytest.raises(Refusal, match="No printed row is of the baseline 'opdd'; methods there are m0"):
        tables(path, baseline="opdd")


def test_a_printed_table_that_is_no_csv_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "t.csv"
    for content, sentence in (
        (b"", "is empty"),
        (PAPER.encode("utf-16"), "UTF-16"),
        (PAPER.replace(",", ";").encode(), "semicolons"),
        (PAPER.replace(",134", ",many").encode(), "'many' in n_episodes"),
    ):
        path.write_bytes(content)
        with pytest.raises(Refusal, match=sentence):
            read_published(path)


def test_macro_average_and_duplicates(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        HEADER
        + "3,s,t,opd,qa,nq,exact_match_pct,20.00,500\n3,s,t,opd,qa,pop,exact_match_pct,30.00,500\n"
        + "3,s,t,opd,qa,macro_average,exact_match_pct,26.00,\n"
        + "3,s,t,sft,qa,nq,exact_match_pct,20.00,500\n3,s,t,sft,qa,nq,mean_turns,4.00,500\n"
        + "3,s,t,opd,qa,nq,mean_turns,4.00,500\n4,s,t,opd,qa,nq,exact_match_pct,20.20,500\n"
    )
    found = tables(path)
    assert found["averages"]["possible"].tolist() == [False]
    assert found["duplicates"][["row", "same_as", "equal", "numbers"]].to_numpy().tolist() == [
        ["s / t / opd", "s / t / sft", 2, 2]
    ]
    assert found["contradictions"]["printed"].tolist() == ["20.00", "20.20"]


def test_bad_files(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(Refusal, match="lacks the column"):
        read_published(path)
    path.write_text(PAPER.replace("63.00", "n/a"))
    with pytest.raises(Refusal, match="not a number"):
        read_published(path)
    path.write_text(PAPER)
    with pytest.raises(Refusal, match="No row has the baseline"):
        differences(read_published(path), "nobody")


def test_paper_file_of_the_project():
    """The whole file, where the project's shared folder is beside the checkout (acceptance 2)."""
    path = Path(__file__).parents[3] / "shared" / "published" / "sage_opd_tables.csv"
    if not path.exists():
        pytest.skip("the shared folder with the paper's tables is not here")
    found = tables(path)
    assert len(found["impossible"]) == 36
    sizes = found["sizes"].set_index(["table", "split"])
    assert sizes.loc[("2", "test"), ["impossible", "best_n", "impossible_at_best_n"]].tolist() == [24, 149, 1]
    headline = found["claims"].query("wins == 94 and wins_baseline == 83 and table == '1'")
    assert headline["z"].round(2).tolist() == [1.42]
    assert not found["claims"]["verdict"].str.startswith("survives").any()
    assert isinstance(found["duplicates"], pd.DataFrame)
    identical = found["duplicates"].query("identical and table == '2'")
    assert identical["where"].iloc[0].count(",") == 2
