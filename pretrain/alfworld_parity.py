"""Plays one game on both engines with the same commands and tells every difference.

Read by `benchmarks/alfworld_parity.py` and by the tests. The commands of a play are drawn from a stream keyed
by the game's path below its split, so a difference can be played again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sage.envs.alfworld.simulator.native import NativeWorld, Outcome
from sage.envs.alfworld.simulator.parse import parse_game
from sage.envs.alfworld.simulator.planner import NoPlan, plan


class Real(Protocol):
    """What `TextWorldEngine` offers."""

    def reset(self, path: str | Path) -> Outcome: ...

    def step(self, command: str) -> Outcome: ...


@dataclass
class Parity:
    """What a play compared. `differences` are (step, command, field, real, native)."""

    steps: int = 0
    won: bool = False
    kinds: dict[str, int] = field(default_factory=dict)
    """Executed commands by verb; under the empty verb those that did nothing."""
    differences: list[tuple[int, str, str, object, object]] = field(default_factory=list)


def compare(real: Real, path: str | Path, steps: int, key: str) -> Parity:
    """Play `steps` commands of every sort (`_Commands`) on the game file and compare each outcome.

    Raises:
        EnvironmentFault: either engine cannot load the game.
    """
    world = NativeWorld(parse_game(path))
    parity = Parity()
    outcome = _note(parity, "reset", real.reset(path), world.reset())
    commands = _Commands(world, random.Random(f"sage alfworld parity {key}"))
    for _ in range(steps):
        command = commands.draw(outcome)
        outcome = _note(parity, command, real.step(command), world.step(command))
        if parity.differences:
            break
    return parity


def _note(parity: Parity, command: str, real: Outcome, native: Outcome) -> Outcome:
    for name, ours in zip(Outcome._fields, native, strict=True):
        theirs = getattr(real, name)
        if theirs != ours:
            parity.differences.append((parity.steps, command, name, theirs, ours))
    if command != "reset":
        parity.steps += 1
        verb = command.split()[0] if real.executed else ""
        parity.kinds[verb] = parity.kinds.get(verb, 0) + 1
    parity.won |= real.won
    return native


class _Commands:
    """Walkthrough, expert, random, curious and malformed commands, mixed so that every effect is met."""

    def __init__(self, world: NativeWorld, rng: random.Random) -> None:
        self.world, self.rng, self.game = world, rng, world.game
        # A third of the plays begins with the walkthrough, the others wander first and then ask the planner.
        follows = rng.random() < 0.34
        self.walkthrough = list(world.game.walkthrough) if follows else []
        self.wander = 0 if follows else rng.randint(5, 30)
        goal = world.game.goal
        # Kinds worth going to and taking: most others only ever hold and are held.
        self.liked = {"sinkbasin", "microwave", "fridge", "knife", goal.object, goal.receptacle}
        lamps = (place for thing, place in world.state.inside.items() if goal.lamp and goal.lamp in thing)
        self.liked.update(place.split()[0] for place in lamps)

    def draw(self, outcome: Outcome) -> str:
        rng = self.rng
        if self.walkthrough and rng.random() < 0.75:
            return self.walkthrough.pop(0)
        self.wander -= 1
        if self.wander < 0 and rng.random() < 0.6:
            expert = self._expert()
            if expert:
                return expert
        chance = rng.random()
        if chance < 0.15:
            return self._malformed(outcome)
        if chance < 0.27:
            return rng.choice(["look", "look", "inventory", "help"])
        # `go to` makes up most of the list; acting on things is where the engines could differ.
        acting = [c for c in outcome.admissible if not c.startswith(("go ", "look", "inventory", "help"))]
        rare = [c for c in acting if not c.startswith(("take ", "examine ", "close "))]
        if rare and chance < 0.50:
            return rng.choice(rare)
        if chance < 0.70:
            liked = [c for c in outcome.admissible if c.startswith(("go ", "take ")) and self._likes(c)]
            return rng.choice(liked or outcome.admissible)
        return rng.choice(acting if acting and chance < 0.88 else outcome.admissible)

    def _likes(self, command: str) -> bool:
        return not self.liked.isdisjoint(command.split())

    def _expert(self) -> str | None:
        try:
            commands = plan(self.game, self.world.state)
        except NoPlan:
            return None
        return commands[0] if commands else None

    def _malformed(self, outcome: Outcome) -> str:
        rng = self.rng
        receptacle, thing = rng.choice(list(self.game.receptacles)), rng.choice(list(self.game.things))
        held = self.world.state.holding or thing
        place = self.world.state.location
        near = [r.name for r in self.game.receptacles.values() if r.location == place]
        here = rng.choice(near or [receptacle])
        command = rng.choice(outcome.admissible)
        kind = receptacle.split()[0]
        return rng.choice(
            [
                "",
                "   ",
                "dance",
                "go",
                "go to",
                "take",
                "open",
                "move to",
                "use",
                "examine",
                "with",
                "help me",
                f"go to {thing}",
                f"go to {here}",
                f"go to {kind}",
                f"go to {kind} 99",
                f"go {receptacle}",
                f"open {receptacle}",
                f"open {here}",
                f"close {receptacle}",
                f"close {here}",
                f"take {thing} from {receptacle}",
                f"take {thing} from {here}",
                f"take {thing}",
                f"move {held} to {receptacle}",
                f"move {held} to {here}",
                f"put {held} in/on {here}",
                f"examine {thing}",
                f"examine {receptacle}",
                f"use {thing}",
                f"use {here}",
                *(f"{verb} {held} with {here}" for verb in ("clean", "heat", "cool")),
                f"slice {thing} with {held}",
                f"slice {thing} with {here}",
                f"slice {held} with {held}",
                f"  {command} ",
                command.upper(),
                f"{command}.",
                command.replace(" ", "  "),
                f"{command}\n",
                f"Action: {command}",
                command[:-1],
                f"{command} {command}",
            ]
        )
