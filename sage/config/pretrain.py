"""Settings of `task=pretrain`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sage.config.local_path import LocalPath
from sage.config.registry import Settings

SHAPE = ("vocab_size", "hidden", "layers", "heads", "kv_heads", "head_dim", "feed_forward", "context")
"""Settings of a model that is made."""
MADE_FROM = ("init", "tokenizer", "extra_text")
"""What a model that is made may take from elsewhere."""


class PretrainSettings(Settings):
    """`task=pretrain`: teach a model on expert play. Ignored by the other tasks."""

    output: LocalPath
    """Directory to write the model to; must not hold one yet."""
    start: Literal["shape", "student"]
    """`shape` makes a model of the sizes below. `student` goes on with the model that `student` names, of any
    architecture, with its own tokenizer and chat template; sizes, `init`, `tokenizer` and `extra_text` are
    then `null`."""
    init: str | None
    """Directory of a model to continue from, with as many layers and key/value heads or fewer; None starts
    from random weights."""
    tokenizer: str | None
    """Model whose tokenizer is taken (student and teacher must share it); None trains a new one."""
    extra_text: str | None
    """Text file that the new tokenizer also learns its pieces from."""
    vocab_size: int | None = Field(ge=300, le=10_000_000)
    """Tokens of the new tokenizer."""
    hidden: int | None = Field(ge=8, le=100_000)
    """Width of the model."""
    layers: int | None = Field(ge=1, le=1_000)
    """Transformer layers."""
    heads: int | None = Field(ge=1, le=1_000)
    """Attention heads of a layer."""
    kv_heads: int | None = Field(ge=1, le=1_000)
    """Key/value heads, each shared by as many attention heads."""
    head_dim: int | None = Field(ge=2, le=10_000)
    """Width of a head."""
    feed_forward: int | None = Field(ge=8, le=1_000_000)
    """Width of the feed-forward part of a layer."""
    context: int | None = Field(ge=128, le=10_000_000)
    """Longest conversation that the model is made for, in tokens."""
    max_tokens: int = Field(ge=64, le=10_000_000)
    """Longer episodes are left out of the training text."""
    tokens: int = Field(ge=1, le=10**14)
    """Training tokens in all, padding not counted."""
    batch_tokens: int = Field(ge=1, le=10**9)
    """Tokens of one optimizer batch."""
    muon_lr: float | None = Field(gt=0, le=10)
    """Highest learning rate of Muon, which trains the layers' matrices; None leaves them to AdamW."""
    adam_lr: float = Field(gt=0, le=10)
    """Highest learning rate of AdamW, which trains all other weights."""
    mistakes: float = Field(ge=0, lt=1)
    """Share of turns replaced by an injected mistake, in two thirds of the games."""
    judged: float = Field(ge=0, le=1)
    """Share of games that become judged turns instead of an episode."""
    renumbered: float = Field(ge=0, le=1)
    """Share of games whose object and receptacle numbers are drawn anew, so that they must be read."""
    observation_weight: float = Field(ge=0, le=1)
    """Loss weight of the environment's words. They teach its grammar; but what lies where is chance, and late
    in training the gradient from it is mostly noise."""
    save_every: int = Field(ge=1, le=10**14)
    """Tokens between checkpoints."""

    @model_validator(mode="after")
    def _one_start(self) -> PretrainSettings:
        """What a start does not look at may not be set."""
        missing = [name for name in SHAPE if getattr(self, name) is None]
        if self.start == "shape" and missing:
            raise ValueError(f"pretrain.start=shape makes a model, and pretrain.{missing[0]} is not given.")
        given = [name for name in (*SHAPE, *MADE_FROM) if getattr(self, name) is not None]
        if self.start == "student" and given:
            raise ValueError(
                f"pretrain.start=student goes on with the student's own model and tokenizer, so that "
                f"pretrain.{given[0]}={getattr(self, given[0])} would change nothing; leave it out, with "
                "pretrain=student on the line."
            )
        return self
