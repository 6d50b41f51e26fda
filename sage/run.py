"""The story of one run: load, evaluate, train, evaluate, finish. Read `run` from top to bottom.

`sage.launch.execute` has claimed the run's folder before and marks it failed if this raises. Records go to
the folder first; the MLflow export is a child process that reads them, and can do so again later.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING

import torch

from sage.check.before import before_weights
from sage.check.page import Verdict
from sage.check.preflight import Preflight, preflight
from sage.config.schema import RunConfig
from sage.console import View, open_view, print_summary
from sage.envs.manifest import spread
from sage.envs.pool import EnvPool
from sage.episode import Task
from sage.policy.models.load import LanguageModel
from sage.policy.prompts import choose_style
from sage.records import provenance
from sage.records.activity import TICK_S, doing, of_this_run
from sage.records.clock import PhaseClock, phase
from sage.records.loggers.follow import ExportResult
from sage.records.loggers.open import Exports, is_tracked, look_lines
from sage.records.mlflow.store import resolve_uri
from sage.records.preregistration import plan_hash
from sage.records.pulse import EveryMinute
from sage.records.recorder import Recorder, StepReport
from sage.records.rows import RunKey
from sage.records.rundir import RunDir
from sage.records.summary import summarize
from sage.records.system import sampling
from sage.records.trouble import still_warning
from sage.redaction import redact
from sage.teacher.elsewhere import RemoteTeacher
from sage.teacher.spoil import mark
from sage.teacher.trajectory import TrajectoryJudge
from sage.training import checkpoint, setup
from sage.training.batch import Models
from sage.training.evaluate import Evaluator
from sage.training.gradient import Objective
from sage.training.jobs import Schedule
from sage.training.judging import judge_of, prefetch_judge
from sage.training.loop import distill
from sage.training.not_ok import refuse_not_ok, set_aside
from sage.training.parts import Rules, Training
from sage.training.passes import passes_of
from sage.training.players import demonstrations, training_play
from sage.training.processes import Processes, take_gpu
from sage.training.speed import peak_of, rates_line
from sage.training.state import Progress

if TYPE_CHECKING:
    from sage.config.prompt_texts import PromptStyle


def run(config: RunConfig, folder: RunDir, *, export: bool = True) -> None:
    """One run into `folder`, from its newest checkpoint on where it has one; leaves the folder `done`."""
    if config.speed.threads:
        torch.set_num_threads(config.speed.threads)
    with ExitStack() as stack, doing("between phases"):
        with doing("setting up"):
            loaded = load(config, folder, stack, export=export)
        # A resumed run has recorded this one before its weights were changed.
        untrained = checkpoint.latest(folder.checkpoints) is None
        if untrained and (config.evaluation.before or loaded.models is None):
            evaluate(loaded, 0, config.evaluation.limit)
        if loaded.models is not None:
            done = train(loaded, loaded.models, stack)
            if config.evaluation.after:
                evaluate(loaded, done.steps, config.evaluation.limit)
    if loaded.processes.is_main:
        finish(loaded)


@dataclass(frozen=True, slots=True)
class Run:
    """A run in memory: its models (None where it only evaluates), its games, and who writes it down."""

    config: RunConfig
    folder: RunDir
    tasks: Callable[[str], list[Task]]
    student: LanguageModel
    models: Models | None
    processes: Processes
    style: PromptStyle
    pool: EnvPool
    clock: PhaseClock
    recorder: Recorder
    exports: Exports | None
    room: int | None
    """Tokens that memory is planned with for each episode; None where it is not planned."""


def load(config: RunConfig, folder: RunDir, stack: ExitStack, *, export: bool) -> Run:
    """What the run needs, looked at before it is used and closed with `stack`."""
    plan = plan_hash(config.launch.plan)
    clock = stack.enter_context(PhaseClock(_seconds_before(folder)).running())
    view = _view(config, folder, stack)
    take_gpu()
    _look_before(config, folder)
    tasks = cache(config.env.tasks)
    checked = _preflight(config, tasks)
    student, models = _load_models(config, checked, folder, stack)
    clock.watch(peak_of(student.device))
    memory = setup.plan_memory(config, student, models, checked.context)
    config = config if memory is None else setup.as_planned(config, memory)
    with doing("meeting the other processes"):
        processes = Processes.start(student.device)
    with doing("measuring how training passes are read"):
        setup.set_passes(config, models, folder.log if processes.is_main else _unsaid)
    exports = None
    if processes.is_main:
        stack.enter_context(sampling(folder, config.tracking.system_every_s))
        exports = _exports(config, folder) if export else None
        _write_provenance(config, folder, student, models, plan)
    recorder = _recorder(config, folder, tasks, clock, processes.is_main, view)
    pool = stack.enter_context(_pool(config))
    stack.enter_context(set_aside(folder, recorder.key, processes.is_main))
    style = choose_style(config.prompt, config.student.path)
    room = None if memory is None else memory.need.episode
    loaded = Run(
        config, folder, tasks, student, models, processes, style, pool, clock, recorder, exports, room
    )
    if processes.is_main:
        if line := checkpoint.starts_over(folder.checkpoints):
            recorder.say(line)
        _say_what_is_shorter(loaded, checked)
        for line in [] if memory is None else [*memory.lines(), memory.summary()]:
            folder.log(f"memory: {line}")
    return loaded


def evaluate(run: Run, step: int, limit: int | None) -> None:
    """Play every split (or `limit` games of each) after `step` steps, unless that is recorded already."""
    settings = setup.evaluation_settings(run.config, run.style, run.student)
    settings = replace(settings, room=run.room, say=run.recorder.say)
    evaluator = Evaluator(run.student, run.pool, settings, run.processes)
    for split in run.config.evaluation.splits:
        if not run.recorder.needs(step, split):
            continue
        games = spread(run.tasks(split), limit)
        with phase("evaluation"):
            episodes = evaluator(games, run.recorder.evaluating(step, split, len(games)))
        what = f"the evaluation of {split} after {step} steps"
        refuse_not_ok(episodes, run.config.evaluation.max_not_ok, what, step)
        run.recorder.evaluated(step, split, episodes)


def train(run: Run, models: Models, stack: ExitStack) -> Progress:
    """Distil, with an evaluation every so many steps."""
    how = run.config.evaluation

    def after_step(step: int, last: bool) -> None:
        if how.every and step % how.every == 0 and not last:
            evaluate(run, step, how.during_limit)

    def stepped(report: StepReport) -> None:
        run.recorder.stepped(report)
        change, rate = report.row["relative_master_change"], run.config.trainer.learning_rate
        if run.config.student.lora is not None and (line := still_warning(report.step, change, rate)):
            run.recorder.say(line)

    training = training_of(run, models, stack)
    if run.processes.is_main:
        with doing("measuring the device"):
            line = rates_line(models, run.config.speed)
        run.folder.log(line)
    done = distill(training, run.folder.checkpoints, stepped, after_step)
    if done.steps < run.config.trainer.steps:
        run.recorder.say(
            f"{done.teacher_tokens:,} tokens have gone through the teacher, whose budget is "
            f"{run.config.trainer.teacher_budget:,}: training ended after {done.steps} of "
            f"{run.config.trainer.steps} steps"
        )
    return done


def training_of(run: Run, models: Models, stack: ExitStack) -> Training:
    """The training that the config describes; what it opens is closed with `stack`."""
    config = run.config
    say = run.recorder.say if run.processes.is_main else _unsaid
    passes = passes_of(config.speed, models.student, models.vocabulary, say, run.room)
    models = replace(models, passes=passes)
    settings = setup.training_settings(config, run.style, run.student)
    settings = replace(settings, room=run.room, say=run.recorder.say)
    judge = judge_of(config, run.style, models.teacher, stack, models.dialogue)
    room = judge.room if isinstance(judge, TrajectoryJudge) else 0
    most, settings = settings.max_context, setup.read_by(models.teacher, settings, room)
    if room and settings.max_context < most and run.processes.is_main:
        run.recorder.say(
            f"judge.context=trajectory keeps {room:,} tokens of the teacher's reach for a question: training "
            f"episodes end context_full at {settings.max_context:,}"
        )
    return Training(
        models=models,
        rules=_rules(config),
        trainer=config.trainer,
        speed=config.speed,
        schedule=_schedule(run),
        play=training_play(config, models, run.pool, settings, prefetch_judge(config, judge)),
        judge=judge,
        processes=run.processes,
        demonstrations=demonstrations(config, models, run.pool, settings),
        max_not_ok=config.evaluation.max_not_ok,
        mark=partial(mark, settings=config.teacher, seed=config.seed),
    )


def _unsaid(_line: str) -> None:
    """What every process finds out, and the main one says."""


def finish(run: Run) -> None:
    """Complete the records, export them, and print the table; in the main process."""
    folder, exports, tracking = run.folder, run.exports, run.config.tracking
    with doing("putting the records together"):
        run.recorder.tables.consolidate()
    summary = summarize(folder.path, run.clock.totals())
    folder.write_json("summary.json", summary.to_json())
    folder.done(phase="", seconds=run.clock.totals())
    results = _exported(folder, exports) if exports else []
    problems = [result.error for result in results if result.error]
    for problem in problems:
        folder.log(problem)
    uri = resolve_uri(tracking.uri) if exports and tracking.mlflow else None
    print_summary(summary, folder.path, uri, problems, look_lines(tracking) if exports else ())


def _exported(folder: RunDir, exports: Exports) -> list[ExportResult]:
    """Wait for the export; the run is done, and its status says what its process still does."""
    listener = EveryMinute(partial(print, flush=True), TICK_S)
    with doing("exporting to the loggers"), of_this_run().listening(listener):
        folder.beat()
        results = exports.finish()
    folder.at_rest()
    return results


# --- the parts of `load`, in its order


def _seconds_before(folder: RunDir) -> dict[str, float]:
    """Wall time that an earlier process of this attempt has used."""
    status = folder.status()
    return status.seconds if status else {}


def _look_before(config: RunConfig, folder: RunDir) -> None:
    """Refuse what needs no weights to be known; log and say what is warned of."""
    for line in before_weights(config):
        if line.verdict is Verdict.WARNING:
            folder.log(f"warning: {line.text}")
            if os.environ.get("RANK", "0") == "0":
                print(f"Warning: {line.text}", file=sys.stderr)


_checked: dict[int, tuple[RunConfig, Preflight]] = {}
"""What `refuse` has found for a config, until its run takes it."""


def refuse(config: RunConfig) -> None:
    """Raise ConfigError or ModelError for all that can be told without weights; nothing is written."""
    list(before_weights(config))
    _checked[id(config)] = config, preflight(config, cache(config.env.tasks))


def _preflight(config: RunConfig, tasks: Callable[[str], list[Task]]) -> Preflight:
    """What `refuse` has found, or what is found now."""
    known = _checked.pop(id(config), None)
    if known:
        return known[1]
    with doing("looking at games, tokenizers and settings"):
        return preflight(config, tasks)


def _trains(config: RunConfig) -> bool:
    return config.task == "train" and config.trainer.steps > 0


def _load_models(
    config: RunConfig, checked: Preflight, folder: RunDir, stack: ExitStack
) -> tuple[LanguageModel, Models | None]:
    with doing(f"loading the student {config.student.path}"):
        student = setup.load_student(config, checked.student)
    models: Models | None = None
    if _trains(config):
        models = setup.load_models(config, student, checked.teacher, folder=folder.path, say=folder.log)
        if isinstance(models.teacher, RemoteTeacher):
            stack.callback(models.teacher.close)
    with doing("trying the decoding engines"):
        setup.check_engines(config, student, models)
    return student, models


def _exports(config: RunConfig, folder: RunDir) -> Exports | None:
    if not is_tracked(config.tracking):
        return None
    exports = Exports(config.tracking, lambda label: folder.path / f"{label}_export.log")
    exports.follow(folder.path)
    return exports


def _write_provenance(
    config: RunConfig, folder: RunDir, student: LanguageModel, models: Models | None, plan: str | None
) -> None:
    provenance.write(
        folder.path,
        manifest_digest=folder.identity().manifest_digest,
        models=setup.digests(student, models),
        plan_sha256=plan,
        plugins=config.plugins,
        template_dates=setup.template_dates(student, models),
    )


def _view(config: RunConfig, folder: RunDir, stack: ExitStack) -> View:
    """What is shown from the beginning on; only one process may draw, the others' goes nowhere."""
    title = f"{config.name} on {config.env.name}, seed {config.seed}, run {folder.identity().run}"
    steps = config.trainer.steps if _trains(config) else 0
    stream = None if os.environ.get("RANK", "0") == "0" else io.StringIO()
    activity = of_this_run()
    view = stack.enter_context(open_view(title, steps, stream, activity.now))
    stack.enter_context(activity.listening(view.hear))
    return view


def _recorder(
    config: RunConfig,
    folder: RunDir,
    tasks: Callable[[str], list[Task]],
    clock: PhaseClock,
    writes: bool,
    view: View,
) -> Recorder:
    identity = folder.identity()
    games = tasks((config.evaluation.splits or ["train"])[0])
    key = RunKey(
        run=identity.run,
        method=redact(config.name),
        env=config.env.name,
        source=games[0].source if games else "",
        seed=config.seed,
    )
    newest = checkpoint.latest(folder.checkpoints)
    done = int(newest.name.removeprefix("step-")) if newest else 0
    return Recorder(folder, key, view, clock, done=done, writes=writes)


def _pool(config: RunConfig) -> EnvPool:
    env, speed = config.env, config.speed
    return EnvPool(env.make, speed.workers, speed.step_timeout_s, distances=env.gives_distances())


def _say_what_is_shorter(run: Run, checked: Preflight) -> None:
    """What of the games and of the models takes no part, and is not refused."""
    for split in checked.context:
        run.folder.log(split.line())
    if not run.config.env.gives_distances():
        run.folder.log("the columns oracle and expert_distance_* stay empty: env.gives_distances() is false")
    shorter = setup.shorter_context(run.config, run.student, run.models)
    left_out = setup.left_out_weights(run.student, run.models)
    for sentence in (shorter, setup.ignored_tokens(run.models), *left_out):
        if sentence:
            run.recorder.say(sentence)


# --- the parts of `training_of`


def _rules(config: RunConfig) -> Rules:
    rollout = config.rollout
    divergence = config.divergence.sampled_at(rollout.temperature, rollout.top_p)
    objective = Objective(config.confidence, config.normalization, divergence)
    return Rules(config.intervention, config.curriculum, objective)


def _schedule(run: Run) -> Schedule:
    config = run.config
    return Schedule(
        tasks=spread(run.tasks("train"), None),
        tasks_per_step=config.trainer.tasks_per_step,
        episodes_per_task=config.rollout.episodes_per_task,
        turn_budget=config.env.turn_budget,
        seed=config.seed,
    )
