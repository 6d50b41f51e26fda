"""What the scripts of pictures share: a server while its pages are looked at, and a picture of one page."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser.devtools import Page  # noqa: E402

GUIDE, EVIDENCE = (ROOT / "docs" / shelf for shelf in ("guide", "evidence"))
LOADED = "document.readyState === 'complete'"
DRAWN = "document.querySelectorAll('.js-plotly-plot .main-svg').length >= {}"
"""So many layers of Plotly's are there."""
PATIENCE_S = 600.0


def take(
    page: Page, address: str, ready: str, picture: Path, then: Callable[[Page], None] = lambda page: None
) -> None:
    """A picture of the page once it shows what it is about (`ready`), `then` has been done on it, and nothing
    moves."""
    page.open(address, "document.body && document.body.innerText.length > 0")
    page.wait(ready, PATIENCE_S)
    then(page)
    spinning = "document.querySelector('[class*=spinner], .anticon-spin, [aria-busy=true]')"
    page.wait(f"!({spinning})", PATIENCE_S)
    time.sleep(2)
    page.screenshot(picture)
    print(picture.name, page.value("location.href")[:200], flush=True)


@contextmanager
def served(
    module: str, *words: str, health: str = "", env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Iterator[str]:
    """The address of a server, `python -m module words`, in which `{port}` stands for a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", module, *(word.format(port=port) for word in words)]
    process = subprocess.Popen(command, env={**os.environ, **(env or {})}, cwd=cwd, start_new_session=True)
    try:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{address}/{health}", timeout=30)
                break
            except OSError:
                time.sleep(1)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait()


@contextmanager
def mlflow_server(store: str, artifacts: Path) -> Iterator[str]:
    """The address of an MLflow server of its own, through which artifacts go, too."""
    words = ["server", "--host", "127.0.0.1", "--port", "{port}", "--workers", "1"]
    words += ["--backend-store-uri", store, "--artifacts-destination", artifacts.as_uri()]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with served("mlflow", *words, health="health", env=quiet) as address:
        yield address


def no_assistant(page: Page, address: str) -> None:
    """MLflow's assistant stays shut: as if it had been seen before."""
    page.open(f"{address}/static-files/manifest.json", LOADED)
    for key, value in (("panelOpen_v1", "false"), ("fab.autoOpenedOnFirstLoad_v1", "true")):
        page.value(f"localStorage.setItem('mlflow.assistant.{key}', '{value}'); 0")
