"""The run config: Hydra chooses, this model validates once at the door, and this object travels on.

YAML (`conf/`) is the only home of default values; no field here has one. Every field's docstring states
what setting it changes. What cannot change a result is said in one place, `NOT_A_RESULT`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from sage.config.loading import OWN_ARGUMENTS, LoraSettings
from sage.config.local_path import LocalPath
from sage.config.pretrain import PretrainSettings
from sage.config.prompt_texts import PromptSettings
from sage.config.ray_teacher import RaySettings
from sage.config.registry import (
    Component,
    Settings,
    confidences,
    curricula,
    divergences,
    environments,
    interventions,
    loggers,
    normalizations,
)
from sage.config.server import ServerSettings, refuse_what_a_server_cannot
from sage.config.vllm_arguments import refuse_what_changes_samples

SCHEMA_VERSION = 2
"""Version of the config's meaning; read by the run digest. Raise it when a field changes meaning.
Version 2 moved what changes only speed into the group `speed` (`sage.records.identity` reads version 1)."""

NOT_A_RESULT = (
    *("tracking", "launch", "pretrain", "speed", "env.data", "evaluation.max_not_ok", "trainer.checkpoint"),
    *(
        f"teacher.server.{name}"
        for name in (
            *("address", "key_env", "most_likeliest", "batch", "concurrency", "deadline_s", "patience_s"),
            *("wait_s", "retries", "token_budget", "cache"),
        )
    ),
    *(
        f"teacher.ray.{name}"
        for name in ("address", "name", "replicas", "num_gpus", "num_cpus", "digest", "patience_s")
    ),
)
"""Settings (dotted, with everything below them) that cannot change a result: they are no part of a run's
identity, of its recipe, or of what a plan declares. Written into `run.json`; `analysis` reads it there.
`env.data` is where an environment's files lie: what they are is in the digest of the game manifest;
`evaluation.max_not_ok` decides whether a result counts, not what it is."""


WITHOUT_EFFECT = {
    "name": "what tables call the run",
    "method": "a name in tables; what runs is the groups that the preset composed",
    "plugins": "modules that make names known",
    "env.engine": "the same games and the same text",
    "student.device": "where the student is; results agree to rounding",
    "teacher.device": "where the teacher is; results agree to rounding",
    "student.attn_implementation": "what computes its attention; results agree to rounding",
    "teacher.attn_implementation": "what computes its attention; results agree to rounding",
    "trainer.log_skipped": "what is recorded of skipped turns",
    "trainer.log_tokens": "what is recorded of single tokens",
    "env.distances": "what is recorded of the expert's distance, but for intervention=oracle",
    **{f"normalization.none.{name}": "Z is one" for name in ("scope", "epsilon", "z_max")},
    **{
        f"confidence.{rule}.teacher_temperature": "the temperature of the recorded top-1 probability alone"
        for rule in ("none", "turn_balanced", "drift", "disagreement_uncertainty")
    },
}
"""Settings that are part of a run's identity and yet change no decision, weight, token or loss, and why; of a
component by `group.component.setting`. A test walks over every setting: what is neither here nor in
`NOT_A_RESULT` has an effect (tests/test_every_setting.py)."""

WITHOUT_EFFECT_BESIDE = {
    "intervention.never": ("confidence.", "normalization.", "divergence."),
    "intervention.told": ("intervention.permuted.weak_weight",),
    "normalization.matched_scale": tuple(f"confidence.{rule}.per" for rule in ("top1", "entropy", "margin")),
    "confidence.shuffled": ("confidence.top1.per",),
}
"""What else has none beside a choice, by how its names begin: nothing is supervised; no turn
is WEAK; only the mean weight counts; a turn hands over its mean."""


def without(data: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """A copy of nested plain data that lacks the settings of these dotted names; one that is not there is no
    error."""
    left = dict(data)
    for name in names:
        head, _, rest = name.partition(".")
        if not rest:
            left.pop(head, None)
        elif isinstance(left.get(head), Mapping):
            left[head] = without(left[head], [rest])
    return left


CAME_LATER: dict[str, Any] = {
    "student.attn_implementation": None,
    "student.model_kwargs": {},
    "student.lora": None,
    "teacher.attn_implementation": None,
    "teacher.model_kwargs": {},
    "teacher.server": None,
    "trainer.log_tokens": 2,
    "teacher.ray": None,
    "judge.context": "state",
    "rollout.perturb": 0,
    "env.task_types": None,
    "teacher.spoil": None,
    "teacher.spoil_turns": "after_mistake",
    "teacher.spoil_share": 0.5,
    "teacher.spoil_with": "untrained",
}
"""Settings that are younger than runs that are still read -> the value at which they change nothing. At it
they are no part of a run's identity, so that runs and recipes from before stay what they are."""


def without_idle(data: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested plain data that lacks the settings of `CAME_LATER` that change nothing, and the groups
    that hold nothing else."""
    idle = [name for name, value in CAME_LATER.items() if _at(data, name) == value]
    left = without(data, idle)
    empty = {name.partition(".")[0] for name in idle}
    return {name: value for name, value in left.items() if name not in empty or value != {}}


def _at(data: Mapping[str, Any], name: str) -> Any:
    for part in name.split("."):
        data = data.get(part) if isinstance(data, Mapping) else None  # type: ignore[assignment]
    return data


Dtype = Literal["float32", "bfloat16", "float16"]
LoggerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$", max_length=60)]
"""Becomes a part of files' names."""
Attention = Literal["sdpa", "eager", "flex_attention", "flash_attention_2", "flash_attention_3"]


class ModelSettings(Settings):
    """Which causal LM plays (student) or scores and judges (teacher)."""

    path: str
    """A shipped model (`sage://tiny-student/<env>`: the one made for that environment, or the common one
    where it has none of its own), a local directory, or a hub name."""
    revision: str | None
    """Hub revision; recorded. None takes the default branch."""
    gguf_file: str | None
    """File name of a GGUF inside `path`, for models that come as one."""
    dtype: Dtype
    """Weights' dtype. float32 on CPU; bfloat16 halves memory on a GPU."""
    device: str
    """`auto` (cuda where there is one, else cpu), or a torch device."""
    chat_template: str | None
    """Path of a Jinja chat template that replaces the tokenizer's own; None keeps it."""
    thinking: bool
    """Whether the chat template asks for a thought before each answer (Qwen3's `enable_thinking` and its
    like). The student's setting holds when it plays, the teacher's when it judges. Give answers room:
    `rollout.max_new_tokens`, `intervention.max_new_tokens`."""

    attn_implementation: Attention | None
    """What computes the model's attention where its own layers run (training, scoring, the engine `hf`): a
    name of transformers'. None: its choice, `sdpa` where the model has it. The engines `static` and `packed`,
    and `speed.packing`, call torch's SDPA themselves."""
    model_kwargs: dict[str, Any]
    """Further arguments of transformers' `from_pretrained`: `device_map`, `quantization_config` (a mapping
    with its `quant_method`), ... What has a setting of its own (revision, dtype, ...) and what would run a
    model's own code is refused."""

    @field_validator("model_kwargs")
    @classmethod
    def _has_no_setting_of_its_own(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for name in arguments:
            if name in OWN_ARGUMENTS:
                raise ValueError(f"model_kwargs.{name} is refused: {OWN_ARGUMENTS[name]}.")
        return arguments

    @property
    def here(self) -> bool:
        """Whether its weights are read in this process; else its config and tokenizer alone are."""
        return True


class StudentSettings(ModelSettings):
    """The model that plays and learns."""

    lora: LoraSettings | None
    """Train adapters beside frozen weights. The learning rate is another one then: at 1e-6 they hardly move
    (`student=hub_lora` brings 1e-4). None trains all weights."""


class TeacherSettings(ModelSettings):
    """The model that scores and judges, in this process or elsewhere."""

    @property
    def here(self) -> bool:
        return self.server is None and self.ray is None

    server: ServerSettings | None
    """A server that holds it (`teacher=server`); `path` is then where its tokenizer and config.json are,
    whose weights are not read. None: no server does."""
    ray: RaySettings | None
    """Actors of a Ray cluster that hold it (`teacher=ray`); of `path`, tokenizer and config.json are read
    here. None: none do."""
    spoil: float | None = Field(ge=0, le=1)
    """Dose of a positive control: on some turns the logits that the student learns from are 1 − dose of the
    teacher's and dose of another's (docs/guide/positive_control.md). 0 marks those turns and changes nothing;
    null marks none."""
    spoil_turns: Literal["after_mistake", "mistake_in_history", "drawn"]
    """Which turns are spoilt: those right after a mistake (a turn that could not be executed, or that led
    away from the goal by the environment's expert), all after the first one, or `spoil_share` of them,
    drawn."""
    spoil_share: float = Field(ge=0, le=1)
    """Probability that a turn is spoilt where `spoil_turns=drawn`."""
    spoil_with: Literal["untrained", "shuffled"]
    """Whose logits are mixed in: a model of the teacher's architecture with random weights, whose confidence
    is low, or the teacher's own of shuffled words, as confident as its own."""

    @model_validator(mode="after")
    def _is_in_one_place(self) -> TeacherSettings:
        if self.server is not None and self.ray is not None:
            raise ValueError(
                "A teacher is on a server or on Ray, not on both; set teacher.server or teacher.ray to null."
            )
        return self


class DemonstrationSettings(Settings):
    """A demonstration beside the student's own episodes, for every task of a step (StableOPD's mixture)."""

    player: Literal["none", "teacher", "expert"]
    """Who plays it; only episodes that are won count, and the student imitates their tokens by −log p."""
    weight: float = Field(ge=0, le=1e6)
    """λ (StableOPD's λ_gold): weight of their mean −log p beside the loss. 0 is `player: none`."""


class JudgeSettings(Settings):
    """What the teacher is shown when it judges a turn. A rule that asks nobody takes no notice."""

    context: Literal["state", "trajectory"]
    """`state`: the paper's prompt, made of the turn and the style's `judge`. `trajectory`: the question
    stands at the end of the episode up to and with the judged turn, in the teacher's chat template: what the
    scoring pass reads anyway, so that a query costs its own tokens alone. It has those lines of the style's
    `judge` that the conversation does not say already; all where the style has no `judge_system`. Needs the
    teacher in this process."""


class RolloutSettings(Settings):
    """How training episodes are played."""

    player: Literal["student", "teacher", "expert"]
    """Who plays them: the student (on-policy), the teacher (`method=sft`), which must share the student's
    chat template, or the environment's expert (`method=sft_expert`), written in the prompt style's `answer`
    format."""
    demonstration: DemonstrationSettings
    episodes_per_task: int = Field(ge=1, le=1_000)
    """Rollouts per task (2 gives `opd_two_rollouts`)."""
    temperature: float = Field(ge=0, le=100)
    """Sampling temperature; 0 is greedy (no exploration)."""
    perturb: int = Field(ge=0, le=10_000)
    """First turns of each training episode that are drawn from the admissible commands, in the student's
    place: histories that it would not make itself. They are history and are not learnt from; they count as
    turns. Evaluation has none."""
    top_p: float = Field(gt=0, le=1)
    """Nucleus: sampled from the likeliest tokens that together have this probability; 1 keeps them all."""
    max_new_tokens: int = Field(ge=1, le=1_000_000)
    """Per turn; an answer that reaches it is marked truncated."""
    max_context: int = Field(ge=1, le=100_000_000)
    """Episode token limit (or the model's own reach, where that is less); an episode that would pass it ends
    `context_full`."""
    decoder: Literal["local", "vllm"]
    """Who samples the student's answers: our own engines (`speed.engine` says which; they agree to rounding),
    or vLLM in this process (`speed.vllm`), which draws random numbers of its own and is another result."""


class TrainerSettings(Settings):
    """The optimizer loop."""

    steps: int = Field(ge=0, le=100_000_000)
    """Optimizer steps; 0 evaluates only."""
    tasks_per_step: int = Field(ge=1, le=1_000_000)
    """Tasks drawn for one optimizer batch (over all processes)."""
    learning_rate: float = Field(gt=0, le=10)
    """AdamW's, constant after the warm-up."""
    warmup_steps: int = Field(ge=0, le=100_000_000)
    """Steps over which the learning rate rises to that, linearly; 0 for none."""
    weight_decay: float = Field(ge=0, le=100)
    """AdamW's, decoupled from the gradient."""
    rounding: Literal["nearest", "dither"]
    """How the float32 masters of a bfloat16 student become what plays. `dither`: by a threshold drawn once
    per weight, so that small steps are kept in the mean (docs/evidence/bfloat16.md). A float32 student is not
    rounded."""
    clip_norm: float = Field(gt=0, le=1e9)
    """A gradient of a larger norm (over all weights) is scaled down to it."""
    teacher_budget: int | None = Field(ge=1, le=10**15)
    """Tokens that may go through the teacher (scored, judged, played; docs/reference/methods.md). Training
    ends with the step that reaches it, or with `steps`; null for no limit. To compare methods at equal
    teacher cost."""
    checkpoint: Literal["full", "weights"]
    """What a checkpoint holds: all that a training goes on from (`full`), or the student's weights alone
    (`weights`), a third of the size, with which a run that is killed starts over, and says so."""
    log_skipped: bool
    """Whether turns of weight 0 are scored for the records too. `false` keeps them out of both models'
    vocabulary projections: the loss is the same, a step gets cheaper with the share that is skipped, and
    their confidence and divergence are missing in the turns table. A confidence that compares turns still
    reads the models at all of them. It is another result: a run with thinner records must not stand in for
    one with all of them."""
    log_tokens: int = Field(ge=0, le=1_000_000)
    """Episodes of a step whose every token is recorded in the tokens table: the first of its batch, the same
    games for every method of one seed. Costs no pass through a model and about 60 bytes a token on disk."""


class SpeedSettings(Settings):
    """How fast a run goes and how much memory it takes; never a result, and so no part of its identity."""

    engine: Literal["auto", "hf", "packed", "static", "rowwise", "stepwise"]
    """What runs our own decoding: `hf` is transformers' own forward over padded rows; `packed` runs a plain
    Llama's or Qwen's modules without padding, for small models on a CPU; `static` runs them in forwards of
    fixed shape, as CUDA graphs on a GPU, where a row never depends on its neighbours; `rowwise` runs each row
    alone and `stepwise` moreover one token at a time, for models with a running state. They agree to
    rounding, which is measured before anything is played: `auto` takes the first that is right. Where
    `rollout.decoder=vllm` it serves the teacher alone."""
    vllm: dict[str, Any]
    """Arguments of `vllm.LLM` where `rollout.decoder=vllm`: those about memory and speed (max_model_len,
    gpu_memory_utilization, ...). What would change a sample is refused: weights and numbers are the
    student's own."""
    draft_tokens: int = Field(ge=0, le=1_000)
    """Most tokens guessed ahead from the agent's own habits and checked in one forward; 0 guesses none."""
    slots: int = Field(ge=1, le=100_000)
    """Episodes decoded side by side."""
    fit_memory: bool
    """On a GPU: whether `slots`, `micro_batch` and `judge_batch` are lowered to what fits its free memory, by
    a plan made from the models' shapes before anything is played (`python -m sage check --memory 80`).
    `false` takes them as they are."""
    workers: int = Field(ge=0, le=1_024)
    """Environment processes; 0 plays in this process."""
    step_timeout_s: float = Field(gt=0, le=86_400)
    """An environment step longer than this is an `env_error`."""
    judge_batch: int = Field(ge=1, le=100_000)
    """Turns that the judge is asked about side by side."""
    judge_ahead: bool
    """The judge is asked in a thread of its own while other turns are still played, `judge_batch` at a
    time."""
    micro_batch: int = Field(ge=1, le=1_000_000)
    """Episodes per forward/backward."""
    gradient_checkpointing: Literal["auto", True, False]
    """Whether the student's layers keep their inputs alone and are computed again for the gradient: few of
    the activations, for more time. `auto` where the memory plan of a GPU has no room for an episode
    otherwise."""
    packing: Literal["auto", True, False]
    """Whether episodes that are read together stand in one sequence, each attending to itself, in place of
    padded rows. A pass then holds as many as have together at most the tokens of `micro_batch` longest
    episodes. `auto` on a GPU, for plain Llama, Mistral and Qwen; others are not packed, and `true` is refused
    for them."""
    loss_chunk: int = Field(ge=0, le=1_000_000)
    """Student tokens whose logits loss and confidence hold at a time. 0: on a GPU 512 to 2,048, or fewer
    where its memory is small; else as many as make 2^23 logits."""
    compile_loss: Literal["auto", True, False]
    """Whether what the loss makes of the logits is compiled (torch.compile), once a run: `auto` on a GPU
    alone. How long that took is said; what cannot be compiled is computed uncompiled, with a note."""
    threads: int = Field(ge=0, le=4_096)
    """torch threads of this process; 0 leaves torch's choice."""
    checkpoint_every: int = Field(ge=0, le=100_000_000)
    """Optimizer steps between complete checkpoints; 0 writes only the last one."""
    checkpoint_background: bool
    """Checkpoints are written by a thread from a copy in main memory (as large as the checkpoint) while the
    training goes on; the next one waits for it. `false` makes no copy, and the training waits."""

    matrix_rate: float | None = Field(gt=0, le=1e18)
    """Operations a second of the device's matrix products, which the records give shares of (an H100 in
    bfloat16: 790e12). null measures it once by a short product."""
    memory_rate: float | None = Field(gt=0, le=1e18)
    """Bytes a second that the device's memory reads and writes (an H100: 3.0e12). null measures it once by a
    short copy."""

    @field_validator("vllm")
    @classmethod
    def _changes_no_sample(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        refuse_what_changes_samples(arguments)
        return arguments


class EvaluationSettings(Settings):
    """What is measured before, during and after training."""

    splits: list[str] = Field(min_length=1)
    """Which are played, each once. To measure nothing set `before`, `after` and `every` off."""
    limit: int | None = Field(ge=1, le=10_000_000)
    """Only the first n tasks of each split; None plays all. Recorded beside every rate."""
    before: bool
    """Whether the student is measured before training."""
    after: bool
    """Whether it is measured after training."""
    every: int = Field(ge=0, le=100_000_000)
    """Optimizer steps between evaluations during training; 0 for none."""
    during_limit: int | None = Field(ge=1, le=10_000_000)
    """As `limit`, for the evaluations during training."""
    max_not_ok: float = Field(ge=0, le=1)
    """Largest share of an evaluation, or of a training step, that may be not ok (an environment or a model
    failed); beyond it, or where nothing is ok, the run fails and the same line tries again. Decides whether a
    result counts, never what it is."""
    temperature: float = Field(ge=0, le=100)
    """Sampling temperature of the measured games; 0 is greedy."""
    top_p: float = Field(gt=0, le=1)
    """As `rollout.top_p`, for the measured games."""

    @field_validator("splits")
    @classmethod
    def _each_once(cls, splits: list[str]) -> list[str]:
        twice = sorted({split for split in splits if splits.count(split) > 1})
        if twice:
            raise ValueError(
                f"evaluation.splits names {twice[0]!r} more than once; each split is played once."
            )
        return splits


def _component(registry: Any) -> Any:
    return Annotated[SerializeAsAny[Component], BeforeValidator(registry.build)]


class TrackingSettings(Settings):
    """Where records go beside the run directory; several at once: `tracking=[mlflow,tensorboard]`."""

    mlflow: bool
    """Export to MLflow; the run directory is complete without it."""
    uri: str
    """MLflow tracking URI; `auto` is MLFLOW_TRACKING_URI, else `sqlite:///mlflow.db` here."""
    experiment: str
    """MLflow experiment that the run goes to; made where it is missing."""
    traces: int = Field(ge=0, le=1_000_000)
    """Won and lost episodes (each up to this many) exported to MLflow turn by turn."""
    system_every_s: float = Field(ge=0, le=3600)
    """Seconds between two samples of what the run takes of its machine (cores, memory, GPU), which are kept
    in `system.jsonl` and are MLflow's system metrics; 0: none."""
    loggers: dict[LoggerName, _component(loggers)]  # type: ignore[valid-type]
    """Loggers beside MLflow, by name (docs/guide/tracking.md)."""

    @field_validator("loggers")
    @classmethod
    def _no_other_mlflow(cls, loggers: dict[str, Component]) -> dict[str, Component]:
        if "mlflow" in loggers:
            raise ValueError("MLflow is switched on by tracking.mlflow=true, not among tracking.loggers.")
        return loggers


class LaunchSettings(Settings):
    """How runs are started; never changes a result."""

    runs_dir: LocalPath
    """Run directories are made below it."""
    access: Literal["owner", "group", "all"]
    """Who may use the files that are written (runs, databases, logs): their owner alone, its group too (to
    read and go on with), or everybody (to read)."""
    workers: int = Field(ge=1, le=1_024)
    """Runs side by side in a multirun."""
    on_existing: Literal["skip", "resume", "rerun", "error"]
    """What to do where this exact run exists already."""
    plan: str | None
    """Frozen plan that the run serves (its file, or its name in `conf/plan/`); its hash is recorded, and only
    runs that carry it can be confirmatory."""
    until: Literal["all", "decided"]
    """Of a study whose runs serve a plan with looks: play `all` of its runs, or its seeds in blocks with a
    look after each, until every difference of the plan is `decided`."""
    judge_cache: LocalPath | None
    """SQLite file that keeps the judge's raw replies across runs of one teacher, several at once too. A reply
    from it costs nothing and is recorded as cached; the ledger of judge tokens shrinks. None: this run."""


class RunConfig(Settings):
    """One run, completely. Made by `sage.config.load.load`."""

    task: Literal["train", "evaluate", "pretrain"]
    """`train` evaluates, distils and evaluates; `evaluate` only evaluates; `pretrain` makes tiny models."""
    seed: int = Field(ge=0, le=2**63 - 1)
    """Everything random derives from it."""
    env: _component(environments)  # type: ignore[valid-type]
    prompt: PromptSettings
    student: StudentSettings
    teacher: TeacherSettings
    intervention: _component(interventions)  # type: ignore[valid-type]
    confidence: _component(confidences)  # type: ignore[valid-type]
    normalization: _component(normalizations)  # type: ignore[valid-type]
    divergence: _component(divergences)  # type: ignore[valid-type]
    curriculum: _component(curricula)  # type: ignore[valid-type]
    method: str
    """The preset: which parts were chosen where the line says nothing else."""
    name: str = Field(min_length=1, max_length=120)
    """What the run is called in every table. `auto` is the preset and what differs from it
    (`sage_opd+intervention=never`); runs of one recipe share a name, and only they."""
    judge: JudgeSettings
    rollout: RolloutSettings
    trainer: TrainerSettings
    speed: SpeedSettings
    evaluation: EvaluationSettings
    pretrain: PretrainSettings
    tracking: TrackingSettings
    launch: LaunchSettings
    plugins: list[str]
    """Python modules imported before validation; they register components of their own. Those of an
    installed package with an entry point (docs/guide/own_parts.md) are put in where a run takes one."""

    @model_validator(mode="after")
    def _loss_fits_the_play(self) -> RunConfig:
        self.divergence.sampled_at(self.rollout.temperature, self.rollout.top_p)  # or it refuses
        if self.divergence.from_samples and self.rollout.player != "student":
            raise ValueError(
                f"divergence={self.divergence.name} needs tokens that the student sampled, and they come "
                f"from rollout.player={self.rollout.player}; set it to student, or divergence=nll to imitate."
            )
        return self

    @model_validator(mode="after")
    def _the_server_knows_enough(self) -> RunConfig:
        server = self.teacher.server
        if server is not None and self.task == "train":
            refuse_what_a_server_cannot(
                server.most_likeliest,
                {
                    f"divergence={self.divergence.name}": self.divergence.likeliest,
                    f"confidence={self.confidence.name}": self.confidence.likeliest,
                },
                self.confidence.teacher_temperature,
                self._teacher_plays(),
            )
        return self

    @model_validator(mode="after")
    def _ray_only_scores_and_judges(self) -> RunConfig:
        if self.teacher.ray is not None and self.task == "train":
            for what, does in self._teacher_plays().items():
                if does:
                    raise ValueError(
                        f"{what} has the teacher play, and a teacher on Ray scores and judges only; load it"
                        " here."
                    )
        return self

    @model_validator(mode="after")
    def _a_spoilt_teacher_is_here_and_read(self) -> RunConfig:
        if self.teacher.spoil is None or self.task != "train":
            return self
        if not self.teacher.here:
            raise ValueError(
                "teacher.spoil changes what a teacher in this process says, and this one is elsewhere "
                "(teacher=server or teacher=ray); load it here, or set teacher.spoil=null."
            )
        if self.rollout.player != "student":
            raise ValueError(
                "teacher.spoil changes what the teacher says of the student's turns, and "
                f"rollout.player={self.rollout.player} has none; set it to student, or teacher.spoil=null."
            )
        if self.teacher.spoil_turns != "drawn" and getattr(self.env, "distances", True) is False:
            raise ValueError(
                f"teacher.spoil_turns={self.teacher.spoil_turns} reads the expert's distances, and "
                "env.distances=false leaves them out; set it to true, or teacher.spoil_turns=drawn."
            )
        return self

    @model_validator(mode="after")
    def _only_the_student_is_perturbed(self) -> RunConfig:
        guided = self.curriculum.last_turns(1, self.env.turn_budget) is not None
        if self.rollout.perturb and self.task == "train" and (guided or self.rollout.player != "student"):
            who = f"curriculum={self.curriculum.name}" if guided else f"rollout.player={self.rollout.player}"
            raise ValueError(
                f"rollout.perturb plays the first turns in the student's place, and {who} has others play; "
                "use one of the two."
            )
        if self.task == "train" and self.rollout.perturb >= self.env.turn_budget:
            raise ValueError(
                f"rollout.perturb={self.rollout.perturb} leaves the student none of the "
                f"{self.env.turn_budget} turns of env.turn_budget; lower the one or raise the other."
            )
        return self

    def _teacher_plays(self) -> dict[str, bool]:
        """By setting, whether it has the teacher play."""
        shown = self.rollout.demonstration
        backwards = self.curriculum.last_turns(1, self.env.turn_budget) is not None
        return {
            "rollout.player=teacher": self.rollout.player == "teacher",
            "rollout.demonstration.player=teacher": shown.player == "teacher" and shown.weight > 0,
            f"curriculum={self.curriculum.name}": backwards,
        }

    @model_validator(mode="after")
    def _the_trajectory_is_read_here(self) -> RunConfig:
        if self.judge.context == "state" or self.intervention.query is None or self.task != "train":
            return self
        if not self.teacher.here:
            raise ValueError(
                "judge.context=trajectory asks from what the scoring pass has in its memory, and the teacher "
                "is elsewhere (teacher=server or teacher=ray); load it here, or set judge.context=state."
            )
        if self.speed.judge_ahead:
            raise ValueError(
                "judge.context=trajectory asks in the scoring pass, when all have played, and "
                "speed.judge_ahead=true asks before; set it to false, or judge.context=state."
            )
        return self

    @model_validator(mode="after")
    def _vllm_holds_an_episode(self) -> RunConfig:
        room, most = self.speed.vllm.get("max_model_len"), self.rollout.max_context
        if self.rollout.decoder == "vllm" and isinstance(room, int) and room < most:
            raise ValueError(
                f"speed.vllm.max_model_len={room} is less than rollout.max_context={most}, and would cut "
                "answers off; raise the one, or lower the other, which is a result."
            )
        return self

    @model_validator(mode="after")
    def _a_step_may_take_its_time(self) -> RunConfig:
        longest = self.env.longest_step_s()
        if longest > self.speed.step_timeout_s:
            raise ValueError(
                f"A step of env={self.env.name} may take {longest:g} s by its own limits (as "
                f"env.retrievers.http.deadline_s), and speed.step_timeout_s={self.speed.step_timeout_s:g} is "
                "shorter; lower the one or raise the other."
            )
        return self

    @model_validator(mode="after")
    def _the_oracle_is_asked(self) -> RunConfig:
        rule, env = self.intervention, self.env
        if self.task == "train" and rule.needs_distances and not env.gives_distances():
            way_out = (
                "set env.distances=true"
                if getattr(env, "distances", True) is False
                else "choose another rule, or an environment whose settings' gives_distances() says that it"
                " has expert_distance()"
            )
            raise ValueError(
                f"intervention={rule.name} labels turns by the expert's distance to the goal, which "
                f"env={env.name} does not give here; {way_out}."
            )
        return self

    def digest_fields(self) -> dict[str, Any]:
        """Plain data of everything that can change a result: all but `NOT_A_RESULT`, and but `CAME_LATER`
        where it changes nothing."""
        return without_idle(without(self.model_dump(mode="json"), NOT_A_RESULT))
