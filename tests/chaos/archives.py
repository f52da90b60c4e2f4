"""Archivers that can be told to die, and everything that can be read out of an archive, so that two can be compared."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pilothouse.cli.brokers import LocalBroker
from pilothouse.events.codec import Encoded, Malformed
from pilothouse.events.topics import CONTROL, TELEMETRY
from pilothouse.storage.archive import Archive, Archived, Poison
from pilothouse.storage.migrate import migrate
from pilothouse.tests.dying_worker import DyingWorker
from pilothouse.tests.endpoint_fixture import EndpointProcess
from pilothouse.tests.log_reader import Read

from .three_brokers import ThreeBrokers

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

COLUMNS = """
SELECT t.name, t.engine, groupArray((c.name, c.type))
FROM system.tables AS t
INNER JOIN (SELECT * FROM system.columns ORDER BY position) AS c ON c.database = t.database AND c.table = t.name
WHERE t.database = {database:String} AND t.engine != 'MaterializedView'
    AND t.name NOT IN ('schema_migrations', 'step_stretches')
GROUP BY ALL
ORDER BY t.name
"""
# Summaries of steps add doubles in whatever order they come: tests/integration/test_curves.py holds them to the steps.
CLOCKS = ("archived_at", "behind_s", "took_s")
"""When the archive took something in, and how long that took: the columns that may differ."""


def archiver_on(broker: LocalBroker | ThreeBrokers, archive: EndpointProcess, data_dir: Path) -> DyingWorker:
    environ = {
        "PILOTHOUSE_KAFKA": broker.address,
        "PILOTHOUSE_EMBEDDED_BROKER": str(not broker.keeps_log).lower(),
        "PILOTHOUSE_CLICKHOUSE_URL": archive.clickhouse_url,
        "PILOTHOUSE_ARCHIVE_LINGER_SECONDS": "0.3",
    }
    return DyingWorker("archiver", data_dir, environ)


def new_archive(endpoint: EndpointProcess, database: str) -> "Client":
    """A client of an empty archive."""
    client = endpoint.client()
    client.database = database
    migrate(client)
    return client


def filled_once(client: "Client", told: Sequence[Read], decided: Sequence[Read]) -> Sequence[Poison]:
    """Put what stands on both topics into an archive, at one go."""
    records = [
        Archived(topic, read.place, read.event, Encoded(read.body or b"", list(read.headers)))
        for topic, reads in ((TELEMETRY.name, told), (CONTROL.name, decided))
        for read in reads
        if not isinstance(read.event, Malformed)
    ]
    return Archive(client).insert(records)


def contents(client: "Client") -> dict[str, list[str]]:
    """By table and view, its rows as a reader gets them, but for the archive's own clock."""
    tables = client.query(COLUMNS, parameters={"database": client.database}).result_rows
    return {name: _rows(client, name, engine, columns) for name, engine, columns in tables}


def _rows(client: "Client", name: str, engine: str, columns: Sequence[tuple[str, str]]) -> list[str]:
    shown = ", ".join(
        f"finalizeAggregation({column})" if kind.startswith("AggregateFunction(") else column
        for column, kind in columns
        if column not in CLOCKS
    )
    final = "" if engine == "View" else "FINAL"
    settings = {"output_format_json_quote_denormals": 1}
    body = client.raw_query(f"SELECT {shown} FROM {name} {final}", fmt="JSONCompactEachRow", settings=settings)
    return sorted(body.decode(errors="backslashreplace").splitlines())  # as it travelled, a decision is bytes
