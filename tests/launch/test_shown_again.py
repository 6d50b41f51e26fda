"""A run that was done before is shown with the figures that it ended with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sage.config.load import load
from sage.console import print_summary
from sage.launch.cli import _show
from sage.launch.execute import Outcome
from sage.records.summary import summarize
from tests.view.made import make_run


def test_a_run_shown_again_has_the_figures_of_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path / "runs", "sage_opd").path
    ended = summarize(folder, {"rollout": 4.0, "evaluation": 21.0, "other": 75.0})
    (folder / "summary.json").write_text(json.dumps(ended.to_json()))
    print_summary(ended, folder, None)
    first = capsys.readouterr().out
    assert "Time 1 min 40 s: rollout 4.0 s (4%), evaluation 21 s (21%), other 1 min 15 s (75%)." in first
    tracking = load(["tracking=none"]).tracking
    _show(Outcome("skipped", folder.parent.name, folder, "done before (here)"), tracking)
    assert capsys.readouterr().out == "Not started: done before (here).\n" + first
