"""docs/tutorial.md, followed literally: what it says to save is saved, what it says to type is typed, in its order, and
what it shows is seen.

Not followed are the installation, for which `test_wheel` stands, and the ports, which are any that are free here. Where
a page says what a command answers, the command is typed again until it does: a person is slower than we are, and on a
machine that hardly moves a training may be over before the governor could save it.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pilothouse.tests.pages import ROOT, Block, blocks
from pilothouse.tests.stack_fixture import RunningStack, environ, running_stack

PAGE = [block for block in blocks(ROOT / "docs" / "tutorial.md") if block.language in ("sh", "python", "text")]
SECONDS = 120.0


class Follower:
    """Somebody with two terminals in one folder."""

    def __init__(self, desk: Path) -> None:
        self._desk = desk
        self._first_terminal = ExitStack()
        self.stack: RunningStack | None = None

    @property
    def _environ(self) -> dict[str, str]:
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        return environ(self._desk / "data") | {"PATH": path, "COLUMNS": "200"}

    def follow(self, block: Block, shown: str) -> None:
        """Do what a block says; `shown` is what the page shows of the answer."""
        match block.language, block.title:
            case "python", name:
                (self._desk / name).write_text(block.text)
            case "sh", "once":
                pass
            case "sh", "first terminal":
                self._open_first_terminal(block.text.split())
            case "sh", _:
                self._type_until(block.text.splitlines(), shown)
            case _:
                assert block.language == "text"

    def _open_first_terminal(self, words: list[str]) -> None:
        assert words[:2] == ["pilothouse", "up"]
        self.close()
        self.stack = self._first_terminal.enter_context(
            running_stack(self._desk / "data", *words[2:], "--page-port", "0")
        )

    def _type_until(self, lines: list[str], shown: str) -> None:
        deadline = time.monotonic() + SECONDS
        while True:
            answers = [self._typed(line) for line in lines]
            printed = "".join(answer.stdout for answer in answers)
            missing = missed(shown, printed)
            if not missing and not any(answer.returncode for answer in answers):
                return
            said = printed + "".join(answer.stderr for answer in answers)
            assert time.monotonic() < deadline, f"{lines}: not seen: {missing}; seen:\n{said}"

    def _typed(self, line: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", "-c", line],
            cwd=self._desk,
            env=self._environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def close(self) -> None:
        """Ctrl-C in the first terminal."""
        self._first_terminal.close()


def shape(line: str) -> str:
    """A line without what is another each time: identities, numbers, times, the width of columns."""
    return " ".join(re.sub(r"\b[0-9a-f]{8}\b|\d+(?:\.\d+)?", "#", line).split())


def missed(shown: str, printed: str) -> list[str]:
    """The lines of a page that are not among those that were printed; dots at the end stand for the rest of one."""
    seen = [shape(line) for line in printed.splitlines()]
    return [
        line
        for line in filter(None, map(str.rstrip, shown.splitlines()))
        if not any(
            each.startswith(shape(line.removesuffix("…"))) if line.endswith("…") else each == shape(line)
            for each in seen
        )
    ]


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[Follower]:
    one = Follower(tmp_path)
    yield one
    one.close()


def test_what_a_page_shows_is_missed_where_it_is_not_printed() -> None:
    assert missed("loss  1.5 …\nwell", "loss 2.5 and more\nwell\n") == []
    assert missed("outcome recovered", "outcome ineffective\n") == ["outcome recovered"]


@pytest.mark.chaos_long  # two stacks and two trainings: more than a minute of CPU
def test_whoever_follows_the_tutorial_sees_what_it_shows(follower: Follower, tmp_path: Path) -> None:
    assert [block.title for block in PAGE if block.language == "python"] == ["train.py"]
    for block, behind in zip(PAGE, [*PAGE[1:], PAGE[0]], strict=True):
        follower.follow(block, behind.text if behind.language == "text" else "")
    assert "<html" in (tmp_path / "governed.html").read_text()
