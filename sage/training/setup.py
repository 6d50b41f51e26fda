"""What a run makes of its config before anything is played: its models, what is to be said about them, and
how episodes are played.

Shared by the story of a run (`sage.run`) and by the page about a pair of models (`sage.check`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sage.policy.decoding.answer import Sampling
from sage.policy.decoding.engine import right_engine
from sage.policy.models.chat_format import dated
from sage.policy.models.layers import reach
from sage.policy.models.load import LanguageModel, load_model
from sage.policy.models.lora import add_adapters, is_adapted
from sage.policy.models.shape import Shape, shape_of
from sage.policy.rollout import PlaySettings
from sage.records.activity import doing
from sage.teacher.elsewhere import RemoteTeacher, Teacher, reach_of
from sage.teacher.places import load_teacher
from sage.teacher.vocabulary import ignored
from sage.training.batch import Models, match_models
from sage.training.memory import Plan, fitted, need_of, over_processes, plan
from sage.training.passes import prepare
from sage.training.processes import launched

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sage.config.prompt_texts import PromptStyle
    from sage.config.schema import RunConfig
    from sage.policy.context import SplitContext


def load_student(config: RunConfig, tokenizer: PreTrainedTokenizerBase | None = None) -> LanguageModel:
    """`tokenizer`: where it has been loaded already."""
    return load_model(config.student, role="student", tokenizer=tokenizer)


def load_models(
    config: RunConfig,
    student: LanguageModel,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    folder: Path | None = None,
    say: Callable[[str], None] = print,
) -> Models:
    """Student, teacher, and the reference model where the divergence has one: as they are now, and the
    student with the adapters that it is to learn.

    `tokenizer`: the teacher's, where it has been loaded already. `folder` and `say` are for a teacher
    elsewhere (`load_teacher`).
    """
    if config.student.lora is not None:
        add_adapters(student, config.student.lora, seed=config.seed)
    with doing(f"{'loading' if config.teacher.here else 'looking for'} the teacher {config.teacher.path}"):
        teacher = load_teacher(config, tokenizer, folder=folder, say=say)
    anchor = config.divergence.anchor
    if anchor is None:
        return match_models(student, teacher)
    if anchor.reference == "student":
        return match_models(student, teacher, copy.deepcopy(student))
    with doing(f"loading the reference model {anchor.reference}"):
        reference = load_model(config.teacher.model_copy(update={"path": anchor.reference}))
    return match_models(student, teacher, reference)


def check_engines(config: RunConfig, student: LanguageModel, models: Models | None) -> None:
    """Raises ModelError where what would decode is not right for a model, before anything is played."""
    engine = config.speed.engine
    if config.rollout.decoder == "local":
        right_engine(student, engine)
    replies = config.intervention.query is not None or config.rollout.player == "teacher"
    if models is not None and replies and not isinstance(models.teacher, RemoteTeacher):
        right_engine(models.teacher, engine)


def set_passes(config: RunConfig, models: Models | None, say: Callable[[str], None]) -> None:
    """Set how the models are read in training passes (`sage.training.passes.prepare`, which may refuse)."""
    if models is not None:
        read = {"student": models.student, "teacher": models.teacher, "reference": models.reference}
        here = {role: lm for role, lm in read.items() if isinstance(lm, LanguageModel)}
        used = [f"{role} {lm.model.config._attn_implementation}" for role, lm in here.items()]
        say(f"attention: {', '.join(used)}")
        prepare(config.speed, models.student, [lm for lm in here.values() if lm is not models.student], say)


def digests(student: LanguageModel, models: Models | None) -> dict[str, str]:
    """What each model's weights are, by role."""
    found = {"student": student.digest}
    if models is not None:
        found["teacher"] = models.teacher.digest
        if models.reference is not None:
            found["reference"] = models.reference.digest
    return found


def template_dates(student: LanguageModel, models: Models | None) -> dict[str, str]:
    """The date that each chat template prints where it asks for today's."""
    read = _read(student, models)
    return {role: date for role, lm in read.items() if (date := dated(lm.tokenizer)) is not None}


def shorter_context(config: RunConfig, student: LanguageModel, models: Models | None) -> str:
    """That episodes end before rollout.max_context, because a model does not reach that far; or nothing."""
    read = _read(student, models)
    reaches = {role: length for role, lm in read.items() if (length := reach_of(lm)) is not None}
    short = {role: n for role, n in reaches.items() if n < config.rollout.max_context}
    if not short:
        return ""
    ends = [f"training episodes end context_full at {min(short.values()):,}"] if models else []
    ends += [f"evaluations at {short['student']:,}"] if "student" in short else []
    models_end = " and ".join(f"the {role} reaches {n:,} tokens" for role, n in short.items())
    return f"rollout.max_context is {config.rollout.max_context:,}, and {models_end}: {', '.join(ends)}."


def ignored_tokens(models: Models | None) -> str:
    """What the teacher's tokenizer knows beyond the student's; empty where that is nothing."""
    if models is None:
        return ""
    return ignored(models.student.tokenizer, models.teacher.tokenizer, models.teacher.name)


def left_out_weights(student: LanguageModel, models: Models | None) -> list[str]:
    """About the weights of each checkpoint that take no part, once each."""
    return list(dict.fromkeys(lm.left_out for lm in _read(student, models).values()))


def _read(student: LanguageModel, models: Models | None) -> dict[str, Teacher]:
    """The models that read conversations, by role."""
    return {"student": student, "teacher": models.teacher} if models else {"student": student}


def plan_memory(
    config: RunConfig, student: LanguageModel, models: Models | None, context: Sequence[SplitContext]
) -> Plan | None:
    """The plan for the GPU that the loaded models are on, as `speed.fit_memory` says; None on a CPU, or where
    the models are on two devices. A reference model counts as memory that is not free."""
    import torch

    read = list(_read(student, models).values())
    here = [lm for lm in read if not isinstance(lm, RemoteTeacher)]
    if student.device.type != "cuda" or any(lm.device != student.device for lm in here):
        return None
    shapes = [_shape(lm) for lm in read]
    memory = torch.cuda.mem_get_info(student.device)[0] + sum(shape.weights for shape in shapes)
    make = fitted if config.speed.fit_memory else plan
    need = over_processes(need_of(config, context), *launched())
    return make(shapes[0], shapes[1] if shapes[1:] else None, need, memory)


def as_planned(config: RunConfig, plan: Plan) -> RunConfig:
    """The config with the slots, batches and chunks of the plan; no result changes with them."""
    need = plan.need
    chosen = {"slots": need.slots, "micro_batch": need.micro_batch, "judge_batch": need.judge_batch}
    chosen |= {"loss_chunk": need.chunk, "gradient_checkpointing": need.checkpointed is True}
    return config.model_copy(update={"speed": config.speed.model_copy(update=chosen)})


def _shape(lm: Teacher) -> Shape:
    if isinstance(lm, RemoteTeacher):
        return lm.shape()
    parameters = sum(p.numel() for p in lm.model.parameters())
    trained = sum(p.numel() for p in lm.model.parameters() if p.requires_grad)
    adapted = trained if is_adapted(lm.model) else None
    return shape_of(lm.model.config, lm.model.dtype.itemsize, parameters, adapted)


def training_settings(config: RunConfig, style: PromptStyle, student: LanguageModel) -> PlaySettings:
    """How the student plays what it is trained on."""
    how = config.rollout
    sampling = Sampling(how.temperature, how.top_p, how.max_new_tokens, style.stop or None)
    return _settings(config, style, student, sampling, "train")


def evaluation_settings(config: RunConfig, style: PromptStyle, student: LanguageModel) -> PlaySettings:
    """How the student plays what it is measured by."""
    how = config.evaluation
    sampling = Sampling(how.temperature, how.top_p, config.rollout.max_new_tokens, style.stop or None)
    return _settings(config, style, student, sampling, "evaluation")


def read_by(teacher: Teacher, settings: PlaySettings, room: int = 0) -> PlaySettings:
    """`settings` for episodes that the teacher can read to their end, and `room` tokens more."""
    most, reached = settings.max_context, reach_of(teacher)
    return settings if reached is None else replace(settings, max_context=min(most, reached - room))


def _settings(
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
