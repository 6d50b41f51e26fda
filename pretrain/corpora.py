"""Which expert play an environment's tiny model learns from: one module of this package per environment."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pretrain.train import Sample
    from sage.config.pretrain import PretrainSettings
    from sage.config.prompt_texts import PromptStyle
    from sage.envs.settings import EnvSettings
    from sage.policy.dialogue import Dialogue


class Corpus(Protocol):
    """Training text of one environment; deterministic in the seed, and picklable."""

    def samples(
        self, style: PromptStyle, dialogue: Dialogue, settings: PretrainSettings, seed: int
    ) -> Iterator[Sample]:
        """An endless stream of whole episodes and judged turns, none longer than `settings.max_tokens`."""
        ...

    def tokenizer_texts(self, style: PromptStyle, seed: int) -> Iterator[str]:
        """A finite sample of the text that a new tokenizer learns its pieces from."""
        ...


def find_corpus(env: EnvSettings) -> Corpus:
    """`pretrain.<environment>.corpus(env)`. Raises ValueError where there is no such module."""
    name = f"pretrain.{env.name}"
    if importlib.util.find_spec(name) is None:
        raise ValueError(f"No expert play is known for env={env.name}; {name} would have to make it.")
    made: Corpus = importlib.import_module(name).corpus(env)
    return made
