"""README and every page of the guide, typed word by word in a fresh clone, in the order of the site's menu.

Commands and files are taken from the pages. With SAGE_GUIDES_FRESH (`nox -s guides`) README's first line
makes the environment. Without, it is a new one beside that of the tests, whose packages need not be fetched
again, and README's first line is left out. What else is left out, and what is shortened: tests/guides.py.
Each page begins with the runs that README and the first run have left, and not with those of the pages before
it: a reader who compares two methods does not have every page's variants of them beside each other.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.guides import SERVERS, makes_an_environment, not_here, shortened
from tests.pages import ROOT, Block, blocks, pages

pytestmark = pytest.mark.slow
FRESH = bool(os.environ.get("SAGE_GUIDES_FRESH"))
LONGEST_S = 3600.0


def beside(folder: Path) -> Path:
    """Scripts of a new environment, in which the packages of this one are found and which is written."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    others = [path for path in sys.path if path.endswith("site-packages")]
    (site / "of_the_tests.pth").write_text("\n".join(others) + "\n", encoding="utf-8")
    return folder / "bin"


class Reader:
    """Who types: in a clone of their own, with a home of their own."""

    def __init__(self, folder: Path) -> None:
        self.clone, self.home = folder / "clone", folder / "home"
        self.home.mkdir(parents=True)
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file() or (ROOT / name).is_symlink():  # conf/sweep is a link to a folder
                (self.clone / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.clone / name, follow_symlinks=False)
        made = self.clone / ".nox" / "shared" / "bin" if FRESH else beside(folder / "environment")
        path = [str(made), str(Path(sys.executable).parent), os.environ["PATH"]]
        kept = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("PYTHON", "VIRTUAL_ENV", "SAGE_", "NOX", "ALFWORLD"))
        }
        self.environment = {**kept, "PATH": os.pathsep.join(path), "HOME": str(self.home)}
        self.environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def turn_to(self, page: Path) -> None:
        """Begin a page, with the runs that README and the first run have left."""
        runs, kept = self.clone / "runs", self.home / "runs_of_the_first_pages"
        if page.stem in ("README", "first_run") or not (runs.exists() or kept.exists()):
            return
        if not kept.exists():
            shutil.copytree(runs, kept)
        shutil.rmtree(runs, ignore_errors=True)
        shutil.copytree(kept, runs)

    def follow(self, block: Block) -> None:
        """Do what a block says."""
        if block.file is not None:
            there = self.clone / block.file
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_text(block.text, encoding="utf-8")
        elif block.language == "python" and not block.excerpt:
            self._run(["python", "-c", block.text], f"python of {block.page.name}")
        for command in block.commands:
            if why := not_here(command) or ("" if FRESH else makes_an_environment(command)):
                print(f"  not here  {command}  ({why})", flush=True)
            elif found := [at for pattern, at in SERVERS.items() if re.search(pattern, command)]:
                self._serve(command, found[0])
            else:
                self._run(["bash", "-c", shortened(command)], shortened(command))

    def _run(self, words: list[str], name: str) -> None:
        started = time.monotonic()
        done = subprocess.run(
            words,
            cwd=self.clone,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
        print(f"{time.monotonic() - started:8.0f} s  {name}", flush=True)
        assert done.returncode == 0, f"{name}\n{done.stdout[-6000:]}"
        assert "Traceback (most recent call last)" not in done.stdout, f"{name}\n{done.stdout[-6000:]}"

    def _serve(self, command: str, address: str | None) -> None:
        """Start it, open its page, end it as Ctrl-C does."""
        log = self.home / "server.log"
        with log.open("w") as out:
            server = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.clone,
                env={**self.environment, "PYTHONUNBUFFERED": "1"},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            page = _opened(server, log, address)
        finally:
            os.killpg(server.pid, signal.SIGINT)
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()
        assert "<html" in page.lower(), f"{command}\n{page[:500]}"
        print(f"   opened   {command}", flush=True)


def _opened(server: subprocess.Popen[bytes], log: Path, address: str | None, patience_s: float = 400) -> str:
    """The page at the address, once the server answers."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        said = log.read_text(errors="replace")
        assert server.poll() is None, said[-3000:]
        printed = re.search(r"http://[\w.:]+[^\s#]*", said)
        at = address or (printed[0] if printed else None)
        if at is not None:
            try:
                with urllib.request.urlopen(at, timeout=20) as answer:
                    return str(answer.read().decode(errors="replace"))
            except (urllib.error.URLError, OSError):
                pass
        time.sleep(1)
    raise AssertionError(f"no page in {patience_s:g} s:\n{log.read_text(errors='replace')[-3000:]}")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return Reader(tmp_path_factory.mktemp("reader"))


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_what_a_page_says_can_be_typed_word_by_word(page: Path, reader: Reader) -> None:
    print(f"\n{page.relative_to(ROOT)}", flush=True)
    reader.turn_to(page)
    for block in blocks(page):
        reader.follow(block)
