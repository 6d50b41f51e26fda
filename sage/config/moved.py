"""Settings that have moved: an old name among overrides is read for one release, with a note.

In a YAML file an old name is refused with the sentence that says the new one.
"""

from __future__ import annotations

from collections.abc import Sequence

MOVED = {
    "rollout.engine": "speed.engine",
    "rollout.vllm": "speed.vllm",
    "rollout.draft_tokens": "speed.draft_tokens",
    "rollout.judge_ahead": "speed.judge_ahead",
    "rollout.slots": "speed.slots",
    "rollout.workers": "speed.workers",
    "rollout.step_timeout_s": "speed.step_timeout_s",
    "trainer.micro_batch": "speed.micro_batch",
    "trainer.threads": "speed.threads",
    "trainer.checkpoint_every": "speed.checkpoint_every",
}
"""Old dotted name to the new one; what lies below it has moved along."""


def new_name(key: str) -> str | None:
    """Today's name of a setting that has moved, None for any other."""
    for old, new in MOVED.items():
        if key == old or key.startswith(old + "."):
            return new + key.removeprefix(old)
    return None


def renamed(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Command-line words under today's names, and a note for each that had an old one.

    `rollout.engine=vllm` chose who samples, which is `rollout.decoder` now.
    """
    now, notes = [], []
    for word in words:
        key, equals, value = word.partition("=")
        bare = key.lstrip("+~")
        new = new_name(bare) if not word.startswith("-") else None
        if bare == "rollout.engine" and "vllm" in value.split(","):
            new = "rollout.decoder" if value == "vllm" else None  # of several, the refusal says the new name
        if new is None:
            now.append(word)
            continue
        now.append(key[: len(key) - len(bare)] + new + equals + value)
        notes.append(f"{bare} is {new} now; its old name is read for one release more.")
    return now, notes
