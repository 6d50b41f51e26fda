"""Which code, packages, models and machine made a run. Never secrets: no environment beyond an allow-list."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import sage
from sage.records.atomic import write_atomic
from sage.records.owner import writing
from sage.redaction import redact, redact_command

ENVIRONMENT = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "PYTHONHASHSEED",
    "ALFWORLD_DATA",
)
"""The only environment variables that are recorded."""

_RUN_MADE = ("*.db", "*.db-*", "*.db.lock", "*.sqlite", "*.sqlite-*", "*.sqlite3", "*.tfevents.*")
"""Files that a run leaves in the current directory: MLflow's store, Optuna's, the judge's cache, locks,
TensorBoard's."""
_RUN_HOMES = ("ledger.jsonl", "report.html", "studies.db", "latest-run")
"""A folder with one of these holds runs, a report or Weights & Biases' runs."""
_UNTRACKED_SUFFIXES = {".py", ".yaml", ".yml", ".toml"}
_UNTRACKED_BYTES = 200_000


def collect(
    *,
    manifest_digest: str,
    models: Mapping[str, str],
    plan_sha256: str | None = None,
    plugins: Sequence[str] = (),
    template_dates: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
) -> tuple[dict[str, Any], str]:
    """(content of provenance.json, text of code.diff). `models` maps a role to a model's digest;
    `plan_sha256` is the frozen plan's that the run serves, `plugins` are modules outside the package;
    `template_dates` maps the role of a model whose chat template asks for today's date to the date it prints.

    The diff is empty where the code is clean or where there is no git to ask; `code.git` says which.
    """
    package = Path(sage.__file__).resolve().parent
    code, diff = code_state(package)
    if plugins:
        code["source_sha256"] = source_digest(package, plugins)
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": redact_command(command if command is not None else sys.argv),
        "code": code,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": machine(),
        "packages": package_versions(),
        "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
        "manifest_digest": manifest_digest,
        "models": dict(models),
        "template_dates": dict(template_dates or {}),
        "plan_sha256": plan_sha256,
    }, diff


def write(folder: Path, **arguments: Any) -> dict[str, Any]:
    """Write provenance.json and code.diff into a run directory; arguments as for `collect`."""
    data, diff = collect(**arguments)
    with writing(Path(folder)):
        text = json.dumps(data, indent=1, ensure_ascii=False) + "\n"
        write_atomic(Path(folder) / "provenance.json", text)
        write_atomic(Path(folder) / "code.diff", redact(diff))
    return data


def code_state(package: Path) -> tuple[dict[str, Any], str]:
    """(commit, dirty flag and a digest of the package's own files, diff against the commit).

    `git` is `repository`, `wheel` (installed, with the commit where pip knows one) or `none`. A package
    that merely lies inside somebody else's repository (a venv in a checkout) counts as a wheel.
    """
    code: dict[str, Any] = {
        "git": "none",
        "commit": None,
        "dirty": None,
        "version": None,
        "source_sha256": tree_digest(package, {".py", ".yaml"}),
    }
    with contextlib.suppress(metadata.PackageNotFoundError):
        code["version"] = metadata.version("sage-opd")
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        if {"site-packages", "dist-packages"} & set(package.parts):
            code |= {"git": "wheel", "commit": _commit_of_wheel()}
        return code, ""
    root = Path((_git(package, "rev-parse", "--show-toplevel") or str(package)).strip())
    changed = _git(root, "status", "--porcelain", "--untracked-files=no") or ""
    diff = _git(root, "diff", "HEAD", "--binary") or ""
    listed = (_git(root, "ls-files", "--others", "--exclude-standard", "-z") or "").split("\0")
    untracked = [name for name in listed if name and not _made_by_a_run(root, Path(name))]
    diff += "".join(_as_new_file(root, name) for name in untracked)
    commit = (_git(root, "rev-parse", "HEAD") or "").strip() or None
    return code | {"git": "repository", "commit": commit, "dirty": bool(changed.strip() or untracked)}, diff


def package_versions() -> dict[str, str]:
    """Every installed distribution and its version, read from folder names (opening each costs a second)."""
    found: dict[str, str] = {}
    for entry in sys.path:
        for path in Path(entry or ".").glob("*.dist-info"):
            name, _, version = path.name.removesuffix(".dist-info").partition("-")
            found.setdefault(name.replace("_", "-").lower(), version)
    return dict(sorted(found.items()))


def machine() -> dict[str, Any]:
    """Processor, cores, memory, threads, and the GPUs where torch is loaded already."""
    data: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory_bytes(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        data["torch_threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            data["cuda"] = torch.version.cuda
            data["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return data


def tree_digest(folder: Path, suffixes: set[str] | None = None) -> str:
    """sha256 over the relative names and contents of a folder's files; also the digest of a model folder."""
    total = hashlib.sha256()
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        if suffixes is None or path.suffix in suffixes:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return total.hexdigest()


def source_digest(package: Path, plugins: Iterable[str] = ()) -> str:
    """sha256 of the code that a run executes: the package's own files, and each plugin's where there are any.

    A plugin that cannot be found again counts by its name alone.
    """
    own = tree_digest(package, {".py", ".yaml"})
    if not (names := sorted(plugins)):
        return own
    total = hashlib.sha256(own.encode())
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            content = "".join(tree_digest(Path(p), {".py"}) for p in spec.submodule_search_locations)
        elif spec is not None and spec.origin is not None and Path(spec.origin).exists():
            content = hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()
        else:
            content = ""
        total.update(f"{name}\0{content}\n".encode())
    return total.hexdigest()


def _git(folder: Path, *arguments: str) -> str | None:
    """git's output; None where it fails or is not there. Takes no locks: others may be committing."""
    if shutil.which("git") is None:
        return None
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.decode(errors="replace") if result.returncode == 0 else None


def _made_by_a_run(root: Path, name: Path) -> bool:
    """Whether an untracked file is what a run or a report leaves behind, wherever it was told to put it."""
    if any(name.match(pattern) for pattern in _RUN_MADE):
        return True
    homes = [root / folder for folder in name.parents if folder != Path(".")]
    return any((home / mark).exists() for home in homes for mark in _RUN_HOMES)


def _as_new_file(root: Path, name: str) -> str:
    """An untracked source file as a diff; others only by name, for they may hold data or secrets."""
    path = root / name
    hidden = any(part.startswith(".") for part in Path(name).parts)
    if hidden or path.suffix not in _UNTRACKED_SUFFIXES or not path.is_file():
        return f"# untracked, not included: {name}\n"
    if path.stat().st_size > _UNTRACKED_BYTES:
        return f"# untracked, too large: {name}\n"
    lines = path.read_text(errors="replace", encoding="utf-8").splitlines()
    body = "".join(f"+{line}\n" for line in lines)
    return (
        f"diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}\n"
        f"@@ -0,0 +1,{len(lines)} @@\n{body}"
    )


def _commit_of_wheel() -> str | None:
    """The commit that pip recorded (PEP 610) where the package was installed from a repository."""
    try:
        text = metadata.distribution("sage-opd").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    return json.loads(text).get("vcs_info", {}).get("commit_id") if text else None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None
