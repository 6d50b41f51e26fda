"""A model named by a hub: looked for once, with a deadline, before anything is loaded.

transformers alone asks for every file anew and tries again for minutes where there is no network.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sage.errors import ModelError, short_reason

DEADLINE_S = 6.0
"""One question to the hub may take this long, a name server that does not answer included."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a hub's model is read from: its folder in the cache where the hub is not asked, else None."""

    cached: Path | None


def find(name: str, revision: str | None) -> Snapshot:
    """Raises ModelError, within `DEADLINE_S`, where the model is neither on the hub nor in its cache."""
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ModelError(
            f"{name!r} is neither a folder here nor a hub's name of a model (owner/name)."
        ) from error
    kept = try_to_load_from_cache(name, "config.json", revision=revision)
    cached = Path(kept).parent if isinstance(kept, str) else None
    if constants.HF_HUB_OFFLINE:
        if cached is None:
            raise ModelError(
                f"The model {name!r} is no folder here and not in the hub's cache, and HF_HUB_OFFLINE "
                "forbids "
                "asking for it; give a local folder, or fetch it where there is a network."
            )
        return Snapshot(cached)
    problem = _ask(name, revision)
    if problem is None:
        return Snapshot(None)
    if cached is not None and not problem.answered:
        return Snapshot(cached)
    raise ModelError(problem.sentence)


@dataclass(frozen=True, slots=True)
class _Problem:
    sentence: str
    answered: bool
    """Whether it was the hub that said no."""


@lru_cache(maxsize=64)
def _ask(name: str, revision: str | None) -> _Problem | None:
    """One request about one model; what it found stays true for this process. None: the hub has it."""
    unreachable = _unreachable()
    if unreachable:
        return _Problem(_no_network(name, unreachable), answered=False)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    box: list[Any] = []

    def ask() -> None:
        try:
            box.append(HfApi().model_info(name, revision=revision, timeout=DEADLINE_S))
        except Exception as error:
            box.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    answer = box[0] if box else TimeoutError(f"no answer within {DEADLINE_S:g} s")
    if isinstance(answer, GatedRepoError):
        return _Problem(
            f"The hub has {name!r} behind a licence; accept it there and set HF_TOKEN, or give a local "
            "folder.",
            answered=True,
        )
    if isinstance(answer, RevisionNotFoundError):
        return _Problem(f"The hub's model {name!r} has no revision {revision!r}.", answered=True)
    if isinstance(answer, RepositoryNotFoundError):
        return _Problem(
            f"There is no folder {name!r} here, and the hub has no model of that name that it would "
            "show; check "
            "the spelling, or set HF_TOKEN if it is private.",
            answered=True,
        )
    if isinstance(answer, Exception):
        _UNREACHABLE.append(short_reason(answer, 80))
        return _Problem(_no_network(name, _unreachable()), answered=False)
    from sage.policy.models.weights import check_names

    names = [sibling.rfilename for sibling in answer.siblings or []]
    try:
        if not any(file.lower().endswith(".gguf") for file in names):
            check_names(names, f"The hub's model {name!r}")
    except ModelError as error:
        return _Problem(str(error), answered=True)
    return None


_UNREACHABLE: list[str] = []
"""Why the hub did not answer, once it has not: the second model is not looked for again."""


def _unreachable() -> str:
    return _UNREACHABLE[0] if _UNREACHABLE else ""


def _no_network(name: str, why: str) -> str:
    return (
        f"The model {name!r} is no folder here and not in the hub's cache, and the hub cannot be reached "
        f"({why}); "
        "give a local folder, or fetch it where there is a network."
    )
