"""How answers look: tables for people, JSON for programs, one clear shape each. No query is asked here.

Called by every command. On a pipe nothing is coloured and no line is folded. In JSON the keys are those of the queries,
times are microseconds UTC, and NaN and the infinities are the strings "NaN", "Infinity" and "-Infinity".
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ..events import plain_json
from ..events.event_words import text_of
from ..events.plain_text import printable, printable_lines

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]
"""A heading, and what stands under it."""

PHASE_STYLES = {
    "Normal": "green",
    "Warmup": "cyan",
    "Recovering": "cyan",
    "Stressed": "yellow",
    "Stalled": "yellow",
    "Unstable": "red",
    "Diverged": "bold red",
}
STATUS_STYLES = {"True": "green", "False": "red", "Unknown": "yellow"}
WIDE = 100_000


def out(*, stderr: bool = False) -> Console:
    """Standard output, or the other: as wide as the terminal, or without end on a pipe. Whatever is printed, a terminal
    obeys none of it but its style.
    """
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, highlight=False, width=WIDE, no_color=True)
    console.push_render_hook(_Harmless())
    return console


class _Harmless(RenderHook):
    """Spells out what strangers put into the text that a console draws."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Spelled(renderable) for renderable in renderables]


class _Spelled:
    def __init__(self, drawn: ConsoleRenderable) -> None:
        self._drawn = drawn

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._drawn, options):
            yield segment if segment.control else Segment(printable_lines(segment.text), segment.style)


def show_rows(rows: Iterable[Row], *, as_json: bool = False, columns: Sequence[Column] = (), empty: str = "") -> None:
    """JSON lines, or a table with these columns (all keys, where none are named), or `empty` for no rows."""
    if as_json:
        for row in rows:
            print_line(json_line(row))
        return
    listed = list(rows)
    console = out()
    if not listed:
        console.print(empty or "nothing")
        return
    console.print(table(listed, columns or [_plain(key) for key in listed[0]]))


def table(rows: Iterable[Row], columns: Sequence[Column]) -> Table:
    """A table without frames; cells that name a phase or a status take its colour."""
    drawn = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for heading, _ in columns:
        drawn.add_column(heading, overflow="fold")
    for row in rows:
        drawn.add_row(*(_styled(cell(row)) for _, cell in columns))
    return drawn


def _plain(key: str) -> Column:
    return key, lambda row: text_of(row[key])


def _styled(cell: str) -> Text:
    return Text(printable(cell), style=PHASE_STYLES.get(cell) or STATUS_STYLES.get(cell) or "")


def json_line(value: Any) -> str:
    """One line of strict JSON."""
    return plain_json.dumps(value)


def csv_lines(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """RFC 4180 with a header; absent values are empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(columns)
    for row in rows:
        writer.writerow(["" if value is None else text_of(value) for value in row])
    return buffer.getvalue()


def print_line(line: str) -> None:
    """A line for a program: exactly this, whatever the terminal; but for what a terminal would obey, spelled out."""
    print(printable_lines(line), flush=True)  # noqa: T201  # the CLI's product


def clock(micros: int | None) -> str:
    """Local time of day of an event, with its date where that is not today."""
    if micros is None:
        return "–"
    moment = datetime.fromtimestamp(micros / 1e6, UTC).astimezone()
    today = datetime.now(UTC).astimezone().date()
    return moment.strftime("%H:%M:%S") if moment.date() == today else moment.strftime("%Y-%m-%d %H:%M:%S")
