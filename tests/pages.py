"""What stands in the pages for people to copy: fenced blocks, indented lines of commands, and commands in the prose.

Every page is under one of two rules. What can be run here is run (`EXECUTED`, by the test that is named); all else is
checked without running it, by what it is written in (`tests/unit/test_snippets.py`).
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "compose/README.md"]
)
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]*)\")?[ \t]*$")
INDENTED = re.compile(r"^(?:    |        )(?=\S)")
SPAN = re.compile(r"(?<!`)`((?:pilothouse|make) [^`\n]+)`(?!`)")


class Block(NamedTuple):
    """A block of a page. `title` says where it is typed or saved; `line` is that of its first one."""

    page: str
    line: int
    language: str
    title: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block, and every run of indented lines outside of them (as language `indented`)."""
    name, lines = str(page.relative_to(ROOT)), page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        if fence := FENCE.match(lines[number]):
            end = next(at for at in range(number + 1, len(lines)) if lines[at].strip() == "```")
            inside = [line.removeprefix(fence["indent"]) for line in lines[number + 1 : end]]
            yield Block(name, number + 2, fence["language"], fence["title"] or "", "\n".join(inside) + "\n")
            number = end + 1
        elif INDENTED.match(lines[number]) and (number == 0 or not lines[number - 1].strip()):
            end = number
            while end < len(lines) and INDENTED.match(lines[end]):
                end += 1
            text = "\n".join(line.strip() for line in lines[number:end]) + "\n"
            yield Block(name, number + 1, "indented", "", text)
            number = end
        else:
            number += 1


def spans(page: Path) -> Iterator[Block]:
    """Commands in the prose."""
    name, text = str(page.relative_to(ROOT)), page.read_text(encoding="utf-8")
    outside = re.sub(r"^ *```.*?^ *```", lambda fenced: "\n" * fenced[0].count("\n"), text, flags=re.M | re.S)
    for found in SPAN.finditer(outside):
        yield Block(name, outside[: found.start()].count("\n") + 1, "span", "", found[1] + "\n")


def command_lines(block: Block) -> Iterator[list[str]]:
    """The words of every call of ours in a block, behind `pilothouse` or `make`."""
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in re.split(r"\s(?:&&|\|\||\|(?=\s)|>|;)\s", f" {line} "):
            try:
                words = shlex.split(part, comments=True)
            except ValueError:
                continue  # prose or a drawing
            while words and (words[0] == "$" or re.match(r"^[A-Z_]+=", words[0])):
                words = words[1:]
            if words and words[0].rpartition("/")[2] in ("pilothouse", "make"):
                yield [words[0].rpartition("/")[2], *words[1:]]


def queries(page: Path) -> Iterator[Block]:
    """What a page asks of the archive: its blocks of SQL, and the queries of its commands."""
    for block in (*blocks(page), *spans(page)):
        if block.language == "sql":
            yield block
        for words in command_lines(block):
            asked = [word for word in words[2:] if " " in word] if words[:2] == ["pilothouse", "sql"] else []
            yield from (block._replace(language="sql", text=sql) for sql in asked)
