"""Take the pictures of docs/guide/tracking.md and docs/evidence/pages.md, in a headless Chromium.

python docs/make_tracking_pictures.py mlflow RUNS     # RUNS: a folder with runs of opd and of sage_opd
python docs/make_tracking_pictures.py report RUNS     # the page of `analysis report`, wide and narrow
python docs/make_tracking_pictures.py site SITE       # SITE: what `nox -s docs` builds (build/site)

MLflow's pictures come from a store and a server of their own, which are gone afterwards.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sage.records.mlflow.store import WORKFLOW  # noqa: E402
from tests.browser.devtools import Page, browser  # noqa: E402

GUIDE, EVIDENCE = (ROOT / "docs" / shelf for shelf in ("guide", "evidence"))
LOADED = "document.readyState === 'complete'"
PATIENCE_S = 600.0
DRAWN = "document.querySelectorAll('.js-plotly-plot .main-svg').length >= {}"


def mlflow(runs: Path, page: Page, scratch: Path) -> None:
    """The list of runs, the saved view, the comparison, a run's curves and its table of turns."""
    attempts = sorted(map(str, runs.glob("*/attempt_*")))
    store = f"sqlite:///{scratch / 'mlflow.db'}"
    command = [sys.executable, "-m", "sage.records.mlflow.export", *attempts, "--uri", store]
    subprocess.run(command, check=True, cwd=ROOT)
    with served(store) as address:
        found = ask(address, "runs/search", {"experiment_ids": ["1"]})["runs"]
        ids = [run["info"]["run_id"] for run in found]
        page.resize(1400, 860)
        page.open(f"{address}/static-files/manifest.json", LOADED)
        closed = {"mlflow.assistant.panelOpen_v1": "false"}
        closed["mlflow.assistant.fab.autoOpenedOnFirstLoad_v1"] = "true"
        for key, value in closed.items():
            page.value(f"localStorage.setItem({json.dumps(key)}, {json.dumps(value)}); 0")
        experiment = f"{address}/#/experiments/1"
        shown = "document.body?.innerText.includes('s0-')"
        take(page, f"{experiment}/runs?{WORKFLOW}", shown, GUIDE / "mlflow_runs.png")
        view = f"viewStateShareKey=sage-alfworld&compareRunsMode=CHART&{WORKFLOW}"
        take(page, f"{experiment}/runs?{view}", DRAWN.format(3), GUIDE / "mlflow_view.png")
        both = f"runs={quote(json.dumps(ids))}&experiments={quote(json.dumps(['1']))}"
        compared = f"{address}/#/compare-runs?{both}&{WORKFLOW}"
        take(page, compared, DRAWN.format(1), GUIDE / "mlflow_compare.png")
        run = f"{experiment}/runs/{ids[0]}"
        curves = f"{run}/model-metrics?{WORKFLOW}"
        take(page, curves, DRAWN.format(3), GUIDE / "mlflow_run.png")
        rows = "document.querySelectorAll('table tr, [role=row]').length > 3"
        take(page, f"{run}/artifacts/turns.json?{WORKFLOW}", rows, GUIDE / "mlflow_turns.png")


def report(runs: Path, page: Page, scratch: Path) -> None:
    """The report on a wide and on a narrow screen."""
    made = scratch / "report"
    command = [sys.executable, "-m", "analysis", "report", str(runs), "--baseline", "opd", "--out", str(made)]
    subprocess.run(command, check=True, cwd=ROOT)
    for width, height, name in ((1400, 1000, "report_wide.png"), (420, 900, "report_narrow.png")):
        page.resize(width, height)
        take(page, (made / "report.html").as_uri(), LOADED, EVIDENCE / name)
        beyond = page.value("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if beyond > 0:
            print(f"the report is {beyond} pixels wider than {width}")


def site(folder: Path, page: Page, scratch: Path) -> None:
    """The front page of the docs."""
    page.resize(1400, 900)
    take(page, (folder / "index.html").resolve().as_uri(), LOADED, EVIDENCE / "site_front.png")


def take(page: Page, address: str, ready: str, picture: Path) -> None:
    """A picture of the page once it shows what it is about, and nothing moves."""
    page.open(address, "document.body && document.body.innerText.length > 0")
    page.wait(ready, PATIENCE_S)
    spinning = "document.querySelector('[class*=spinner], .anticon-spin, [aria-busy=true]')"
    page.wait(f"!({spinning})", PATIENCE_S)
    time.sleep(2)
    page.screenshot(picture)
    print(picture.name, page.value("location.href")[:200], flush=True)


@contextmanager
def served(store: str) -> Iterator[str]:
    """The address of an MLflow server of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", store]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen(command, env={**os.environ, **quiet}, start_new_session=True)
    try:
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=30)
                break
            except OSError:
                time.sleep(1)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def ask(address: str, method: str, body: dict[str, object]) -> dict[str, list[dict[str, dict[str, str]]]]:
    """MLflow's answer."""
    request = urllib.request.Request(f"{address}/api/2.0/mlflow/{method}", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    return dict(json.load(urllib.request.urlopen(request, timeout=120)))


def main() -> int:
    kinds = {"mlflow": mlflow, "report": report, "site": site}
    if len(sys.argv) != 3 or sys.argv[1] not in kinds:
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with browser(folder / "profile") as page:
            kinds[sys.argv[1]](Path(sys.argv[2]).resolve(), page, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
