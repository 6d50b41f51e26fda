"""A thousand things that somebody might type: each is a config or one sentence, and never a traceback.

pytest -m slow tests/slow/test_fuzz_config.py            FUZZ_EXAMPLES=200 for fewer
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sage.config.components import GROUPS, register_components
from sage.config.known import known_settings
from sage.config.load import load
from sage.config.schema import RunConfig
from sage.config.validate import validate
from sage.errors import ConfigError

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "1000"))
LONGEST = 400
register_components()
SETTINGS = sorted(known_settings(RunConfig))
GROUP_NAMES = sorted(
    [*GROUPS, "method", "budget", "prompt", "student", "teacher", "study", "sweep", "recipe", "hydra"]
)

VALUES = st.one_of(
    st.sampled_from(
        [
            *(
                "",
                "null",
                "None",
                "true",
                "False",
                "yes",
                "0",
                "-0",
                "-1",
                "1e26",
                "1e400",
                ".inf",
                "inf",
                "nan",
                "-.inf",
            ),
            *(
                "0x10",
                "1_000",
                "1,2",
                "[]",
                "[1,2]",
                "[a,[b,{c:d}]]",
                "{}",
                "{a:1}",
                "{a:{b:{c:[]}}}",
                "{name:x}",
                "{name:[]}",
            ),
            *(
                "${seed}",
                "${nosuch}",
                "${oc.env:HOME}",
                "${env.name}",
                "${now:%Y}",
                "$",
                "\\",
                "'",
                '"',
                "((",
                "[",
                "{",
                "a=b=c",
            ),
            *(
                "é漢字",
                "\u2028",
                "\x00",
                "\x1b[31m",
                "a\tb",
                "🙂",
                "x" * 5000,
                "/",
                "/nosuch",
                "..",
                "~",
                "sage://nosuch",
                "sage://",
            ),
            *(
                "http://u:p@h/x",
                "alfworld",
                "opd",
                "tiny",
                "???",
                "!!python/object:os.system",
                "&a",
                "*a",
                "@x",
                "#c",
                "%x%",
            ),
        ]
    ),
    st.integers(-(10**30), 10**30).map(str),
    st.floats().map(str),
    st.text(max_size=12),
)
KEYS = st.one_of(
    st.sampled_from(SETTINGS),
    st.sampled_from(GROUP_NAMES),
    st.sampled_from(SETTINGS).map(lambda name: name[:-1]),
    st.sampled_from(SETTINGS).map(lambda name: name + ".x"),
    st.sampled_from(SETTINGS).map(str.upper),
    st.text(max_size=10),
)
WORDS = st.one_of(
    st.tuples(st.sampled_from(["", "", "", "+", "++", "~"]), KEYS, VALUES).map(
        lambda t: f"{t[0]}{t[1]}={t[2]}"
    ),
    VALUES,
)


def judged(read: Any) -> None:
    """A config, or one sentence of a bearable length."""
    try:
        read()
    except ConfigError as error:
        text = str(error)
        assert text.strip(), "an empty refusal"
        assert len(text) <= LONGEST, f"{len(text)} characters: {text}"
        assert "\n" not in text.strip(), text
        assert "Traceback" not in text


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(words=st.lists(WORDS, min_size=1, max_size=3))
def test_a_command_line(words: list[str]) -> None:
    judged(lambda: load(words))


LEAVES = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=4)),
    st.sampled_from(["\ud800", "x" * 10_000, 10**400, -(2**63)]),
)
NESTED = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(SETTINGS), value=NESTED)
def test_plain_data_in_place_of_a_setting(name: str, value: Any) -> None:
    plain = load([]).model_dump(mode="json")
    inside = plain
    *way, last = name.split(".")
    for part in way:
        if not isinstance(inside.get(part), dict):
            inside[part] = {}
        inside = inside[part]
    inside[last] = value
    judged(lambda: validate(plain))
