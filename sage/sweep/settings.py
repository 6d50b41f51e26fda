"""What a study is: read from the `hydra.sweeper` section that a file in `sweeps/` fills.

Read by the sweeper plugin. `definition` is what may not change while a study goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from sage.config.known import nearest
from sage.config.registry import Settings
from sage.errors import ConfigError

Value = bool | int | float | str | None


class Range(Settings):
    """An interval of one setting."""

    low: float
    high: float
    step: float | None = None
    """Grid of the interval; `grid` needs it."""
    log: bool = False
    integer: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low={self.low} is not below high={self.high}.")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a log range starts above 0 and has no step.")
        return self


class Choices(Settings):
    """Values of one setting, or options of a config group (`normalization: {choices: [none, all_token]}`)."""

    choices: list[Value] = Field(min_length=1)


class Objective(Settings):
    """One figure of a run, averaged over the seeds of a trial."""

    metric: Literal["success", "teacher_tokens"]
    """`success`: rate on `split` after training. `teacher_tokens`: all that went through the teacher."""
    direction: Literal["maximize", "minimize"]
    split: str = "valid_seen"
    """Where `success` is read; the winner is confirmed on another split."""


class SamplerSettings(Settings):
    name: Literal["tpe", "random", "grid", "cmaes", "nsga2"]
    seed: int
    """A study with the same seed and results draws the same points."""
    startup_trials: int = Field(ge=1)
    """Random trials before `tpe` or `cmaes` models anything; baselines count."""


class PruningSettings(Settings):
    """Wilcoxon test of a trial against the best one over the games both played; needs scipy."""

    p: float = Field(gt=0, lt=1)
    """A trial whose games so far are worse with a p-value below this runs no further seed."""


class ConfirmSettings(Settings):
    """`python -m sage confirm sweep=...`"""

    seeds: list[int] = Field(min_length=1)
    """None of them may be a seed of the search."""
    split: str
    """Held-out games; not the split of the search."""


class SweepSettings(Settings):
    """One study. `confidence_threshold.yaml` in `sweeps/` is the example to copy."""

    study: str
    """Name in the store."""
    storage: str | None
    """None: SQLite in `launch.runs_dir`. `journal:<file>`, or an SQLAlchemy URL (postgresql://...)."""
    n_trials: int = Field(ge=1)
    """Finished trials in all, baselines and those of earlier invocations included."""
    parallel: int = Field(ge=1)
    """Trials asked for at once; more use `launch.workers` better and tell the sampler less."""
    seeds: list[int] = Field(min_length=1)
    """Runs of one trial; their mean is its value. `seed=0,1,2` on the command line replaces it."""
    sampler: SamplerSettings
    objectives: list[Objective] = Field(min_length=1, max_length=2)
    """With two, use `nsga2` or `random`: there is a front instead of a best trial."""
    space: dict[str, Range | Choices] = Field(min_length=1)
    fixed: list[str]
    """Overrides of every run of the study; the command line's come after them."""
    baselines: list[dict[str, Value]]
    """Points of the space that are tried first."""
    references: dict[str, list[str]]
    """Name to overrides: configs outside the space that the winner is held against by `confirm`."""
    pruning: PruningSettings | None
    confirm: ConfirmSettings

    @model_validator(mode="after")
    def _fits(self) -> SweepSettings:
        if len(self.objectives) > 1 and self.sampler.name not in ("nsga2", "random", "tpe"):
            raise ValueError(
                f"The sampler {self.sampler.name} has one objective; use nsga2, tpe or random for two."
            )
        if len(self.objectives) > 1 and self.pruning is not None:
            raise ValueError("Pruning needs a single objective; set pruning: null.")
        if self.sampler.name == "grid":
            for name, part in self.space.items():
                if isinstance(part, Range) and part.step is None:
                    raise ValueError(f"The sampler grid needs a step for {name!r}, or choices.")
        for point in self.baselines:
            _check_baseline(point, self.space)
        searched = {o.split for o in self.objectives if o.metric == "success"}
        if self.confirm.split in searched or set(self.confirm.seeds) & set(self.seeds):
            raise ValueError(
                "confirm must use a split and seeds that the search does not: the best of many trials looks "
                "better there than it is."
            )
        return self

    def definition(self) -> dict[str, Any]:
        """What makes two trials comparable, in plain data."""
        kept = ("seeds", "objectives", "space", "fixed")
        return self.model_dump(mode="json", include=set(kept))


def _check_baseline(point: Mapping[str, Value], space: Mapping[str, Range | Choices]) -> None:
    if set(point) != set(space):
        raise ValueError(f"A baseline sets {sorted(point)}, and the space is {sorted(space)}.")
    for name, value in point.items():
        _check_inside(name, value, space[name])


def _check_inside(name: str, value: Value, part: Range | Choices) -> None:
    if isinstance(part, Choices):
        if value not in part.choices:
            raise ValueError(f"The baseline {name}={value} is none of the space's {part.choices}.")
    elif isinstance(value, bool) or not isinstance(value, int | float) or not part.low <= value <= part.high:
        raise ValueError(f"The baseline {name}={value} is not between {part.low} and {part.high}.")


def read(section: Mapping[str, Any]) -> SweepSettings:
    """Settings of the `hydra.sweeper` section. Raises ConfigError."""
    try:
        return SweepSettings.model_validate(dict(section))
    except ValidationError as error:
        problems = error.errors()
        problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
        # A union's branch (Range, Choices) is no name that the user has typed.
        parts = [str(p) for p in problem["loc"] if str(p) not in ("Range", "Choices")]
        where = ".".join(["hydra.sweeper", *parts])
        if problem["type"] == "extra_forbidden":
            hint = nearest(parts[-1], SweepSettings.model_fields) if len(parts) == 1 else ""
            reason = f"{where!r} is not a setting of a study{hint}"
        elif problem["type"] == "missing":
            reason = f"The setting {where!r} is missing"
            if parts == ["study"] or parts == ["space"]:
                reason = "A study needs a file that says what is searched: sweep=<a file in sweeps/>"
        elif problem["type"] == "value_error":
            reason = str(problem.get("ctx", {}).get("error", problem["msg"]))
        else:
            reason = (
                f"{where}={problem['input']!r} is refused: {problem['msg'][:1].lower()}{problem['msg'][1:]}"
            )
        raise ConfigError(reason if reason.endswith((".", "?")) else reason + ".") from error
