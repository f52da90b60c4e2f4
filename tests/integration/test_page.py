"""The page in a real browser: for everybody, for every view, for as long as it is open."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilothouse.events.commands import RunAnnotated
from pilothouse.tests.archived_runs import RunArchive
from pilothouse.tests.browser import Tab, browser
from pilothouse.tests.endpoint_fixture import EndpointProcess
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.run_builder import START
from pilothouse.tests.served_page import HEALED, SECONDS, WAITS, WELL, ServedPage, keep_runs, served_page

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # the browser's pipes end with the browser

AXE = Path(__file__).parents[2] / "build" / "page" / "node_modules" / "axe-core" / "axe.min.js"
VIEWS = {
    "#/": f"document.querySelector('[data-key={WAITS}]')",
    f"#/run/{WAITS}": "document.querySelectorAll('figure canvas').length > 3",
    f"#/report/{HEALED}": "document.querySelector('main div')?.shadowRoot?.querySelector('h1, h2')",
    f"#/compare/{WAITS}/{HEALED}": "document.querySelector('main div')?.shadowRoot?.querySelector('h1, h2')",
    "#/waiting": "document.querySelector('.card.asks')",
    "#/history": "document.querySelector('main div')?.shadowRoot?.querySelector('h1, h2')",
    "#/policies": "document.querySelectorAll('main .card').length > 1",
}
"""Each view, and when it is there."""


@pytest.fixture(scope="module")
def archive(endpoint: EndpointProcess, tmp_path_factory: pytest.TempPathFactory) -> RunArchive:
    kept = RunArchive(endpoint, tmp_path_factory.mktemp("served"))
    keep_runs(kept)
    return kept


@pytest.fixture(scope="module")
def page(archive: RunArchive) -> Iterator[ServedPage]:
    with served_page(archive.folder, archive.endpoint.clickhouse_url) as served:
        yield served


@pytest.fixture(scope="module")
def tab(page: ServedPage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        opened.sized(1200)
        opened.visit(page.address())
        until(opened, VIEWS["#/"])
        yield opened


def until(tab: Tab, holds: str, seconds: float = SECONDS) -> None:
    """Until an expression of JavaScript is true of the page."""
    deadline = time.monotonic() + seconds
    while not tab.value(f"Boolean({holds})"):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:.0f} s: {holds}; the page says:\n{tab.value('document.body.innerText')}")
        time.sleep(0.05)


def go(tab: Tab, view: str) -> None:
    tab.value(f"location.hash = {json.dumps(view)}")
    until(tab, VIEWS[view])


def faults(tab: Tab) -> list[str]:
    """What axe-core has against the page as it stands, by WCAG 2.2 A and AA and its best practices."""
    if not tab.value("Boolean(window.axe)"):
        tab.value(AXE.read_text() + "; 0")
    told: dict[str, Any] = tab.awaited("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{fault['id']} ({fault['help']}): {node['html'][:200]} {node['failureSummary']}"
        for fault in told["violations"]
        for node in fault["nodes"]
    ]


@pytest.mark.skipif(not AXE.is_file(), reason="needs axe-core: `make test` fetches it where there is npm")
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_bars_nobody_light_dark_or_on_a_phone(tab: Tab, view: str) -> None:
    go(tab, view)
    for width, scheme in ((1200, "light"), (400, "dark")):
        tab.sized(width)
        tab.seen_as(scheme=scheme)
        until(tab, VIEWS[view])
        assert faults(tab) == [], (width, scheme)
        assert tab.value("document.documentElement.scrollWidth") <= width
    tab.sized(1200)


def test_the_fleet_shows_of_each_run_what_an_on_call_engineer_asks_first_the_worst_at_the_top(tab: Tab) -> None:
    go(tab, "#/")
    rows = tab.value("[...document.querySelectorAll('tbody tr')].map((row) => row.innerText.replaceAll('\\n', ' '))")
    assert [row.split()[0] for row in rows] == [WAITS, WELL]
    assert [words for words in ("gpt", "Diverged", "Finite", "1 to answer", "1 open") if words not in rows[0]] == [], (
        rows
    )
    [cost] = tab.value("[...document.querySelectorAll('tbody tr')].slice(0, 1).map((row) => row.children[6].innerText)")
    assert 0.3 < float(cost) < 0.5, "a minute at 24 an hour"


def test_a_run_shows_evaluation_ranks_receipts_and_who_straggles(tab: Tab) -> None:
    go(tab, f"#/run/{WAITS}")
    until(tab, "document.querySelector('#ranks canvas')")
    label = tab.value("document.querySelector('#ranks canvas[aria-label^=step_s]').getAttribute('aria-label')")
    assert "rank 1 is the slowest" in label
    assert "ask-first" in tab.text("#policy")
    assert "incident_opened" in tab.text("#events")
    tab.value(f"location.hash = '#/run/{HEALED}'")
    until(tab, "document.querySelector('#interventions details')")
    tab.value("document.querySelector('#interventions details').open = true")
    assert "rank 0 applied at step" in tab.text("#interventions")
    assert "lr_multiplier 1 → 0.5" in tab.text("#interventions")


def test_who_is_asked_reads_what_it_would_do_within_which_bounds_and_what_becomes_of_silence(tab: Tab) -> None:
    go(tab, "#/waiting")
    card = tab.text(".card.asks")
    wanted = ("multiply the learning rate by 0.5", "lr_multiplier from 0.05 up to 1", "at most 4 times", "decline at")
    assert [words for words in (*wanted, "Look at the data first", "loss") if words not in card] == [], card


def test_a_key_leads_everywhere_and_a_renewal_takes_nothing_from_under_it(tab: Tab, page: ServedPage) -> None:
    tab.visit("about:blank")
    tab.visit(page.address())
    until(tab, VIEWS["#/"])
    seen = []
    for _ in range(8):
        tab.key("Tab")
        seen.append(tab.value("document.activeElement.innerText || document.activeElement.getAttribute('aria-label')"))
        assert tab.value("getComputedStyle(document.activeElement).outlineStyle") != "none", seen
    assert [str(each).strip() for each in seen][:6] == (
        ["Skip to the content", "Pilothouse", "Fleet", "Waiting (1)", "History", "Policies"]
    )
    tab.value(f"document.querySelector('[data-key={WAITS}] a').focus()")
    renew(tab)
    assert tab.value("document.activeElement.textContent") == WAITS
    tab.value("document.querySelector('.skip').focus()")
    tab.key("Enter")
    assert tab.value("document.activeElement.id") == "content"
    tab.key("w")
    until(tab, VIEWS["#/waiting"])
    assert tab.value("document.activeElement.id") == "content"
    tab.value("document.querySelector('.card.asks input').value = 'half written'")
    renew(tab)
    assert tab.value("document.querySelector('.card.asks input').value") == "half written"


def test_who_may_only_look_is_shown_no_button_and_an_operator_no_activation(tab: Tab, page: ServedPage) -> None:
    buttons = "[...document.querySelectorAll('main button')].filter((each) => each.offsetParent)"
    shown = f"{buttons}.map((each) => each.textContent)"
    for role, wanted, absent in (
        ("viewer", {"backtest"}, {"approve", "activate"}),
        ("operator", {"approve", "decline", "backtest"}, {"activate"}),
        ("admin", {"approve", "activate"}, set()),
    ):
        tab.visit("about:blank")
        tab.visit(page.address(role))
        until(tab, VIEWS["#/"])
        found: set[str] = set()
        for view in ("#/waiting", "#/policies"):
            go(tab, view)
            found |= set(tab.value(shown))
        assert wanted <= found, role
        assert not found & absent, role


def test_a_stop_takes_seconds_with_pages_open_which_come_back_by_themselves_and_know_what_they_missed(
    tab: Tab, page: ServedPage, archive: RunArchive
) -> None:
    go(tab, "#/")
    assert page.end() == 0
    assert page.said == "", "a good end says nothing"
    until(tab, "document.querySelector('#link').textContent.startsWith('lost')")
    assert WAITS in tab.text("main"), "what was known stays"
    archive.keep(GovernedRun(world=1, run_id="begun-meanwhile").begin().train(12))
    page.begin()
    until(tab, "document.querySelector('#link').textContent === 'live'")
    until(tab, "document.querySelector('[data-key=begun-meanwhile]')")
    assert tab.text("#trouble") == ""


def test_a_page_that_is_left_open_does_not_grow(tab: Tab, archive: RunArchive) -> None:
    noted = GovernedRun(world=1, run_id="talks").begin().train(12)
    for number in range(1, 151):
        text = f"note {number}"
        noted.fold(RunAnnotated(run_id="talks", writer_id="ada", seq=number, at=START, who="ada", text=text))
    archive.keep(noted)
    tab.value("location.hash = '#/run/talks'")
    until(tab, "document.querySelectorAll('#events tbody tr').length === 60")
    until(tab, "document.querySelectorAll('#curves canvas').length > 0")
    renewals(tab, 2)
    before = counted(tab)
    renewals(tab, 8)
    after = counted(tab)
    assert after["nodes"] < before["nodes"] * 1.2, (before, after)
    assert after["jsEventListeners"] < before["jsEventListeners"] * 1.2, (before, after)


def renew(tab: Tab) -> None:
    """What a run that stirs makes the page do, until it is done."""
    before = tab.value("Number(document.querySelector('main').dataset.renewals)")
    tab.value("document.dispatchEvent(new Event('visibilitychange'))")
    until(tab, f"Number(document.querySelector('main').dataset.renewals) > {before}")


def renewals(tab: Tab, times: int) -> None:
    for _ in range(times):
        renew(tab)


def counted(tab: Tab) -> dict[str, int]:
    tab.call("HeapProfiler.collectGarbage")
    told: dict[str, int] = tab.call("Memory.getDOMCounters")
    return told
