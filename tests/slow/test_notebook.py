"""The notebook of the guide runs from top to bottom in an empty folder, and says what it promises."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "guide" / "compare.ipynb"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
def test_the_notebook_compares_two_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="pip install 'sage-opd[notebook]'")
    nbclient = pytest.importorskip("nbclient", reason="pip install 'sage-opd[notebook]'")
    pytest.importorskip("ipykernel", reason="pip install 'sage-opd[notebook]'")
    paths = (ROOT, ROOT / "sweeps", os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(path) for path in paths if str(path)))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    assert len(list(tmp_path.glob("runs/*/attempt_1/summary.json"))) == 6
    last = notebook.cells[-1].outputs[0]["data"]["text/plain"]
    assert "sage_opd" in last
    assert all(name in last for name in ("valid_seen", "valid_unseen"))


def test_the_notebook_is_kept_without_outputs() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert '"outputs": []' in text
    assert '"image/png"' not in text
    assert 'execution_count": null' in text
