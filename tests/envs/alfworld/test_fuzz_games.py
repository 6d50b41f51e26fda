"""Fifty damaged game files: each is refused in one sentence, or is a whole game that can be played."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from sage.envs.alfworld.env import AlfworldEnvironment
from sage.envs.base import EnvironmentFault
from sage.episode import Task
from tests.envs.alfworld.kitchen import write_kitchen

pytest.importorskip("alfworld", reason="the wheel has the domain and the grammar")


def damaged(original: bytes, rng: random.Random) -> bytes:
    """The file with one thing wrong, of a kind that `rng` chooses."""
    data = json.loads(original)
    kind = rng.choice(("cut", "bytes", "drop", "type", "words", "parentheses", "facts", "nested", "other"))
    if kind == "cut":
        return original[: rng.randrange(len(original))]
    if kind == "bytes":
        start = rng.randrange(len(original) - 8)
        return original[:start] + rng.randbytes(8) + original[start + 8 :]
    if kind == "drop":
        del data[rng.choice(sorted(data))]
    if kind == "type":
        data[rng.choice(sorted(data))] = rng.choice([None, 3, [], {}, ["x"], "", "\ud800", 1e308])
    if kind in ("words", "parentheses", "facts"):
        problem = data["pddl_problem"]
        if kind == "parentheses":
            problem = "".join(c for c in problem if c not in "()" or rng.random() > 0.02)
        elif kind == "words":
            words = problem.split(" ")
            for _ in range(3):
                words[rng.randrange(len(words))] = rng.choice(["", "x", "Apple_bar_9", "(", ")", "\x00", "é"])
            problem = " ".join(words)
        else:
            lines = problem.split("(")
            del lines[rng.randrange(len(lines))]
            problem = "(".join(lines)
        data["pddl_problem"] = problem
    if kind == "nested":
        return b"[" * 5000
    if kind == "other":
        return rng.choice([b"", b"null", b"[]", b"\xff\xfe", b"PK\x03\x04", b"{}", b'"x"', b"1" * 5000])
    return json.dumps(data).encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("seed", range(50))
def test_a_damaged_game_file_is_a_sentence_or_a_game(seed: int, tmp_path: Path) -> None:
    file = write_kitchen(tmp_path)
    file.write_bytes(damaged(file.read_bytes(), random.Random(seed)))
    environment = AlfworldEnvironment()
    try:
        step = environment.reset(Task("x", "alfworld", "valid_seen", "pick_heat", "official", str(file)))
        for _ in range(30):
            action = environment.expert_action()
            if step.done or action is None:
                break
            assert environment.expert_distance() is None or environment.expert_distance() >= 0
            step = environment.step(action)
    except EnvironmentFault as fault:
        text = str(fault).replace(str(file), "FILE")
        assert "\n" not in text
        assert len(text) < 400
        return
    assert environment.goal
    assert step.admissible
