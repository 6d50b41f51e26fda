"""One optimizer step on real turns: the weights move, and what is saved gives the same logits when it is
loaded."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sage.check.page import Line, fine, refused, warning
from sage.check.room import free_bytes, gib, training_bytes

if TYPE_CHECKING:
    import torch

    from sage.check.pair import Subject
    from sage.episode import Episode

MOST_TOKENS = 1024
"""Most tokens of the episode that the step learns from: enough for a gradient, in seconds on a CPU."""


def step(subject: Subject) -> Iterator[Line]:
    """Changes the student's weights: the last part of a page."""
    from sage.episode import Decision, Label
    from sage.training.batch import TrainingEpisode
    from sage.training.gradient import Objective, accumulate_gradient
    from sage.training.optimizer import StudentOptimizer
    from sage.training.setup import set_passes

    if subject.models is None or not subject.episodes:
        yield fine(
            "Not looked at: nothing is trained." if subject.models is None else "Not looked at: no turns."
        )
        return
    student, config = subject.student, subject.config
    needed, free = training_bytes(student), free_bytes(student.device)
    if needed > free:
        yield refused(
            f"A step needs {gib(needed)} of memory and {gib(free)} are free; use a smaller student."
        )
        return
    notes: list[str] = []
    set_passes(config, subject.models, notes.append)
    yield from (fine(f"{note[:1].upper()}{note[1:]}.") for note in notes)
    episode = _shortened(subject.episodes[0])
    batch = [TrainingEpisode(episode, [Decision(Label.ALWAYS, 1.0) for _ in episode.turns])]
    # The whole rate at once: the first step of a warm-up is a tenth of it.
    optimizer = StudentOptimizer(student.model, config.trainer.model_copy(update={"warmup_steps": 0}))
    before = [p.detach().clone() for p in optimizer.parameters]
    rules = Objective(config.confidence, config.normalization, config.divergence)
    optimizer.clear()
    loss = accumulate_gradient(subject.models, rules, batch, micro_batch=1)
    if loss.z is None:
        yield warning(
            f"confidence={config.confidence.name} gave every one of {len(episode.turns)} turns weight 0."
        )
        return
    norm = optimizer.step()
    yield from _moved(optimizer.masters, optimizer.parameters, before, loss.loss, norm)
    del before, optimizer
    student.model.zero_grad(set_to_none=True)
    yield from _saved(subject, episode)


def _shortened(episode: Episode) -> Episode:
    """The episode's first turns, of at most `MOST_TOKENS` tokens where that leaves one."""
    from copy import copy

    kept = [turn for turn in episode.turns if turn.answer_end <= MOST_TOKENS] or episode.turns[:1]
    short = copy(episode)
    short.turns = kept
    short.token_ids = episode.token_ids[: kept[-1].answer_end]
    return short


def _moved(
    masters: Sequence[torch.Tensor],
    weights: Sequence[torch.Tensor],
    before: Sequence[torch.Tensor],
    loss: float,
    norm: float,
) -> Iterator[Line]:
    """How far the step went: the float32 masters, and the weights that play; both began at `before`."""
    of_masters, of_weights, share = _movement(masters, weights, before)
    text = (
        f"Loss {loss:.4g}, gradient norm {norm:.3g}; relative movement of the masters {of_masters:.2e}, "
        "of what plays "
        f"{of_weights:.2e} ({share:.1%} of its weights changed)"
    )
    if of_masters == 0:
        yield refused(f"{text}: nothing moved, so nothing would be learnt; raise trainer.learning_rate.")
    elif of_weights == 0:
        yield warning(f"{text}: one step is below the rounding of what plays; the masters add up over steps.")
    else:
        yield fine(f"{text}.")


PIECE = 1 << 20
"""Weights compared at a time: a second copy of an embedding costs more than reading it."""


def _movement(
    masters: Sequence[torch.Tensor], weights: Sequence[torch.Tensor], before: Sequence[torch.Tensor]
) -> tuple[float, float, float]:
    """‖now − before‖ / ‖before‖ of the masters and of the weights, and the share of the weights that
    changed."""
    of_masters = of_weights = total = 0.0
    changed = count = 0
    for three in zip(masters, weights, before, strict=True):
        for master, weight, old in zip(*(t.detach().view(-1).split(PIECE) for t in three), strict=True):
            start = old.float()
            of_masters += float((master - start).norm()) ** 2
            total += float(start.norm()) ** 2
            of_weights += float((start - weight).norm()) ** 2
            changed += int((weight != old).count_nonzero())
            count += len(old)
    size = max(total, 1e-30)
    return (of_masters / size) ** 0.5, (of_weights / size) ** 0.5, changed / count


def _saved(subject: Subject, episode: Episode) -> Iterator[Line]:
    """Save, load as a run would, and compare the logits after every token of the episode's end."""
    import torch

    from sage.policy.models.load import load_model
    from sage.policy.models.plain import plain_logits

    student = subject.student
    size = sum(p.numel() * p.element_size() for p in student.model.parameters())
    root = Path(tempfile.gettempdir())
    free = shutil.disk_usage(root).free
    if size > free:
        yield warning(f"Not saved: {gib(size)} do not fit into {root} ({gib(free)} free).")
        return
    ids = episode.token_ids[-256:]
    wanted = plain_logits(student, ids, 16)
    with tempfile.TemporaryDirectory(prefix="sage-check-") as folder:
        student.model.save_pretrained(folder)
        student.tokenizer.save_pretrained(folder)
        written = sum(file.stat().st_size for file in Path(folder).iterdir())
        again = load_model(
            subject.config.student.model_copy(
                update={"path": folder, "gguf_file": None, "revision": None, "device": str(student.device)}
            ),
            digest=False,
        )
        apart = float((plain_logits(again, ids, 16) - wanted).abs().max())
    same = torch.equal(
        torch.tensor(subject.student.tokenizer(episode.goal or "go")["input_ids"]),
        torch.tensor(again.tokenizer(episode.goal or "go")["input_ids"]),
    )
    if apart == 0 and same:
        yield fine(f"Saved ({gib(written)}), loaded: the same logits to the bit, the same tokens.")
    else:
        what = f"logits differ by up to {apart:.3g}" if apart else "its tokenizer gives other ids"
        yield refused(
            f"Saved and loaded again, {what}: a resumed run would go on with another model; use another one."
        )
