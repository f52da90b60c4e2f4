"""The questions of docs/sql.md, and the archive that answers them: the committed histories, of which one is a demo's.

    python -m pilothouse.tests.cookbook        answer them anew (after histories were renewed, or one was added)

A question is a heading, its SQL, and its answer as `pilothouse sql` prints it.
"""

import io
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from pilothouse.cli.rendering import WIDE, table
from pilothouse.events.codec import from_json
from pilothouse.events.envelope import LogPlace
from pilothouse.events.event_words import text_of
from pilothouse.events.topics import CONTROL, TELEMETRY
from pilothouse.storage.archive import Archive, Archived
from pilothouse.storage.queries import run_sql
from pilothouse.tests.replay import history

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

PAGE = Path(__file__).parents[1] / "docs" / "sql.md"
QUESTION = re.compile(
    r"^### (?P<title>[^\n]+)\n\n```sql\n(?P<sql>(?:(?!```).)+?)\n```\n\n```text\n(?P<answer>(?:(?!```).)*)```$",
    re.M | re.S,
)


class Question(NamedTuple):
    """One of the page."""

    title: str
    sql: str
    answer: str


def questions() -> list[Question]:
    return [Question(**found.groupdict()) for found in QUESTION.finditer(PAGE.read_text(encoding="utf-8"))]


def kept(number: int, name: str) -> Iterator[Archived]:
    """A committed history in a partition of its own, with what was decided of it."""
    for record in history.records(name):
        yield Archived(TELEMETRY.name, record.place._replace(partition=number), record.event)
    for offset, line in enumerate(history.committed_decisions(name)):
        yield Archived(CONTROL.name, LogPlace(0, number, offset), from_json(line))


def fill(client: "Client") -> None:
    """Put the histories into an archive."""
    for number, name in enumerate(history.HISTORIES):
        Archive(client).insert(list(kept(number, name)))


def answer(client: "Client", sql: str) -> str:
    """As `pilothouse sql` prints it on a pipe."""
    told = run_sql(client, sql)
    rows = [dict(zip(told.columns, row, strict=True)) for row in told.rows]
    console = Console(file=io.StringIO(), width=WIDE, no_color=True, highlight=False)
    columns = [(name, lambda row, name=name: text_of(row[name])) for name in told.columns]
    console.print(table(rows, columns) if rows else "no rows")
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def rewrite(client: "Client") -> None:
    """The page with today's answers."""

    def anew(found: re.Match[str]) -> str:
        return found[0].removesuffix(f"{found['answer']}```") + f"{answer(client, found['sql'])}\n```"

    PAGE.write_text(QUESTION.sub(anew, PAGE.read_text()))


def main() -> None:
    from pilothouse.settings import Settings
    from pilothouse.storage.connect import connect
    from pilothouse.storage.upgrade import bring_up_to_date
    from pilothouse.tests.endpoint_fixture import start_endpoint

    with tempfile.TemporaryDirectory() as folder:
        running = start_endpoint(Path(folder))
        try:
            settings = Settings(clickhouse_url=running.clickhouse_url)
            client = connect(settings)
            bring_up_to_date(client, settings)
            fill(client)
            rewrite(client)
        finally:
            running.terminate()
    sys.stdout.write(f"{len(questions())} questions are answered in {PAGE}\n")


if __name__ == "__main__":
    main()
