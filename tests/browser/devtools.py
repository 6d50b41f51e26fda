"""A real browser without a screen that is driven: keys, clicks, sizes, what stands on the page, screenshots.

Chromium's own protocol over two pipes (https://chromedevtools.github.io/devtools-protocol/); no driver, no
port.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.browser.chromium import FLAGS, find

KEYS = {
    "Enter": ("Enter", 13, "\r"),
    "Tab": ("Tab", 9, ""),
    "Escape": ("Escape", 27, ""),
    "ArrowLeft": ("ArrowLeft", 37, ""),
    "ArrowRight": ("ArrowRight", 39, ""),
    "Home": ("Home", 36, ""),
    "End": ("End", 35, ""),
    " ": ("Space", 32, " "),
}
PATIENCE_S = 60.0
OWN_PAGE = "document.getElementById('main')?.dataset.ready"


class Page:
    """One tab. Every method waits for the browser's answer."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out, self._in = os.fdopen(to_browser, "wb"), os.fdopen(from_browser, "rb")
        self._number, self._rest = 0, b""
        self.events: list[dict[str, Any]] = []
        self._session = ""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable")

    def open(self, address: str, ready: str = OWN_PAGE) -> None:
        """Go to an address and wait until the page says that it shows it (`ready`, an expression; the default
        is how the viewer says so); what was before is forgotten."""
        self._ask("Page.navigate", url="about:blank")
        self.value("0")
        self.events.clear()
        self._ask("Page.navigate", url=address)
        self.wait(ready)

    def go(self, fragment: str) -> None:
        """Go to another place of the page."""
        before = self.value("document.getElementById('main').dataset.ready")
        self.value(f"location.hash = {json.dumps(fragment)}; 0")
        self.wait(f"document.getElementById('main').dataset.ready !== {json.dumps(before)}")

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is, as plain data; a promise is waited for."""
        found = self._ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"].get("exception", found["exceptionDetails"]))
        return found["result"].get("value")

    def wait(self, expression: str, patience_s: float = PATIENCE_S) -> None:
        """Until the expression is true."""
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            if self.value(f"!!({expression})"):
                return
            time.sleep(0.05)
        raise AssertionError(f"never: {expression}; the page says {self.text('body')[:2000]!r}")

    def text(self, selector: str) -> str:
        """The text of the first element that fits; empty where there is none."""
        return str(self.value(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements that fit."""
        chosen = f"[...document.querySelectorAll({json.dumps(selector)})]"
        return list(self.value(f"{chosen}.map((one) => one.textContent)"))

    def click(self, selector: str) -> None:
        """Click where an element stands, as a mouse does."""
        element = f"document.querySelector({json.dumps(selector)})"
        where = f"(() => {{ const e = {element}; e.scrollIntoView({{block: 'center'}}); "
        where += "return JSON.stringify(e.getBoundingClientRect()); })()"
        frames = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))"
        before, now = "", self.value(where)
        while now != before:  # plots that are drawn late move what stands below them
            self.value(frames)
            before, now = now, self.value(where)
        box = json.loads(now)
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self._ask("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **at)

    def press(self, *keys: str) -> None:
        """Press keys one after the other, as a keyboard does."""
        for key in keys:
            code, number, text = KEYS[key] if key in KEYS else (f"Key{key.upper()}", ord(key.upper()), key)
            named = {"key": key, "code": code, "windowsVirtualKeyCode": number}
            self._ask("Input.dispatchKeyEvent", type="keyDown", text=text, **named)
            self._ask("Input.dispatchKeyEvent", type="keyUp", **named)

    def type(self, text: str) -> None:
        """Type a text into what has the focus."""
        self._ask("Input.insertText", text=text)

    def resize(self, width: int, height: int, dark: bool = False) -> None:
        """Another window size, light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._ask("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        data = self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def complaints(self) -> list[str]:
        """What the browser has complained about: exceptions, refused scripts and styles, failed requests."""
        self.value("0")
        found = []
        for event in self.events:
            if event["method"] == "Runtime.exceptionThrown":
                found.append(json.dumps(event["params"]["exceptionDetails"])[:500])
            elif event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                found.append(event["params"]["entry"]["text"])
        return found

    def requests(self) -> list[str]:
        """Every address that was asked for."""
        sent = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [str(event["params"]["request"]["url"]) for event in sent]

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return dict(answer["result"])
            if "method" in answer:
                self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = self._in.read1(1 << 16)
            if not piece:
                raise AssertionError("The browser has gone.")
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A page of a browser of its own; `profile` is a folder for it."""
    to_browser, write = os.pipe()
    read, from_browser = os.pipe()

    def lay_pipes() -> None:  # Chromium reads descriptor 3 and writes 4
        high = [os.dup(to_browser), os.dup(from_browser)]
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    command = [find(), *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "--hide-scrollbars"]
    process = subprocess.Popen(
        command, preexec_fn=lay_pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Page(write, read)
    finally:
        process.kill()
        process.wait()
