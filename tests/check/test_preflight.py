"""Before weights are loaded: every prompt through both templates, and the games through the tokenizer."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from sage.check import preflight as module
from sage.check.preflight import check_game, preflight
from sage.config.load import load
from sage.episode import Episode, Task, Turn
from sage.errors import ConfigError, ModelError
from sage.policy.dialogue import Dialogue
from tests.chat_templates import CHATML, NO_CLOSING, USABLE, tokenizer_with

GAMES = ["env.games=generated", "env.generated.train=4", "env.generated.valid_seen=4"]
LINE = [*GAMES, "env.generated.valid_unseen=4", "evaluation.splits=[valid_seen]"]
REACT = load([]).prompt.styles["react"]


def game() -> Episode:
    episode = Episode(Task("t", "alfworld", "train", "x", "generated"), goal="put a mug in a box")
    episode.scene, episode.system = "You are in a room.", REACT.system
    for index, said in enumerate(("Thought: a.\nAction: look", "Thought: b.\nAction: go to shelf 1")):
        turn = Turn(index, f"message {index}", "You see a box.", said, 0, 0, thought="a", action="look")
        turn.feedback = "You see a mug."
        episode.turns.append(turn)
    return episode


@pytest.mark.parametrize("kind", USABLE)
def test_every_prompt_is_compared_with_what_the_template_renders(kind: str) -> None:
    dialogue = Dialogue(tokenizer_with(USABLE[kind]))
    assert check_game(dialogue, "student", REACT, game(), True) == 6  # opening, turn, 2 questions, 2 answers


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (CHATML.replace("{{ m.content }}", "{{ m.content | replace('mess', 'm') }}"), "otherwise than its"),
        (
            CHATML.replace(
                "{{ m.content }}", "{% if 'mess' in m.content %}{{ 1 // 0 }}{% endif %}{{ m.content }}"
            ),
            "cannot render a prompt of alfworld",
        ),
    ],
)
def test_a_prompt_that_a_template_changes_or_chokes_on_is_refused(template: str, what: str) -> None:
    with pytest.raises(ModelError, match=what) as refused:
        check_game(Dialogue(tokenizer_with(template)), "teacher", REACT, game(), True)
    assert len(str(refused.value)) < 400
    assert "teacher.chat_template" in str(refused.value)


def test_answers_without_any_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: object, **__: object) -> PreTrainedTokenizerFast:
        made = tokenizer_with(NO_CLOSING)
        made.eos_token = None
        return made

    monkeypatch.setattr(module, "load_tokenizer", endless)
    config = load([*LINE, "prompt.style=short"])
    with pytest.raises(ModelError, match="Nothing would end an answer of the student"):
        preflight(config, cache(config.env.tasks))


def test_the_shipped_models_pass_and_a_limit_that_cuts_the_expert_does_not() -> None:
    config = load(LINE)
    found = preflight(config, cache(config.env.tasks))
    assert [split.split for split in found.context] == ["valid_seen", "train"]
    assert all(split.fits and split.played == 4 for split in found.context)
    assert found.prompts > 20
    short = load([*LINE, f"rollout.max_context={max(s.longest for s in found.context) - 1}"])
    with pytest.raises(ConfigError, match=r"would cut the expert itself in \d of 4 games"):
        preflight(short, cache(short.env.tasks))


def test_a_run_is_refused_before_any_weights_are_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from sage.launch.execute import execute

    def never(*_: object, **__: object) -> None:
        raise AssertionError("Weights were loaded.")

    monkeypatch.setattr("sage.training.setup.load_model", never)
    line = [*LINE, "rollout.max_context=100", "tracking=none", f"launch.runs_dir={tmp_path}"]
    with pytest.raises(ConfigError, match=r"rollout.max_context=100 tokens would cut the expert"):
        execute(load(line), export=False)
    assert list(tmp_path.rglob("attempt_*")) == []  # nothing that a later run would count
    assert not (tmp_path / "ledger.jsonl").exists()
