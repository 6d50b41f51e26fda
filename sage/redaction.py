"""What a secret looks like; all text that leaves a process goes through here.

Two rules. By shape: in an address all before its last `@` is blanked (user, password or token, in any
spelling) and the values of its query, but the one word that MLflow's address of a list of runs has; so is
what follows a secret's name (`password=`). By value: a secret that stands in an address of the config or in
the environment is blanked wherever it turns up again, in a library's message for example, which may quote a
part of the address alone.

Records are redacted as they are written (config.yaml, run.json, logs, reasons, provenance, error columns, and
so MLflow); the terminal and the log files of children by `guard_streams`.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO
from urllib.parse import unquote

BLANK = "***"
_SHORTEST = 5
"""Values of fewer characters are not looked for in text: they would blank half of it."""

_END = r"\s\"'`<>"
_IN_ADDRESS = re.compile(rf"([A-Za-z][\w+.\-]*:/{{2,}})([^{_END}]*)@")
_BARE = re.compile(rf"(?<![\w/:])([^{_END}/@=:,;]+:(?!//)[^{_END}@]+)@(?=[\w.\[])")
_QUERY = re.compile(rf"([?&#;](?!workflowType=machine_learning\b)[\w.\-\[\]%]+=)([^&#;{_END})]+)")
_NAME = (
    r"(?:passwords?|passwd|passphrase|secret|credentials?|token|api[_-]?key|access[_-]?key|private[_-]?key)"
)
_OPTION = re.compile(rf"(?i)((?:^|[\s.\-_+?&\"'])(?:\w+[_-])?{_NAME}[\"']?=[\"']?)[^{_END},;&]+")
_ENTRY = re.compile(rf"(?im)(^[\s{{,+\-]*[\"']?[\w.]*{_NAME}[\"']?:\s*[\"']?)[^{_END},;&]+")
_WORD = re.compile(rf"(?i)((?:^|[.\-_+])(?:\w+[_-])?{_NAME}=).*")
_HEADER = re.compile(r"(?i)\b((?:bearer|basic)\s+)[\w.~+/\-]{8,}=*")
_FLAG = re.compile(rf"(?i)-.*{_NAME}")
_VARIABLE = re.compile(rf"(?i)(?:^|_){_NAME}(?:$|_)|_(?:key|pat|auth)$")

_known: set[str] = set()


def redact(text: str) -> str:
    """The text without secrets, by both rules."""
    for value in sorted(_known, key=len, reverse=True):
        if value in text:
            text = text.replace(value, BLANK)
    if "@" in text:
        text = _IN_ADDRESS.sub(rf"\1{BLANK}@", text)
        text = _BARE.sub(f"{BLANK}@", text)
    text = _QUERY.sub(rf"\1{BLANK}", text)
    for pattern in (_OPTION, _ENTRY, _HEADER):
        text = pattern.sub(rf"\1{BLANK}", text)
    return text


def redact_data(data: Any) -> Any:
    """`redact` on every string of JSON-like data that is one word (an address, a path); prose stays."""
    if isinstance(data, Mapping):
        return {key: redact_data(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [redact_data(value) for value in data]
    if isinstance(data, str) and not re.search(r"\s", data):
        return redact(data)
    return data


def redact_command(words: Sequence[str]) -> list[str]:
    """`redact` for a command line, where a secret may also be the word after its flag."""
    return [
        BLANK if i and _FLAG.fullmatch(words[i - 1]) else redact(_WORD.sub(rf"\1{BLANK}", word))
        for i, word in enumerate(words)
    ]


def learn(data: Any) -> None:
    """Remember the secrets inside the addresses of JSON-like data (a config), for the rule by value."""
    if isinstance(data, Mapping):
        data = list(data.values())
    if isinstance(data, str):
        _remember(_inside(data))
    elif isinstance(data, Iterable):
        for value in data:
            learn(value)


def learn_environment() -> None:
    """Remember the values of variables whose names are a secret's, and what addresses in others hold."""
    for name, value in os.environ.items():
        if _VARIABLE.search(name) and len(value) > 7 and not value.startswith(("/", "true", "false")):
            _remember([value])
        learn(value)


def _remember(values: Iterable[str]) -> None:
    for value in values:
        _known.update(
            form for form in (value, unquote(value)) if len(form) >= _SHORTEST and not form.isdigit()
        )


def _inside(text: str) -> list[str]:
    """Passwords, tokens and query values in the addresses of `text`; a user beside a password is none."""
    found = []
    for pattern, group in ((_IN_ADDRESS, 2), (_BARE, 1)):
        for match in pattern.finditer(text):
            user, colon, password = match[group].partition(":")
            found += [password, match[group]] if colon else [user]
    found += [match[2] for match in _QUERY.finditer(text)] if "://" in text else []
    return found


class _Guarded:
    """A text stream that redacts what is written to it, and is otherwise the stream it stands before."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_IN_ASCII = {"→": "->", "–": "-", "—": "-", "−": "-", "±": "+-", "≥": ">=", "≤": "<=", "×": "x", "…": "..."}
_SAYABLE = "sage.sayable"
"""An error handler of encoders, by its name."""


def _sayable(error: UnicodeError) -> tuple[str | bytes, int]:
    """In place of a character that a terminal's encoding lacks: the byte of a file's name that it stands for,
    a likeness in ASCII, or its number."""
    assert isinstance(error, UnicodeEncodeError)
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":
        return bytes([ord(character) - 0xDC00]), error.start + 1
    likeness = _IN_ASCII.get(character) or character.encode("ascii", "backslashreplace").decode("ascii")
    return likeness, error.start + 1


codecs.register_error(_SAYABLE, _sayable)


def guard_streams() -> None:
    """From here on nothing that this process prints, tracebacks included, shows a secret, and nothing that it
    prints fails because a locale (ASCII, Latin-1) has no sign for it."""
    learn_environment()
    learn(sys.argv[1:])
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_SAYABLE)
        if stream is not None and not isinstance(stream, _Guarded):
            setattr(sys, name, _Guarded(stream))
