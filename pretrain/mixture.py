"""A ScienceWorld student that can read names: a mixture of the shipped student's and teacher's weights.

    python -m pretrain.mixture half_taught --share 0.7
    python -m sage env=scienceworld student.path=half_taught

Both come from one ancestor (docs/evidence/tiny_models.md), so a mixture of their weights is a model between
them. The folder has the student's tokenizer and settings, and weights (1 − share) student + share teacher.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file

from sage.policy.models.folder import resolve_path

WEIGHTS = "model.safetensors"


def mix(student: Path, teacher: Path, share: float, out: Path) -> None:
    """Write the mixture into the new folder `out`, without the student's card, which is not of it. Raises
    OSError where the folder cannot be made."""
    weights, others = load_file(student / WEIGHTS), load_file(teacher / WEIGHTS)
    shutil.copytree(student, out, ignore=shutil.ignore_patterns("README.md", WEIGHTS))
    mixed = {
        name: ((1 - share) * tensor.float() + share * others[name].float()).to(tensor.dtype).contiguous()
        for name, tensor in weights.items()
    }
    save_file(mixed, out / WEIGHTS, metadata={"format": "pt"})


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path, help="the new folder")
    parser.add_argument("--share", type=float, default=0.7, help="the teacher's, 0 to 1")
    args = parser.parse_args(words)
    if not 0 <= args.share <= 1:
        parser.error(f"--share {args.share:g} is no share; it lies between 0 and 1.")
    if os.path.lexists(args.out):
        parser.error(f"{args.out} is there already; name a new folder.")
    names = ("sage://tiny-student/scienceworld", "sage://tiny-teacher/scienceworld")
    student, teacher = (Path(resolve_path(name)) for name in names)
    try:
        mix(student, teacher, args.share, args.out)
    except OSError as error:
        parser.error(f"{args.out} cannot be made: {error.strerror or error}.")
    print(f"{args.out}: {1 - args.share:g} of the student, {args.share:g} of the teacher")
    return 0


if __name__ == "__main__":
    sys.exit(main())
