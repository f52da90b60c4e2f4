"""The page about integrations names tests that exist, and every metric that a watched step can have."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "integrations.md").read_text()
DEFINED = re.compile(r"^def (test_\w+)\b", re.MULTILINE)


def test_every_test_that_the_page_names_exists() -> None:
    defined = {name for path in (ROOT / "tests").rglob("test_*.py") for name in DEFINED.findall(path.read_text())}
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 15
    assert named - defined == set()


def test_every_metric_of_a_watched_step_has_its_row() -> None:
    folder = ROOT / "producers" / "integrations"
    source = (folder / "observing.py").read_text() + (folder / "watching.py").read_text()
    written = set(re.findall(r'row\["(\w+)"\]', source)) | {"grad_norm", "local_grad_norm", "lr"}
    rows = {line.split("`")[1] for line in PAGE.splitlines() if line.startswith("| `")}
    assert written <= rows
