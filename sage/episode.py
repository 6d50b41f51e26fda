"""The nouns everybody shares: a task, a turn, an episode, and how each can end.

Invariant: the ids an agent sampled are the ids that are trained on and scored. An `Episode` therefore
holds one list of token ids for the whole conversation, and every `Turn` only points into it
(`answer_start:answer_end`). Nothing here imports torch, a model or an environment.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """How an episode ended. All but the last two are data about the agent."""

    WON = "won"
    """The environment reported success within the turn budget."""
    LOST = "lost"
    """The environment ended the episode without success."""
    TURN_BUDGET = "turn_budget"
    """The turn budget ran out first."""
    CONTEXT_FULL = "context_full"
    """The next turn had no room in `rollout.max_context`: not won, and counted apart, because it says as much
    about the limit as about the agent. Records older than this status call it `turn_budget`."""
    ENV_ERROR = "env_error"
    """The environment raised, died or timed out: infrastructure, never counted as a loss."""
    POLICY_ERROR = "policy_error"
    """The model could not be run on this episode: infrastructure, never counted as a loss."""

    @property
    def is_ok(self) -> bool:
        """True where the episode says something about the agent."""
        return self not in (Status.ENV_ERROR, Status.POLICY_ERROR)


class Failure(StrEnum):
    """Why a turn failed deterministically (section 3.1 of the spec); `NONE` when it did not."""

    NONE = "none"
    EMPTY = "empty"
    """The answer holds no text at all."""
    UNPARSED = "unparsed"
    """The answer has no action line."""
    SCHEMA = "schema"
    """There is an action, but it is of no form the environment knows."""
    TOOL = "tool"
    """The action called a tool that failed."""
    NO_EFFECT = "no_effect"
    """The environment says that nothing was executed (ALFWorld: `Nothing happens.`)."""


class Label(StrEnum):
    """What was decided about a turn."""

    DET_FAIL = "DET_FAIL"
    """Deterministic failure: full weight, the teacher was not asked."""
    SKIP = "SKIP"
    WEAK = "WEAK"
    STRONG = "STRONG"
    FALLBACK = "FALLBACK"
    """The judge replied with none of its three words: full weight, recorded as such."""
    ALWAYS = "ALWAYS"
    """The rule supervises every turn and asks nobody."""
    NEVER = "NEVER"
    """The rule supervises no turn."""


@dataclass(frozen=True, slots=True)
class Task:
    """One playable task of one environment.

    `id` is unique and stable within (env, source): evaluation plays each exactly once, random streams are
    keyed by it. `source` says where the game came from (`official`, `generated`, ...) and is printed in
    every table. `path` is where the environment loads it from; it is not part of the identity (`sha256` is).
    """

    id: str
    env: str
    split: str
    task_type: str
    source: str
    path: str = ""
    sha256: str = ""


@dataclass(slots=True)
class Turn:
    """One answer of the student and what came of it.

    `answer_start:answer_end` index `Episode.token_ids`; the span holds every sampled id, the stop token
    included where one was sampled. `observation` is what the agent saw before it answered (o_t), `feedback`
    what the environment said after (o_{t+1}). Distances are the expert's shortest number of steps to the
    goal, None where the environment has no expert.
    """

    index: int
    message: str
    """The user message that was sent, as text; the teacher's own template renders it again."""
    observation: str
    answer: str
    answer_start: int
    answer_end: int
    thought: str = ""
    action: str = ""
    feedback: str = ""
    admissible: tuple[str, ...] = ()
    """Admissible commands before the answer."""
    failure: Failure = Failure.NONE
    truncated: bool = False
    """True where the answer hit the per-turn token limit."""
    format_slip: bool | None = None
    """The command failed by its format alone (`sage.policy.slips`); None where that cannot be known."""
    reward: float = 0.0
    score: float = 0.0
    expert_distance_before: int | None = None
    expert_distance_after: int | None = None
    teacher_spoilt: bool | None = None
    """Whether the teacher is spoilt here (`sage.teacher.spoil`); None where it is nowhere."""

    @property
    def n_tokens(self) -> int:
        return self.answer_end - self.answer_start


@dataclass(slots=True)
class Episode:
    """A finished trajectory: the exact token ids, its turns and how it ended.

    `rollout_index` tells apart several rollouts of one task; `goal` and `scene` are the task sentence and
    the initial observation, which the judge is shown.
    """

    task: Task
    rollout_index: int = 0
    goal: str = ""
    scene: str = ""
    system: str = ""
    token_ids: list[int] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    given: list[Turn] = field(default_factory=list)
    """Turns before `turns` that somebody else played (a curriculum's teacher): history, never trained on."""
    teacher_tokens: int = 0
    """Tokens that went through the teacher so that this episode could be played: as its player or its
    guide."""
    status: Status = Status.TURN_BUDGET
    score: float = 0.0
    error: str = ""
    """One sentence for `env_error` and `policy_error`, else empty."""
    retries: int = 0
    """How often the model failed on a batch with this episode in it."""
    seconds: float = 0.0

    @property
    def won(self) -> bool:
        return self.status is Status.WON

    @property
    def all_turns(self) -> list[Turn]:
        """Every turn, whoever played it."""
        return [*self.given, *self.turns]

    @property
    def played(self) -> list[Turn]:
        """The old name of `all_turns`, read for one release by rules of one's own."""
        warnings.warn("Episode.played is Episode.all_turns now.", DeprecationWarning, stacklevel=2)
        return self.all_turns


@dataclass(frozen=True, slots=True)
class Decision:
    """The intervention decision for one turn: label and weight i_t in [0, 1].

    `propensity` is the probability with which the rule would draw this label (1.0 for a deterministic
    rule). Judge fields are empty where the teacher was not asked.
    """

    label: Label
    weight: float
    propensity: float = 1.0
    reply: str = ""
    """The judge's raw reply."""
    latency_s: float = 0.0
    cached: bool = False
    judge_tokens: int = 0


@dataclass(slots=True)
class TurnScore:
    """What the teacher pass says about one turn: means over the turn's tokens, in nats where entropies.

    `confidence` is c_t as the confidence rule made it; `top1` the teacher's mean top-1 probability at the
    rule's temperature; `divergence` the mean per-token divergence between student and teacher. None where
    it was not computed (a skipped turn that is not scored).
    """

    confidence: float | None = None
    top1: float | None = None
    teacher_entropy: float | None = None
    teacher_logprob: float | None = None
    student_logprob: float | None = None
    student_entropy: float | None = None
    divergence: float | None = None


class Effect(StrEnum):
    """The oracle's verdict on one executed turn: what it did, judged by the shortest full-information
    distance to the goal before and after it.

    With `effect_of` the one place that states the rule: the turn table, the `oracle` intervention, the
    judge's training data and the agreement study all read it.
    """

    PROGRESS = "progress"
    """The goal is nearer (or reached), or, where asked for, the turn searched a new place in vain."""
    NO_EFFECT = "no_effect"
    """As far from the goal as before."""
    HARM = "harm"
    """Farther from the goal, or out of its reach for good."""

    @property
    def label(self) -> Label:
        """The judge's word for it: SKIP, WEAK or STRONG."""
        return _LABEL[self]


_LABEL = {Effect.PROGRESS: Label.SKIP, Effect.NO_EFFECT: Label.WEAK, Effect.HARM: Label.STRONG}


def effect_of(before: int | None, after: int | None, *, searched: bool = False) -> Effect | None:
    """The effect of a turn whose distance to the goal was `before` and then `after`.

    A distance of None is a goal out of reach, or an environment without an oracle; with None on both sides
    there is nothing to tell, and the answer is None. `searched` says that the agent, still looking for
    something, saw a place it had not seen (`SearchingExpert.searched_new`). Such a turn rarely shortens the
    way of one who knows where everything is, yet it is what a good player does: it counts as progress unless
    it leads more than one step away. (Leaving a place next to the unseen goal costs that one step, and no
    player could know.) Leave it False for the strict reading, from distances alone.
    """
    if after is None:
        return None if before is None else Effect.HARM
    if before is None or after < before:
        return Effect.PROGRESS
    if searched and after <= before + 1:
        return Effect.PROGRESS
    return Effect.NO_EFFECT if after == before else Effect.HARM


@dataclass(slots=True)
class TokenScores:
    """What is recorded of the student tokens of one episode, its turns one after the other.

    Each list has one entry a token, None where nobody knows, or none at all where nothing was computed. Logs
    in nats; `top1` at the confidence rule's temperature, `likeliest` (text, probability; most likely first)
    without one.
    """

    ids: list[int] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    """Joined they are the text of each answer; empty where a character goes on in the next token."""
    student_logprob: list[float | None] = field(default_factory=list)
    student_entropy: list[float | None] = field(default_factory=list)
    teacher_logprob: list[float | None] = field(default_factory=list)
    teacher_entropy: list[float | None] = field(default_factory=list)
    divergence: list[float | None] = field(default_factory=list)
    top1: list[float | None] = field(default_factory=list)
    likeliest: list[list[tuple[str, float]]] = field(default_factory=list)
    confidence: list[float | None] = field(default_factory=list)
    weight: list[float | None] = field(default_factory=list)
    """Z s of the token."""


@dataclass(slots=True)
class TrainingEpisode:
    """An episode of training and what is said about its turns, in order; nothing where it is not ok."""

    episode: Episode
    decisions: list[Decision] = field(default_factory=list)
    scores: list[TurnScore] = field(default_factory=list)
    effective_weights: list[float] = field(default_factory=list)
    """Z s_t, mean over the turn's tokens."""
    tokens: TokenScores | None = None
    """Its tokens one by one, where it is of the sample that is recorded so (`trainer.log_tokens`)."""
