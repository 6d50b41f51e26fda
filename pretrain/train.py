"""Supervised training of a model on a stream of token sequences with per-token loss weights.

Muon for the matrices and AdamW for the rest: on these sizes it reaches the same loss in about half the
tokens of AdamW alone. The stream never repeats a game, because variety is what a small model lacks.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from pretrain.muon import Muon
from sage.errors import NotFinite, OutOfMemory, is_out_of_memory
from sage.policy.models.hidden_states import head, hidden_states

if TYPE_CHECKING:
    from pretrain.learner import Learner
    from sage.policy.models.load import LanguageModel


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


def weighted_loss(lm: LanguageModel, batch: list[Sample]) -> tuple[torch.Tensor, float, float]:
    """(mean weighted cross-entropy, hits and count over tokens of weight 1). N predicted tokens, V logits."""
    chosen = [[t for t, weight in enumerate(s.weights) if t and weight > 0] for s in batch]
    hidden_ND = hidden_states(lm, [s.ids for s in batch], [[t - 1 for t in places] for places in chosen])
    output = head(lm)
    logits_NV = output.logits(hidden_ND, output.rows)
    pairs = [(s.ids[t], s.weights[t]) for s, places in zip(batch, chosen, strict=True) for t in places]
    targets_N = torch.tensor([target for target, _ in pairs], device=lm.device)
    weights_N = torch.tensor([weight for _, weight in pairs], device=lm.device)
    losses_N = functional.cross_entropy(logits_NV, targets_N, reduction="none")
    answer_N = weights_N >= 1
    hits = (logits_NV.argmax(-1) == targets_N)[answer_N].sum().item()
    return (losses_N * weights_N).sum() / weights_N.sum(), float(hits), float(answer_N.sum().item())


class Optimizers:
    """Muon on hidden matrices, AdamW on embeddings and norms, one warm-up/constant/linear-decay schedule;
    AdamW on all of them where there is no `muon_lr`."""

    def __init__(self, model: Any, muon_lr: float | None, adam_lr: float) -> None:
        matrices = [
            p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n
        ]
        chosen = {id(p) for p in matrices} if muon_lr is not None else set()
        others = [p for p in model.parameters() if id(p) not in chosen]
        self.all: list[torch.optim.Optimizer] = []
        self.base: list[float] = []
        if muon_lr is not None:
            self.all.append(Muon(matrices, lr=muon_lr, momentum=0.95, weight_decay=0.02))
            self.base.append(muon_lr)
        self.all.append(torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0))
        self.base.append(adam_lr)

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
    learner: Learner,
    samples: Iterator[Sample],
    *,
    tokens: int,
    batch_tokens: int,
    muon_lr: float | None,
    adam_lr: float,
    save_every: int,
    save: Callable[[int], None],
    log: Path,
) -> None:
    """Train until `tokens` tokens were seen; `save(tokens_seen)` about every `save_every` tokens.

    Raises NotFinite where the loss is no longer finite, OutOfMemory where a batch does not fit.
    """
    lm, model = learner.lm, learner.lm.model
    optimizers = Optimizers(model, muon_lr, adam_lr)
    model.train()
    seen, saved, started = 0, 0, time.time()
    hits = count = 0.0
    losses: list[float] = []
    for step, batch in enumerate(batches(samples, batch_tokens), start=1):
        try:
            with torch.autocast(lm.device.type, torch.bfloat16, enabled=learner.half):
                loss, hit, n = weighted_loss(lm, batch)
            loss.backward()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(f"pretraining's step {step}", error, "lower pretrain.batch_tokens") from error
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step(seen / tokens)
        seen += sum(len(s.ids) for s in batch)
        hits, count = hits + hit, count + n
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise NotFinite(
                f"The training loss became {losses[-1]} at step {step}; lower pretrain.adam_lr"
                f"{'' if muon_lr is None else ' and pretrain.muon_lr'}."
            )
        if step % 20 == 0 or seen >= tokens:
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
            save(seen)
            model.train()
        if seen >= tokens:
            return
