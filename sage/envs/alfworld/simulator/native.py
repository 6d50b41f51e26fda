"""The ALFRED text world in plain Python: what alfworld 0.4.2 on TextWorld does, a thousand times faster.

Invariant: on every game `parse_game` accepts, observation, admissible commands, reward and `won` equal the
real engine's after every command (`benchmarks/alfworld_parity.py` measures it). The wording therefore follows
the game files' grammar to the letter, "a apple 1" and "You turn on" for every toggle included, and the reward
is 1 in every step after which the goal holds, also when the episode is played on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sage.envs.alfworld.simulator.planner import is_won
from sage.envs.alfworld.simulator.world import Game, Receptacle, State

NOTHING_HAPPENS = "Nothing happens."

HELP = """\
Available commands:
  look:                             look around your current location
  inventory:                        check your current inventory
  go to (receptacle):               move to a receptacle
  open (receptacle):                open a receptacle
  close (receptacle):               close a receptacle
  take (object) from (receptacle):  take an object from a receptacle
  move (object) to (receptacle):  place an object in or on a receptacle
  examine (something):              examine a receptacle or an object
  use (object):                     use an object
  heat (object) with (receptacle):  heat an object using a receptacle
  clean (object) with (receptacle): clean an object using a receptacle
  cool (object) with (receptacle):  cool an object using a receptacle
  slice (object) with (object):     slice an object using a sharp object
"""

KNIVES = ("knife", "butterknife")


class Outcome(NamedTuple):
    """What one command brought; `executed` is False where the engine says `Nothing happens.`."""

    observation: str
    admissible: tuple[str, ...]
    reward: float
    done: bool
    won: bool
    executed: bool


def listing(names: list[str]) -> str:
    """`a mug 2, a mug 1, and a pan 1`; `nothing` where there is none."""
    if not names:
        return "nothing"
    marked = [f"a {name}" for name in names]
    return marked[0] if len(marked) == 1 else f"{', '.join(marked[:-1])}, and {marked[-1]}"


class NativeWorld:
    """One game being played. `state` may be read at any time, and replaced by a copy to go back to it."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self.state: State = game.initial.copy()
        self._at: dict[str, list[Receptacle]] = {}
        for receptacle in game.receptacles.values():
            self._at.setdefault(receptacle.location, []).append(receptacle)
        self._go = {name: f"go to {name}" for name in game.receptacles}

    def reset(self) -> Outcome:
        """Back to the first state; the observation is the welcome, the room and the task."""
        self.state = self.game.initial.copy()
        scene = self._look_here() or (
            f"You are in the middle of a room. Looking quickly around you, you see {listing(list(self._go))}."
        )
        text = f"-= Welcome to TextWorld, ALFRED! =-\n\n{scene}\n\nYour task is to: {self.game.task_text}."
        return self._outcome(text, executed=True)

    def step(self, command: str) -> Outcome:
        """Execute one command; anything that is not admissible changes nothing."""
        text = self.apply(command)
        return self._outcome(NOTHING_HAPPENS if text is None else text, executed=text is not None)

    def apply(self, command: str) -> str | None:
        """Change the state by `command` and say what is read then; None, and no change, where inadmissible.

        Does without the admissible list and the goal check: for searching and generating.
        """
        command = command.strip()
        if command == "look":
            return self._look_here() or (
                "You are in the middle of a room. Looking quickly around you, you see nothing."
            )
        if command == "inventory":
            held = self.state.holding
            return f"You are carrying: a {held}." if held else "You are not carrying anything."
        if command == "help":
            return HELP
        verb, _, rest = command.partition(" ")
        if verb == "go" and rest.startswith("to "):
            return self._go_to(rest[3:])
        if verb in _ONE_NAME:
            return _ONE_NAME[verb](self, rest)
        if verb not in _TWO_NAMES:
            return None
        word, execute = _TWO_NAMES[verb]
        first, found, second = rest.partition(word)
        return execute(self, first, second) if found else None

    def admissible(self) -> tuple[str, ...]:
        """Every command that does something here, sorted."""
        state, game = self.state, self.game
        here = self._at.get(state.location, [])
        commands = {"look", "inventory", "help"}
        elsewhere = (name for name, r in game.receptacles.items() if r.location != state.location)
        commands.update(self._go[name] for name in elsewhere)
        held = state.holding
        for receptacle in here:
            commands.update(self._standing_at(receptacle))
            if held is not None:
                commands.update(self._holding_at(held, receptacle))
        if held is not None:
            commands.add(f"examine {held}")
            if game.things[held].type in KNIVES:
                commands.update(f"slice {name} with {held}" for name in self._sliceable_on_floor())
        return tuple(sorted(commands))

    def _standing_at(self, receptacle: Receptacle) -> Iterator[str]:
        """What can be done with `receptacle` and what is inside it, whatever is held."""
        name = receptacle.name
        yield f"examine {name}"
        if receptacle.openable:
            yield f"close {name}" if name in self.state.opened else f"open {name}"
        takes = self.state.holding is None and self._accessible(receptacle)
        for thing_name in self._contents(name):
            thing = self.game.things[thing_name]
            if takes and thing.pickupable:
                yield f"take {thing_name} from {name}"
            if thing.toggleable:
                yield f"use {thing_name}"

    def _holding_at(self, held: str, receptacle: Receptacle) -> Iterator[str]:
        """What can be done with `held` at `receptacle`."""
        kind = self.game.things[held].type
        if self._accessible(receptacle) and (receptacle.type, kind) in self.game.can_contain:
            yield f"move {held} to {receptacle.name}"
        for verb in ("clean", "heat", "cool"):
            if self._treats(verb, held, receptacle):
                yield f"{verb} {held} with {receptacle.name}"

    def _sliceable_on_floor(self) -> Iterator[str]:
        for name, place in self.state.lying:
            if place == self.state.location and self.game.things[name].sliceable:
                yield name

    def won(self) -> bool:
        """Whether the goal holds now; it can be lost again by undoing it."""
        return is_won(self.game, self.state)

    # What is where.

    def _is_inside(self, thing: str, receptacle: str) -> bool:
        return self.state.inside.get(thing) == receptacle or (thing, receptacle) in self.state.also_inside

    def _contents(self, receptacle: str) -> list[str]:
        inside, also = self.state.inside, self.state.also_inside
        return [
            name
            for name in self.game.things
            if inside.get(name) == receptacle or (also and (name, receptacle) in also)
        ]

    def _accessible(self, receptacle: Receptacle) -> bool:
        return not receptacle.openable or receptacle.name in self.state.opened

    def _here(self, name: str) -> Receptacle | None:
        receptacle = self.game.receptacles.get(name)
        return receptacle if receptacle is not None and receptacle.location == self.state.location else None

    def _within_reach(self, thing: str) -> bool:
        return any(self._is_inside(thing, r.name) for r in self._at.get(self.state.location, []))

    def _treats(self, verb: str, thing_name: str, receptacle: Receptacle) -> bool:
        thing = self.game.things[thing_name]
        if verb == "clean":
            return thing.cleanable and receptacle.type in ("sink", "sinkbasin")
        if verb == "heat":
            return thing.heatable and receptacle.type == "microwave"
        return thing.coolable and receptacle.type == "fridge"

    # What is read.

    def _look_here(self) -> str | None:
        """What `look` says at a receptacle; None in mid-room."""
        state = self.state
        here = self._at.get(state.location)
        if not here:
            return None
        names = [receptacle.name for receptacle in here]
        facing = names[0] if len(names) == 1 else f"{', '.join(names[:-1])}, and {names[-1]}"
        beside = (
            [
                name
                for name in self.game.things
                if (name, state.location) in state.lying
                for receptacle in names
                if (name, receptacle) in state.left
            ]
            if state.left
            else []
        )
        return f"You are facing the {facing}. Next to it, you see {listing(beside)}."

    def _view(self, receptacle: Receptacle) -> str:
        name = receptacle.name
        if not self._accessible(receptacle):
            return f"The {name} is closed."
        seen = listing(self._contents(name))
        return f"{f'The {name} is open. In it' if receptacle.openable else f'On the {name}'}, you see {seen}."

    def _describe(self, name: str) -> str:
        state, thing = self.state, self.game.things[name]
        if thing.holder:
            return f"This is a normal {name}. In it, you see {listing(list(thing.contents))}."
        sliced = name in state.sliced
        if treated := self._treated(name):
            return f"This is a {treated}{' sliced' if sliced else ''} {name}."
        if thing.toggleable and name in state.toggled:
            return f"This {name} is on."
        if thing.sliceable and sliced:
            return f"This is a sliced {name}."
        return f"There's nothing special about {name}."

    def _treated(self, name: str) -> str:
        """What heat, cold and water have made of a thing, in the engine's words; empty where nothing."""
        state = self.state
        if name in state.hot:
            heat = "hot"
        elif name in state.cool:
            heat = "cool" if name in state.clean or name in state.sliced else "cold"
        else:
            heat = ""
        return " and ".join(word for word in (heat, "clean" if name in state.clean else "") if word)

    # The commands.

    def _go_to(self, name: str) -> str | None:
        receptacle = self.game.receptacles.get(name)
        if receptacle is None or receptacle.location == self.state.location:
            return None
        self.state.location = receptacle.location
        return f"You arrive at {name}. {self._view(receptacle)}"

    def _open(self, name: str) -> str | None:
        receptacle = self._here(name)
        if receptacle is None or self._accessible(receptacle):
            return None
        self.state.opened.add(name)
        return f"You open the {name}. {self._view(receptacle)}"

    def _close(self, name: str) -> str | None:
        if self._here(name) is None or name not in self.state.opened:
            return None
        self.state.opened.discard(name)
        return f"You close the {name}."

    def _use(self, name: str) -> str | None:
        thing = self.game.things.get(name)
        if thing is None or not thing.toggleable or not self._within_reach(name):
            return None
        self.state.toggled.add(name)
        return f"You turn on the {name}."

    def _examine(self, name: str) -> str | None:
        if name == self.state.holding:
            return self._describe(name)
        receptacle = self._here(name)
        return None if receptacle is None else self._view(receptacle)

    def _take(self, name: str, source: str) -> str | None:
        state, thing, receptacle = self.state, self.game.things.get(name), self._here(source)
        if thing is None or receptacle is None or state.holding is not None or not thing.pickupable:
            return None
        if not self._accessible(receptacle) or not self._is_inside(name, source):
            return None
        main = state.inside.pop(name, None)
        if main is not None:
            state.also_inside.add((name, main))
        state.also_inside.discard((name, source))
        state.left.add((name, source))
        state.lying.discard((name, state.location))
        state.holding = name
        return f"You pick up the {name} from the {source}."

    def _move(self, name: str, target: str) -> str | None:
        state, receptacle = self.state, self._here(target)
        if receptacle is None or state.holding is None or name != state.holding:
            return None
        kinds = (receptacle.type, self.game.things[name].type)
        if not self._accessible(receptacle) or kinds not in self.game.can_contain:
            return None
        state.inside[name] = target
        state.also_inside.discard((name, target))
        state.left.discard((name, target))
        state.lying.add((name, state.location))
        state.holding = None
        return f"You move the {name} to the {target}."

    def _clean(self, name: str, basin: str) -> str | None:
        return self._treat("clean", name, basin)

    def _heat(self, name: str, microwave: str) -> str | None:
        return self._treat("heat", name, microwave)

    def _cool(self, name: str, fridge: str) -> str | None:
        return self._treat("cool", name, fridge)

    def _treat(self, verb: str, name: str, appliance: str) -> str | None:
        state, receptacle = self.state, self._here(appliance)
        if receptacle is None or state.holding is None or name != state.holding:
            return None
        if not self._treats(verb, name, receptacle):
            return None
        if verb == "clean":
            state.clean.add(name)
        else:
            now, before = (state.hot, state.cool) if verb == "heat" else (state.cool, state.hot)
            now.add(name)
            before.discard(name)
        return f"You {verb} the {name} using the {appliance}."

    def _slice(self, name: str, knife: str) -> str | None:
        state, thing = self.state, self.game.things.get(name)
        if thing is None or not thing.sliceable or state.holding is None or knife != state.holding:
            return None
        if self.game.things[knife].type not in KNIVES or (name, state.location) not in state.lying:
            return None
        state.sliced.add(name)
        return f"You sliced the {name} with the {knife}."

    def _outcome(self, text: str, executed: bool) -> Outcome:
        won = self.won()
        return Outcome(text, self.admissible(), float(won), won, won, executed)


_ONE_NAME = {
    "open": NativeWorld._open,
    "close": NativeWorld._close,
    "use": NativeWorld._use,
    "examine": NativeWorld._examine,
}
_TWO_NAMES = {
    "take": (" from ", NativeWorld._take),
    "move": (" to ", NativeWorld._move),
    "clean": (" with ", NativeWorld._clean),
    "heat": (" with ", NativeWorld._heat),
    "cool": (" with ", NativeWorld._cool),
    "slice": (" with ", NativeWorld._slice),
}
"""Verb -> the word between its two names, and what it does."""
