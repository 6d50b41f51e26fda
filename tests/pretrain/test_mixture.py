"""pretrain/mixture.py: a mixture of two shipped models' weights, by hand, that loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pretrain.mixture import main
from sage.policy.models.folder import resolve_path


def weights(name: str) -> dict[str, torch.Tensor]:
    return load_file(Path(resolve_path(f"sage://tiny-{name}/scienceworld")) / "model.safetensors")


def test_each_weight_lies_between_the_two_models(tmp_path: Path) -> None:
    out = tmp_path / "mixed"
    assert main([str(out), "--share", "0.25"]) == 0
    student, teacher, mixed = weights("student"), weights("teacher"), load_file(out / "model.safetensors")
    assert mixed.keys() == student.keys()
    for name, tensor in mixed.items():
        exact = 0.75 * student[name].double() + 0.25 * teacher[name].double()
        torch.testing.assert_close(tensor, exact.to(tensor.dtype))
    assert not (out / "README.md").exists()  # the student's card, which is not of it
    assert (out / "tokenizer.json").read_bytes() == (
        Path(resolve_path("sage://tiny-student/scienceworld")) / "tokenizer.json"
    ).read_bytes()


def test_a_share_that_is_none_and_a_folder_that_is_there_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, there, file = str(tmp_path / "new"), str(tmp_path), tmp_path / "file"
    file.touch()
    below = [str(file / "below")]
    for words, said in (
        ([new, "--share", "7"], "no share"),
        ([there], "there already"),
        (below, "cannot be made"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
