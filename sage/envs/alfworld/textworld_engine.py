"""The real engine: alfworld 0.4.2 on TextWorld, one game file at a time, imported only when used.

Invariant: the trace is TextWorld's own. What is done here around it changes no text: `traj_data.json` is not
asked for (the package reads only the task's type from there), one loaded planner library is kept for all
games, and TextWorld's parsers, which parse the same few templates again at every step, are remembered
(`remember_parses`; 0.11 s a step without, about 0.01 s with it).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from sage.envs.alfworld.simulator.native import NOTHING_HAPPENS, Outcome
from sage.envs.base import EnvironmentFault


class TextWorldEngine:
    """Plays game files with the package's own environment. Raises EnvironmentFault where it is missing."""

    def __init__(self, remember: bool = True) -> None:
        try:
            with _own_argv():
                import textworld
                from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
                from textworld.envs.pddl import PddlEnv
        except ImportError as error:
            raise EnvironmentFault(
                "env.engine=textworld needs the packages alfworld and textworld, which cannot be imported "
                f"({error}); install them (`pip install 'sage-opd[textworld]'`) or use env.engine=native."
            ) from error
        if remember:
            remember_parses()
        infos = textworld.EnvInfos(won=True, admissible_commands=True)
        # As the package does for evaluation; shuffle=True (domain randomization) renumbers at random.
        self._env = AlfredDemangler(PddlEnv(infos), shuffle=False)

    def reset(self, path: str | Path) -> Outcome:
        """Load the game file and start it. Raises EnvironmentFault where TextWorld cannot."""
        try:
            with _own_argv():
                self._env.load(str(path))
                state = self._env.reset()
        except Exception as error:
            raise EnvironmentFault(f"TextWorld cannot load {path}: {error!r}.") from error
        return _outcome(state, 0.0, False)

    def step(self, command: str) -> Outcome:
        """Execute one command. Raises EnvironmentFault where TextWorld itself fails."""
        try:
            state, reward, done = self._env.step(command)
        except Exception as error:
            raise EnvironmentFault(f"TextWorld failed on {command!r}: {error!r}.") from error
        return _outcome(state, float(reward), bool(done))


def _outcome(state: Any, reward: float, done: bool) -> Outcome:
    return Outcome(
        state.feedback,
        tuple(state.admissible_commands),
        reward,
        done,
        bool(state.won),
        state.feedback != NOTHING_HAPPENS,
    )


@contextmanager
def _own_argv() -> Iterator[None]:
    """fast_downward overwrites `sys.argv` at every translation, which would break whoever reads it later."""
    before = list(sys.argv)
    try:
        yield
    finally:
        sys.argv[:] = before


@cache
def remember_parses() -> None:
    """Make TextWorld remember what it has parsed, in this process and for good; the trace stays the same.

    Template -> symbols, query -> rule and (domain, problem) -> planning task are pure functions of their
    text. Contexts are copied deeply at every symbol although nothing changes what is in them: one level is
    enough. The planner's own, optimised translation is left out: no plan is ever asked for here, and it would
    double the time of a reset.
    """
    import fast_downward
    from textworld.envs.pddl import textgen
    from textworld.logic import Rule

    textgen._parse_and_convert = _copying(textgen._parse_and_convert)
    textgen.Rule = _RememberingRule(Rule.parse_conjunctive_query)
    textgen.copy_context = _copy_one_level
    translate = fast_downward.pddl2sas

    # Load and reset translate the same problem one after the other; a larger cache would only hold memory.
    @lru_cache(maxsize=1)
    def translate_once(domain: str, problem: str) -> Any:
        return translate(domain, problem)

    fast_downward.pddl2sas = lambda domain, problem, **_: translate_once(domain, problem)


class _RememberingRule:
    """Stands for `textworld.logic.Rule` in the text generator, which only parses queries with it."""

    def __init__(self, parse: Callable[[str], Any]) -> None:
        self.parse_conjunctive_query = cache(parse)


def _copy_one_level(context: dict[str, Any]) -> dict[str, Any]:
    return {**context, "variables": dict(context["variables"]), "mapping": dict(context["mapping"])}


def _copying(parse: Callable[..., Any]) -> Callable[..., Any]:
    """Remember results, and give each caller its own copy: symbols are given a context later."""
    kept: dict[Any, Any] = {}

    def remembered(*args: Any, **kwargs: Any) -> Any:
        key = (args, tuple(sorted(kwargs.items())))
        if key not in kept:
            kept[key] = parse(*args, **kwargs)
        return deepcopy(kept[key])

    return remembered
