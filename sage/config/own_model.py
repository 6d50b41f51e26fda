"""A model of one's own named by its path alone: the line is completed by the group whose settings fit it.

`student.path=/models/mine` without `student=…` would otherwise train under the settings of the tiny models
that ship: at four hundred times the paper's learning rate, on games cut after a few turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

ROLES = ("student", "teacher")
OWN = "hub"
"""The option of both groups that is made for a model of one's own."""
TINY_CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Chat template of the models that `task=pretrain` makes, by which their checkpoints are known."""


def complete(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """`overrides` with `<role>=hub` in front for each role whose `path` names only models of one's own and
    whose group is not chosen; and a sentence about each that was put in."""
    words, notes = list(overrides), []
    for role in ROLES:
        given = {word.partition("=")[0].lstrip("+"): word.partition("=")[2] for word in overrides}
        paths = given.get(f"{role}.path")
        if role in given or paths is None:
            continue
        if all(_is_own(path) for path in _values(paths)):
            words.insert(0, f"{role}={OWN}")
            notes.append(
                f"{role}.path={paths} is no model that ships, so {role}={OWN} and its settings are taken "
                f"(conf/{role}/{OWN}.yaml); values on the line win, and {role}=tiny undoes it."
            )
    return words, notes


def _values(text: str) -> list[str]:
    """The values of a sweep over paths, or the one there is."""
    return [value.strip().strip("'\"") for value in text.split(",")]


def is_tiny(model_path: str) -> bool:
    """Whether it is one of ours: a model that ships, or a directory that was made from one or by
    `task=pretrain`."""
    if model_path.startswith("sage://"):
        return True
    template = Path(model_path).expanduser() / "chat_template.jinja"
    return template.is_file() and template.read_text(encoding="utf-8").strip() == TINY_CHAT_TEMPLATE


def _is_own(path: str) -> bool:
    # What Hydra still has to fill in is not known here; `python -m sage check` sees it.
    return bool(path) and path not in ("null", "???") and not path.startswith("$") and not is_tiny(path)
