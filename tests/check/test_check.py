"""`python -m sage check`: one page about a pair of models; nothing of it is a traceback, and refusals exit
with 2."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sage.check import step as step_module
from sage.check.before import before_weights
from sage.check.command import check
from sage.check.page import Page, Verdict, fine, refused, warning
from sage.config.load import load
from sage.errors import ConfigError, ModelError
from sage.training import passes
from tests.config.test_load import sage
from tests.tiny_models import byte_tokenizer, tiny_lm

GAMES = [
    "env.games=generated",
    "env.generated.train=4",
    "env.generated.valid_seen=2",
    "env.generated.valid_unseen=2",
    "tracking=none",
]


@pytest.fixture(autouse=True)
def games(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_CACHE", str(tmp_path / "games"))


def save(folder: Path, seed: int, **how: object) -> Path:
    lm = tiny_lm(seed, **how)  # type: ignore[arg-type]
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


def verdicts(page: Page, heading: str) -> set[str]:
    return {line.verdict.value for line in page.lines[heading]}


def texts(page: Page, heading: str) -> str:
    return " | ".join(line.text for line in page.lines[heading])


def test_the_shipped_pair_is_fine_in_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    page = check(load(GAMES))
    assert page.exit_code == 0, capsys.readouterr().out
    parts = ("Templates and context", "Numbers", "Engine", "Real turns", "Templates", "Judge", "A step")
    assert set(parts) <= set(page.lines)
    assert page.count(Verdict.REFUSED) == page.count(Verdict.WARNING) == 0
    assert "prompts and answers of the environment" in texts(page, "Templates and context")
    assert "10 turns of" in texts(page, "Real turns")
    assert "of 10 replies name one label" in texts(page, "Judge")
    assert "the same logits to the bit" in texts(page, "A step")
    assert "fine, 0 warning, 0 refused" in capsys.readouterr().out


def test_a_pair_of_one_s_own_is_looked_at_through_to_the_step(tmp_path: Path) -> None:
    student, teacher = save(tmp_path / "s", 1), save(tmp_path / "t", 2, hidden=48)
    line = [*GAMES, "student=hub", f"student.path={student}", "teacher=hub", f"teacher.path={teacher}"]
    page = check(load([*line, "intervention.max_new_tokens=4", "env.turn_budget=3"]))
    assert "bfloat16 on a CPU" in texts(page, "Before any weights are read")
    # A token a byte, and a reach of 4,096.
    assert "would cut the expert itself" in texts(page, "Templates and context")
    # A random judge says nothing that can be read.
    assert verdicts(page, "Judge") == {"refused", "warning"}
    assert "0 of 10 replies name one label (0%)" in texts(page, "Judge")
    attention, moved, saved = page.lines["A step"]
    assert attention.text == "Attention: student sdpa, teacher sdpa."
    assert "relative movement of the masters" in moved.text
    assert moved.verdict in (Verdict.FINE, Verdict.WARNING)
    assert saved.verdict is Verdict.FINE
    assert page.exit_code == 2


def test_models_of_two_vocabularies_are_refused_and_the_rest_is_not_asked(tmp_path: Path) -> None:
    student = save(tmp_path / "s", 1)
    teacher = save(tmp_path / "t", 2, tokenizer=byte_tokenizer(("extra",)))
    page = check(load([*GAMES, f"student.path={student}", f"teacher.path={teacher}"]))
    assert verdicts(page, "Vocabulary") == {"refused"}
    assert "only the teacher knows 'extra'" in texts(page, "Vocabulary")
    assert "Numbers" not in page.lines, "weights were loaded"
    assert page.exit_code == 2


def test_a_limit_that_cuts_the_expert_is_refused_with_the_numbers() -> None:
    page = check(load([*GAMES, "rollout.max_context=150"]))
    assert "refused" in verdicts(page, "Templates and context")
    assert "rollout.max_context" in texts(page, "Templates and context")


def test_what_closes_an_answer_is_said_and_every_message_is_read_back() -> None:
    page = check(load(GAMES))
    assert verdicts(page, "Templates") == {"fine"}
    assert "closes an answer with '<|end|>'" in texts(page, "Templates")
    assert "every word is there again" in texts(page, "Templates")


def test_an_evaluation_needs_no_teacher(tmp_path: Path) -> None:
    student = save(tmp_path / "s", 1)
    nowhere = f"teacher.path={tmp_path / 'nowhere'}"
    line = [*GAMES, "task=evaluate", f"student.path={student}", nowhere, "student.dtype=float16"]
    page = check(load([*line, "prompt.style=short"]))  # one token a byte leaves no room for more
    assert page.count(Verdict.REFUSED) == 0
    assert "nothing is trained" in texts(page, "A step")


def test_the_movement_of_a_step_is_that_of_all_weights_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_module, "PIECE", 3)
    before = [torch.tensor([[3.0, 0.0], [0.0, 0.0]]).bfloat16(), torch.tensor([4.0]).bfloat16()]
    masters = [torch.tensor([[3.0, 0.0], [0.03, 0.04]]), torch.tensor([4.0])]
    weights = [torch.tensor([[3.0, 0.0], [0.0, 0.0]]).bfloat16(), torch.tensor([4.5]).bfloat16()]
    of_masters, of_weights, share = step_module._movement(masters, weights, before)
    assert of_masters == pytest.approx(0.05 / 5)
    assert of_weights == pytest.approx(0.5 / 5)
    assert share == 1 / 5


def test_a_part_that_breaks_is_a_refused_line() -> None:
    said: list[str] = []
    page = Page(said.append)

    def breaks():  # type: ignore[no-untyped-def]
        yield fine("one")
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    assert not page.part("Part", breaks)
    assert [line.verdict.value for line in page.lines["Part"]] == ["fine", "refused"]
    assert "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB." in page.lines["Part"][1].text
    assert page.exit_code == 2
    assert page.part("Another", lambda: [warning("two")])
    page.part("Third", lambda: [refused("three")])
    page.end(1.0)
    assert said[-1] == "\nRefused: 1 fine, 1 warning, 2 refused, 1 s."


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["student.dtype=float16"], "student.dtype=float16 cannot be trained"),
        (["student.device=cuda:91"], r"^student\.device=cuda:91 is not there"),
        (["teacher.device=gpu"], r"^teacher\.device=gpu is no device"),
        (
            ["student=tiny", "student.path=/no/such/student"],
            r"^Student: The folder '/no/such/student' is not there",
        ),
        (
            ["teacher=tiny", "teacher.path=/no/such/teacher"],
            r"^Teacher: The folder '/no/such/teacher' is not there",
        ),
    ],
)
def test_what_needs_no_weights_is_refused_first(words: list[str], sentence: str) -> None:
    with pytest.raises((ConfigError, ModelError), match=sentence):
        list(before_weights(load([*GAMES, *words])))


def test_a_rate_for_tiny_models_is_warned_of_where_the_model_is_another(tmp_path: Path) -> None:
    folder = save(tmp_path / "s", 1)
    line = ["student=tiny", f"student.path={folder}", "teacher=tiny", f"teacher.path={folder}"]
    found = [line.text for line in before_weights(load(line)) if line.verdict is Verdict.WARNING]
    assert len(found) == 1
    assert "trainer.learning_rate=0.0004 is 400 times the paper's 1e-06" in found[0]
    adapters = before_weights(load(["student=hub_lora", f"student.path={folder}", *line[2:]]))
    assert not [line.text for line in adapters if "trainer.learning_rate" in line.text], "they want another"


def test_the_command_exits_with_2_and_one_sentence_a_line(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    ended = sage("check", f"student.path={tmp_path / 'broken'}", "teacher=tiny", *GAMES, folder=tmp_path)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stdout + ended.stderr
    assert "Refused: 0 fine, 0 warning, 1 refused" in ended.stdout
    many = sage("check", "-m", "seed=0,1", folder=tmp_path)
    assert (many.returncode, many.stderr) == (2, "check looks at one pair of models: leave out -m.\n")


def test_a_run_is_refused_before_the_first_model_is_loaded(tmp_path: Path) -> None:
    words = ["teacher=tiny", f"teacher.path={tmp_path}", f"launch.runs_dir={tmp_path / 'runs'}", *GAMES]
    ended = sage(*words, folder=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.strip().splitlines()[-1].startswith("Teacher: The folder")
    assert "Traceback" not in ended.stderr


def test_packing_that_is_not_right_is_refused_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "why_not", lambda lm: "it is another family")
    said: list[str] = []
    page = check(load(["env.games=generated", "speed.packing=true"]), said.append)
    assert page.exit_code == 2
    assert "speed.packing=true is not right for the student (it is another family)" in " ".join(
        " ".join(said).split()
    )
