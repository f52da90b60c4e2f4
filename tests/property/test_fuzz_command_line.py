"""Whatever is typed, the command line ends with one of its own statuses, and prints nothing that a terminal obeys."""

import tempfile
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.cli.main import commands
from pilothouse.tests.fuzzing import examples, strange_text
from pilothouse.tests.stack_fixture import typed

pytestmark = pytest.mark.fuzz

RUNS_ON = frozenset({"up", "worker", "serve", "demo", "run", "mcp", "tail", "gameday"})
"""They run until they are told to stop, or begin somebody's script."""
FILES = frozenset({"-o", "--out", "--output", "export", "--keys", "--data-dir"})
NOWHERE = {"PILOTHOUSE_KAFKA": "127.0.0.1:1", "PILOTHOUSE_CLICKHOUSE_URL": "http://127.0.0.1:1/pilothouse"}
BUG = 70


def _all() -> dict[tuple[str, ...], list[str]]:
    """Every command, with the options it has."""
    found: dict[tuple[str, ...], list[str]] = {}
    for name, command in getattr(typer.main.get_command(commands), "commands", {}).items():
        for below, leaf in getattr(command, "commands", {"": command}).items():
            if name not in RUNS_ON:
                words = (name, below) if below else (name,)
                found[words] = [word for parameter in leaf.params for word in parameter.opts if word.startswith("-")]
    return found


COMMANDS = _all()


@st.composite
def lines(draw: st.DrawFn) -> list[str]:
    """A command, perhaps mistyped, with options that it has and words that nobody meant."""
    command = draw(st.sampled_from(sorted(COMMANDS)))
    known = [option for option in COMMANDS[command] if option not in FILES]
    words = st.one_of(strange_text, st.sampled_from(known) if known else strange_text)
    return [*command, *draw(st.lists(words, max_size=5))]


@examples(40)
@given(lines())
def test_any_words_are_obeyed_or_refused_in_plain_words(words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        answer = typed(*words, data_dir=Path(home) / "data", more=NOWHERE)
        kept = [path for path in Path(home).iterdir() if path.name != "data"]
    assert answer.returncode in (0, 1, 2, 75, 130), answer.stderr
    assert "Traceback" not in answer.stderr
    assert all(line.expandtabs().isprintable() for line in (answer.stdout + answer.stderr).split("\n")), words
    assert all("/" not in path.name for path in kept)
