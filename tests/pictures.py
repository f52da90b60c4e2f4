"""The pictures of the documentation: `test_pictures` takes them, here they are chosen and made small.

    make screenshots        or: python -m pilothouse.tests.pictures TAKEN docs/images

TAKEN is the folder in which the test left them (pytest's --basetemp). A picture is called by its view, its width and
its colours.
"""

import json
import sys
import time
from pathlib import Path

import pytest

from pilothouse.tests.browser import Tab

CHOSEN = (
    "fleet-1200-light",
    "run-1200-light",
    "run-1200-dark",
    "run-400-dark",
    "incident-1200-light",
    "waiting-1200-light",
    "waiting-400-dark",
    "compare-1200-light",
    "history-1200-light",
    "policies-1200-light",
)
MOST_BYTES, MOST_HEIGHT = 150_000, 1_500
"""Of a long page the beginning is shown."""
SCREENS = ((1200, "light"), (1200, "dark"), (400, "dark"))
WITHIN = "[...document.querySelectorAll('main div')].find((each) => each.shadowRoot)?.shadowRoot.textContent"


def taken(tab: Tab, folder: Path, view: str) -> None:
    """What the page shows now, on each screen."""
    for width, scheme in SCREENS:
        tab.sized(width)
        tab.seen_as(scheme=scheme)
        time.sleep(0.5)  # charts are drawn anew, a frame later
        tab.picture(folder / f"{view}-{width}-{scheme}.png")


def says(words: str) -> str:
    """As JavaScript: the page says this, in its own words or within a report."""
    return f"((document.querySelector('main')?.innerText ?? '') + ({WITHIN} ?? '')).includes({json.dumps(words)})"


def shows(tab: Tab, address: str, holds: str, seconds: float = 300.0) -> None:
    """Go there (or stay, without an address), until an expression of JavaScript is true of the page."""
    tab.sized(1200)
    tab.seen_as(scheme="light")
    if address:
        tab.value(f"location.hash = {json.dumps(address)}")
    deadline = time.monotonic() + seconds
    while not tab.value(f"Boolean({holds})"):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:.0f} s at {address}: {holds}; the page: {tab.text('main')}")
        time.sleep(0.2)


def keep(found: Path, target: Path) -> None:
    """As WebP, as good as fits."""
    from PIL import Image

    with Image.open(found) as image:
        shown = image.convert("RGB").crop((0, 0, image.width, min(image.height, MOST_HEIGHT)))
    for quality in range(90, 30, -10):
        shown.save(target, "WEBP", quality=quality, method=6)
        if target.stat().st_size <= MOST_BYTES:
            return
    raise SystemExit(f"{found} cannot be made small enough")


def main(taken_in: Path, kept_in: Path) -> None:
    kept_in.mkdir(parents=True, exist_ok=True)
    for name in CHOSEN:
        found = sorted(taken_in.rglob(f"{name}.png"))
        if not found:
            raise SystemExit(f"nobody took {name}.png below {taken_in}: is there a Chromium?")
        keep(found[-1], kept_in / f"{name}.webp")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
