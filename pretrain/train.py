"""Supervised training of a tiny model on a stream of token sequences with per-token loss weights.

Muon for the matrices and AdamW for the rest: on these sizes it reaches the same loss in about half the
tokens of AdamW alone. The stream never repeats a game, because variety is what a small model lacks.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from pretrain.muon import Muon


@dataclass(frozen=True, slots=True)
class Sample:
    """One sequence: token ids and the weight of predicting each (0 for what is given)."""

    ids: list[int]
    weights: list[float]


def batches(samples: Iterator[Sample], tokens: int, pool: int = 256) -> Iterator[list[Sample]]:
    """Groups of about `tokens` padded tokens, from `pool` samples sorted by length at a time."""
    while True:
        chunk = sorted((next(samples) for _ in range(pool)), key=lambda s: len(s.ids))
        groups: list[list[Sample]] = [[]]
        for sample in chunk:
            if groups[-1] and len(sample.ids) * (len(groups[-1]) + 1) > tokens:
                groups.append([])
            groups[-1].append(sample)
        # Deterministic interleaving, so that one length does not fill several steps in a row.
        yield from groups[::2] + groups[1::2]


def build_model(settings: dict[str, Any], vocab_size: int, seed: int) -> Any:
    """A randomly initialised Qwen3-architecture model with tied embeddings."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=settings["hidden"],
        intermediate_size=settings["feed_forward"],
        num_hidden_layers=settings["layers"],
        num_attention_heads=settings["heads"],
        num_key_value_heads=settings["kv_heads"],
        head_dim=settings["head_dim"],
        max_position_embeddings=settings["context"],
        tie_word_embeddings=True,
        rope_theta=10000.0,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    return Qwen3ForCausalLM(config)


def weighted_loss(model: Any, batch: list[Sample]) -> tuple[torch.Tensor, float, float]:
    """(mean weighted cross-entropy, hits and count over tokens of weight 1). B sequences, T tokens."""
    length = max(len(s.ids) for s in batch)
    ids_BT = torch.zeros(len(batch), length, dtype=torch.long)
    weights_BT = torch.zeros(len(batch), length)
    for row, sample in enumerate(batch):
        ids_BT[row, : len(sample.ids)] = torch.tensor(sample.ids)
        weights_BT[row, : len(sample.ids)] = torch.tensor(sample.weights)
    hidden_BTD = model.model(input_ids=ids_BT).last_hidden_state[:, :-1]
    targets_BT, weights_BT = ids_BT[:, 1:], weights_BT[:, 1:]
    chosen = weights_BT > 0
    logits_NV = model.lm_head(hidden_BTD[chosen])
    targets_N, weights_N = targets_BT[chosen], weights_BT[chosen]
    losses_N = functional.cross_entropy(logits_NV, targets_N, reduction="none")
    answer_N = weights_N >= 1
    hits = (logits_NV.argmax(-1) == targets_N)[answer_N].sum().item()
    return (losses_N * weights_N).sum() / weights_N.sum(), float(hits), float(answer_N.sum().item())


class Optimizers:
    """Muon on hidden matrices, AdamW on embeddings and norms, one warm-up/constant/linear-decay schedule."""

    def __init__(self, model: Any, muon_lr: float, adam_lr: float) -> None:
        matrices = [
            p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n
        ]
        chosen = {id(p) for p in matrices}
        others = [p for p in model.parameters() if id(p) not in chosen]
        self.all = [
            Muon(matrices, lr=muon_lr, momentum=0.95, weight_decay=0.02),
            torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.base = [muon_lr, adam_lr]

    def step(self, progress: float, warmup: float = 0.01, decay: float = 0.4) -> None:
        """`progress` in [0, 1] of the token budget."""
        factor = min(1.0, progress / warmup + 1e-3, max(0.02, (1 - progress) / decay))
        for optimizer, base in zip(self.all, self.base, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = base * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[Any]:
        return [o.state_dict() for o in self.all]


def train(
    model: Any,
    samples: Iterator[Sample],
    *,
    tokens: int,
    batch_tokens: int,
    muon_lr: float,
    adam_lr: float,
    save_every: int,
    save: Any,
    log: Path,
) -> None:
    """Train until `tokens` tokens were seen; `save(model, tokens_seen)` about every `save_every` tokens.

    Raises RuntimeError where the loss is no longer finite.
    """
    optimizers = Optimizers(model, muon_lr, adam_lr)
    model.train()
    seen, saved, started = 0, 0, time.time()
    hits = count = 0.0
    losses: list[float] = []
    for step, batch in enumerate(batches(samples, batch_tokens), start=1):
        loss, hit, n = weighted_loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step(seen / tokens)
        seen += sum(len(s.ids) for s in batch)
        hits, count = hits + hit, count + n
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise RuntimeError(
                f"The training loss became {losses[-1]} at step {step}; lower the learning rates."
            )
        if step % 20 == 0:
            row = {
                "step": step,
                "tokens": seen,
                "loss": round(sum(losses) / len(losses), 4),
                "answer_accuracy": round(hits / max(count, 1), 4),
                "tokens_per_s": round(seen / (time.time() - started)),
            }
            with log.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
            hits = count = 0.0
            losses = []
        if seen - saved >= save_every or seen >= tokens:
            saved = seen
            model.eval()
            save(model, seen)
            model.train()
        if seen >= tokens:
            return
