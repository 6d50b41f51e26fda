"""`python -m sage -m sweep=...` with runs that are over in no time: totals, resume, refusals, confirm."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest

from sage.sweep.confirm import table as confirm_table
from tests.postgres import postgres_server

ROOT = Path(__file__).parents[2]
COMMON = [
    *("--config-dir", str(ROOT / "tests" / "outside" / "conf")),
    *("plugins=[tests.outside.plugin]", "env=dummy", "tracking=none"),
]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    study = [] if any(a.startswith("sweep=") for a in arguments) else ["sweep=dial"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "sweeps")])}
    return subprocess.Popen(
        [sys.executable, "-m", "sage", *arguments, *COMMON, *study],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def sage(folder: Path, *arguments: str) -> tuple[int, str, str]:
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def trials(folder: Path, name: str = "dial") -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'runs' / 'studies.db'}")
    return optuna.load_study(study_name=name, storage=storage).trials


def test_a_study_counts_its_total_and_goes_on_where_it_was(tmp_path: Path) -> None:
    code, out, err = sage(tmp_path, "-m", "hydra.sweeper.n_trials=3")
    assert (code, err) == (0, "")
    first = trials(tmp_path)
    assert [t.params["env.dial"] for t in first[:1]] == [1.0]
    assert first[0].values == [0.25]
    for trial in first:
        assert trial.values == [pytest.approx(1 - abs(trial.params["env.dial"] - 0.25), abs=0.051)]
        folder = next((tmp_path / "runs" / trial.user_attrs["runs"]["0"]).glob("attempt_1"))
        assert json.loads((folder / "status.json").read_text())["state"] == "done"
    assert "Study dial: 3 of 3 trials finished." in out

    code, out, _ = sage(tmp_path, "-m", "hydra.sweeper.n_trials=4")
    assert code == 0
    assert "3 of 4 trials finished before" in out
    second = trials(tmp_path)
    assert len(second) == 4
    assert len({t.params["env.dial"] for t in second}) == 4

    # The same line once more runs nothing; in another folder, undisturbed, the same points are drawn.
    assert len(list((tmp_path / "runs").glob("*/attempt_*"))) == 4
    assert sage(tmp_path, "-m", "hydra.sweeper.n_trials=4")[0] == 0
    assert len(list((tmp_path / "runs").glob("*/attempt_*"))) == 4
    other = tmp_path / "other"
    other.mkdir()
    assert sage(other, "-m")[0] == 0
    assert [t.params for t in trials(other)] == [t.params for t in second]


def test_the_winner_is_confirmed_on_other_seeds_and_games(tmp_path: Path) -> None:
    code, _, err = sage(tmp_path, "confirm")
    assert code == 2
    assert err == (
        "The study 'dial' has no finished trial to confirm; run python -m sage -m sweep=... first.\n"
    )
    assert sage(tmp_path, "-m", "hydra.sweeper.n_trials=2", "hydra.sweeper.sampler.seed=3")[0] == 0
    code, out, err = sage(tmp_path, "confirm")
    assert (code, err) == (0, "")
    assert "Confirmed on valid_unseen with seeds [7, 8], which no trial has used" in out
    best = max(trials(tmp_path), key=lambda t: t.values[0])
    shown = re.search(rf"winner: env.dial={best.params['env.dial']:.4g} +([\d.]+) sd +0.0, 2 runs", out)
    assert shown
    assert float(shown[1]) == pytest.approx(100 * best.values[0], abs=0.05)
    assert re.search(r"reference: at zero +75.0 sd +0.0, 2 runs  winner leads by [+-][\d.]+ points", out)


def test_a_killed_study_goes_on_to_its_total_without_losing_a_run(tmp_path: Path) -> None:
    slow = "env.nap_s=0.5"
    process = start(tmp_path, "-m", slow)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("runs/*/attempt_1/status.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    code, out, err = sage(tmp_path, "-m", slow)
    assert (code, err) == (0, "")
    assert "1 cut off and tried again" in out
    told = [t for t in trials(tmp_path) if t.state == optuna.trial.TrialState.COMPLETE]
    assert len(told) == 4
    assert len({t.params["env.dial"] for t in told}) == 4
    states = [json.loads(p.read_text())["state"] for p in tmp_path.glob("runs/*/attempt_*/status.json")]
    assert states == ["done"] * 4


def test_a_point_that_fails_twice_is_given_up(tmp_path: Path) -> None:
    code, out, _ = sage(tmp_path, "-m", "+env.trouble={0: raise}")
    assert code == 1
    assert "trial 0: env.dial=1: no value, to be tried again" in out
    assert "trial 1: env.dial=1: no value\n" in out
    assert "trial 2: " in out
    assert "trial 3: " not in out


def test_a_grid_is_tried_once_and_then_over(tmp_path: Path) -> None:
    code, out, err = sage(tmp_path, "-m", "sweep=dial_grid")
    assert (code, err) == (0, "")
    assert "Every point of the grid has been tried." in out
    points = [(t.params["env.dial"], t.params["confidence"]) for t in trials(tmp_path, "dial_grid")]
    assert sorted(points) == [(0.0, "none"), (0.0, "top1"), (0.5, "none"), (0.5, "top1")]


def test_a_trial_that_loses_the_same_games_runs_no_further_seed(tmp_path: Path) -> None:
    points = "hydra.sweeper.baselines=[{env.dial: 0.25}, {env.dial: 0.3}, {env.dial: 1.0}]"
    line = ("-m", "hydra.sweeper.pruning={p: 0.05}", "seed=0,1", points, "hydra.sweeper.n_trials=3")
    code, out, err = sage(tmp_path, *line)
    assert (code, err) == (0, "")
    assert [sorted(t.user_attrs["runs"]) for t in trials(tmp_path)] == [["0", "1"], ["0", "1"], ["0"]]
    assert "trial 2: env.dial=1: 25.0 % of valid_seen (1 of 2 seeds, pruned)" in out
    assert "3 of 3 trials finished (1 pruned)." in out


@pytest.mark.parametrize(
    "words",
    [
        ("hydra.sweeper.sampler.name=cmaes", "hydra.sweeper.sampler.startup_trials=2"),
        ("hydra.sweeper.sampler.name=random", "hydra.sweeper.storage=journal:runs/study.log"),
        (
            "hydra.sweeper.sampler.name=nsga2",
            "hydra.sweeper.objectives=[{metric: success, direction: maximize}, "
            "{metric: teacher_tokens, direction: minimize}]",
        ),
    ],
    ids=["cmaes", "random, journal", "nsga2, two objectives"],
)
def test_samplers_and_stores_resume_alike(tmp_path: Path, words: tuple[str, ...]) -> None:
    for total in (2, 3):
        code, out, err = sage(tmp_path, "-m", *words, f"hydra.sweeper.n_trials={total}")
        assert (code, err) == (0, "")
        assert f"Study dial: {total} of {total} trials finished." in out
    assert len(list((tmp_path / "runs").glob("*/attempt_*"))) == 3
    assert ("0 teacher tokens" in out) == ("nsga2" in words[0])


@pytest.mark.slow
def test_a_study_lives_in_postgresql(tmp_path: Path) -> None:
    with postgres_server() as url:
        place = f"hydra.sweeper.storage={url}"
        for total in (2, 3):
            code, out, err = sage(tmp_path, "-m", place, f"hydra.sweeper.n_trials={total}")
            assert (code, err) == (0, "")
            assert f"Study dial: {total} of {total} trials finished." in out
        process = start(tmp_path, "-m", place, "hydra.sweeper.n_trials=5", "hydra.sweeper.parallel=2")
        while len(list(tmp_path.glob("runs/*/attempt_1/status.json"))) < 4 and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        code, out, err = sage(tmp_path, "-m", place, "hydra.sweeper.n_trials=5")
        assert (code, err) == (0, "")
        study = optuna.load_study(study_name="dial", storage=url)
        told = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
        assert len({t.params["env.dial"] for t in told}) == len(told) == 5
        assert not list(tmp_path.glob("runs/studies.db"))


REFUSED = {
    "hydra.sweeper.sampler.name=tpee": (
        "hydra.sweeper.sampler.name='tpee' is refused: input should be 'tpe', 'random', 'grid', 'cmaes' or "
        "'nsga2'."
    ),
    "hydra.sweeper.storage=postgresql://nobody@localhost:1/none": "The study's storage postgresql://",
    "hydra.sweeper.sampler.name=grid": "The sampler grid needs a step for 'env.dial', or choices.",
    "hydra.sweeper.confirm.split=valid_seen": "confirm must use a split and seeds that the search does not",
    "hydra.sweeper.baselines=[{env.dial: 3}]": "The baseline env.dial=3 is not between 0.0 and 1.0.",
    "env.nap_s=1,2": "'env.nap_s=1,2' lists several values, and a study takes its points from its space",
    "+hydra.sweeper.trials=3": "'hydra.sweeper.trials' is not a setting of a study; did you mean 'n_trials'?",
    "evaluation.splits=[train]": "The study reads success on valid_seen, and its runs evaluate train",
    "task=evaluate": "A study trains in each of its runs, and task=evaluate.",
}


@pytest.mark.parametrize("word", REFUSED)
def test_bad_input_is_one_sentence_before_anything_runs(tmp_path: Path, word: str) -> None:
    code, out, err = sage(tmp_path, "-m", word)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith(REFUSED[word])
    assert not list(tmp_path.glob("runs/*/attempt_*"))


def test_a_study_does_not_mix_with_another_space(tmp_path: Path) -> None:
    assert sage(tmp_path, "-m", "hydra.sweeper.n_trials=1")[0] == 0
    code, _, err = sage(tmp_path, "-m", "trainer.steps=3")
    assert code == 2
    assert "was begun with other settings (config.trainer.steps)" in err


def test_a_study_that_was_begun_before_a_setting_was_renamed_goes_on(tmp_path: Path) -> None:
    assert sage(tmp_path, "-m", "hydra.sweeper.n_trials=1")[0] == 0
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'runs' / 'studies.db'}")
    study = optuna.load_study(study_name="dial", storage=storage)
    definition = study.user_attrs["sage.definition"]
    assert "rollout.demonstration.weight" in definition["config"]
    definition["config"] = {
        key.replace("rollout.demonstration", "rollout.gold"): value
        for key, value in definition["config"].items()
    }
    study.set_user_attr("sage.definition", definition)
    code, out, err = sage(tmp_path, "-m", "hydra.sweeper.n_trials=2")
    assert (code, err) == (0, "")
    assert "Study dial: 2 of 2 trials finished." in out
    code, _, err = sage(tmp_path, "-m", "rollout.demonstration.weight=3")
    assert code == 2
    assert "config.rollout.demonstration.weight)" in err


def test_a_study_without_m_says_what_to_type(tmp_path: Path) -> None:
    code, _, err = sage(tmp_path)
    assert (code, err) == (2, "sweep=dial is a study of many runs: python -m sage -m sweep=dial.\n")


def test_nothing_is_headed_confirmed_while_runs_are_missing() -> None:
    settings = SimpleNamespace(confirm=SimpleNamespace(split="valid_unseen", seeds=[7, 8]))
    whole = {"winner: dial=1": {7: 0.5, 8: 0.7}, "reference: at zero": {7: 0.4, 8: 0.4}}
    assert confirm_table(settings, whole).startswith("Confirmed on valid_unseen with seeds [7, 8]")
    said = confirm_table(settings, whole | {"reference: at zero": {7: 0.4}})
    assert said.startswith("Not confirmed yet, 3 of 4 runs are finished: on valid_unseen with seeds [7, 8]")
    none = confirm_table(settings, {"winner: dial=1": {}, "reference: at zero": {}})
    assert none.startswith("Not confirmed yet, 0 of 4 runs are finished:")
    assert "Confirmed" not in none
