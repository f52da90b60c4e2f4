"""The pictures of the documentation are of the page as it is: `make screenshots` keeps what is taken here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pilothouse.tests.archived_runs import RunArchive
from pilothouse.tests.browser import Tab, browser
from pilothouse.tests.endpoint_fixture import EndpointProcess
from pilothouse.tests.pictures import CHOSEN, MOST_BYTES, keep, says, shows, taken
from pilothouse.tests.served_page import HEALED, WAITS, ServedPage, keep_runs, served_page

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # the browser's pipes end with the browser
    pytest.mark.chaos_long,  # half a minute for what other tests look at as well
]
VIEWS = {
    "fleet": ("", says(WAITS)),
    "run": (f"#/run/{WAITS}", "document.querySelectorAll('figure canvas').length > 3"),
    "waiting": ("#/waiting", says("scale_lr")),
    "compare": (f"#/compare/{WAITS}/{HEALED}", says("Where their decisions part")),
    "history": ("#/history", says("Service levels")),
    "policies": ("#/policies", "document.querySelectorAll('main .card').length > 1"),
    "healed": (f"#/run/{HEALED}", "document.querySelector('#incidents tbody a')"),
}
"""By view: where it is, and when all of it is there."""


@pytest.fixture
def page(endpoint: EndpointProcess, tmp_path: Path) -> Iterator[ServedPage]:
    archive = RunArchive(endpoint, tmp_path)
    keep_runs(archive)
    with served_page(tmp_path, endpoint.clickhouse_url) as served:
        yield served


def test_every_view_is_there_to_be_taken_and_small_enough_for_a_page(page: ServedPage, tmp_path: Path) -> None:
    with browser(tmp_path / "browser") as tab:
        tab.visit(page.address())
        for view, (address, holds) in VIEWS.items():
            shows(tab, address, holds)
            if view == "history":  # the runs are some weeks old
                shows_a_quarter(tab)
            taken(tab, tmp_path, view)
        shows(tab, tab.value("document.querySelector('#incidents tbody a').hash"), says("To be filled in"))
        taken(tab, tmp_path, "incident")
        assert tab.complaints == []
    for name in CHOSEN:
        keep(tmp_path / f"{name}.png", tmp_path / f"{name}.webp")
        assert (tmp_path / f"{name}.webp").stat().st_size <= MOST_BYTES


def shows_a_quarter(tab: Tab) -> None:
    tab.value("document.querySelector('main select').value = '91'")
    tab.value("document.querySelector('main select').dispatchEvent(new Event('change'))")
    shows(tab, "", says(HEALED))
