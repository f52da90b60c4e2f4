"""The parts that a report is made of, whoever writes it down: facts, tables, bars, charts, texts. Pure.

Made by the `*_page` modules, written by `html` and `markdown`. All text in here is as it was told, of strangers too;
making it harmless is the writers' task.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

Tone = Literal["", "good", "warn", "bad", "missing"]
MarkKind = Literal["intervention", "checkpoint", "incident", "attempt", "not finite"]


@dataclass(frozen=True)
class Link:
    """A text that leads somewhere. Only for addresses of the web: see `linked`."""

    text: str
    href: str


Cell = str | Link


@dataclass(frozen=True)
class Facts:
    """Names and what stands for them, in one column."""

    pairs: tuple[tuple[str, Cell], ...]


@dataclass(frozen=True)
class Table:
    """Rows under headings. `tones` may colour a row."""

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    tones: tuple[Tone, ...] = ()


@dataclass(frozen=True)
class Words:
    """A paragraph; with `tone` missing it says what is not known, and what would tell it."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Items:
    """Short statements, one below the other."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Verbatim:
    """A text of several lines, exactly as it was told."""

    text: str


@dataclass(frozen=True)
class Bar:
    """One share of a whole, from 0 to 1; `kind` names its colour (a phase, or a part of a step)."""

    label: str
    share: float
    text: str
    kind: str = ""


@dataclass(frozen=True)
class Bars:
    """Shares of one whole, drawn as one bar and told line by line."""

    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Line:
    """One curve. A `y` of None breaks it. `spread` is what the points stand for: (x, least, greatest). `faint` is what
    was undone later."""

    name: str
    points: tuple[tuple[float, float | None], ...]
    spread: tuple[tuple[float, float, float], ...] = ()
    faint: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Shade:
    """A stretch of the x axis in one phase."""

    left: float
    right: float
    phase: str


@dataclass(frozen=True)
class Mark:
    """Something that happened at one place of the x axis; `short` is its name in the picture, where it has one."""

    x: float
    kind: MarkKind
    label: str
    short: str = ""


@dataclass(frozen=True)
class Chart:
    """Curves over one axis. `clock` is set where x is in microseconds UTC."""

    title: str
    x_name: str
    lines: tuple[Line, ...]
    shades: tuple[Shade, ...] = ()
    marks: tuple[Mark, ...] = ()
    clock: bool = False
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: "tuple[Block, ...]"
    anchor: str = ""


Block = Facts | Table | Words | Items | Verbatim | Bars | Chart | Section


@dataclass(frozen=True)
class Document:
    """A whole report. `lead` is its one sentence; `made_at` (microseconds UTC) when it was made."""

    title: str
    lead: str
    sections: tuple[Section, ...]
    made_at: int
    facts: Facts = field(default_factory=lambda: Facts(()))


def linked(text: str, href: str) -> Cell:
    """A link where `href` is an address of the web; else only text, for nobody knows what it would do."""
    try:
        web = urlsplit(href).scheme.lower() in ("http", "https")
    except ValueError:
        web = False
    return Link(text, href) if web else f"{text}: {href}" if text and text != href else href


def table(headings: Sequence[str], rows: Sequence[Sequence[Cell]], note: str = "") -> Table:
    """A table from any sequences."""
    return Table(tuple(headings), tuple(tuple(row) for row in rows), note)


def missing(what: str, remedy: str) -> Words:
    """What is not known, and what would tell it."""
    return Words(f"{what}: {remedy}", "missing")
