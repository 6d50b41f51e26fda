"""The command line around Hydra: errors become one sentence, outcomes become exit codes.

Exit codes: 0 all done (or done before), 1 a run failed, 2 the config or the data named in it cannot be used,
3 another process has taken the run over, 128 + n stopped by signal n.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sage.config.moved import renamed
from sage.config.own_model import complete
from sage.launch.completion import answered
from sage.records.faults import machine_fault

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from sage.config.schema import RunConfig, TrackingSettings
    from sage.launch.execute import Outcome

EXIT_FAILED = 1
EXIT_CONFIG = 2
_FULL = "HYDRA_FULL_ERROR"
_VALUED = (
    *("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn"),
    *("--cfg", "-c", "--package", "-p", "--info", "-i"),
)
"""Hydra's flags that take the next word."""


class _Single:
    """What the task function left behind: Hydra passes nothing back."""

    outcome: Outcome | None = None
    refusal: str = ""
    check: bool = False
    """Whether the models are only to be looked at: `python -m sage check`."""
    card_gib: float | None = None
    """Of `check --memory N`: the device that memory is planned for."""
    processes: int = 1
    """Of `--processes N`: those that have such a device each."""
    teacher: str = ""
    """What is to be done about a teacher on Ray: `python -m sage teacher start`."""
    checked: int = 0
    """The exit code of either."""


def run_task(composed: DictConfig) -> float | None:
    """Hydra's task function: one composed config, run in this process; its success rate.

    Where another launcher than ours runs many of them (`hydra/launcher=basic`), a failure has to be raised.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from sage.config.load import load
    from sage.errors import ConfigError
    from sage.launch.until import DECIDED, ELSEWHERE

    many = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        config = load(composed)
        for group in ("sweep", "study"):
            if not many and (name := HydraConfig.get().runtime.choices.get(group)):
                word = f"{group}={name}"
                raise ConfigError(f"{word} is a study of many runs: python -m sage -m {word}.")
        if config.launch.until == DECIDED and not many:
            raise ConfigError(ELSEWHERE)
        if _looked(config):
            return None
        from sage.launch.execute import execute

        _Single.outcome = execute(config)
    except ConfigError as error:
        if many:
            raise
        _Single.refusal = str(error)
        return None
    if many and _Single.outcome.exit_code:
        raise RuntimeError(_Single.outcome.reason)
    if _Single.outcome.exit_code and not _Single.outcome.traced:
        print(_Single.outcome.reason, file=sys.stderr)
    _show(_Single.outcome, config.tracking)
    return _Single.outcome.success


def _looked(config: RunConfig) -> bool:
    """Whether the command was another one than a run, which is then done."""
    if _Single.teacher:
        from sage.errors import ConfigError, ModelError, RunFailure
        from sage.teacher.ray.manage import manage

        try:
            manage(_Single.teacher, config.teacher)
        except ModelError as error:
            raise ConfigError(str(error)) from error
        except RunFailure as error:
            print(error, file=sys.stderr)
            _Single.checked = EXIT_FAILED
    elif _Single.check:
        from sage.check.command import check

        _Single.checked = check(config, card_gib=_Single.card_gib, processes=_Single.processes).exit_code
    return bool(_Single.teacher) or _Single.check


def guarded(hydra_main: Callable[[], Any]) -> int:
    """Run Hydra's entry point with `sys.argv`; the exit code. Errors of the config are one line on stderr."""
    if answered(sys.argv[1:]):
        return 0
    arguments, refusal = _of_command(_command_of_today(sys.argv[1:]))
    if refusal:
        print(refusal, file=sys.stderr)
        return EXIT_CONFIG
    arguments, notes = renamed(arguments)
    arguments, fitting = complete(arguments)
    notes += fitting
    for note in notes:
        print(note, file=sys.stderr)
    sys.argv[1:] = _flags_first(arguments)
    if missing := _missing_folder(sys.argv[1:]):
        print(missing, file=sys.stderr)
        return EXIT_CONFIG
    asked_for_trace = _FULL in os.environ
    # Hydra's own handling prints several lines and exits; with this it lets us handle its exceptions.
    os.environ.setdefault(_FULL, "1")
    _compose_once()
    try:
        hydra_main()
    except Exception as error:
        told = None if asked_for_trace else _tell(error, arguments)
        if told is None:
            raise
        return told
    except KeyboardInterrupt as stop:
        return getattr(stop, "exit_code", 130)
    finally:
        if not asked_for_trace:
            os.environ.pop(_FULL, None)
    return _exit_code()


def _tell(error: Exception, arguments: list[str]) -> int | None:
    """One line on stderr about `error`, and the exit code; None where there is nothing but its traceback."""
    if isinstance(error, OSError) and (fault := machine_fault(error, Path.cwd())):
        print(fault, file=sys.stderr)
        return EXIT_FAILED
    sentence = _sentence(error, arguments)
    if not sentence:
        return None
    print(sentence, file=sys.stderr)
    return EXIT_CONFIG


def _exit_code() -> int:
    if _Single.refusal:
        print(_Single.refusal, file=sys.stderr)
        return EXIT_CONFIG
    if _Single.check or _Single.teacher:
        return _Single.checked
    if _Single.outcome is not None:
        return _Single.outcome.exit_code
    module = sys.modules.get("sage.launch.multirun")
    return module.LEDGER.exit_code if module is not None else 0


def _of_command(arguments: list[str]) -> tuple[list[str], str]:
    """The arguments for Hydra, whose first word may be `list`, `confirm` or `check`; and a refusal."""
    if arguments[:1] == ["check"]:
        return _of_check(arguments[1:])
    if arguments[:1] == ["teacher"]:
        return _of_teacher(arguments[1:])
    if arguments[:1] not in (["list"], ["confirm"]):
        return arguments, ""
    from sage.launch.multirun import LEDGER

    LEDGER.list_only, LEDGER.confirm = arguments[0] == "list", arguments[0] == "confirm"
    if LEDGER.confirm and not any(a.startswith("sweep=") for a in arguments):
        return [], "confirm needs the study: python -m sage confirm sweep=<a file in sweeps/>."
    return ["--multirun", *(a for a in arguments[1:] if a not in ("-m", "--multirun"))], ""


def _of_teacher(arguments: list[str]) -> tuple[list[str], str]:
    """Take the action out of the arguments of `teacher`; what is left, and a refusal."""
    action, rest = "".join(arguments[:1]), arguments[1:]
    if action not in ("start", "status", "stop"):
        return [], f"teacher is followed by start, status or stop, and not by {action!r}."
    if {"-m", "--multirun"} & set(rest):
        return [], f"teacher {action} is about one teacher: leave out -m."
    _Single.teacher = action
    return rest if any(word.startswith("teacher=") for word in rest) else ["teacher=ray", *rest], ""


def _command_of_today(arguments: list[str]) -> list[str]:
    """The words with the command by its name of today, and a note where it had the old one."""
    if arguments[:1] != ["plan"]:
        return arguments
    print("plan is list now; its old name is read for one release more.", file=sys.stderr)
    return ["list", *arguments[1:]]


def _of_check(arguments: list[str]) -> tuple[list[str], str]:
    """Take `--memory N` (GiB of a device) and `--processes N` (that have one each) out of the arguments of
    `check`; what is left, and a refusal."""
    _Single.check = True
    if {"-m", "--multirun"} & set(arguments):
        return [], "check looks at one pair of models: leave out -m."
    arguments, gib = _taken(arguments, "--memory")
    rest, count = _taken(arguments, "--processes")
    if gib is not None:
        _Single.card_gib = _number(gib)
        if not 0 < _Single.card_gib < math.inf:
            return [], f"--memory takes the GiB of a device, as --memory 80, and not {gib!r}."
    if count is not None:
        if not count.isdecimal() or not 1 <= int(count) <= 100_000 or gib is None:
            return [], f"--processes takes a number, as --memory 80 --processes 8, and not {count!r}."
        _Single.processes = int(count)
    return rest, ""


def _taken(arguments: list[str], flag: str) -> tuple[list[str], str | None]:
    """The arguments without `flag` and its value, and the last value."""
    value: str | None = None
    rest: list[str] = []
    given = iter(arguments)
    for argument in given:
        if argument == flag:
            value = next(given, "")
        elif argument.startswith(f"{flag}="):
            value = argument.removeprefix(f"{flag}=")
        else:
            rest.append(argument)
    return rest, value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _flags_first(arguments: Sequence[str]) -> list[str]:
    """Hydra's parser wants all key=value words in one place; people do not type that way."""
    flags, words, rest = [], [], list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            words.append(word)
            continue
        flags.append(word)
        if word in _VALUED and rest:
            flags.append(rest.pop(0))
    return [*flags, *words]


def _missing_folder(flags: Sequence[str]) -> str:
    """The sentence about a --config-dir that is not there, which Hydra would pass over; else nothing."""
    for word, following in zip(flags, [*flags[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        folder = value if equals else following
        if name in ("--config-dir", "-cd") and not (folder and Path(folder).expanduser().is_dir()):
            return f"{name} names {folder!r}, which is no folder; it is a folder of your own config groups."
    return ""


def _compose_once() -> None:
    """Spare a quarter of a second: Hydra composes everything once more just to read `hydra.mode`.

    Nobody may set that here (-m says it). Where a later Hydra has no such method this changes nothing.
    """
    from hydra._internal.hydra import Hydra

    Hydra.get_mode = lambda self, config_name, overrides: None  # type: ignore[method-assign]


def _sentence(error: Exception, arguments: list[str]) -> str:
    """One sentence for an error of the config, nothing for any other."""
    import yaml
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from sage.errors import ConfigError

    if isinstance(error, ConfigError):
        return str(error)
    if isinstance(error, yaml.YAMLError):
        return f"A YAML file of the config cannot be read ({' '.join(str(error).split())})."
    raised_by_hydra = isinstance(error, ValueError) and _last_module(error).startswith("hydra.")
    if isinstance(error, HydraException | OmegaConfBaseException) or raised_by_hydra:
        from sage.config.explain import explain

        return explain(error, [word for word in arguments if not word.startswith("-")])
    return ""


def _last_module(error: BaseException) -> str:
    """Name of the module whose code raised the error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))


def _show(outcome: Outcome, tracking: TrackingSettings) -> None:
    """For a run that was done before: its table again. A run that ran has printed its own."""
    if outcome.state != "skipped":
        return
    print(f"Not started: {outcome.reason}.")
    if outcome.folder is not None and outcome.reason.startswith("done before"):
        from sage.console import print_summary
        from sage.records.loggers.open import look_lines
        from sage.records.mlflow.store import resolve_uri
        from sage.records.reader import open_attempt
        from sage.records.summary import summarize

        uri = resolve_uri(tracking.uri) if tracking.mlflow else None
        seconds = (open_attempt(outcome.folder, tables=False).summary or {}).get("seconds")
        # The tables time training alone.
        summary = summarize(outcome.folder, seconds if isinstance(seconds, dict) else None)
        print_summary(summary, outcome.folder, uri, looks=look_lines(tracking))
