"""How to run it: `python -m pretrain.scienceworld_gold` (an hour; it goes on where it stopped).

Two passes, each with a JVM of its own, because one that has computed a gold path is slow ever after. The
first asks the package for the gold path of every evaluation task and of a share of the train variations and
notes it in the cache folder. The second makes it shorter, plays it, and writes what reached score 100:

* `sage/envs/scienceworld/gold.json.gz`: actions and scores, which the environment's distances come from;
* `scienceworld_plays.json.gz`: what the simulator said to the train variations' paths (brief words),
  which the tiny models learn from (`pretrain.scienceworld`).

Shorter means: one teleport instead of a walk through doors, no door opening (they are open), a look around
only where the next actions name something that nothing has mentioned yet, and nothing after score 100. Where
the shorter path does not reach 100 the package's own is kept; where that does not either, the task has none.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sage.envs.manifest import cache_root, made_folder
from sage.envs.scienceworld import gold as gold_paths
from sage.envs.scienceworld.actions import brief, failure_of
from sage.envs.scienceworld.gold import GOLD_FORMAT, SIMPLIFICATIONS, normal, room_of
from sage.envs.scienceworld.jvm import Session, Simulator, package_version
from sage.envs.scienceworld.tasks import VARIATIONS, chosen, parse_id
from sage.episode import Failure

HERE = Path(__file__).parent
TRAIN, TEST = 30, 5
SLOW = (
    "boil", "change-the-state-of-matter-of", "freeze", "grow-fruit", "grow-plant",
    "inclined-plane-determine-angle", "inclined-plane-friction-named-surfaces",
    "inclined-plane-friction-unnamed-surfaces", "measure-melting-point-unknown-substance", "melt",
    "mendelian-genetics-known-plant", "mendelian-genetics-unknown-plant",
)  # fmt: skip
"""Tasks whose gold path takes seconds to compute and is far longer than an episode; of their train variations
only those that `env.per_task.train=10` plays have one."""
SLOW_TRAIN = 10

_DOOR = re.compile(r"(?:open|close) door to .*")
_CONTAINED = re.compile(r"\b(?:in|on|to|from|into|using)\b")


def wanted() -> list[str]:
    """Task ids, evaluation and train ones mixed so that a half-finished pass has some of each."""
    queue: list[tuple[float, str]] = []
    for task in VARIATIONS:
        for share, split, cap in ((1.0, "train", SLOW_TRAIN if task in SLOW else TRAIN), (0.6, "test", TEST)):
            there = chosen(task, split, cap)
            queue += [(share * i / len(there), f"{task}/{v}") for i, v in enumerate(there)]
    return [identifier for _, identifier in sorted(queue)]


def ask_package(notes: Path) -> None:
    """First pass: the package's gold paths, one JSON line each."""
    known = set(_noted(notes))
    simulator = Simulator()
    session = simulator.open()
    with notes.open("a", encoding="utf-8") as out:
        for identifier in wanted():
            if identifier in known:
                continue
            simulator.load(session, *parse_id(identifier), SIMPLIFICATIONS, gold=True)
            actions = simulator.gold_path(session)
            out.write(json.dumps({"id": identifier, "actions": actions}) + "\n")
            out.flush()
    simulator.close()


def _noted(notes: Path) -> dict[str, list[str]]:
    if not notes.exists():
        return {}
    rows = [json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines()]
    return {row["id"]: row["actions"] for row in rows}


def shorter(actions: list[str]) -> Iterator[str]:
    """The path with one teleport for each walk, and neither looks nor doors."""
    room: str | None = None
    for action in actions:
        if destination := room_of(action):
            room = destination
        elif _DOOR.fullmatch(normal(action)) or normal(action) == "look around":
            continue
        else:
            if room is not None:
                yield f"teleport to {room}"
                room = None
            yield " ".join(action.split())


def _names(action: str) -> list[str]:
    """What an action is about: `pick up metal pot` gives `metal pot`."""
    rest = action.split(" ", 1)[1] if " " in action else ""
    for verb in ("up ", "down ", "on ", "to "):
        rest = rest.removeprefix(verb)
    return [part.strip() for part in _CONTAINED.split(rest) if part.strip() and part.strip() != "inventory"]


class Recorder:
    """Plays paths and writes down what was said."""

    def __init__(self) -> None:
        self.simulator = Simulator()
        self.session: Session = self.simulator.open()

    def play(self, identifier: str, actions: list[str], look: bool) -> dict[str, Any]:
        """Play until score 100; `look`: look around where an action names what nothing has mentioned."""
        self.simulator.load(self.session, *parse_id(identifier), SIMPLIFICATIONS)
        goal = self.simulator.goal(self.session)
        scene = self.simulator.step(self.session, "look around")[0]
        row: dict[str, Any] = {"goal": goal, "scene": scene, "actions": [], "scores": [], "texts": []}
        said, looked = f"{goal}\n{scene}".lower(), True
        for action in actions:
            if room_of(action):
                looked = False
            elif look and not looked and any(name not in said for name in _names(action.lower())):
                said += self._do(row, "look around").lower()
                looked = True
            text = self._do(row, action)
            said += text.lower()
            if row["scores"][-1] >= 100 or row["scores"][-1] < 0:
                break
        return row

    def _do(self, row: dict[str, Any], action: str) -> str:
        text, score, _ = self.simulator.step(self.session, action)
        row["actions"].append(action)
        row["scores"].append(score)
        row["texts"].append(text)
        return text

    def record(self, identifier: str, actions: list[str]) -> dict[str, Any] | None:
        """The shortest play of `actions` known to reach 100; None where none does."""
        candidates = [(list(shorter(actions)), True), (actions, False)]
        for path, look in candidates:
            row = self.play(identifier, path, look)
            failed = [failure_of(a, t) for a, t in zip(row["actions"], row["texts"], strict=True)]
            if row["scores"] and row["scores"][-1] >= 100:
                row["package"] = len(actions)
                row["failed"] = sum(f is not Failure.NONE for f in failed)
                return row
        return None


def record_all(notes: Path, plays: Path) -> None:
    """Second pass: play what the first one noted."""
    known = (
        {json.loads(line)["id"] for line in plays.read_text(encoding="utf-8").splitlines()}
        if plays.exists()
        else set()
    )
    recorder = Recorder()
    with plays.open("a", encoding="utf-8") as out:
        for identifier, actions in _noted(notes).items():
            if identifier not in known:
                row = recorder.record(identifier, actions)
                out.write(json.dumps({"id": identifier, "row": row}) + "\n")
                out.flush()
    recorder.simulator.close()


def write(plays: Path) -> None:
    """Both shipped files, from the notes of the second pass."""
    rows = {}
    for line in plays.read_text(encoding="utf-8").splitlines():
        noted = json.loads(line)
        rows[noted["id"]] = noted["row"]
    asked = set(wanted())
    found = {name: row for name, row in sorted(rows.items()) if row is not None and name in asked}
    gold = {
        name: {"package": row["package"], "actions": row["actions"], "scores": row["scores"]}
        for name, row in found.items()
    }
    _store(Path(gold_paths.__file__).with_name("gold.json.gz"), {"paths": gold})
    said = {
        name: {"goal": row["goal"], "scene": brief(row["scene"]), "texts": [brief(t) for t in row["texts"]]}
        for name, row in found.items()
        if parse_id(name)[1] in set(chosen(parse_id(name)[0], "train", TRAIN))
    }
    _store(HERE / "scienceworld_plays.json.gz", {"plays": said})
    print(f"{len(found)} paths, {len(said)} plays; none for {sorted(asked - set(found)) or 'no task'}")


def _store(path: Path, content: dict[str, Any]) -> None:
    head = {"format": GOLD_FORMAT, "version": package_version(), "simplifications": SIMPLIFICATIONS}
    text = json.dumps(head | content, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("ask", "play", "write"), help="one pass instead of all three")
    only = parser.parse_args().only
    folder = made_folder(cache_root() / f"scienceworld-gold-{package_version()}")
    if only in (None, "ask"):
        ask_package(folder / "gold.jsonl")
    if only in (None, "play"):
        record_all(folder / "gold.jsonl", folder / "plays.jsonl")
    if only in (None, "write"):
        write(folder / "plays.jsonl")


if __name__ == "__main__":
    main()
