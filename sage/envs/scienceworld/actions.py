"""What the simulator's words mean for the record: which actions it did not execute, and briefer scenes."""

from __future__ import annotations

import re

from sage.episode import Failure

_NOT_UNDERSTOOD = ("No known action matches that input.", "Unknown action.")
_AMBIGUOUS = "Ambiguous request:"
_FORMS = re.compile(
    r"(?:look around|look (?:at|in|on) .+|read .+|inventory|task|wait1?|wait \d+|\d+"
    r"|(?:open|close|activate|deactivate|eat|flush|mix|examine|read|focus on|pick up|put down|disconnect) .+"
    r"|(?:go|teleport) to .+|(?:move|pour|dunk) .+ (?:to|into|in) .+|connect .+ to .+|use .+)",
    re.IGNORECASE,
)
"""The action templates that the simulator's `help` lists."""
_CRASH = re.compile(r"(?:java|scala)\.[\w.$]+(?:Exception|Error)\b")


def failure_of(action: str, observation: str) -> Failure:
    """`SCHEMA` where no template has the action's form, `NO_EFFECT` where one has but it fits nothing here.

    The simulator says the same sentence to both. A question about an ambiguous action is no failure, and
    neither is an action that it executes and refuses in words (`The door is already open.`).
    """
    if not observation.startswith(_NOT_UNDERSTOOD):
        return Failure.NONE
    return Failure.NO_EFFECT if _FORMS.fullmatch(action.strip()) else Failure.SCHEMA


def is_crash(observation: str) -> bool:
    """Whether this is a Java exception's name: the simulator itself failed and goes on saying so."""
    return _CRASH.match(observation) is not None


_ROOM = re.compile(
    r"This (?:room|outside location) is called the (?P<name>[^.]+)\. (?:In it, you|Here you) see: ?\n"
    r"(?P<things>(?:\t.*\n?)*)(?:You also see:\n(?P<doors>(?:\t.*\n?)*))?"
)
_UNSAID = {"the agent", "a substance called air"}
_EMPTY = re.compile(r"\.? (?:In|On) the [^.:]+ is: nothing(?=\.|$)| \(containing nothing\)")
_SUBSTANCE = re.compile(r"\ba substance called ")
_ARTICLE = re.compile(r"\b(?:an?|the) (?=\w)", re.IGNORECASE)
_INSIDE = re.compile(r"\. (?:In|On) the [^.:]+ is: ")


def brief(observation: str) -> str:
    """The same in fewer words: no air, no agent, no open doors, nothing that is empty, no articles.

    A room becomes `kitchen: thing; thing; ...`; closed doors stay. Other sentences stay as they are, but for
    `a substance called`.
    """
    room = _ROOM.fullmatch(observation.strip() + "\n") or _ROOM.fullmatch(observation.strip())
    if room is None:
        return _SUBSTANCE.sub("", " ".join(observation.split()))
    things = [line.strip() for line in room["things"].splitlines()]
    doors = [line.strip() for line in (room["doors"] or "").splitlines()]
    said = [_brief_thing(t) for t in things if t not in _UNSAID]
    said += [_brief_thing(d) for d in doors if "(that is open)" not in d]
    return f"{room['name']}: {'; '.join(said)}"


def _brief_thing(text: str) -> str:
    text = _EMPTY.sub("", _SUBSTANCE.sub("", text))
    text = _INSIDE.sub(": ", text).replace(" (containing ", " (").replace(", which is ", ", ")
    text = re.sub(r"\. The [^.]+ door is (open|closed)", r", \1", text)
    return _ARTICLE.sub("", text).rstrip(". ")
