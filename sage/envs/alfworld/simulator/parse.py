"""Reads one `game.tw-pddl` into a `Game`, without TextWorld and without `traj_data.json`.

Invariant: a file either parses into a game that the native engine plays exactly as TextWorld does, or is
refused with one sentence. So the domain and the grammar must be texts whose play was compared (alfworld
0.4.2: the official release's and the wheel's), and the problem may hold only known predicates and one of six
goals.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from hashlib import sha256
from pathlib import Path

from sage.envs.alfworld.simulator.world import Game, Goal, Receptacle, State, Thing
from sage.errors import EnvironmentFault, reason_of

KNOWN_DOMAINS = frozenset(
    {
        "0af55e7f92d12b09d28515aa730e4d03fddd17228ef1fd7b18a3ee8ba49b27b9",  # official release json_2.1.1
        "f1473041ed01da514de1f87adfd7ef0804862361f83ccf63c75e43633b0eb280",  # wheel
    }
)
"""sha256 of the domain texts that were compared: the official games' and the alfworld 0.4.2 wheel's."""

KNOWN_GRAMMARS = frozenset(
    {
        "10da93e13b58e1a6039723f5d4a59ceae7c60772515bfab9fc603bafa7f8ee06",  # official release json_2.1.1
        "c294eb280206a4428664cdb4e2037e267e86de5b7fa862212718a961513a7de4",  # wheel
    }
)
"""sha256 of their grammars, task sentence cut out."""

_TASK = re.compile(r'(?<=Your task is to: )[^"{}#\\]*(?=")')
_FACT = re.compile(r"\((\w+) ([\w.]+)(?: ([\w.]+))?\s*\)")
_ABILITIES = ("pickupable", "cleanable", "heatable", "coolable", "toggleable", "sliceable")
_PREDICATES = frozenset(_ABILITIES) | {
    "receptacleType",
    "objectType",
    "canContain",
    "openable",
    "isReceptacleObject",
    "inReceptacleObject",
    "atLocation",
    "receptacleAtLocation",
    "objectAtLocation",
    "inReceptacle",
    "isCool",
}


class UncoveredGame(EnvironmentFault):
    """The game holds something the native engine does not play exactly as TextWorld does."""


def _goal_pattern(text: str) -> re.Pattern[str]:
    """`text` with `OBJ`, `REC` and `LAMP` for types; blanks stand for any white space."""
    escaped = r"\s*".join(re.escape(token) for token in re.findall(r"[()]|[^\s()]+", text))
    for group in ("OBJ", "REC", "LAMP"):
        first, *rest = escaped.split(f"{group}Type")
        if rest:
            escaped = first + rf"(?P<{group}>\w+)Type" + rf"(?P={group})Type".join(rest)
    return re.compile(escaped)


def _treated(ability: str, state: str) -> str:
    return (
        f"(:goal (and (exists (?r - receptacle) (exists (?o - object) (and ({ability} ?o)"
        f" (objectType ?o OBJType) (receptacleType ?r RECType) ({state} ?o) (inReceptacle ?o ?r))))))"
    )


_GOALS = {
    "pick_and_place_simple": _goal_pattern(
        "(:goal (and (exists (?r - receptacle) (exists (?o - object) (and (inReceptacle ?o ?r)"
        " (objectType ?o OBJType) (receptacleType ?r RECType))))))"
    ),
    "look_at_obj_in_light": _goal_pattern(
        "(:goal (and (exists (?ot - object ?r - receptacle ?a - agent ?l - location)"
        " (and (objectType ?ot LAMPType) (toggleable ?ot) (isToggled ?ot) (receptacleAtLocation ?r ?l)"
        " (atLocation ?a ?l) (inReceptacle ?ot ?r)))"
        " (exists (?o - object ?a - agent) (and (objectType ?o OBJType) (holds ?a ?o)))))"
    ),
    "pick_clean_then_place_in_recep": _goal_pattern(_treated("cleanable", "isClean")),
    "pick_heat_then_place_in_recep": _goal_pattern(_treated("heatable", "isHot")),
    "pick_cool_then_place_in_recep": _goal_pattern(_treated("coolable", "isCool")),
    "pick_two_obj_and_place": _goal_pattern(
        "(:goal (and (exists (?r - receptacle) (exists (?o1 - object) (and (objectType ?o1 OBJType)"
        " (receptacleType ?r RECType) (inReceptacle ?o1 ?r) (exists (?o2 - object) (and (not (= ?o1 ?o2))"
        " (objectType ?o2 OBJType) (receptacleType ?r RECType) (inReceptacle ?o2 ?r))))))))"
    ),
}


def parse_game(path: str | Path) -> Game:
    """The game in the file `path`.

    Raises:
        EnvironmentFault: the file is missing or is no game file.
        UncoveredGame: it is one the native engine does not cover; the sentence says why.
    """
    path = Path(path)
    if any("movable" in part or "Sliced" in part for part in path.parts[-3:-1]):
        raise UncoveredGame(
            f"{path} is a movable-receptacle or sliced-object task, which the alfworld package skips as well."
        )
    domain, grammar, problem, walkthrough = _read(path)
    facts_at, goal_at = problem.find("(:init"), problem.find("(:goal")
    if not 0 <= facts_at < goal_at:
        raise EnvironmentFault(f"{path} is not an ALFWorld game file: no (:init stands before a (:goal.")
    task_text = _task_text(grammar, domain, path)
    goal = _goal(problem[goal_at:], path)
    facts: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, first, second in _FACT.findall(problem[facts_at:goal_at].replace("\n", " ")):
        facts[name].append((first.lower(), second.lower()))
    unknown = sorted(facts.keys() - _PREDICATES)
    if unknown:
        names = ", ".join(unknown)
        raise UncoveredGame(f"{path} starts with facts the native engine does not know: {names}.")
    try:
        return _build(str(path), task_text, goal, facts, walkthrough)
    except (KeyError, IndexError) as error:
        raise EnvironmentFault(
            f"The facts of {path} do not fit together: {reason_of(error)} is nowhere; the file is damaged."
        ) from error


def _read(path: Path) -> tuple[str, str, str, tuple[str, ...]]:
    """Domain, grammar, problem and walkthrough of a game file. Raises EnvironmentFault in one sentence."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EnvironmentFault(f"The game file {path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        what = "no text" if isinstance(error, UnicodeDecodeError) else "no JSON"
        raise EnvironmentFault(f"{path} is not an ALFWorld game file: it holds {what}.") from error
    for key in ("pddl_domain", "grammar", "pddl_problem"):
        if not isinstance(data, dict) or not isinstance(data.get(key), str):
            raise EnvironmentFault(f"{path} is not an ALFWorld game file: it has no text {key!r}.")
    walkthrough = data.get("walkthrough") or ()
    if not isinstance(walkthrough, list | tuple) or not all(isinstance(step, str) for step in walkthrough):
        raise EnvironmentFault(f"{path} is not an ALFWorld game file: its walkthrough is no list of texts.")
    # Half a surrogate pair, which JSON may hold, is no text that could be hashed or shown.
    domain, grammar, problem = (
        data[key].encode("utf-8", "replace").decode() for key in ("pddl_domain", "grammar", "pddl_problem")
    )
    return domain, grammar, problem, tuple(walkthrough)


def _task_text(grammar: str, domain: str, path: Path) -> str:
    sentences = _TASK.findall(grammar)
    digests = sha256(domain.encode()).hexdigest(), sha256(_TASK.sub("", grammar).encode()).hexdigest()
    if len(sentences) != 1 or digests[0] not in KNOWN_DOMAINS or digests[1] not in KNOWN_GRAMMARS:
        raise UncoveredGame(
            f"{path} has another domain or text grammar than those of alfworld 0.4.2, which were compared."
        )
    if not sentences[0].endswith("."):
        raise UncoveredGame(f"The task sentence of {path} does not end with a full stop.")
    return sentences[0][:-1]


def _goal(text: str, path: Path) -> Goal:
    for task_type, pattern in _GOALS.items():
        match = pattern.match(text)
        if match:
            types = {name: value.lower() for name, value in match.groupdict().items()}
            return Goal(
                task_type,
                types["OBJ"],
                types.get("REC", ""),
                types.get("LAMP", ""),
                2 if task_type == "pick_two_obj_and_place" else 1,
            )
    raise UncoveredGame(f"The goal of {path} is none of the six the native engine knows.")


def _names(ids: list[str]) -> dict[str, str]:
    """Sorted lower-case ids to the names an agent reads: per kind, numbered downwards (`Demangler`)."""
    kinds = [name.split("_bar_", 1)[0] + ("basin" if "basin" in name else "") for name in ids]
    left = Counter(kinds)
    names: dict[str, str] = {}
    for identifier, kind in zip(ids, kinds, strict=True):
        names[identifier] = f"{kind} {left[kind]}"
        left[kind] -= 1
    return names


def _build(
    path: str,
    task_text: str,
    goal: Goal,
    facts: dict[str, list[tuple[str, str]]],
    walkthrough: tuple[str, ...],
) -> Game:
    receptacle_types, object_types = _typed(facts["receptacleType"]), _typed(facts["objectType"])
    ids = sorted(receptacle_types.keys() | object_types.keys())
    if any("_bar_" not in identifier for identifier in ids):
        raise UncoveredGame(f"{path} has an object without a place in its id, which gets no number.")
    # Two official games state an ability of a cracked egg that is nowhere: it takes a number all the same.
    mentioned = {name for pairs in facts.values() for pair in pairs for name in pair if "_bar_" in name}
    names = _names(sorted(mentioned | set(ids)))
    location = dict(facts["receptacleAtLocation"])
    openable = {r for r, _ in facts["openable"]}
    receptacles = {
        names[r]: Receptacle(names[r], receptacle_types[r], location[r], r in openable)
        for r in ids
        if r in receptacle_types
    }
    things = _things([o for o in ids if o in object_types], object_types, names, facts)
    state = _state(facts, names, location, receptacles)
    can_contain = frozenset(
        (holder.removesuffix("type"), kind.removesuffix("type")) for holder, kind in facts["canContain"]
    )
    return Game(path, task_text, goal, receptacles, things, can_contain, state, walkthrough)


def _state(
    facts: dict[str, list[tuple[str, str]]],
    names: dict[str, str],
    location: dict[str, str],
    receptacles: dict[str, Receptacle],
) -> State:
    """Where things are at the start. Raises KeyError where one is in what is no receptacle."""
    lying = {(names[o], place) for o, place in facts["objectAtLocation"]}
    inside: dict[str, str] = {}
    also_inside: set[tuple[str, str]] = set()
    # Of several receptacles the main one is where the object also lies.
    pairs = sorted(facts["inReceptacle"], key=lambda pair: (names[pair[0]], location[pair[1]]) not in lying)
    for o, r in pairs:
        if names[r] not in receptacles:
            raise KeyError(r)
        if inside.setdefault(names[o], names[r]) != names[r]:
            also_inside.add((names[o], names[r]))
    return State(
        location=facts["atLocation"][0][1],
        inside=inside,
        cool={names[o] for o, _ in facts["isCool"]},
        also_inside=also_inside,
        lying=lying,
    )


def _typed(pairs: list[tuple[str, str]]) -> dict[str, str]:
    return {identifier: kind.removesuffix("type") for identifier, kind in pairs}


def _things(
    ids: list[str], types: dict[str, str], names: dict[str, str], facts: dict[str, list[tuple[str, str]]]
) -> dict[str, Thing]:
    """The objects by the names an agent reads, in the order of `ids`."""
    able = {ability: {o for o, _ in facts[ability]} for ability in _ABILITIES}
    holders = {o for o, _ in facts["isReceptacleObject"]}
    contents: dict[str, list[str]] = defaultdict(list)
    for inner, outer in sorted(facts["inReceptacleObject"]):
        contents[outer].append(names[inner])
    return {
        names[o]: Thing(
            names[o],
            types[o],
            **{ability: o in able[ability] for ability in _ABILITIES},
            holder=o in holders,
            contents=tuple(contents[o]),
        )
        for o in ids
    }
