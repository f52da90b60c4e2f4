"""A report as Markdown (of GitHub's kind, which pages and merge requests show). Pure.

Charts are told by their ends and extremes, for a text has none. Called by the command line.
"""

from collections.abc import Iterator
from typing import assert_never

from .document import Bars, Block, Cell, Chart, Document, Facts, Items, Line, Link, Section, Table, Verbatim, Words
from .figures import moment, number, time_of_day
from .plain import fenced, marked_down

DEEPEST = 6
TONES = {"missing": "*Not known.* ", "warn": "**Note.** ", "bad": "**Attention.** ", "good": "", "": ""}


def written(document: Document) -> str:
    """The whole text."""
    parts = [
        f"# {marked_down(document.title)}",
        marked_down(document.lead),
        *_block(document.facts, 1),
        *(part for section in document.sections for part in _section(section, 2)),
        f"*Made by pilothouse at {moment(document.made_at)} UTC. All times are UTC.*",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(section: Section, level: int) -> Iterator[str]:
    yield f"{'#' * min(level, DEEPEST)} {marked_down(section.title)}"
    for block in section.blocks:
        yield from _block(block, level)


def _block(block: Block, level: int) -> Iterator[str]:
    match block:
        case Facts(pairs=pairs):
            yield "\n".join(f"- **{marked_down(name)}**: {_cell(cell)}" for name, cell in pairs)
        case Table():
            yield _table(block)
        case Words(text=text, tone=tone):
            yield TONES[tone] + marked_down(text)
        case Items(items=items):
            yield "\n".join(f"- {marked_down(item)}" for item in items)
        case Verbatim(text=text):
            yield fenced(text)
        case Bars(bars=bars):
            yield "\n".join(f"- {marked_down(bar.label)}: {marked_down(bar.text)}" for bar in bars)
        case Chart():
            yield _chart(block)
        case Section():
            yield from _section(block, level + 1)
        case _ as unreachable:
            assert_never(unreachable)


def _table(table: Table) -> str:
    lines = [_row(table.headings), "|" + " --- |" * len(table.headings), *map(_row, table.rows)]
    return "\n".join(lines) + (f"\n\n{marked_down(table.note)}" if table.note else "")


def _row(cells: tuple[Cell, ...]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(cell: Cell) -> str:
    if isinstance(cell, Link):
        address = cell.href.replace("<", "%3C").replace(">", "%3E").replace("|", "%7C")
        return f"[{marked_down(cell.text)}](<{marked_down(address)}>)"
    return marked_down(cell)


def _chart(chart: Chart) -> str:
    told = [f"**{marked_down(chart.title)}** over {marked_down(chart.x_name)}", ""]
    told += [f"- {_line(line, chart.clock)}" for line in chart.lines if line.points]
    return "\n".join(told + (["", marked_down(chart.note)] if chart.note else []))


def _line(line: Line, clock: bool) -> str:
    """Where a curve begins, turns and ends."""
    known = [(x, y) for x, y in line.points if y is not None]
    if not known:
        return ": ".join(filter(None, (marked_down(line.name), "no finite value")))
    least, greatest = min(known, key=lambda point: point[1]), max(known, key=lambda point: point[1])
    told = (("from", known[0]), ("to", known[-1]), ("least", least), ("greatest", greatest))
    places = [f"{word} {number(y)} at {time_of_day(int(x)) if clock else number(x)}" for word, (x, y) in told]
    name = " ".join(filter(None, (marked_down(line.name), "(undone later)" if line.faint else "")))
    return ": ".join(filter(None, (name, ", ".join(places))))
