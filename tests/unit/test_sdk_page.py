"""The page of promises names tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sdk.md").read_text()
NAMED = sorted(set(re.findall(r"`(test_\w+|Test\w+)`", PAGE)))
DEFINED = re.compile(r"^(?:def |class )?(test_\w+|Test\w+)\b", re.MULTILINE)
TESTS = {name for path in (ROOT / "tests").rglob("test_*.py") for name in DEFINED.findall(path.read_text())}
HEADINGS = re.compile(r"\| (promise|failure|case) \|")


@pytest.mark.parametrize("name", NAMED)
def test_every_test_that_the_page_names_exists(name: str) -> None:
    assert name in TESTS


def test_every_row_of_the_page_names_a_test() -> None:
    rows = [
        line
        for line in PAGE.splitlines()
        if line.startswith("| ") and not re.match(r"\| (promise|failure|case) \|", line)
    ]
    assert len(rows) > 30
    assert [row for row in rows if not re.search("`[Tt]est", row)] == []
