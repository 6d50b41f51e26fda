"""How alike pairs end: counted by hand, and what cannot be held against each other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.errors import Refusal
from analysis.load import from_episodes
from analysis.pair_agreement import agreement, correlations
from analysis.pairs import correlation
from analysis.question import Question

WON = {
    ("opd", 0): [1, 1, 0, 0, 1],
    ("opd", 1): [0, 0, 0, 0, 1],
    ("opd", 2): [1, 1, 1, 1, 1],
    ("sage_opd", 0): [1, 1, 0, 1, 1],
    ("sage_opd", 1): [0, 0, 1, 0, 0],
    ("sage_opd", 3): [1, 1, 1, 1, 1],
}


def episodes():
    return pd.DataFrame(
        [
            {"method": m, "env": "alfworld", "split": "dev", "seed": s, "task": f"g{i}", "won": w}
            for (m, s), wins in WON.items()
            for i, w in enumerate(wins)
        ]
    )


def test_agreement_is_counted_by_seed_beside_that_of_other_seeds():
    frame = agreement(from_episodes(episodes()), Question(methods=("opd", "sage_opd"))).set_index("seed")
    assert list(frame.index) == [0, 1]  # seeds that one method lacks are no pairs
    assert frame["agreement"].tolist() == pytest.approx([4 / 5, 3 / 5])
    assert frame.loc[0, ["only_first", "only_second"]].tolist() == [0, 1]
    assert frame.loc[1, ["only_first", "only_second"]].tolist() == [1, 1]
    # opd seed 0 with sage_opd's seeds 1 and 3: 1 and 3 of 5 games end alike.
    assert frame.loc[0, "other_seeds"] == pytest.approx((1 / 5 + 3 / 5) / 2)
    assert frame["same_text"].isna().all()


def test_the_correlation_is_that_of_run_means_over_the_shared_seeds():
    row = correlations(from_episodes(episodes()), Question(methods=("opd", "sage_opd"), level=0.9)).iloc[0]
    expected = correlation(np.array([0.6, 0.2]), np.array([0.8, 0.2]), 0.9)
    assert (row["correlation"], row["low"], row["high"]) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert row["pairs"] == 2
    assert row["difference"] == pytest.approx(-0.1)


def test_a_game_that_is_not_ok_on_a_side_is_left_out_and_counted():
    table = episodes()
    table["status"] = np.where(table["won"] == 1, "won", "lost")
    table.loc[3, "status"] = "env_error"  # opd, seed 0, g3: the one game that differed
    row = (
        agreement(from_episodes(table.drop(columns="won")), Question(methods=("opd", "sage_opd")))
        .set_index("seed")
        .loc[0]
    )
    assert (row["games"], row["not_ok"], row["agreement"]) == (4, 1, 1.0)


def test_what_is_no_pair_of_methods_is_refused(tmp_path, capsys):
    records = from_episodes(episodes())
    with pytest.raises(Refusal, match=r"There is no finished run of 'sft'; methods here are opd, sage_opd\."):
        agreement(records, Question(methods=("opd", "sft")))
    with pytest.raises(Refusal, match="against itself"):
        agreement(records, Question(methods=("opd", "opd")))
    with pytest.raises(Refusal, match="No episode of these methods"):
        agreement(records, Question(methods=("opd", "sage_opd"), split="test"))
    with pytest.raises(Refusal, match="no game of one seed"):
        agreement(from_episodes(episodes().query("seed > 1")), Question(methods=("opd", "sage_opd")))
    file = tmp_path / "e.csv"
    episodes().to_csv(file, index=False)
    assert main(["pairs", str(file), "--methods", "opd"]) == 2
    assert main(["pairs", str(file), "--methods", "opd,sage_opd"]) == 0
    assert "other_seeds" in capsys.readouterr().out
