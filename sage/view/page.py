"""The page: as the server sends it, and as one file with its records inside.

Invariant: a text of the records is data wherever it stands. In the one file it lies in a JSON block that
nothing leaves (`<`, `>`, `&` and the line separators are escapes in it), its scripts and styles are allowed
by their digests alone, and nothing may be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib import resources
from typing import Any

from sage.view import filters

MODULES = (
    *("dom.js", "format.js", "source.js", "route.js", "plot.js", "runs.js", "tokens.js", "episode.js"),
    *("run.js", "pair.js", "main.js"),
)
"""Our scripts, each after those that it imports."""
STYLES = ("uplot.css", "view.css")
FILES = {
    **dict.fromkeys((*MODULES, "uplot.js"), "text/javascript; charset=utf-8"),
    **dict.fromkeys(STYLES, "text/css; charset=utf-8"),
}
"""What the server sends, with its type."""
_IMPORT = re.compile(r"^import\s[^;]*;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|let|class)\b)", re.MULTILINE)


def server_page() -> str:
    """The page that fetches its styles, scripts and records from the server."""
    data = _block("filters", filters.as_data())
    styles = "\n".join(f'<link rel="stylesheet" href="static/{name}">' for name in STYLES)
    scripts = '<script src="static/uplot.js"></script>\n<script type="module" src="static/main.js"></script>'
    return _filled(head=styles, data=data, scripts=scripts)


def file_page(records: Any) -> str:
    """The page in one file: `records` is plain data, see `sage.view.export`."""
    style = "\n".join(_text(name) for name in STYLES)
    plot, ours = _text("uplot.js"), bundle()
    allowed = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_digest(plot)} {_digest(ours)}",
            f"style-src {_digest(style)}",
            "img-src data:",
            "base-uri 'none'; form-action 'none'",
        )
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{allowed}">\n<style>{style}</style>'
    data = _block("filters", filters.as_data()) + _block("records", records)
    scripts = f'<script>{plot}</script>\n<script type="module">{ours}</script>'
    return _filled(head=head, data=data, scripts=scripts)


def bundle() -> str:
    """Our modules as a single one: each has its imports taken out, and a name means the same in all."""
    return "\n".join(_EXPORT.sub("", _IMPORT.sub("", _text(name))) for name in MODULES)


def as_inert_json(data: Any) -> str:
    """JSON in which no tag, comment or line can end or begin, for inside a script element."""
    text = json.dumps(data, allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _block(name: str, data: Any) -> str:
    return f'<script type="application/json" id="{name}">{as_inert_json(data)}</script>\n'


def _filled(*, head: str, data: str, scripts: str) -> str:
    page = _text("index.html")
    for mark, content in (("<!--HEAD-->", head), ("<!--DATA-->", data), ("<!--SCRIPTS-->", scripts)):
        before, _, after = page.partition(mark)
        page = before + content + after
    return page


def _digest(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _text(name: str) -> str:
    return resources.files("sage.view").joinpath("static", name).read_text(encoding="utf-8")
