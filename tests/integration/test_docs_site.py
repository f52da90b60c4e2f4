"""The documentation site is built without a warning, and nothing on it is loaded from anywhere else."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\s\"'>]+)")
STYLED = re.compile(r"url\([\"']?((?:https?:)?//[^)\"']+)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make docs` builds it."""
    pytest.importorskip("material", reason="the site is built with the extra `docs`: pip install '.[docs]'")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        patch.chdir(ROOT)
        build(load_config("mkdocs.yml", site_dir=str(folder), strict=True))
    return folder


def test_it_is_built_without_a_warning_and_every_page_is_in_it(site: Path) -> None:
    """Strict: a link to a page, a part of one or a file that is not there would have ended it."""
    pages = {str(page.relative_to(ROOT / "docs").with_suffix(".html")) for page in (ROOT / "docs").rglob("*.md")}
    built = {str(page.relative_to(site)) for page in site.rglob("*.html")}
    assert pages - built == set()
    assert {"reference/events.html", "reference/views.html", "house/contributing.html"} <= built


def test_nothing_on_it_is_loaded_from_elsewhere(site: Path) -> None:
    texts = {page: page.read_text(encoding="utf-8") for page in [*site.rglob("*.html"), *site.rglob("*.css")]}
    found = {str(page): LOADED.findall(text) + STYLED.findall(text) for page, text in texts.items()}
    assert {page: addresses for page, addresses in found.items() if addresses} == {}


def test_what_it_links_to_in_the_repository_is_in_it(site: Path) -> None:
    alerts = (site / "alerts.html").read_text(encoding="utf-8")
    assert 'href="files/compose/prometheus/rules.yml"' in alerts
    assert (site / "files/compose/prometheus/rules.yml").read_bytes() == (
        ROOT / "compose/prometheus/rules.yml"
    ).read_bytes()
