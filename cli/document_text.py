"""A report on a terminal: the same document as in HTML, by rich. Used by `compare` and `similar`.

Charts are lines of eight heights, with their first and last values. What strangers wrote does nothing to the terminal.
"""

import math
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from ..control_room.report.document import Bars, Chart, Facts, Items, Link, Section, Table, Verbatim, Words
from ..control_room.report.figures import number
from ..control_room.report.plain import visible_lines
from ..control_room.report.scales import Scale, scale_of
from ..events.plain_text import printable

if TYPE_CHECKING:
    from ..control_room.report.document import Block, Cell, Document, Line

HEIGHTS = "▁▂▃▄▅▆▇█"
WIDTH = 60
STYLES = {"good": "green", "warn": "yellow", "bad": "red", "missing": "dim", "": ""}


def show(console: Console, document: "Document") -> None:
    """The whole document."""
    console.print(Text(printable(document.title), style="bold"))
    console.print(Text(printable(document.lead)))
    _facts(console, document.facts)
    for section in document.sections:
        _section(console, section)


def _section(console: Console, section: Section) -> None:
    console.print()
    console.print(Text(printable(section.title), style="bold underline"))
    for block in section.blocks:
        _block(console, block)


def _block(console: Console, block: "Block") -> None:  # noqa: C901  # one arm for each kind of block
    match block:
        case Section():
            _section(console, block)
        case Table():
            _table(console, block)
        case Facts():
            _facts(console, block)
        case Chart():
            _chart(console, block)
        case Words(text=text, tone=tone):
            console.print(Text(printable(text), style=STYLES[tone]))
        case Items(items=items):
            for item in items:
                console.print(Text(f"- {printable(item)}"))
        case Verbatim(text=text):
            console.print(Text(visible_lines(text)))
        case Bars(bars=bars):
            for bar in bars:
                console.print(Text(f"{printable(bar.label)}: {printable(bar.text)}"))


def _facts(console: Console, facts: Facts) -> None:
    for name, cell in facts.pairs:
        console.print(Text(f"{printable(name)}: {_shown(cell)}"))


def _table(console: Console, table: Table) -> None:
    grid = Grid(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for heading in table.headings:
        grid.add_column(Text(printable(heading)), overflow="fold")
    for row in table.rows:
        grid.add_row(*(Text(_shown(cell)) for cell in row))
    console.print(grid)
    if table.note:
        console.print(Text(printable(table.note), style="dim"))


def _shown(cell: "Cell") -> str:
    return printable(f"{cell.text} {cell.href}" if isinstance(cell, Link) else cell)


def _chart(console: Console, chart: Chart) -> None:
    drawn = [line for line in chart.lines if not line.faint]
    values = [y for line in drawn for _, y in line.points if y is not None and math.isfinite(y)]
    if not values:
        console.print(Text(f"{printable(chart.title)}: no finite value", style="dim"))
        return
    scale = ", logarithmic" if scale_of(values).log else ""
    console.print(Text(f"{printable(chart.title)} over {printable(chart.x_name)}{scale}", style="bold"))
    places = [x for line in drawn for x, _ in line.points]
    longest, up = max(len(printable(line.name)) for line in drawn), scale_of(values)
    for line in drawn:
        known = [y for _, y in line.points if y is not None]
        ends = f"{number(known[0])} → {number(known[-1])}" if known else "–"
        curve = _curve(line, Scale(min(places), max(places)), up)
        console.print(Text(f"{printable(line.name):<{longest}} {curve} {ends}"))


def _curve(line: "Line", across: Scale, up: Scale) -> str:
    """The last value in each of `WIDTH` columns; a blank where there is none, × where it is not finite."""
    columns = [" "] * WIDTH
    for x, y in line.points:
        place = int(across.at(x) * (WIDTH - 1)) if across.high > across.low else 0
        if y is None or not math.isfinite(y):
            columns[place] = "×"
        else:
            columns[place] = HEIGHTS[round(up.at(y) * (len(HEIGHTS) - 1))]
    return "".join(columns)
