"""Names from before the tree of rooms are read for a release, give today's very objects, and are not ours."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from sage.old_names import OLD, ROOMS_OF_NAMES

ROOT = Path(__file__).parents[1]


@pytest.mark.filterwarnings("ignore:.*the old name is read:DeprecationWarning")
@pytest.mark.parametrize("old", [name for name in OLD if "vllm" not in name])
def test_an_old_module_is_todays_module(old: str) -> None:
    module = importlib.import_module(old)
    assert module is importlib.import_module(OLD[old])
    assert module.__spec__ is not None
    assert module.__spec__.name == OLD[old]


def test_an_old_name_says_what_it_is_called_now() -> None:
    sys.modules.pop("sage.registry", None)
    with pytest.warns(DeprecationWarning, match="sage.registry is sage.config.registry now"):
        importlib.import_module("sage.registry")
    room = importlib.import_module("sage.objective.confidence")
    with pytest.warns(
        DeprecationWarning, match="is sage.objective.confidence.base.Confidence"
    ):
        assert room.Confidence is importlib.import_module("sage.objective.confidence.base").Confidence


@pytest.mark.parametrize("room", ROOMS_OF_NAMES)
def test_a_room_has_no_name_that_nobody_has_given(room: str) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing_like_it'"):
        importlib.import_module(room).nothing_like_it  # noqa: B018


@pytest.mark.filterwarnings("ignore:.*the old name is read:DeprecationWarning")
def test_names_that_were_changed_with_their_module_are_there_too() -> None:
    scoring = importlib.import_module("sage.scoring")
    assert scoring.Played is scoring.TrainingEpisode
    assert scoring.pair is scoring.match_models
    settings = importlib.import_module("sage.settings")
    assert issubclass(settings.ConfigError, ValueError)
    assert callable(settings.compose)


def test_words_that_a_rule_of_ones_own_used_are_read() -> None:
    from sage.episode import Episode, Task, Turn

    room = importlib.import_module("sage.objective.intervention")
    with pytest.warns(DeprecationWarning, match=r"intervention\.Ask is .*base\.JudgeFn now"):
        assert room.Ask is importlib.import_module("sage.objective.intervention.base").JudgeFn
    given, own = (Turn(n, "", "", "", 0, 0) for n in range(2))
    episode = Episode(Task("t", "letters", "train", "", "made"), given=[given], turns=[own])
    with pytest.warns(DeprecationWarning, match="is Episode.all_turns now"):
        assert episode.played == episode.all_turns == [given, own]


def test_an_old_command_runs() -> None:
    command = [sys.executable, "-m", "sage.fit_intervention", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_nothing_of_ours_uses_an_old_name() -> None:
    used = []
    for home in ("sage", "analysis", "pretrain", "sweeps", "tests", "benchmarks", "docs"):
        for path in (ROOT / home).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module:
                    names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                used += [f"{path.relative_to(ROOT)}: {name}" for name in names if name in OLD]
    assert used == []


def test_a_name_that_went_to_another_file_than_the_rest_of_its_module_is_found() -> None:
    import sage.config
    from sage.config.prompt_texts import PromptStyle

    with pytest.warns(DeprecationWarning, match=r"sage\.config\.PromptStyle is sage\.config\.prompt_texts\."):
        assert sage.config.PromptStyle is PromptStyle
