"""What a run makes of its config before anything is played: its models, and how episodes are played.

Shared by the story of a run (`sage.run`) and by the page about a pair of models (`sage.check`).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from sage.config.schema import RunConfig
from sage.policy.decoding.answer import Sampling
from sage.policy.models.layers import reach
from sage.policy.models.load import LanguageModel, load_model
from sage.policy.rollout import PlaySettings
from sage.training.batch import Pair, pair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sage.config.schema import PromptStyle


def load_models(
    config: RunConfig, student: LanguageModel, tokenizer: PreTrainedTokenizerBase | None = None
) -> Pair:
    """Student, teacher, and the reference model where the divergence has one: as they are now."""
    teacher = load_model(config.teacher, role="teacher", tokenizer=tokenizer)
    anchor = config.divergence.anchor
    if anchor is None:
        return pair(student, teacher)
    if anchor.reference == "student":
        return pair(student, teacher, copy.deepcopy(student))
    return pair(student, teacher, load_model(config.teacher.model_copy(update={"path": anchor.reference})))


def training_settings(config: RunConfig, style: PromptStyle, student: LanguageModel) -> PlaySettings:
    """How training episodes are played."""
    how = config.rollout
    sampling = Sampling(how.temperature, how.top_p, how.max_new_tokens, style.stop or None)
    return _play_settings(config, style, student, sampling, "train")


def evaluation_settings(config: RunConfig, style: PromptStyle, student: LanguageModel) -> PlaySettings:
    """How evaluation episodes are played."""
    how = config.evaluation
    sampling = Sampling(how.temperature, how.top_p, config.rollout.max_new_tokens, style.stop or None)
    return _play_settings(config, style, student, sampling, "evaluation")


def _play_settings(
    config: RunConfig, style: PromptStyle, student: LanguageModel, sampling: Sampling, stream: str
) -> PlaySettings:
    return PlaySettings(
        sampling=sampling,
        style=style,
        seed=config.seed,
        stream=stream,
        turn_budget=config.env.turn_budget,
        max_context=min(config.rollout.max_context, reach(student) or config.rollout.max_context),
        slots=config.speed.slots,
        engine=config.speed.engine,
        decoder=config.rollout.decoder,
        draft_tokens=config.speed.draft_tokens,
        vllm=config.speed.vllm,
    )
