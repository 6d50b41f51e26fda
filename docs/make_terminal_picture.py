"""Take the picture of a run's end, docs/guide/terminal.png: as a terminal of 100 columns shows it, drawn in a
headless Chromium.

python docs/make_terminal_picture.py FOLDER           # `python -m sage`, in FOLDER
python docs/make_terminal_picture.py FOLDER WORDS     # `python -m sage WORDS`

A run that is not done there is played first; one that is done shows its end again. The folder is called
/home/you/sage-opd in the picture.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser.devtools import Page, browser  # noqa: E402

PICTURE = ROOT / "docs" / "guide" / "terminal.png"
COLUMNS, ROWS = 100, 60
CALLED = "/home/you/sage-opd"


def end_of_run(folder: Path, words: list[str]) -> str:
    """What the terminal gets at the end of the run, with its colours: all that follows the first empty line
    of a run that is shown again (before it stands why it was not started)."""
    command = [sys.executable, "-m", "sage", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    subprocess.run(command, cwd=folder, env=environment, check=True)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=theirs) as process:
        os.close(theirs)
        said = read(ours)
    _, _, end = said.replace("\r\n", "\n").partition("\n\n")
    if process.returncode or not end:
        raise SystemExit(f"`{' '.join(command)}` ended with {process.returncode} and said: {said}")
    return end.replace(str(folder), CALLED)


def read(terminal: int) -> str:
    """All that is written into a terminal until nobody holds its other end."""
    pieces = []
    while True:
        try:
            piece = os.read(terminal, 1 << 16)
        except OSError:  # Linux's word for the end
            piece = b""
        if not piece:
            os.close(terminal)
            return b"".join(pieces).decode()
        pieces.append(piece)


def drawn(text: str, title: str) -> str:
    """The text as an SVG of a terminal, which breaks a long line where its edge is."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    for line in Text.from_ansi(text).split("\n"):
        for part in line.divide(range(COLUMNS, len(line), COLUMNS)):
            console.print(part, no_wrap=True)
    # Without the fonts of a server that it names; the browser has its own.
    return re.sub(r"@font-face\s*\{.*?\}", "", console.export_svg(title=title), flags=re.DOTALL)


def take(page: Page, svg: str, scratch: Path) -> None:
    """A picture as large as the drawing."""
    width, height = (round(float(side)) for side in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0])
    html = scratch / "terminal.html"
    html.write_text(f'<!DOCTYPE html><meta charset="utf-8"><body style="margin: 0">{svg}', encoding="utf-8")
    page.resize(width, height)
    page.open(html.as_uri(), "document.readyState === 'complete'")
    page.screenshot(PICTURE)


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    words = sys.argv[2:]
    text = end_of_run(Path(sys.argv[1]).resolve(), words)
    with tempfile.TemporaryDirectory() as scratch, browser(Path(scratch) / "profile") as page:
        take(page, drawn(text, " ".join(["python -m sage", *words])), Path(scratch))
    return 0


if __name__ == "__main__":
    sys.exit(main())
