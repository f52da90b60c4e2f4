"""How soon a browser shows a view, and the API answers: the real page, served as `pilothouse serve` does."""

import http.client
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from benchmarks.storage.generate import LONG_RUN
from pilothouse.tests.browser import Tab
from pilothouse.tests.served_page import ServedPage, token

PATIENCE = 120.0
WATCH = """
window.seen = {};
window.when = (name, holds) => {
  const look = () => { if (!(name in seen) && holds()) {
    seen[name] = performance.now();
    requestAnimationFrame(() => setTimeout(() => { seen[name + ', drawn'] = performance.now(); }, 0));
  } };
  new MutationObserver(look).observe(document, { childList: true, subtree: true, attributes: true });
};
"""
"""`seen` says when something stood in the page, and when the next frame was drawn, in ms from the navigation on."""


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of the same thing, done so often."""

    p50: float
    worst: float
    times: int

    @classmethod
    def of(cls, took: Sequence[float]) -> "Times":
        return cls(round(median(took), 1), round(max(took), 1), len(took))


@dataclass(frozen=True, slots=True)
class Load:
    """One view, loaded afresh: first paint, what it is for (`there`), and the bytes that came over the wire."""

    first_paint: Times
    there: Times
    wire_bytes: int


FLEET = "document.querySelectorAll('tbody tr').length >= Math.min({rows}, 200)"
"""All runs are known, and those that the page draws before somebody asks for the others."""
CURVE = "document.querySelector('[role=img][aria-label^=loss]')"


def loads(tab: Tab, address: str, there: str, times: int, *, cold: bool) -> Load:
    """`address` is opened so often, and waited for until the expression `there` is true; `cold`: nothing is cached."""
    tab.call("Network.setCacheDisabled", cacheDisabled=cold)
    source = f"{WATCH} when('there', () => {there});"
    script = tab.call("Page.addScriptToEvaluateOnNewDocument", source=source)["identifier"]
    paints, shown, size = [], [], 0
    for _ in range(times + 1):  # the first warms up what is measured, the archive's caches as well
        tab.visit("about:blank")
        tab.visit(address)
        until(tab, "'there, drawn' in seen")
        paints.append(tab.value("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        shown.append(tab.value("seen['there, drawn']"))
        size = tab.value(
            "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
            ".reduce((sum, each) => sum + each.transferSize, 0)"
        )
    tab.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
    return Load(Times.of(paints[1:]), Times.of(shown[1:]), size)


def views(tab: Tab, page: ServedPage, rows: int, times: int) -> dict[str, Load]:
    """The fleet and a run of a million steps, as somebody who was here before sees them, and as somebody new."""
    plain = page.address().partition("#")[0]
    tab.visit(page.address())
    until(tab, FLEET.format(rows=rows))
    found = {
        "fleet, nothing cached": loads(tab, plain, FLEET.format(rows=rows), times, cold=True),
        "fleet": loads(tab, plain, FLEET.format(rows=rows), times, cold=False),
        "run of a million steps, its loss drawn": loads(tab, f"{plain}#/run/{LONG_RUN}", CURVE, times, cold=False),
    }
    tab.visit("about:blank")
    return found


def until(tab: Tab, holds: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not tab.value(f"Boolean({holds})"):
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {PATIENCE:.0f} s: {holds}; the page says: {tab.text('body')[:500]}")
        time.sleep(0.02)


ASKED = {
    "fleet of 2,000 at most": "/api/fleet?limit=2000",
    "what waits": "/api/waiting",
    "one run": "/api/run?run=run-00004",
    "its events": "/api/run/events?run=run-00004&story=true&limit=60",
    "its ranks": "/api/run/ranks?run=run-00004",
    "a run of a million steps": f"/api/run?run={LONG_RUN}",
    "its loss, in 1,000 intervals": f"/api/run/series?run={LONG_RUN}&metric=loss&points=1000",
    "an incident": "/api/run/incident?run=run-00004&incident=run-00004-n&form=page",
    "policies": "/api/policies",
    "history of a year": "/api/history?days=365&form=page",
    "metrics": "/metrics",
}


def answers(page: ServedPage, times: int) -> dict[str, dict[str, Any]]:
    """By question: milliseconds until the last byte is there, and how many those are, packed as a browser asks."""
    where = urlsplit(page.address())
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=PATIENCE)
    headers = {"Authorization": f"Bearer {token('admin')}", "Accept-Encoding": "gzip"}
    found: dict[str, dict[str, Any]] = {}
    for name, path in ASKED.items():
        took, size = [], 0
        for _ in range(times + 1):
            began = time.perf_counter()
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            size = len(answer.read())
            took.append(1e3 * (time.perf_counter() - began))
            if answer.status != http.client.OK:
                raise SystemExit(f"{path}: {answer.status}")
        times_of = Times.of(took[1:])
        found[name] = {"p50": times_of.p50, "worst": times_of.worst, "bytes": size}
    connection.close()
    return found
