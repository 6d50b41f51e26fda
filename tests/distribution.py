"""How to run it: `python tests/distribution.py DIST` looks into a wheel and an sdist (`nox -s build`).

The wheel holds what git tracks of the packages and their settings, nothing else and nothing less; both stay
below a size, and have the texts that a package is read by. Exits 1 with a line for each thing that is wrong.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOVED = {
    "sage/": "sage/",
    "analysis/": "analysis/",
    "pretrain/": "pretrain/",
    "conf/": "sage/conf/",
    "sweeps/hydra_plugins/": "hydra_plugins/",
}
"""Folders of the repository, and where an installed package has them."""
MOST_MIB = 30
"""Of the wheel. Beyond it, models above 5 MB have to be a package of their own."""
IN_SDIST = (
    *("README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "constraints.txt"),
    *("pyproject.toml", "PKG-INFO", "docs/examples/own_parts/pyproject.toml"),
    *("docs/examples/own_parts/own_parts/drawers.py", "docs/examples/own_parts/tests/test_parts.py"),
)


def expected(tracked: Iterable[str], studies: Iterable[str]) -> set[str]:
    """Names in the wheel, of names in git. `studies`: what `conf/sweep`, a link, leads to."""
    found = {f"sage/conf/sweep/{name}" for name in studies}
    for name in tracked:
        for ours, theirs in MOVED.items():
            if name.startswith(ours) and name != "conf/sweep":
                found.add(theirs + name.removeprefix(ours))
    return found


def wrong_with_wheel(names: Iterable[str], size: int, wanted: set[str]) -> list[str]:
    """One line for each thing that is wrong. `size` in bytes."""
    held = {name for name in names if ".dist-info/" not in name and not name.endswith("/")}
    lines = [f"{name} is not in the wheel" for name in sorted(wanted - held)]
    lines += [f"{name} is in the wheel and not in git" for name in sorted(held - wanted)]
    if size > MOST_MIB * 2**20:
        lines.append(f"the wheel has {size / 2**20:.1f} MiB, and at most {MOST_MIB} are allowed")
    return lines


def wrong_with_sdist(names: Iterable[str]) -> list[str]:
    held = {name.partition("/")[2] for name in names}
    return [f"{name} is not in the sdist" for name in IN_SDIST if name not in held]


def git_files() -> list[str]:
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    done = subprocess.run(command, capture_output=True, check=True, encoding="utf-8")
    return [name for name in done.stdout.split("\0") if name]


def main(dist: Path) -> int:
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    studies = [path.name for path in (ROOT / "sweeps").glob("*.yaml")]
    with zipfile.ZipFile(wheel) as packed:
        lines = wrong_with_wheel(packed.namelist(), wheel.stat().st_size, expected(git_files(), studies))
    with tarfile.open(sdist) as unpacked:
        lines += wrong_with_sdist(unpacked.getnames())
    for line in lines:
        print(line)
    for path in (wheel, sdist):
        print(f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
