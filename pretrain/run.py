"""`python -m sage task=pretrain`: teach one model on expert play and write it as a model directory.

The result holds config.json, model.safetensors, the tokenizer with its chat template, and `training.jsonl`.
Checkpoints of the run lie beside it under `checkpoints/<tokens>`: the student that ships is an early one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pretrain.corpora import Corpus
    from pretrain.learner import Learner
    from pretrain.train import Sample
    from sage.config.pretrain import PretrainSettings
    from sage.config.prompt_texts import PromptStyle
    from sage.config.schema import StudentSettings
    from sage.envs.settings import EnvSettings


def pretrain(
    settings: PretrainSettings, env: EnvSettings, style: PromptStyle, student: StudentSettings, seed: int
) -> Path:
    """Train as `settings` say on expert play in `env`; returns the model directory.

    Raises ValueError where `output` exists or nobody knows how to play `env`, and as `pretrain.learner` does.
    """
    from pretrain.corpora import find_corpus
    from pretrain.train import train

    output = Path(settings.output)
    if (output / "config.json").exists():
        raise ValueError(f"{output} already holds a model; name another pretrain.output or remove it.")
    corpus = find_corpus(env)
    learner = _learner(settings, corpus, style, student, seed)
    output.mkdir(parents=True, exist_ok=True)
    learner.lm.tokenizer.save_pretrained(output / "tokenizer")

    def save(seen: int) -> None:
        learner.save(output if seen >= settings.tokens else output / "checkpoints" / f"{seen:010d}")

    train(
        learner,
        _stream(settings, corpus, style, output / "tokenizer", seed),
        tokens=settings.tokens,
        batch_tokens=settings.batch_tokens,
        muon_lr=settings.muon_lr,
        adam_lr=settings.adam_lr,
        save_every=settings.save_every,
        save=save,
        log=output / "training.jsonl",
    )
    return output


def _learner(
    settings: PretrainSettings, corpus: Corpus, style: PromptStyle, student: StudentSettings, seed: int
) -> Learner:
    from pretrain import learner

    if settings.start == "student":
        return learner.of_student(student, settings.max_tokens)
    if settings.tokenizer is None:
        return learner.made(settings, _new_tokenizer(settings, corpus, style, seed), seed)
    from transformers import AutoTokenizer

    from sage.policy.models.folder import resolve_path

    return learner.made(settings, AutoTokenizer.from_pretrained(resolve_path(settings.tokenizer)), seed)


def _new_tokenizer(settings: PretrainSettings, corpus: Corpus, style: PromptStyle, seed: int) -> Any:
    from pretrain.tokenizer import train_tokenizer

    texts: Iterator[str] = corpus.tokenizer_texts(style, seed)
    if settings.extra_text is not None:
        lines = Path(settings.extra_text).read_text(encoding="utf-8").splitlines()
        texts = itertools.chain(texts, lines)
    assert settings.vocab_size is not None  # as the settings have checked
    return train_tokenizer(texts, settings.vocab_size)


def _stream(
    settings: PretrainSettings, corpus: Corpus, style: PromptStyle, tokenizer: Path, seed: int
) -> Iterator[Sample]:
    """Samples made by one worker process ahead of the trainer; the same order in every run."""
    from torch.utils.data import DataLoader, IterableDataset

    class Games(IterableDataset[Any]):
        def __iter__(self) -> Iterator[list[Sample]]:
            from transformers import AutoTokenizer

            from sage.policy.dialogue import Dialogue

            dialogue = Dialogue(AutoTokenizer.from_pretrained(tokenizer))
            made = corpus.samples(style, dialogue, settings, seed)
            while True:
                yield list(itertools.islice(made, 16))

    for chunk in DataLoader(Games(), batch_size=None, num_workers=1, prefetch_factor=16):
        yield from chunk
