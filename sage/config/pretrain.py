"""Settings of `task=pretrain`."""

from __future__ import annotations

from pydantic import Field

from sage.config.local_path import LocalPath
from sage.config.registry import Settings


class PretrainSettings(Settings):
    """`task=pretrain`: a tiny model from scratch, on expert play. Ignored by the other tasks."""

    output: LocalPath
    """Directory to write the model to; must not hold one yet."""
    init: str | None
    """Directory of a model to continue from, with as many layers and key/value heads or fewer; None starts
    from random weights."""
    tokenizer: str | None
    """Model whose tokenizer is taken (student and teacher must share it); None trains a new one."""
    extra_text: str | None
    """Text file that the new tokenizer also learns its pieces from."""
    vocab_size: int = Field(ge=300, le=10_000_000)
    """Tokens of the new tokenizer."""
    hidden: int = Field(ge=8, le=100_000)
    """Width of the model."""
    layers: int = Field(ge=1, le=1_000)
    """Transformer layers."""
    heads: int = Field(ge=1, le=1_000)
    """Attention heads of a layer."""
    kv_heads: int = Field(ge=1, le=1_000)
    """Key/value heads, each shared by as many attention heads."""
    head_dim: int = Field(ge=2, le=10_000)
    """Width of a head."""
    feed_forward: int = Field(ge=8, le=1_000_000)
    """Width of the feed-forward part of a layer."""
    context: int = Field(ge=128, le=10_000_000)
    """Longest conversation that the model is made for, in tokens."""
    max_tokens: int = Field(ge=64, le=10_000_000)
    """Longer episodes are left out of the training text."""
    tokens: int = Field(ge=1, le=10**14)
    """Training tokens in all, padding not counted."""
    batch_tokens: int = Field(ge=1, le=10**9)
    """Tokens of one optimizer batch."""
    muon_lr: float = Field(gt=0, le=10)
    """Highest learning rate of Muon, which trains the layers' matrices."""
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
