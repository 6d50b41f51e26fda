"""The story of one run: load, evaluate, distil, evaluate, record. Read it from top to bottom.

`sage.launch.execute` has claimed the run's folder before and marks it failed if this raises. Records go to
the folder first; the MLflow export is a child process that reads them, and can do so again later.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sage.check.before import before_weights
from sage.check.page import Verdict
from sage.check.preflight import preflight
from sage.config.schema import RunConfig
from sage.console import View, open_view, print_summary
from sage.envs.manifest import spread
from sage.envs.pool import EnvPool
from sage.episode import Episode, Label, Status, Task, Turn
from sage.errors import ConfigError
from sage.objective.intervention.base import Ask, TurnContext, no_judge
from sage.policy.decoding.engine import right_engine
from sage.policy.models.chat_format import dated
from sage.policy.models.layers import reach
from sage.policy.models.load import LanguageModel, load_model
from sage.policy.prompts import choose_style
from sage.policy.rollout import OnTurns
from sage.records import provenance
from sage.records.clock import PhaseClock, phase
from sage.records.mlflow.exporter import Exporter
from sage.records.preregistration import plan_hash
from sage.records.rows import Row, RunKey, episode_rows, step_row
from sage.records.rundir import RunDir
from sage.records.summary import summarize
from sage.records.tables import Tables
from sage.records.trouble import fallback_warning
from sage.teacher.judge import TeacherJudge
from sage.teacher.vocabulary import ignored
from sage.training import checkpoint
from sage.training.batch import Pair
from sage.training.evaluate import Evaluator
from sage.training.gradient import Objective
from sage.training.loop import Rules, StepReport, distill
from sage.training.not_ok import refuse_not_ok, set_aside
from sage.training.players import golden, training_play
from sage.training.processes import Processes
from sage.training.setup import evaluation_settings, load_models, training_settings

if TYPE_CHECKING:

    from sage.config.schema import PromptStyle


def run(config: RunConfig, folder: RunDir, *, export: bool = True) -> None:
    """One run into `folder`, from its newest checkpoint on where it has one; leaves the folder `done`."""
    if config.speed.threads:
        torch.set_num_threads(config.speed.threads)
    plan = plan_hash(config.launch.plan)
    with ExitStack() as stack:
        clock = stack.enter_context(PhaseClock(_seconds_before(folder)).running())
        _look_before(config, folder)
        tasks = cache(config.env.tasks)
        checked = preflight(config, tasks)
        student = load_model(config.student, role="student", tokenizer=checked.student)
        trains = config.task == "train" and config.trainer.steps > 0
        models = load_models(config, student, checked.teacher) if trains else None
        _check_engines(config, student, models)
        processes = Processes.start(student.device)
        main = processes.is_main
        if config.rollout.decoder == "vllm" and processes.count > 1:
            raise ConfigError(
                f"rollout.decoder=vllm plays in one process, and {processes.count} were started; "
                "start one, or use rollout.decoder=local."
            )

        exporter = None
        if export and main and config.tracking.mlflow:
            exporter = Exporter(config.tracking.uri, folder.path / "mlflow_export.log")
            exporter.follow(folder.path)
        if main:
            digests = {"student": student.digest} | ({"teacher": models.teacher.digest} if models else {})
            if models is not None and models.reference is not None:
                digests["reference"] = models.reference.digest
            manifest = folder.identity().manifest_digest
            provenance.write(
                folder.path,
                manifest_digest=manifest,
                models=digests,
                plan_sha256=plan,
                plugins=config.plugins,
                template_dates=_template_dates(student, models),
            )
        steps = config.trainer.steps if trains else 0
        view = stack.enter_context(_view(config, folder, steps, main))
        style = choose_style(config.prompt, config.student.path)
        pool = EnvPool(
            config.env.make,
            config.speed.workers,
            config.speed.step_timeout_s,
            distances=config.env.gives_distances(),
        )
        stack.enter_context(pool)
        book = _Book(config, folder, view, clock, main, tasks)
        stack.enter_context(set_aside(folder, book.key, main))
        if main:
            for split in checked.context:
                folder.log(split.line())
            sentences = (_shorter_context(config, student, models), _ignored_tokens(models))
            for sentence in (*sentences, *_left_out(student, models)):
                if sentence:
                    folder.log(sentence)
                    view.say(sentence)
        evaluator = Evaluator(student, pool, evaluation_settings(config, style, student), processes)

        def evaluate(step: int, limit: int | None) -> None:
            for split in config.evaluation.splits:
                tasks = book.tasks(split, limit)
                if book.needs(step, split):
                    with phase("evaluation"):
                        view.begin(f"evaluating {split} after {step} steps", len(tasks))
                        episodes = evaluator(tasks, book.counter())
                    what = f"the evaluation of {split} after {step} steps"
                    refuse_not_ok(episodes, config.evaluation.max_not_ok, what, step)
                    book.evaluated(step, split, episodes)

        # A resumed run has recorded this one before its weights were changed.
        untrained = checkpoint.latest(folder.checkpoints) is None
        if untrained and (config.evaluation.before or not trains):
            evaluate(0, config.evaluation.limit)

        if models is not None:

            def after_step(step: int, last: bool) -> None:
                every = config.evaluation.every
                if every and step % every == 0 and not last:
                    evaluate(step, config.evaluation.during_limit)

            play = training_settings(config, style, student)
            # The teacher reads what the student plays.
            play = replace(play, max_context=min(play.max_context, reach(models.teacher) or play.max_context))
            ask = _judge(config, style, models.teacher, stack)
            done = distill(
                models=models,
                rules=Rules(
                    config.intervention,
                    config.curriculum,
                    Objective(
                        config.confidence,
                        config.normalization,
                        config.divergence.sampled_at(config.rollout.temperature, config.rollout.top_p),
                    ),
                ),
                trainer=config.trainer,
                speed=config.speed,
                seed=config.seed,
                tasks=book.tasks("train", None),
                episodes_per_task=config.rollout.episodes_per_task,
                turn_budget=config.env.turn_budget,
                play=training_play(config, models, pool, play, _ahead(config, ask)),
                gold=golden(config, models, pool, play),
                ask=ask,
                processes=processes,
                checkpoints=folder.checkpoints,
                on_step=book.stepped,
                after_step=after_step,
                max_not_ok=config.evaluation.max_not_ok,
            )
            if done.steps < steps:
                line = (
                    f"{done.teacher_tokens:,} tokens have gone through the teacher, whose budget is "
                    f"{config.trainer.teacher_budget:,}: training ended after {done.steps} of {steps} steps"
                )
                folder.log(line)
                view.say(line)
            if config.evaluation.after:
                evaluate(done.steps, config.evaluation.limit)

    if not main:
        return
    book.tables.consolidate()
    summary = summarize(folder.path, clock.totals())
    folder.write_json("summary.json", summary.to_json())
    folder.done(phase="", seconds=clock.totals())
    results = exporter.finish() if exporter else []
    problems = [result.error for result in results if result.error]
    for problem in problems:
        folder.log(problem)
    print_summary(summary, folder.path, exporter.uri if exporter else None, problems)


class _Book:
    """Writes down what happens, in the main process; in the others it only hands out the tasks."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunDir,
        view: View,
        clock: PhaseClock,
        writes: bool,
        tasks: Callable[[str], list[Task]],
    ) -> None:
        self.config, self.folder, self.view, self.clock, self.writes = config, folder, view, clock, writes
        self.tables = Tables(folder.path)
        newest = checkpoint.latest(folder.checkpoints)
        if writes:
            self.tables.resume(int(newest.name.removeprefix("step-")) if newest else 0)
        self._tasks = tasks
        source = self.tasks(config.evaluation.splits[0] if config.evaluation.splits else "train", None)
        self.key = RunKey(
            run=folder.identity().run,
            method=config.name,
            env=config.env.name,
            source=source[0].source if source else "",
            seed=config.seed,
        )
        self._won = 0
        self._judged, self._fallback, self._warned = 0, 0, False

    def tasks(self, split: str, limit: int | None) -> list[Task]:
        return spread(self._tasks(split), limit)

    def needs(self, step: int, split: str) -> bool:
        """False where a resumed run has this evaluation already; every process answers alike."""
        return not self.tables.evaluated(step, split)

    def counter(self) -> Any:
        """A callback that tells the view of each finished episode."""
        self._won = 0

        def count(episode: Episode) -> None:
            self._won += episode.won
            self.view.advance(1, f"{self._won} won")

        return count

    def evaluated(self, step: int, split: str, episodes: Sequence[Episode]) -> None:
        if not self.writes:
            return
        turns, rows = episode_rows(self.key, episodes, phase="eval", step=step)
        self.tables.append_evaluation(step, split, turns=turns, episodes=rows)
        ok = [e for e in episodes if e.status.is_ok]
        won = sum(e.won for e in ok)
        self.folder.beat(
            phase="evaluation", step=step, success=won / len(ok) if ok else None, seconds=self.clock.totals()
        )
        full = sum(e.status is Status.CONTEXT_FULL for e in ok)
        line = f"{won} of {len(ok)} won"
        line += f", {full} cut by the context" if full else ""
        line += f", {len(episodes) - len(ok)} not ok" if len(ok) < len(episodes) else ""
        self.folder.log(f"evaluation of {split} after {step} steps: {line}")
        self.view.end(line)

    def stepped(self, report: StepReport) -> None:
        played = report.played
        turns, episodes = episode_rows(
            self.key,
            [p.episode for p in played],
            phase="train",
            step=report.step - 1,
            decisions=[p.decisions for p in played],
            scores=[p.scores for p in played],
            effective_weights=[p.effective_weights for p in played],
        )
        row = step_row(self.key, report.step, **report.row)
        self.tables.append_step(report.step, turns=turns, episodes=episodes, row=row)
        if broken := row.get("gold_not_ok"):
            line = f"{broken} of the demonstrations of training step {report.step} broke and taught nothing"
            self.folder.log(line)
            self.view.say(line)
        self._warn_of_the_judge(turns)
        self.folder.beat(phase="training", step=report.step, seconds=self.clock.totals())
        self.view.step(row)

    def _warn_of_the_judge(self, turns: Sequence[Row]) -> None:
        """Once, at the first step after which too many replies cannot be read."""
        asked = [row["label"] for row in turns if row.get("judge_cached") is not None]
        self._judged, self._fallback = self._judged + len(asked), self._fallback + asked.count(Label.FALLBACK)
        warning = fallback_warning(self._judged, self._fallback)
        if warning and not self._warned:
            self._warned = True
            self.folder.log(warning)
            self.view.say(warning)


def _seconds_before(folder: RunDir) -> dict[str, float]:
    """Wall time that an earlier process of this attempt has used."""
    status = folder.status()
    return status.seconds if status else {}


def _view(config: RunConfig, folder: RunDir, steps: int, main: bool) -> Any:
    title = f"{config.name} on {config.env.name}, seed {config.seed}, run {folder.identity().run}"
    if main:
        return open_view(title, steps)
    # Only one process may draw; the others' view goes nowhere.
    import io

    return open_view(title, steps, io.StringIO())


def _shorter_context(config: RunConfig, student: LanguageModel, models: Pair | None) -> str:
    """That episodes end before rollout.max_context, because a model does not reach that far; or nothing."""
    read = {"student": student} | ({"teacher": models.teacher} if models else {})
    reaches = {role: length for role, lm in read.items() if (length := reach(lm)) is not None}
    short = {role: n for role, n in reaches.items() if n < config.rollout.max_context}
    if not short:
        return ""
    ends = [f"training episodes end context_full at {min(short.values()):,}"] if models else []
    ends += [f"evaluations at {short['student']:,}"] if "student" in short else []
    models_end = " and ".join(f"the {role} reaches {n:,} tokens" for role, n in short.items())
    return f"rollout.max_context is {config.rollout.max_context:,}, and {models_end}: {', '.join(ends)}."


def _ignored_tokens(models: Pair | None) -> str:
    """What the teacher's tokenizer knows beyond the student's; empty where that is nothing."""
    if models is None:
        return ""
    return ignored(models.student.tokenizer, models.teacher.tokenizer, models.teacher.name)


def _left_out(student: LanguageModel, models: Pair | None) -> list[str]:
    """About the weights of each checkpoint that take no part, once each."""
    read = [student, models.teacher] if models else [student]
    return list(dict.fromkeys(lm.left_out for lm in read))


def _template_dates(student: LanguageModel, models: Pair | None) -> dict[str, str]:
    """The date that each chat template prints where it asks for today's."""
    read = {"student": student} | ({"teacher": models.teacher} if models else {})
    return {role: date for role, lm in read.items() if (date := dated(lm.tokenizer)) is not None}


def _look_before(config: RunConfig, folder: RunDir) -> None:
    """Refuse what needs no weights to be known; log and say what is warned of."""
    for line in before_weights(config):
        if line.verdict is Verdict.WARNING:
            folder.log(f"warning: {line.text}")
            if os.environ.get("RANK", "0") == "0":
                print(f"Warning: {line.text}", file=sys.stderr)


def _check_engines(config: RunConfig, student: LanguageModel, models: Pair | None) -> None:
    """Raises ModelError where what would decode is not right for a model, before anything is played."""
    engine = config.speed.engine
    if config.rollout.decoder == "local":
        right_engine(student, engine)
    if models is not None and (config.intervention.query is not None or config.rollout.player == "teacher"):
        right_engine(models.teacher, engine)


def _judge(config: RunConfig, style: PromptStyle, teacher: LanguageModel, stack: ExitStack) -> Ask:
    query = config.intervention.query
    if query is None:
        return no_judge
    kept = config.launch.judge_cache
    if kept and config.trainer.teacher_budget is not None:
        raise ConfigError(
            "trainer.teacher_budget counts every query once, and launch.judge_cache would answer some for"
            " nothing; set launch.judge_cache=null."
        )
    file = Path(kept).expanduser() if kept else None
    speed = config.speed
    judge = TeacherJudge(
        teacher,
        style,
        query,
        batch=speed.judge_batch,
        cache_file=file,
        engine=speed.engine,
        draft_tokens=speed.draft_tokens,
    )
    stack.callback(judge.close)
    return judge


def _ahead(config: RunConfig, ask: Ask) -> OnTurns | None:
    """Begins to ask about turns as they are played; None where all are asked about afterwards."""
    if not config.speed.judge_ahead or not isinstance(ask, TeacherJudge):
        return None

    def begin(played: Sequence[tuple[Episode, Turn]]) -> None:
        asks = config.intervention.asks
        ask.begin([TurnContext(episode, turn) for episode, turn in played if asks(turn)])

    return begin
