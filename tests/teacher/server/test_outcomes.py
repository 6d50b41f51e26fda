"""A server that is slow, busy, broken, wrong or another: each has its outcome (docs/guide/teachers.md)."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from sage.errors import ConfigError, ModelError, NotFinite
from sage.policy.models.load import LanguageModel
from sage.teacher.elsewhere import Part
from sage.teacher.score import own_view, score
from sage.teacher.server.ask import TeacherLost
from sage.teacher.server.teacher import ServedTeacher
from tests.teacher.server.conftest import Open, settings_at
from tests.teacher.server.fake import (
    FakeServer,
    Fault,
    broken_off,
    changed,
    cut_json,
    serving,
    slow,
    status,
)
from tests.tiny_models import byte_tokenizer, make_episode, tiny_lm

VIEWS = [own_view(make_episode(number, 3)) for number in range(6)]


def scored(teacher: ServedTeacher | LanguageModel) -> list[torch.Tensor]:
    """Top-1 probability and log-probability of every student token."""
    if isinstance(teacher, ServedTeacher):
        teacher.prepare([Part.of([view.ids for view in VIEWS], [view.positions() for view in VIEWS])])
    passes = score(teacher, VIEWS, [range(3)] * len(VIEWS), vocabulary=259, temperature=1.0)
    return [torch.stack([p.stats.top1_T, p.stats.logprob_T]).double() for p in passes]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_a_served_teacher_says_what_the_same_one_here_says(
    lm: LanguageModel, opened: Open, engine: str
) -> None:
    with serving(lm, engine=engine) as server:
        teacher = opened(server.address, batch=2, concurrency=3)
        same(scored(teacher), scored(lm))
        assert teacher.served.engine == engine
        rows = [len(body.get("prompt", body.get("input_ids"))) for _, body in server.asked]
        assert rows == [1, 1, 2, 2, 2], "the probe twice, then three requests of two"


def test_what_cannot_be_known_of_a_served_teacher_is_missing_and_not_invented(
    server: FakeServer, opened: Open
) -> None:
    (done, *_) = score(opened(server.address), VIEWS, [range(3)] * 6, vocabulary=259, temperature=1.0)
    assert bool(done.stats.entropy_T.isnan().all())
    assert bool(done.stats.top1_T.isfinite().all())


@pytest.mark.parametrize(
    "fault",
    [status(429), status(500), status(503), broken_off, cut_json, status(429, {"Retry-After": "0.05"})],
    ids=["429", "500", "503", "broken off", "cut JSON", "429 with a pause"],
)
def test_what_passes_is_asked_again_and_changes_nothing(
    lm: LanguageModel, server: FakeServer, opened: Open, fault: Fault
) -> None:
    said: list[str] = []
    teacher = opened(server.address, say=said.append)
    server.faults = [fault, fault]
    same(scored(teacher), scored(lm))
    assert len(said) == 2, "that it fails is said once, and that it is well again"
    assert "does not answer" in said[0]
    assert said[1] == "the teacher's server answers again"


def test_a_slow_server_costs_its_time_and_one_slower_than_the_deadline_is_asked_again(
    lm: LanguageModel, server: FakeServer, opened: Open
) -> None:
    teacher = opened(server.address, deadline_s=2.0, patience_s=60.0, batch=6)
    scored(teacher)  # the first forward of a process takes longest
    server.faults = [slow(0.2), slow(0.2)]
    same(scored(teacher), scored(lm))
    server.faults = [slow(0.0), slow(30.0)]  # the check that it is still the same, and the scores
    started = time.monotonic()
    same(scored(teacher), scored(lm))
    assert time.monotonic() - started < 25, "the slow answer was not waited for"
    assert teacher.asker.seconds_lost > 1.9


def test_a_server_that_is_gone_for_a_while_costs_that_while(lm: LanguageModel, opened: Open) -> None:
    said: list[str] = []
    with serving(lm) as server:
        teacher, port = opened(server.address, patience_s=20.0, say=said.append), server.server_address[1]

    def come_back() -> None:
        time.sleep(1.0)
        with serving(lm, port):
            back.wait(20)

    back = threading.Event()
    thread = threading.Thread(target=come_back)
    thread.start()
    started = time.monotonic()
    try:
        same(scored(teacher), scored(lm))
    finally:
        back.set()
        thread.join()
    assert 1.0 <= time.monotonic() - started < 8.0
    assert ["does not answer" in said[0], "answers again" in said[-1]] == [True, True]


def test_a_server_that_is_gone_for_good_ends_the_run_in_one_sentence(lm: LanguageModel, opened: Open) -> None:
    with serving(lm) as server:
        teacher = opened(server.address, patience_s=0.5)
    started = time.monotonic()
    with pytest.raises(TeacherLost, match=r"does not answer .*patience_s=0\.5 is over.*newest checkpoint"):
        scored(teacher)
    assert time.monotonic() - started < 3


def test_a_server_that_comes_back_as_another_model_is_not_believed(opened: Open, lm: LanguageModel) -> None:
    """The same name, the same architecture, other weights: what it says of the probe gives it away."""
    with serving(lm) as server:
        teacher, port = opened(server.address), server.server_address[1]
    with serving(tiny_lm(3, hidden=48), port), pytest.raises(TeacherLost, match="other probabilities"):
        scored(teacher)


def test_another_name_in_mid_run_ends_the_run(server: FakeServer, opened: Open) -> None:
    teacher = opened(server.address)
    server.name = "other"
    with pytest.raises(TeacherLost, match=r"has changed in mid-run.*no model 'tiny'"):
        scored(teacher)
    server.name, server.root = "tiny", "/models/tiny-2"
    with pytest.raises(TeacherLost, match="it was tiny from /models/tiny, reach 4096 and is"):
        scored(teacher)


def test_an_answer_for_another_model_is_not_used(server: FakeServer, opened: Open) -> None:
    teacher = opened(server.address)
    server.faults = [slow(0), changed(lambda answer: answer.update(model="gpt"))]
    with pytest.raises(TeacherLost, match="answers for the model 'gpt', not for 'tiny'"):
        scored(teacher)


def other_ids(answer: Any) -> None:
    answer["choices"][0]["prompt_token_ids"] = [1, 2, 3]


def shifted(answer: Any) -> None:
    for choice in answer["choices"]:
        del choice["prompt_token_ids"]
        choice["prompt_logprobs"] = [None, None, *choice["prompt_logprobs"][1:-1]]


def missing(answer: Any) -> None:
    answer["choices"][0].pop("prompt_logprobs")


def too_short(answer: Any) -> None:
    answer["choices"][0]["prompt_logprobs"].pop()


def one_less(answer: Any) -> None:
    answer["choices"].pop()


def no_distribution(answer: Any) -> None:
    for place in answer["choices"][0]["prompt_logprobs"][1:]:
        for entry in place.values():
            entry["logprob"] = -0.01


def positive(answer: Any) -> None:
    for place in answer["choices"][0]["prompt_logprobs"][1:]:
        for entry in place.values():
            entry["logprob"] = 1.5


def not_a_number(answer: Any) -> None:
    for place in answer["choices"][0]["prompt_logprobs"][1:]:
        for entry in place.values():
            entry["logprob"] = math.nan


WRONG = {
    other_ids: "the scores of other token ids than were sent",
    shifted: "(the scores of other tokens than were sent|no log-probability at token)",
    missing: "no prompt_logprobs",
    too_short: "prompt_logprobs that are a list of",
    one_less: "5 results where 6 were due",
    no_distribution: "probabilities that add up to more than one",
    positive: "a log-probability above zero",
    not_a_number: "a log-probability that is no number",
}


@pytest.mark.parametrize("change", WRONG, ids=lambda change: change.__name__)
def test_wrong_answers_are_no_scores(server: FakeServer, opened: Open, change: Any) -> None:
    teacher = opened(server.address, batch=6)
    server.faults = [slow(0), changed(change)]
    with pytest.raises(TeacherLost, match=rf"{WRONG[change]}.*newest checkpoint"):
        scored(teacher)


@pytest.mark.parametrize("written", [-9999.0, -math.inf], ids=["as vLLM writes it", "as it is"])
def test_a_probability_of_zero_where_a_token_was_sampled_is_no_number_to_learn_from(
    server: FakeServer, opened: Open, written: float
) -> None:
    teacher = opened(server.address, batch=6)

    def impossible(answer: Any) -> None:
        for choice in answer["choices"]:
            for token, place in zip(
                choice["prompt_token_ids"][1:], choice["prompt_logprobs"][1:], strict=True
            ):
                place[str(token)]["logprob"] = written

    server.faults = [slow(0), changed(impossible)]
    with pytest.raises(NotFinite, match="log-probability of −inf"):
        scored(teacher)


def test_a_probability_of_zero_elsewhere_is_what_it_says(server: FakeServer, opened: Open) -> None:
    """A server that masks ids has fewer than k to show; they are no tokens."""
    teacher = opened(server.address, batch=6)

    def masked(answer: Any) -> None:
        for choice in answer["choices"]:
            for token, place in zip(
                choice["prompt_token_ids"][1:], choice["prompt_logprobs"][1:], strict=True
            ):
                place.pop(next(i for i in place if i != str(token) and i != best(place)))
                place["258"] = {"logprob": -math.inf}

    def best(place: Any) -> str:
        return str(max(place, key=lambda i: place[i]["logprob"]))

    server.faults = [slow(0), changed(masked)]
    assert all(bool(stats.isfinite().all()) for stats in scored(teacher))


def test_a_question_that_the_server_refuses_is_told_in_its_own_words(
    server: FakeServer, opened: Open
) -> None:
    teacher = opened(server.address)

    def refuses(server: FakeServer, handler: Any, answer: Any) -> bool:
        handler.send(400, {"error": {"message": "Requested prompt logprobs of 5, which is too many"}})
        return True

    server.faults = [slow(0), refuses]
    with pytest.raises(TeacherLost, match=r"refuses a question .status 400: Requested prompt logprobs of 5"):
        scored(teacher)


def test_broken_json_is_asked_for_again_only_so_often(server: FakeServer, opened: Open) -> None:
    teacher = opened(server.address, batch=6, retries=2, patience_s=60.0)
    server.faults = [slow(0), cut_json, cut_json, cut_json]
    with pytest.raises(TeacherLost, match=r"no JSON .*in 3 attempts"):
        scored(teacher)


def test_the_token_budget_is_kept_and_what_was_sent_is_counted_once(
    lm: LanguageModel, server: FakeServer, opened: Open
) -> None:
    teacher = opened(server.address, batch=1, concurrency=1)
    before = teacher.asker.tokens
    server.faults = [slow(0), status(500), status(500)]
    scored(teacher)
    sent = sum(max(view.positions()) + 2 + 1 for view in VIEWS)
    probe = len(teacher.still.ids) + 1
    assert teacher.asker.tokens - before == sent + probe
    spent = opened(server.address, token_budget=sent)
    with pytest.raises(TeacherLost, match=r"token_budget=\d+ is spent; raise it"):
        scored(spent)  # the probe at the start was part of it


def test_as_many_questions_are_under_way_as_the_settings_allow(server: FakeServer, opened: Open) -> None:
    teacher = opened(server.address, batch=1, concurrency=3)
    server.always = slow(0.1)
    scored(teacher)
    assert server.most == 3


# --- at the start


def test_a_server_that_is_not_there_is_said_before_anything_begins(opened: Open) -> None:
    with pytest.raises(TeacherLost, match=r"http://127\.0\.0\.1:9 does not answer"):
        opened("http://127.0.0.1:9", patience_s=0.2)


def test_another_model_or_several_are_refused_by_name(server: FakeServer, opened: Open) -> None:
    with pytest.raises(ModelError, match=r"has no model 'big' \(it has tiny\); set teacher\.server\.model"):
        opened(server.address, model="big")
    assert opened(server.address + "/v1", model="tiny").served.root == "/models/tiny"


def test_another_tokenizer_is_refused_by_the_first_difference(lm: LanguageModel, opened: Open) -> None:
    other = tiny_lm(2, hidden=48)
    other.tokenizer = byte_tokenizer(("ing",))
    with serving(other) as server:
        assert opened(server.address), "a word that the text does not have"
    other.tokenizer.backend_tokenizer.normalizer = None
    from tokenizers import normalizers

    other.tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    with (
        serving(other) as server,
        pytest.raises(ModelError, match=r"another tokenizer than teacher.path=here"),
    ):
        opened(server.address)


def test_a_key_goes_with_every_request_and_is_nowhere_else(
    server: FakeServer, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "not-for-everyone"
    with pytest.raises(ModelError, match=r"wants a key .*environment variable that teacher\.server\.key_env"):
        opened(server.address)
    monkeypatch.setenv("SAGE_TEACHER_KEY", "not-for-everyone")
    teacher = opened(server.address)
    scored(teacher)
    written = f"{teacher.settings!r} {dict(teacher.facts())} {teacher.name} {teacher.digest}"
    assert "not-for-everyone" not in written


def test_a_secret_in_the_address_is_refused() -> None:
    with pytest.raises(ValueError, match="holds a secret before its @"):
        settings_at("http://user:word@host:8000")
    for wrong in ("host:8000", "ftp://host", "http://", "http://host:0"):
        with pytest.raises(ValueError, match="is no address of a server"):
            settings_at(wrong)


# --- the cache


def test_what_is_in_the_cache_is_not_asked_again(
    lm: LanguageModel, server: FakeServer, opened: Open, tmp_path: Any
) -> None:
    cache = str(tmp_path / "deep" / "scores.sqlite")
    same(scored(opened(server.address, cache=cache)), scored(lm))
    asked = len(server.asked)
    again = opened(server.address, cache=cache)
    same(scored(again), scored(lm))
    assert len(server.asked) - asked == 2, "the probe alone, twice"
    assert again.cached == len(VIEWS)
    opened(server.address, k=4, cache=cache)
    assert again.served == opened(server.address, cache=cache).served


def test_a_cache_of_other_weights_under_the_same_name_is_refused(
    server: FakeServer, opened: Open, tmp_path: Any
) -> None:
    cache = str(tmp_path / "scores.sqlite")
    opened(server.address, cache=cache)
    with serving(tiny_lm(4, hidden=48)) as other, pytest.raises(ConfigError, match="scores of another model"):
        opened(other.address, cache=cache)
    (tmp_path / "text.sqlite").write_text("no database")
    with pytest.raises(ConfigError, match="cannot be opened"):
        opened(server.address, cache=str(tmp_path / "text.sqlite"))


# --- replies


def test_replies_are_those_of_the_same_model_here(lm: LanguageModel, opened: Open) -> None:
    from sage.policy.decoding.generate import reply

    prompts = [list(np.random.default_rng(i).integers(0, 256, 10 + i)) for i in range(5)]
    prompts = [[int(token) for token in prompt] for prompt in prompts]
    want = reply(lm, prompts, 12, r"\?")
    for engine in ("vllm", "sglang"):
        with serving(lm, engine=engine) as server:
            got = opened(server.address).reply(prompts, [("", "")] * 5, 12, r"\?")
        assert [r.ids for r in got] == [r.ids for r in want]
        assert [r.text for r in got] == [r.text for r in want]


def test_by_chat_the_server_s_own_template_is_used(
    lm: LanguageModel, server: FakeServer, opened: Open
) -> None:
    teacher = opened(server.address, judge="chat")
    (said,) = teacher.reply([[1, 2, 3]], [("Be brief.", "Which word?")], 6, None)
    path, body = server.asked[-1]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Which word?"},
    ]
    assert said.text == lm.tokenizer.decode(said.ids)
    assert said.truncated
