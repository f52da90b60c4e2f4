"""The demo's questions to the archive, as anybody could ask them: the statements of `questions.sql`, about its runs."""

from pathlib import Path

from ...storage.named import split_named

FILE = Path(__file__).with_name("questions.sql")


def questions_about(demo: str, governed: str) -> dict[str, str]:
    """By name, each on one line. `demo` is the beginning of the ids of the demo's runs, `governed` one run's id."""
    return {
        name: " ".join(text.split()).rstrip(";").replace("{demo}", demo).replace("{governed}", governed)
        for name, text in split_named(FILE.read_text(encoding="utf-8"))
    }
