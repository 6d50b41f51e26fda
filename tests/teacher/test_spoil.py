"""A spoilt teacher against dense float64 logits; which turns are spoilt; the rule that is told."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from sage.check.before import before_weights
from sage.config.load import load
from sage.config.schema import TeacherSettings
from sage.episode import Episode, Failure, Label
from sage.errors import ConfigError
from sage.launch.execute import execute
from sage.objective.intervention.base import TurnContext, no_judge
from sage.objective.intervention.told import Told
from sage.records.tables import read
from sage.teacher.score import View, own_view, score
from sage.teacher.spoil import SpoiltTeacher, mark, shuffled_words, untrained
from tests.tiny_models import make_episode, tiny_lm

DOSE = 0.3
TURNS = 4
SPOILT = (False, True, True, False)


def settings(**changed: object) -> TeacherSettings:
    return load([]).teacher.model_copy(update={"spoil": DOSE, **changed})


def dense(lm, ids: list[int], V: int) -> torch.Tensor:  # type: ignore[no-untyped-def]
    with torch.no_grad():
        return lm.model(input_ids=torch.tensor([ids])).logits[0, :, :V]


def view_of(episode: Episode) -> View:
    plain = own_view(episode)
    return View(plain.ids, plain.spans, spoilt=SPOILT)


@pytest.mark.parametrize("kind", ["untrained", "shuffled"])
@pytest.mark.parametrize("asked", [[0, 1, 2, 3], [1, 3]])
def test_the_logits_of_spoilt_turns_are_the_mixture_and_the_others_the_teachers(
    kind: str, asked: list[int]
) -> None:
    lm, V = tiny_lm(1, dtype=torch.float64, rows=300), 259
    spoilt = SpoiltTeacher.of(lm, settings(spoil_with=kind), seed=5)
    episodes = [make_episode(n, TURNS) for n in range(2)]
    done = score(spoilt, [view_of(e) for e in episodes], [asked] * 2, vocabulary=V, temperature=1.0)
    clean = score(lm, [own_view(e) for e in episodes], [asked] * 2, vocabulary=V, temperature=1.0)
    other = untrained(lm, seed=5)
    for episode, got, before in zip(episodes, done, clean, strict=True):
        own_LV = dense(lm, episode.token_ids, V)
        if kind == "untrained":
            other_LV = dense(other, episode.token_ids, V)
        else:
            other_LV = own_LV[:, shuffled_words(V, 5)]
        offset = 0
        for t, turn in enumerate(episode.turns):
            part = slice(offset, offset + turn.n_tokens)
            offset += turn.n_tokens
            if t not in asked:
                assert got.stats.logprob_T[part].isnan().all()
                continue
            where = slice(turn.answer_start - 1, turn.answer_end - 1)
            target_T = torch.tensor(episode.token_ids[turn.answer_start : turn.answer_end])
            mixed_TV = own_LV[where]
            if SPOILT[t]:
                mixed_TV = (1 - DOSE) * own_LV[where] + DOSE * other_LV[where]
            else:
                assert torch.equal(got.stats.logprob_T[part], before.stats.logprob_T[part])
            expected_T = mixed_TV.log_softmax(-1).gather(-1, target_T[:, None]).squeeze(-1)
            torch.testing.assert_close(got.stats.logprob_T[part], expected_T, rtol=1e-9, atol=1e-9)
            top1_T = mixed_TV.softmax(-1).amax(-1)
            torch.testing.assert_close(got.stats.top1_T[part], top1_T, rtol=1e-9, atol=1e-9)


def test_an_untrained_teacher_is_unsure_and_shuffled_words_are_as_sure_as_ever() -> None:
    lm = tiny_lm(1, spread=0.6)
    episode = make_episode(0, TURNS)
    top1 = {}
    for kind in ("untrained", "shuffled"):
        lm.model.config.initializer_range = 0.02
        spoilt = SpoiltTeacher.of(lm, settings(spoil=1.0, spoil_with=kind), seed=5)
        (done,) = score(spoilt, [view_of(episode)], [range(TURNS)], vocabulary=259, temperature=1.0)
        top1[kind] = done.stats.top1_T
    (clean,) = score(lm, [own_view(episode)], [range(TURNS)], vocabulary=259, temperature=1.0)
    torch.testing.assert_close(top1["shuffled"], clean.stats.top1_T)
    spoilt_T = view_of(episode).spoilt_tokens(range(TURNS))
    assert (top1["untrained"][spoilt_T] < clean.stats.top1_T[spoilt_T]).all()


def test_the_untrained_model_is_of_its_seed_and_leaves_the_global_stream_alone() -> None:
    lm = tiny_lm(1)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first, again, another = untrained(lm, 5), untrained(lm, 5), untrained(lm, 6)
    assert torch.equal(torch.random.get_rng_state(), before)
    weight = [model.model.get_output_embeddings().weight for model in (first, again, another)]
    assert torch.equal(weight[0], weight[1])
    assert not torch.equal(weight[0], weight[2])


def test_dose_0_is_the_teacher_itself() -> None:
    lm = tiny_lm(1)
    assert SpoiltTeacher.of(lm, settings(spoil=0.0), seed=0) is lm


def marked(episode: Episode, **changed: object) -> list[bool | None]:
    mark([episode], 3, settings=settings(**changed), seed=0)
    return [turn.teacher_spoilt for turn in episode.turns]


def test_turns_are_spoilt_right_after_a_mistake_or_from_the_first_one_on() -> None:
    episode = make_episode(0, 5, failures={1: Failure.NO_EFFECT})
    assert marked(episode, spoil_turns="after_mistake") == [False, False, True, False, False]
    assert marked(episode, spoil_turns="mistake_in_history") == [False, False, True, True, True]
    episode.turns[3].expert_distance_before, episode.turns[3].expert_distance_after = 4, 5
    assert marked(episode, spoil_turns="after_mistake") == [False, False, True, False, True]
    episode.given, episode.turns = episode.turns[:2], episode.turns[2:]
    assert marked(episode, spoil_turns="after_mistake") == [True, False, True]


def test_drawn_turns_depend_on_nothing_but_their_place_and_keep_their_share() -> None:
    episodes = [make_episode(n, 10) for n in range(200)]
    drawn = {"spoil_turns": "drawn", "spoil_share": 0.3}
    flags = [marked(e, **drawn) for e in episodes]
    assert flags == [marked(e, **drawn, spoil=1.0) for e in reversed(episodes)][::-1]
    share = sum(map(sum, flags)) / 2000
    assert abs(share - 0.3) < 4 * (0.3 * 0.7 / 2000) ** 0.5


def test_nothing_is_marked_without_a_dose() -> None:
    assert marked(make_episode(0, 2), spoil=None) == [None, None]


def test_the_rule_skips_what_it_is_told_and_nothing_else() -> None:
    episode = make_episode(0, 4, failures={1: Failure.NO_EFFECT})
    contexts = [TurnContext(episode, turn) for turn in episode.turns]
    with pytest.raises(ValueError, match=r"set teacher\.spoil"):
        Told(name="told").decide(contexts, no_judge, lambda _: random.Random(0))
    marked(episode, spoil_turns="after_mistake")
    decisions = Told(name="told").decide(contexts, no_judge, lambda _: random.Random(0))
    assert [d.label for d in decisions] == [Label.ALWAYS, Label.ALWAYS, Label.SKIP, Label.ALWAYS]
    assert [d.weight for d in decisions] == [1.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["teacher.spoil=0.5", "teacher=ray"], "is elsewhere"),
        (["teacher.spoil=0.5", "method=sft"], "rollout.player=teacher"),
        (["teacher.spoil=0.5", "env.distances=false"], "env.distances"),
        (["teacher.spoil=1.5"], "teacher.spoil"),
        (["rollout.perturb=30"], "none of the 30 turns"),
        (["rollout.perturb=1", "method=tcod_b2f"], "curriculum=tcod_b2f"),
        (["rollout.perturb=1", "method=sft"], "rollout.player=teacher"),
    ],
)
def test_what_cannot_be_spoilt_is_refused(line: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(line)


@pytest.mark.parametrize("line", [["intervention=told"], ["method=told_random", "teacher.spoil=null"]])
def test_who_is_told_of_nothing_is_refused_before_weights_are_read(line: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"set teacher\.spoil"):
        list(before_weights(load(line)))
    list(before_weights(load([*line, "teacher.spoil=0"])))


SMALL = (
    *("env.games=generated", "env.generated.train=6", "env.generated.valid_seen=4", "env.turn_budget=5"),
    *("trainer.steps=2", "trainer.tasks_per_step=3", "trainer.warmup_steps=0", "evaluation.limit=1"),
    *("evaluation.before=false", "evaluation.splits=[valid_seen]", "tracking=none", "speed.threads=1"),
)


def trained(folder: Path, *line: str) -> tuple[list[float], list[tuple[bool | None, float]]]:
    """The losses of the steps, and of each trained turn whether it was spoilt, and its top-1."""
    done = execute(load([*SMALL, *line, f"launch.runs_dir={folder}"]), export=False).folder
    turns = [row for row in read(done, "turns").to_pylist() if row["phase"] == "train"]
    losses = [row["loss"] for row in read(done, "steps").to_pylist()]
    return losses, [(row["teacher_spoilt"], row["top1"]) for row in turns]


def test_who_is_told_learns_the_same_at_every_dose_and_who_is_not_does_not(tmp_path: Path) -> None:
    told = [trained(tmp_path, "method=told_intervention", f"teacher.spoil={dose}") for dose in (0, 1)]
    opd = [trained(tmp_path, "method=opd", f"teacher.spoil={dose}") for dose in (0, 1)]
    assert told[0][0] == told[1][0]
    assert opd[0][0] != opd[1][0]
    assert {spoilt for spoilt, _ in opd[1][1]} == {True, False}
    worst = {flag: max(top1 for spoilt, top1 in opd[1][1] if spoilt is flag) for flag in (True, False)}
    assert worst[True] < 0.1 < worst[False]
