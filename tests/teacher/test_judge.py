"""The judge: parsing, the query's text, and real (tiny, quickly taught) models behind it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from sage.config.prompt_texts import PromptStyle
from sage.digests import weights_digest
from sage.episode import Failure, Label
from sage.objective.intervention.base import Judge, JudgeFailure, JudgeQuery, JudgeReply, TurnContext
from sage.policy.models.load import LanguageModel
from sage.teacher.judge import TeacherJudge
from sage.teacher.question import judge_message
from sage.teacher.trial import try_judge
from sage.training.batch import TrainingEpisode
from sage.training.judging import decide, turn_streams
from tests.policy.test_failures import failing as broken
from tests.tiny_models import make_episode, tiny_lm

STYLE = PromptStyle(
    system="",
    demonstration="",
    first_turn="{observation}",
    turn="{observation}",
    stop="",
    unparsed="",
    thought_pattern="(x)",
    action_pattern="(x)",
    answer="{action}",
    judge_system="Judge.",
    judge="{task_type}|{goal}|{scene}|{observation}{admissible}|{thought}|{action}|{answer}|{feedback}",
    admissible=2,
)
QUERY = JudgeQuery(sees_feedback=True, max_new_tokens=8)


def contexts(*numbers: int) -> list[TurnContext]:
    found = []
    for number in numbers:
        episode = make_episode(number, 1)
        found.append(TurnContext(episode, episode.turns[0]))
    return found


def test_the_message_shows_the_turn() -> None:
    (context,) = contexts(1)
    context.turn.admissible = ("go", "look", "open")
    assert judge_message(STYLE, context, True) == (
        "type-1|put a mug in a box|You are in a room.|You see 1-0.\nAdmissible commands: go, look."
        "|I look.|look 0|Action: look 0|You see nothing."
    )
    assert judge_message(STYLE, context, False).endswith("|Action: look 0|")


SHIPPED = [
    (path.stem, name, PromptStyle(**style))
    for path in sorted((Path(__file__).parents[2] / "conf/prompt").glob("*.yaml"))
    for name, style in yaml.safe_load(path.read_text())["styles"].items()
]


@pytest.mark.parametrize(("env", "name", "style"), SHIPPED, ids=[f"{env}-{name}" for env, name, _ in SHIPPED])
def test_a_judge_that_does_not_see_the_feedback_is_shown_no_empty_line_or_title_for_it(
    env: str, name: str, style: PromptStyle
) -> None:
    (context,) = contexts(1)
    context.turn.admissible = ("go", "look")
    shown, hidden = judge_message(style, context, True), judge_message(style, context, False)
    assert context.turn.feedback in shown
    assert context.turn.feedback not in hidden
    assert "happened then" not in hidden
    lines = hidden.split("\n")
    assert all(line.strip() for line in lines)
    # What is left stands as it stood, and one line is gone.
    assert lines == [line for line in shown.split("\n") if context.turn.feedback not in line]


def test_a_line_that_shows_more_than_the_feedback_stays() -> None:
    style = STYLE.model_copy(update={"judge": "{goal}\n{action} -> {feedback}\nThen: {feedback}\nOne word:"})
    (context,) = contexts(1)
    assert judge_message(style, context, False) == "put a mug in a box\nlook 0 -> \nOne word:"


def test_commands_of_the_first_turn_are_listed_first_and_stay_in_order() -> None:
    episode = make_episode(1, 3)
    episode.turns[0].admissible = ("go", "look", "open")
    episode.turns[1].admissible = ("close", "eat", "open", "go")
    episode.turns[2].admissible = ("zap", "open", "close", "go")
    style = STYLE.model_copy(update={"judge": "{admissible}", "admissible": 3})
    said = [judge_message(style, TurnContext(episode, turn), True) for turn in episode.turns]
    # The first three of each turn, as the agent's own prompt lists them, in an order of their own.
    assert said == [
        "\nAdmissible commands: go, look, open.",
        "\nAdmissible commands: open, close, eat.",
        "\nAdmissible commands: open, zap, close.",
    ]
    assert episode.turns[2].admissible == ("zap", "open", "close", "go")


def test_braces_in_what_the_agent_wrote_are_not_fields() -> None:
    (context,) = contexts(1)
    context.turn.answer = "{goal} {nonsense}"
    assert "|{goal} {nonsense}|" in judge_message(STYLE, context, True)


@pytest.fixture(scope="module")
def taught() -> LanguageModel:
    """A tiny teacher that has learnt one reply for each of four turns: three words and a babble."""
    lm = tiny_lm(0, spread=0.05)
    judge = TeacherJudge(lm, STYLE, QUERY)
    lessons = []
    for context, word in zip(contexts(1, 2, 3, 4), ("SKIP", "WEAK", "STRONG", "perhaps"), strict=True):
        prompt = judge._prompt(context)
        answer = lm.tokenizer(word, add_special_tokens=False)["input_ids"] + [lm.tokenizer.eos_token_id]
        lessons.append((torch.tensor([prompt + answer]), len(prompt)))
    optimizer = torch.optim.AdamW(lm.model.parameters(), lr=1e-2)
    for _ in range(150):
        losses = []
        for ids, start in lessons:
            logits = lm.model(input_ids=ids).logits[0, start - 1 : -1]
            losses.append(torch.nn.functional.cross_entropy(logits, ids[0, start:]))
        loss = torch.stack(losses).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if float(loss.detach()) < 1e-2:
            break
    return dataclasses.replace(lm, digest=weights_digest(lm.model))


def test_a_taught_model_judges(taught: LanguageModel) -> None:
    judge = TeacherJudge(taught, STYLE, QUERY, batch=2)
    turns = contexts(1, 2, 3, 4)
    replies = judge(turns)
    assert [r.text for r in replies] == ["SKIP", "WEAK", "STRONG", "perhaps"]
    assert [r.label for r in replies] == [Label.SKIP, Label.WEAK, Label.STRONG, None]
    assert not any(r.cached for r in replies)
    assert all(r.latency_s > 0 for r in replies)
    prompt_tokens = len(judge._prompt(turns[0]))
    assert replies[0].tokens == prompt_tokens + len("SKIP") + 1
    rule = Judge(name="judge", weak_weight=0.5, sees_feedback=True, max_new_tokens=8)
    failed = make_episode(9, 1, failures={0: Failure.EMPTY})
    decisions = rule.decide([*turns, TurnContext(failed, failed.turns[0])], judge, lambda _: None)  # type: ignore[arg-type,return-value]
    assert [d.label for d in decisions] == ["SKIP", "WEAK", "STRONG", "FALLBACK", "DET_FAIL"]
    assert [d.weight for d in decisions] == [0, 0.5, 1, 1, 1]
    assert decisions[3].reply == "perhaps"


def test_equal_queries_are_asked_once(taught: LanguageModel) -> None:
    judge = TeacherJudge(taught, STYLE, QUERY)
    replies = judge(contexts(1, 2, 1))
    assert [r.cached for r in replies] == [False, False, True]
    assert replies[2].tokens == 0
    assert replies[2].text == replies[0].text
    again = judge(contexts(2))
    assert again[0].cached
    assert (judge.queries, judge.cached) == (2, 2)
    assert judge.tokens == sum(r.tokens for r in replies)
    assert judge([]) == []


def test_the_cache_file_outlives_the_judge_and_knows_its_teacher(
    taught: LanguageModel, tmp_path: Path
) -> None:
    path = tmp_path / "deep" / "judge.sqlite"
    first = TeacherJudge(taught, STYLE, QUERY, cache_file=path)
    before = first(contexts(1, 4))
    second = TeacherJudge(taught, STYLE, QUERY, cache_file=path)  # beside the first, as another process
    after = second(contexts(1, 4, 2))
    assert [r.cached for r in after] == [True, True, False]
    assert [r.text for r in after[:2]] == [r.text for r in before]
    other = TeacherJudge(dataclasses.replace(taught, digest="other"), STYLE, QUERY, cache_file=path)
    assert not other(contexts(1))[0].cached
    longer = QUERY.model_copy(update={"max_new_tokens": 9})
    assert not TeacherJudge(taught, STYLE, longer, cache_file=path)(contexts(1))[0].cached
    for judge in (first, second, other):
        judge.close()


def test_a_batch_says_what_each_query_alone_says(taught: LanguageModel) -> None:
    numbers = (1, 2, 3, 4, 11, 222)
    together = TeacherJudge(taught, STYLE, QUERY)(contexts(*numbers))
    alone = [TeacherJudge(taught, STYLE, QUERY)(contexts(n))[0] for n in numbers]
    assert [r.text for r in together] == [r.text for r in alone]


def said(replies: list[JudgeReply]) -> list[tuple[object, ...]]:
    return [(r.label, r.text, r.cached, r.tokens) for r in replies]


def test_turns_begun_while_others_play_get_the_same_replies(taught: LanguageModel, tmp_path: Path) -> None:
    later = contexts(1, 2, 1, 3, 4)
    want = TeacherJudge(taught, STYLE, QUERY)
    expected = said(want(later))
    judge = TeacherJudge(taught, STYLE, QUERY, batch=2, cache_file=tmp_path / "judge.sqlite")
    judge.prefetch(contexts(1))
    judge.prefetch(contexts(2, 1))  # fills a batch
    judge.prefetch(contexts(2, 4))  # one of them is being asked about, the other waits
    assert said(judge(later)) == expected
    assert (judge.queries, judge.cached, judge.tokens) == (want.queries, want.cached, want.tokens)
    assert judge.state_dict() == want.state_dict()
    assert all(r.cached for r in judge(later))
    judge.close()
    again = TeacherJudge(taught, STYLE, QUERY, cache_file=tmp_path / "judge.sqlite")
    assert all(r.cached for r in again(later))
    again.close()


def test_turns_that_were_begun_and_came_to_nothing_leave_no_trace(taught: LanguageModel) -> None:
    judge = TeacherJudge(taught, STYLE, QUERY, batch=2)
    judge.prefetch(contexts(1, 2))
    judge.prefetch(contexts(3))
    only = TeacherJudge(taught, STYLE, QUERY)
    assert said(judge(contexts(2))) == said(only(contexts(2)))
    assert judge.state_dict() == only.state_dict()
    assert not judge(contexts(1, 3))[0].cached
    judge.close()


def failing(lm: LanguageModel, fails: Callable[[torch.Tensor], bool]) -> LanguageModel:
    """The judge; it runs out of memory where `fails` says so of the ids of a forward."""
    return broken(lm, fails, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))


def test_a_batch_that_does_not_fit_is_asked_in_smaller_ones(taught: LanguageModel) -> None:
    small = failing(taught, lambda ids: ids.shape[0] > 2)
    turns = contexts(1, 2, 3, 4, 11, 222)
    judge = TeacherJudge(small, STYLE, QUERY, engine="hf")
    assert said(judge(turns)) == said(TeacherJudge(taught, STYLE, QUERY)(turns))


def test_a_query_that_fails_alone_is_no_label_but_names_its_episode(taught: LanguageModel) -> None:
    turns = contexts(1, 2, 3, 4)
    poison = TeacherJudge(taught, STYLE, QUERY)._prompt(turns[2])

    def fails(ids: torch.Tensor) -> bool:
        return any(row.tolist()[-len(poison) :] == poison for row in ids)

    judge = TeacherJudge(failing(taught, fails), STYLE, QUERY, engine="hf")
    with pytest.raises(JudgeFailure, match="The judge failed on 1 episodes: As a judge") as caught:
        judge(turns)
    ((episode, reason),) = caught.value.episodes
    assert episode is turns[2].episode
    assert reason == "As a judge: The model failed: CUDA out of memory. Tried to allocate 2.00 GiB"
    # The others are known now, and pay when they are asked about.
    rest = [turns[i] for i in (0, 1, 3)]
    want = TeacherJudge(taught, STYLE, QUERY)
    assert said(judge(rest)) == said(want(rest))
    assert (judge.queries, judge.tokens, judge.state_dict()) == (want.queries, want.tokens, want.state_dict())


def test_a_query_that_leaves_no_room_for_a_reply_is_no_fallback(taught: LanguageModel) -> None:
    turns = contexts(1, 2, 3, 4)
    lengths = [len(TeacherJudge(taught, STYLE, QUERY)._prompt(turn)) for turn in turns]
    model = copy.deepcopy(taught.model)
    model.config.max_position_embeddings = max(lengths)
    judge = TeacherJudge(dataclasses.replace(taught, model=model), STYLE, QUERY)
    with pytest.raises(JudgeFailure, match=f"takes {max(lengths)} tokens and the teacher reaches") as caught:
        judge(turns)
    longest = [turn.episode for turn, n in zip(turns, lengths, strict=True) if n == max(lengths)]
    assert [id(episode) for episode, _ in caught.value.episodes] == [id(episode) for episode in longest]


def test_the_episode_of_a_failed_query_takes_no_part_in_the_step(taught: LanguageModel) -> None:
    turns = contexts(1, 2, 3)
    poison = TeacherJudge(taught, STYLE, QUERY)._prompt(turns[1])
    lm = failing(taught, lambda ids: any(row.tolist()[-len(poison) :] == poison for row in ids))
    rule = Judge(name="judge", weak_weight=0.5, sees_feedback=True, max_new_tokens=8)
    batch = [TrainingEpisode(c.episode) for c in turns]
    kept = decide(batch, rule, TeacherJudge(lm, STYLE, QUERY, engine="hf"), turn_streams(0, 1))
    assert [p.episode.task.id for p in kept] == ["task-1", "task-3"]
    assert [[d.label for d in p.decisions] for p in batch] == [[Label.SKIP], [], [Label.STRONG]]
    assert [p.episode.status.is_ok for p in batch] == [True, False, True]
    assert batch[1].episode.error.startswith("As a judge: The model failed: CUDA out of memory")


def test_a_judge_that_answers_nothing_is_an_error_and_asked_ahead_it_is_asked_again(
    taught: LanguageModel,
) -> None:
    judge = TeacherJudge(failing(taught, lambda ids: True), STYLE, QUERY, batch=8)
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        judge(contexts(*range(1, 9)))
    calls = iter(range(100))
    at_first = TeacherJudge(failing(taught, lambda ids: next(calls) == 0), STYLE, QUERY, batch=1)
    at_first.prefetch(contexts(1))
    assert [r.label for r in at_first(contexts(1))] == [Label.SKIP]
    at_first.close()


def test_a_judge_is_tried_on_a_few_turns(taught: LanguageModel) -> None:
    judge = TeacherJudge(taught, STYLE, QUERY)
    turns = contexts(1, 2, 4, 1)
    trial = try_judge(judge, turns)
    assert (trial.turns, trial.read, trial.share) == (4, 3, 0.75)
    assert trial.unread == ("perhaps",)
    assert trial.reply_tokens == len("SKIP") + len("WEAK") + len("perhaps") + 3  # each with its end token
    assert trial.tokens == trial.reply_tokens + sum(judge.prompt_tokens(c) for c in turns[:3])
    assert trial.cut == 1  # "perhaps" and its end token are 8 tokens, as many as are allowed
    assert trial.seconds > 0
    assert try_judge(TeacherJudge(taught, STYLE, QUERY), []).share == 0


def test_a_prompt_that_opens_the_thinking_makes_a_reply_without_its_end_unreadable(
    taught: LanguageModel,
) -> None:
    tokenizer = copy.deepcopy(taught.tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant\n{%", "assistant\n<think>\n{%")
    thinks = dataclasses.replace(taught, tokenizer=tokenizer, thinking=True)
    judge = TeacherJudge(thinks, STYLE, JudgeQuery(sees_feedback=True, max_new_tokens=40))
    assert tokenizer.decode(judge._prompt(contexts(1)[0])).endswith("<think>\n")
    key = judge._key(judge._prompt(contexts(1)[0]))
    for text, label in (("SKIP", None), ("WEAK or SKIP?</think>\n\nSKIP", Label.SKIP)):
        judge.load_state_dict({key: [text, 1]})
        assert [r.label for r in judge(contexts(1))] == [label]


def test_batch_and_guesses_of_the_judge_change_no_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    from sage.policy.decoding import generate

    seen: list[tuple[int, int]] = []

    class Counted(generate.Decoder):
        def __init__(self, lm: LanguageModel, slots: int, **how: int) -> None:
            seen.append((min(slots, how["rows"]), how["draft_tokens"]))
            super().__init__(lm, slots, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(generate, "Decoder", Counted)
    episode = make_episode(1, 5)
    contexts = [TurnContext(episode, turn) for turn in episode.turns]
    few = TeacherJudge(tiny_lm(3), STYLE, QUERY, batch=2, draft_tokens=0)(contexts)
    many = TeacherJudge(tiny_lm(3), STYLE, QUERY, batch=64, draft_tokens=6)(contexts)
    assert [reply.text for reply in few] == [reply.text for reply in many]
    assert seen == [(2, 0), (5, 6)]
