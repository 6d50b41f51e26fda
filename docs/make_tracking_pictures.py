"""Take the pictures of docs/guide/tracking.md, README.md and docs/evidence/pages.md, in a headless Chromium.

python docs/make_tracking_pictures.py mlflow RUNS     # RUNS: a folder with runs of opd and of sage_opd
python docs/make_tracking_pictures.py report RUNS     # the page of `analysis report`, wide and narrow
python docs/make_tracking_pictures.py site SITE       # SITE: what `nox -s docs` builds (build/site)

MLflow's pictures come from a store and a server of their own, which are gone afterwards.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from urllib.parse import quote

from pictures import DRAWN, EVIDENCE, GUIDE, LOADED, ROOT, mlflow_server, no_assistant, served, take

from sage.records.mlflow.store import WORKFLOW
from tests.browser.devtools import Page, browser


def mlflow(runs: Path, page: Page, scratch: Path) -> None:
    """The list of runs, the saved view, the comparison, a run's curves and its table of turns."""
    attempts = sorted(map(str, runs.glob("*/attempt_*")))
    with mlflow_server(f"sqlite:///{scratch / 'mlflow.db'}", scratch / "artifacts") as address:
        command = [sys.executable, "-m", "sage.records.mlflow.export", *attempts, "--uri", address]
        subprocess.run(command, check=True, cwd=ROOT)
        found = ask(address, "runs/search", {"experiment_ids": ["1"]})["runs"]
        ids = [run["info"]["run_id"] for run in found]
        page.resize(1400, 860)
        no_assistant(page, address)
        experiment = f"{address}/#/experiments/1"
        shown = "document.body?.innerText.includes('s0-')"
        take(page, f"{experiment}/runs?{WORKFLOW}", shown, GUIDE / "mlflow_runs.png")
        page.resize(1760, 1150)
        view = f"viewStateShareKey=sage-alfworld&compareRunsMode=CHART&{WORKFLOW}"
        take(page, f"{experiment}/runs?{view}", DRAWN.format(3), GUIDE / "mlflow_view.png")
        page.resize(1400, 860)
        both = f"runs={quote(json.dumps(ids))}&experiments={quote(json.dumps(['1']))}"
        compared = f"{address}/#/compare-runs?{both}&{WORKFLOW}"
        take(page, compared, DRAWN.format(1), GUIDE / "mlflow_compare.png")
        judged = next(run["info"] for run in found if run["info"]["run_name"].startswith("sage_opd"))
        run = f"{experiment}/runs/{judged['run_id']}"
        curves = f"{run}/model-metrics?{WORKFLOW}"
        take(page, curves, DRAWN.format(3), GUIDE / "mlflow_run.png")
        rows = "document.querySelectorAll('table tr, [role=row]').length > 3"
        page.resize(1800, 860)
        turns = f"{run}/artifacts/turns.json?{WORKFLOW}"
        take(page, turns, rows, GUIDE / "mlflow_turns.png", then=choose_columns)


def choose_columns(page: Page) -> None:
    """Of the table of turns, by its settings: those for which there is room."""
    page.click("[aria-label='Toggle sidebar']")
    items = "[...document.querySelectorAll('[role=menuitemcheckbox]')]"
    hidden = ("won", "thought", "effective_weight", "failure", "judge_reply", "status", "task", "rollout")
    for column in hidden:
        item = f"{items}.find((i) => i.innerText === '{column}')"
        if not page.value(f"!!{item}"):
            page.click("[data-component-id='mlflow.run.artifact_view.table_settings']")
            page.wait(item)
        page.value(f"{item}.click()")
    page.press("Escape")
    page.value("document.activeElement.blur(); 0")  # its tip would stand in the picture


def report(runs: Path, page: Page, scratch: Path) -> None:
    """The report on a wide screen, down to the end of its first figure, and on a narrow one."""
    made = scratch / "report"
    command = [sys.executable, "-m", "analysis", "report", str(runs), "--baseline", "opd", "--out", str(made)]
    subprocess.run(command, check=True, cwd=ROOT)
    wide, narrow = GUIDE / "report_wide.png", EVIDENCE / "report_narrow.png"
    address = (made / "report.html").as_uri()
    page.resize(1400, 900)
    page.open(address, LOADED)
    first = page.value("Math.ceil(document.querySelector('figure').getBoundingClientRect().bottom)")
    for width, height, picture in ((1400, first + 2, wide), (420, 900, narrow)):
        page.resize(width, height)
        take(page, address, LOADED, picture)
        beyond = page.value("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if beyond > 0:
            print(f"the report is {beyond} pixels wider than {width}")


def site(folder: Path, page: Page, scratch: Path) -> None:
    """The front page of the docs, as a server gives it: from a file its scripts do not start."""
    page.resize(1400, 1010)
    words = ("{port}", "--bind", "127.0.0.1", "--directory", str(folder))
    with served("http.server", *words) as address:
        ready = f"{LOADED} && document.querySelector('input.md-search__input')"
        take(page, f"{address}/index.html", ready, EVIDENCE / "site_front.png")


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
