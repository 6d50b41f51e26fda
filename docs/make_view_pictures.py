"""Take the pictures of docs/guide/view.md: the viewer over two runs of one seed, in a headless Chromium.

python docs/make_view_pictures.py RUNS        # RUNS: a folder with a run of opd and one of sage_opd
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.browser.devtools import Page, browser  # noqa: E402
from tests.browser.viewer import served  # noqa: E402

PICTURES = ROOT / "docs" / "guide"


def take(page: Page, address: str) -> None:
    """Five pictures, in the order of the guide."""
    page.resize(1400, 860)
    page.open(address)
    page.wait("document.querySelectorAll('.runs tbody tr').length >= 2")
    for method in ("opd", "sage_opd"):
        link = f"[...document.querySelectorAll('.runs a')].find((a) => a.text === '{method}')"
        page.value(f"{link}.closest('tr').querySelector('input').click()")
    page.wait("document.querySelectorAll('.plot canvas').length >= 5")
    whole(page, "view_runs.png")
    pair = page.value("document.querySelector('a[href^=\"#/pair/\"]').getAttribute('href')")
    page.go(pair)
    page.wait("document.querySelectorAll('tbody tr').length > 0")
    whole(page, "view_pair.png")
    page.value("document.querySelector('tbody a').click()")
    page.wait("document.querySelector('.parting')")
    whole(page, "view_parting.png")
    trained(page, pair.split("/")[3])
    judged = "[...document.querySelectorAll('details')].find((one) => one.innerText.includes('The judge'))"
    page.resize(1400, page.value(f"Math.floor({judged}.getBoundingClientRect().top)"))
    page.screenshot(PICTURES / "view_tokens.png")
    page.resize(420, 900, dark=True)
    page.open(page.value("location.href"))
    page.wait("document.querySelector('.tokens')")
    page.screenshot(PICTURES / "view_narrow.png")


def whole(page: Page, name: str) -> None:
    """A picture as high as the page is, and again a window of the usual size."""
    page.resize(1400, 300)
    page.resize(1400, page.value("document.documentElement.scrollHeight"))
    page.wait("[...document.querySelectorAll('.plot')].every((one) => one.querySelector('canvas'))")
    page.screenshot(PICTURES / name)
    page.resize(1400, 860)


def trained(page: Page, key: str) -> None:
    """The first harmful WEAK turn of an episode whose tokens are recorded, at its most surprising token."""
    page.go(f"#/run/{key}?filters=weak,harm")
    page.wait("document.querySelectorAll('td .chip').length > 0")
    rows = "[...document.querySelectorAll('td .chip')].map((chip) => chip.closest('tr'))"
    links = page.value(f"{rows}.map((row) => row.querySelector('a').getAttribute('href'))")
    for link in links:
        page.go(link)
        if page.value("!!document.querySelector('.tokens')"):
            break
    page.value(
        "[...document.querySelectorAll('.token')].sort((a, b) => Number(b.ariaLabel.split(' ').at(-1)) "
        "- Number(a.ariaLabel.split(' ').at(-1)))[0].focus()"
    )


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    with (
        tempfile.TemporaryDirectory() as profile,
        served(Path(sys.argv[1])) as address,
        browser(Path(profile)) as page,
    ):
        take(page, address)
        complaints = page.complaints()
    print("\n".join(complaints) or "no complaint")
    return bool(complaints)


if __name__ == "__main__":
    sys.exit(main())
