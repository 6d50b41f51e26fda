"""`launch.until=decided`: blocks of seeds, a look after each, and no run more than it takes.

Runs that are over in no time, whose successes follow from `env.dial`; everything else is the real thing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis.plan import freeze
from sage.errors import ConfigError
from sage.launch.until import conduct, schedule_of
from sage.records import run_ledger
from tests.analysis.planned import PLAN
from tests.launch.test_multirun import sage

STUDY = """# @package _global_
# Two dials.
defaults:
  - override /hydra/sweeper: study
hydra:
  sweeper:
    matrices:
      - {plan: PLAN, env: [dummy], seed: [0, 1, 2, 3], method: [opd], env.dial: [0.5], env.peak: [0]}
      - {plan: PLAN, env: [dummy], seed: [0, 1, 2, 3], method: [sage_opd], env.dial: [BETTER], env.peak: [0]}
"""


class Place:
    """A folder with a plan, a study and its runs; `better` is the second method's distance from the best."""

    def __init__(self, root: Path, better: float = 0.0, **changes: Any) -> None:
        content = PLAN | {
            "environments": ["dummy"],
            "seeds": [2, 0, 1, 3],
            "source": "made up",
            "design": "paired",
            "assumptions": PLAN["assumptions"] | {"correlation": 0.8},
            "games": {"valid_unseen": 20},
            "arms": {"opd": ["env"], "sage_opd": ["env"]},
            "looks": {"after": [2, 3, 4], "futility": 0.05},
        }
        self.root, self.plan, self.runs = root, root / "mine.yaml", root / "runs"
        self.plan.write_text(yaml.safe_dump(content | changes), encoding="utf-8")
        (root / "conf" / "study").mkdir(parents=True)
        text = STUDY.replace("PLAN", str(self.plan)).replace("BETTER", str(better))
        (root / "conf" / "study" / "dials.yaml").write_text(text, encoding="utf-8")

    def freeze(self) -> Place:
        freeze(self.plan, self.runs)
        return self

    def sage(self, *words: str) -> tuple[int, str, str]:
        place = f"hydra.searchpath=[file://{self.root / 'conf'}]"
        # The plugin on the line makes the runs others than the declared, so the plan is named there too.
        mine = (f"launch.plan={self.plan}", "launch.until=decided")
        return sage(self.root, *words, "study=dials", place, *mine)

    def seeds(self) -> dict[str, set[int]]:
        """Method to the seeds that have begun."""
        from analysis.load import load

        runs = load([self.runs]).runs
        return {str(m): {int(s) for s in group["seed"]} for m, group in runs.groupby("method")}

    def looks(self) -> list[tuple[int, bool]]:
        return [(e["seeds"], e["decided"]) for e in run_ledger.read(self.runs).of("look")]


def test_a_study_is_played_until_it_is_decided_and_no_further(tmp_path: Path) -> None:
    place = Place(tmp_path).freeze()
    code, out, err = place.sage("-m")
    assert (code, err) == (0, "")
    assert place.looks() == [(2, False), (3, True)]
    assert place.seeds() == {"opd": {0, 1, 2}, "sage_opd": {0, 1, 2}}  # the plan's order: 2, 0, 1
    assert "Look 1 of 3, after 2 of 4 seeds: 1 open. The study goes on to 3 seeds." in out
    assert "Look 2 of 3, after 3 of 4 seeds: 1 shown. Decided: the study stops here, 1 of 1" in out

    events = run_ledger.read(place.runs).entries
    first = next(i for i, e in enumerate(events) if e["event"] == "look")
    assert [e["event"] for e in events[:first]].count("done") == 4

    # The same line again: nothing is played, nothing is looked at anew.
    code, out, err = place.sage("-m")
    assert (code, err) == (0, "")
    assert "6 runs: 6" in out
    assert run_ledger.read(place.runs).entries == events


def test_a_study_whose_methods_are_alike_stops_where_the_margin_is_excluded(tmp_path: Path) -> None:
    place = Place(tmp_path, better=0.5, hypotheses=[PLAN["hypotheses"][0] | {"margin": 0.4}]).freeze()
    code, out, err = place.sage("-m")
    assert (code, err) == (0, "")
    assert place.looks()[-1] == (3, True)
    assert "1 its margin is excluded. Decided: the study stops here, 0 of 1 hypotheses shown." in out


def test_where_a_run_fails_nothing_is_looked_at_and_nothing_later_is_played(tmp_path: Path) -> None:
    place = Place(tmp_path).freeze()
    for _ in range(2):
        code, out, _ = place.sage("-m", "+env.trouble={0: raise}")
        assert code == 1
        assert "Runs are missing, so nothing was looked at; the same line goes on with them." in out
        assert place.looks() == []
        assert place.seeds() == {"opd": {2, 0}, "sage_opd": {2, 0}}


def test_the_runs_are_listed_with_the_looks_and_nothing_is_run(tmp_path: Path) -> None:
    place = Place(tmp_path).freeze()
    code, out, err = place.sage("list")
    assert (code, err) == (0, "")
    assert f"  {place.plan}: 2, 3, 4" in out
    assert "8 runs: 8 absent; nothing was run" in out
    assert place.looks() == []


def test_what_cannot_be_played_until_decided_is_refused_before_a_run_starts(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with pytest.raises(ConfigError, match="has not been frozen"):
        schedule_of(str(place.plan), place.runs)
    freeze(place.plan, tmp_path / "elsewhere")
    code, _, err = place.sage("-m")
    assert code == 2
    assert "is not frozen beside these runs: python -m analysis plan freeze" in err
    place.freeze()
    code, _, err = place.sage("-m", "seed=0,1")
    assert code == 2
    assert "plays the seeds of" in err
    assert "this line leaves out 2, 3" in err
    assert not list(tmp_path.glob("runs/*/attempt_1"))
    with pytest.raises(ConfigError, match="belongs to a study whose runs serve a frozen plan with looks"):
        conduct([["seed=0", "method=opd"]], lambda jobs: [], place.runs, _Nothing())


@pytest.mark.parametrize("words", [("seed=0",), ("-m", "seed=0,1")])
def test_one_run_and_a_plain_multirun_are_not_played_until_decided(tmp_path: Path, words: Any) -> None:
    code, _, err = sage(tmp_path, *words, "launch.until=decided")
    assert code == 2
    assert "launch.until=decided belongs to a study" in err
    assert not list(tmp_path.glob("runs/*/attempt_1"))


def test_a_plan_without_looks_does_not_say_when_to_stop(tmp_path: Path) -> None:
    place = Place(tmp_path)
    content = yaml.safe_load(place.plan.read_text(encoding="utf-8"))
    del content["looks"]
    place.plan.write_text(yaml.safe_dump(content), encoding="utf-8")
    place.freeze()
    with pytest.raises(ConfigError, match="has no looks, so nothing says when its study may stop"):
        schedule_of(str(place.plan), place.runs)


class _Nothing:
    list_only = in_blocks = False
    exit_code = 0
