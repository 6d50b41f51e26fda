"""What a run found, computed from its tables alone: read by the terminal, the exporter and the run table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from sage.episode import Label, Status
from sage.records.clock import PHASES
from sage.records.intervals import wilson
from sage.records.ledger import Ledger, ledger
from sage.records.phase_speed import PhaseSpeed, phase_speeds
from sage.records.tables import read

Counts = dict[tuple[Any, ...], tuple[int, int]]
"""Format slips, and the turns about which that is known, by (phase, step, split)."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Success of one evaluation of one split. `n` counts ok episodes, `not_ok` the others."""

    step: int
    won: int
    n: int
    not_ok: int
    mean_score: float | None = None
    """In the environment's own unit, over the ok episodes."""
    mean_score_clipped: float | None = None
    """The same with negative scores as 0 (ScienceWorld takes 100 points for one wrong `focus on`)."""
    mean_turns: float | None = None
    context_full: int = 0
    """Of the ok episodes, those that `rollout.max_context` cut; none of them is won."""
    slips: int = 0
    """Turns that failed by their format alone (`format_slip`), over all its episodes."""
    slip_turns: int = 0
    """Turns about which that is known."""

    @property
    def rate(self) -> float | None:
        """Share won of the ok episodes; None without any."""
        return self.won / self.n if self.n else None

    @property
    def bounds(self) -> tuple[float, float]:
        """The rate were all episodes that are not ok lost, or all won; (0, 1) without any episode."""
        count = self.n + self.not_ok
        return (self.won / count, (self.won + self.not_ok) / count) if count else (0.0, 1.0)

    @property
    def slip_share(self) -> float | None:
        """Share of turns whose command was admissible but for its format; None where that is not known."""
        return self.slips / self.slip_turns if self.slip_turns else None

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson 95 %: this checkpoint on games like these, nothing about other seeds."""
        return wilson(self.won, self.n)


@dataclass(frozen=True, slots=True)
class SplitResult:
    """All evaluations of one split, by step. `sources` says where its games came from."""

    split: str
    sources: tuple[str, ...]
    rates: tuple[Rate, ...]

    @property
    def before(self) -> Rate | None:
        """Before any training (step 0)."""
        return self.rates[0] if self.rates and self.rates[0].step == 0 else None

    @property
    def after(self) -> Rate | None:
        """The latest one after training began."""
        return self.rates[-1] if self.rates and self.rates[-1].step > 0 else None

    @property
    def gain_points(self) -> float | None:
        """Percentage points from before to after."""
        if self.before is None or self.after is None or self.before.rate is None or self.after.rate is None:
            return None
        return 100 * (self.after.rate - self.before.rate)


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of a run in plain data."""

    run: str
    method: str
    env: str
    seed: int | None
    steps: int
    splits: tuple[SplitResult, ...]
    train: Rate | None
    """All training episodes together."""
    label_shares: dict[str, float]
    """Share of each label among judged training turns."""
    labelled_turns: int
    seconds: dict[str, float] = field(default_factory=dict)
    skipped_steps: int = 0
    """Steps without an update, because every turn was skipped."""
    graded: bool = False
    """Whether the environment's score says more than won or not: some score is neither 0 nor 1."""
    ledger: Ledger | None = None
    """Tokens spent in training; None where no step was made."""
    speed: tuple[PhaseSpeed, ...] = ()
    """What each phase of training reached; nothing where no step was made."""
    judged: int = 0
    """Training turns that the judge was asked about."""
    fallback: int = 0
    """Those of them whose reply gave no label."""
    retried: int = 0
    """Episodes that were played again with fewer rows, because a model failed on their batch."""

    @property
    def not_ok(self) -> int:
        """Episodes that say nothing about the agent, over the whole run."""
        counted = [rate for split in self.splits for rate in split.rates]
        return sum(rate.not_ok for rate in ([*counted, self.train] if self.train else counted))

    @property
    def context_full(self) -> tuple[int, int]:
        """Episodes that `rollout.max_context` cut, over all evaluations and over all of training."""
        evaluated = sum(rate.context_full for split in self.splits for rate in split.rates)
        return evaluated, self.train.context_full if self.train else 0

    def macro_rate(self, when: Literal["before", "after"]) -> float | None:
        """Mean of the splits' success rates, each split counting once; None unless every split has one."""
        found = [getattr(split, when) for split in self.splits]
        rates = [rate.rate for rate in found if rate is not None and rate.rate is not None]
        return sum(rates) / len(rates) if rates and len(rates) == len(self.splits) else None

    def to_json(self) -> dict[str, Any]:
        """Plain data with the derived figures, for `summary.json`."""
        data = asdict(self) | {"ledger": self.ledger.to_json() if self.ledger else None}
        for split, plain in zip(self.splits, data["splits"], strict=True):
            plain["gain_points"] = split.gain_points
            for rate, row in zip(split.rates, plain["rates"], strict=True):
                row |= _derived(rate)
        if self.train is not None:
            data["train"] |= _derived(self.train)
        data["fallback_share"] = self.fallback / self.judged if self.judged else None
        return data


def summarize(folder: Path, seconds: Mapping[str, float] | None = None) -> Summary:
    """Summary of a finished or half-finished run directory.

    `seconds` are the wall times by phase; without them, those of the steps table are added up.
    """
    keys = ["run", "method", "env", "seed", "step"]
    columns = [*keys, "source", "phase", "split", "ok", "status", "won", "score", "turns"]
    episodes = read(folder, "episodes", [*columns, "retries"]).to_pylist()
    turns = read(folder, "turns", ["phase", "step", "split", "label", "judge_cached", "format_slip"])
    labels = Counter(turns.column("label").drop_null().to_pylist())
    asked = turns.filter(pc.field("judge_cached").is_valid()).column("label").to_pylist()
    slips = _slips(turns)
    steps = read(folder, "steps").to_pylist()

    training = [row for row in episodes if row["phase"] == "train"]
    first: dict[str, Any] = next(iter([*episodes, *steps]), {})
    total = sum(labels.values())
    return Summary(
        run=first.get("run", ""),
        method=first.get("method", ""),
        env=first.get("env", ""),
        seed=first.get("seed"),
        steps=max((row["step"] for row in steps), default=0),
        splits=_split_results([row for row in episodes if row["phase"] == "eval"], slips),
        train=_rate(0, training, _added(slips, "train")) if training else None,
        label_shares={label: count / total for label, count in labels.most_common()},
        labelled_turns=total,
        seconds=dict(_seconds_of(steps) if seconds is None else seconds),
        skipped_steps=sum(row["stepped"] is False for row in steps),
        graded=any(row["score"] not in (None, 0.0, 1.0) for row in episodes),
        ledger=ledger(steps) if steps else None,
        speed=phase_speeds(steps),
        judged=len(asked),
        fallback=asked.count(Label.FALLBACK),
        retried=sum(bool(row["retries"]) for row in episodes),
    )


def _seconds_of(steps: list[dict[str, Any]]) -> dict[str, float]:
    return {phase: sum(row.get(f"seconds_{phase}") or 0.0 for row in steps) for phase in PHASES}


def _split_results(evaluated: list[dict[str, Any]], slips: Counts) -> tuple[SplitResult, ...]:
    groups: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for row in evaluated:
        groups.setdefault(row["split"], {}).setdefault(row["step"], []).append(row)
    return tuple(
        SplitResult(
            split=split,
            sources=tuple(sorted({row["source"] for rows in by_step.values() for row in rows})),
            rates=tuple(_rate(step, by_step[step], slips["eval", step, split]) for step in sorted(by_step)),
        )
        for split, by_step in groups.items()
    )


def _derived(rate: Rate) -> dict[str, Any]:
    return {
        "rate": rate.rate,
        "interval": list(rate.interval),
        "bounds": list(rate.bounds),
        "slip_share": rate.slip_share,
    }


def _slips(turns: pa.Table) -> Counts:
    counts: Counts = defaultdict(lambda: (0, 0))
    known = turns.filter(pc.field("format_slip").is_valid())
    columns = [known.column(name).to_pylist() for name in ("phase", "step", "split", "format_slip")]
    for (*place, slipped), n in Counter(zip(*columns, strict=True)).items():
        slips, of = counts[tuple(place)]
        counts[tuple(place)] = (slips + n * slipped, of + n)
    return counts


def _added(counts: Counts, phase: str) -> tuple[int, int]:
    found = [count for place, count in counts.items() if place[0] == phase]
    return sum(slips for slips, _ in found), sum(of for _, of in found)


def _rate(step: int, rows: list[dict[str, Any]], slips: tuple[int, int]) -> Rate:
    ok = [row for row in rows if row["ok"]]
    return Rate(
        step=step,
        won=sum(bool(row["won"]) for row in ok),
        n=len(ok),
        not_ok=len(rows) - len(ok),
        mean_score=_mean([row["score"] for row in ok]),
        mean_score_clipped=_mean([None if row["score"] is None else max(0.0, row["score"]) for row in ok]),
        mean_turns=_mean([row["turns"] for row in ok]),
        slips=slips[0],
        slip_turns=slips[1],
        context_full=sum(row["status"] == Status.CONTEXT_FULL for row in ok),
    )


def _mean(values: list[Any]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
