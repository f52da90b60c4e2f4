import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "scope.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not re.match(r"\| (row|id) \|", line)]
PARTS = "producer SDK|detection|governance|memory|trust|control room"
STANDS = re.compile(rf"(done[^:]*|not ours): \S|planned \(({PARTS})\b")


@pytest.mark.parametrize("row", ROWS)
def test_every_row_says_where_it_stands(row: str) -> None:
    answer = row.strip().strip("|").split(" | ")[-1]
    assert STANDS.match(answer.strip()), f"no known status: {answer!r}"


def test_no_row_is_missing() -> None:
    by_section = {part.splitlines()[0]: part.count("\n| ") - 1 for part in PAGE.split("\n## ")[1:]}
    assert by_section == {"The loop": 10, "The run overview": 12, "Service levels": 15, "On call": 9, "Trust": 3}
