"""The pages of promises name tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / "docs" / name).read_text() for name in ("sdk.md", "recovery.md")}
NAMED = sorted({test for page in PAGES.values() for test in re.findall(r"`(test_\w+|Test\w+)`", page)})
DEFINED = re.compile(r"^(?:def |class )?(test_\w+|Test\w+)\b", re.MULTILINE)
TESTS = {name for path in (ROOT / "tests").rglob("test_*.py") for name in DEFINED.findall(path.read_text())}
HEADINGS = re.compile(r"\| (promise|failure|case) \|")


@pytest.mark.parametrize("name", NAMED)
def test_every_test_that_the_page_names_exists(name: str) -> None:
    assert name in TESTS


@pytest.mark.parametrize("name, at_least", [("sdk.md", 30), ("recovery.md", 15)])
def test_every_row_of_the_page_names_a_test(name: str, at_least: int) -> None:
    rows = [
        line
        for line in PAGES[name].splitlines()
        if line.startswith("| ") and not re.match(r"\| (promise|failure|case) \|", line)
    ]
    assert len(rows) > at_least
    assert [row for row in rows if not re.search("`[Tt]est", row)] == []
