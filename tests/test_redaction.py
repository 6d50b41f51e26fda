"""What a secret looks like, and what it does not."""

from __future__ import annotations

import io
import sys

import pytest

from sage import redaction

CANARY = "hunter2x"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_known", set())


@pytest.mark.parametrize(
    "secret",
    [
        f"postgresql://me:{CANARY}@host:5432/db",
        f"postgresql+psycopg://me:{CANARY}@host/db",
        f"http://me:p@{CANARY}@host/a",
        f"http://me:p/{CANARY}@host/a",
        f"http://me:{CANARY}:x@host/a",
        f"http://{CANARY}@host/a",
        f"http://{CANARY}:@host/a",
        f"HTTPS://me:{CANARY}@[::1]:80/a",
        f"me:{CANARY}@host:5432/db",
        f"http://host/a?key={CANARY}",
        f"http://host/a?x=1&sig={CANARY}#t",
        f"http://host/a#access_token={CANARY}",
        f"Max retries exceeded with url: /retrieve?key={CANARY} (Caused by x)",
        f"hub.token={CANARY}",
        f"api_key={CANARY}",
        f"x?password={CANARY}",
        f"connect failed: password='{CANARY}' host=h",
        f"dsn: user=me password={CANARY} host=h",
        f"Authorization: Bearer {CANARY}abcdef",
        f"  password: {CANARY}",
        f'+"api_key": "{CANARY}"',
        f"storage=postgresql://me:{CANARY}@host/db and more",
    ],
)
def test_a_secret_is_blanked_by_its_shape(secret: str) -> None:
    assert CANARY not in redaction.redact(secret)
    assert redaction.BLANK in redaction.redact(secret)


@pytest.mark.parametrize(
    "harmless",
    [
        "rollout.max_new_tokens=64",
        "env.name=token",
        "judge_tokens=4",
        "http://host:80/a",
        "http://host:80/#/experiments/1/runs?workflowType=machine_learning",
        "sqlite:////data/mlflow.db",
        "journal:studies/a.log",
        "The closing token: <|im_end|> ends an answer.",
        "evaluation of valid_seen after 0 steps: 15 of 140 won",
        "someone@example.org wrote this",
        "prompt: What now? answer=yes",
        "C:/models/a",
    ],
)
def test_ordinary_text_stays_as_it_is(harmless: str) -> None:
    assert redaction.redact(harmless) == harmless


def test_the_rest_of_an_address_stays_readable() -> None:
    assert redaction.redact("http://me:pass@host:80/a?key=v&n=2") == "http://***@host:80/a?key=***&n=***"


def test_a_secret_that_is_known_is_blanked_wherever_it_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:fromenv%21@host")
    redaction.learn(
        {"tracking": {"uri": "http://me:frompage@host"}, "env": {"urls": ["https://h/?k=fromquery"]}}
    )
    redaction.learn_environment()
    for word in ("frompage", "fromquery", "fromenv%21", "fromenv!", "hf_abcdefgh"):
        assert redaction.redact(f"FATAL: {word} is wrong") == "FATAL: *** is wrong"
    assert redaction.redact("me") == "me"


def test_data_is_redacted_in_its_addresses_and_its_prose_is_left_alone() -> None:
    prose = "Say what you see at a:b@c, please. Why? x=1"
    data = {"uri": f"http://u:{CANARY}@h", "list": [f"http://h?k={CANARY}", 3, None], "prompt": prose}
    assert redaction.redact_data(data) == {
        "uri": "http://***@h",
        "list": ["http://h?k=***", 3, None],
        "prompt": prose,
    }


def test_a_command_line_also_hides_the_word_after_a_flag() -> None:
    words = ["sage", "--token", CANARY, f"a.api_key={CANARY} and more", "seed=1"]
    assert redaction.redact_command(words) == ["sage", "--token", "***", "a.api_key=***", "seed=1"]


def test_what_is_printed_is_redacted_tracebacks_included(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "argv", ["sage", f"tracking.uri=http://me:{CANARY}@host"])
    redaction.guard_streams()
    redaction.guard_streams()  # twice is once
    print(f"see http://me:{CANARY}@host")
    try:
        raise ValueError(f"no answer from me, {CANARY}")
    except ValueError:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    assert out.getvalue() == "see http://***@host\n"
    assert "no answer from me, ***" in err.getvalue()
    assert not sys.stdout.isatty()
