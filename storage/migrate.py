"""Brings a ClickHouse to the schema this code knows: numbered files, each run once, with a checksum of what was run.

`pilothouse migrate`, `pilothouse up` and the tests call it. Statements may be run again without harm, so a migration
that was cut off is simply repeated; what has been recorded must never be edited.
"""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from ..events.errors import MigrationRefused
from .connect import DEFAULT_DATABASE, refusals
from .named import ask, statements

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

FOLDER = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, name and whole text."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return sha256(self.text.encode()).hexdigest()

    @property
    def statements(self) -> list[str]:
        """Split where a line ends with a semicolon: ClickHouse's HTTP takes one at a time."""
        code = "\n".join(line for line in self.text.splitlines() if not line.lstrip().startswith("--"))
        return [part.strip() for part in (code + "\n").split(";\n") if part.strip()]


def load_migrations(folder: Path = FOLDER) -> list[Migration]:
    """The files `NNNN_name.sql` of a folder, in order."""
    files = sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    return [Migration(int(file.name[:4]), file.stem[5:], file.read_text()) for file in files]


def migrate(client: "Client", migrations: list[Migration] | None = None) -> list[Migration]:
    """Runs what has not been run; returns it.

    Raises:
        MigrationRefused: an applied file was edited, or the archive is ahead of this code.
        QueryRefused: ClickHouse refused a statement.
        StackNotRunning: nothing answers.
    """
    wanted = load_migrations() if migrations is None else migrations
    with refusals():
        _create_record(client)
        due = pending(wanted, _applied(client))
        for migration in due:
            for statement in migration.statements:
                client.command(statement)
            client.insert(
                "schema_migrations",
                [[migration.number, migration.name, migration.checksum]],
                column_names=["number", "name", "checksum"],
                column_type_names=["UInt32", "String", "String"],
            )
    return due


def pending(wanted: list[Migration], applied: dict[int, tuple[str, str]]) -> list[Migration]:
    """What is still to run. `applied` is (name, checksum) by number."""
    known = {migration.number: migration for migration in wanted}
    for number, (name, checksum) in sorted(applied.items()):
        label = f"{number:04}_{name}.sql"
        if number not in known:
            raise MigrationRefused(f"the archive has migration {label}, which this version does not know: upgrade it")
        if known[number].checksum != checksum:
            raise MigrationRefused(
                f"migration {label} was changed after it ran: restore it, and write a new one instead"
            )
    return [migration for migration in wanted if migration.number not in applied]


def _create_record(client: "Client") -> None:
    database = client.database or DEFAULT_DATABASE
    client.command(statements()["create_database"], {"database": database}, use_database=False)
    client.command(statements()["create_migrations_record"])


def _applied(client: "Client") -> dict[int, tuple[str, str]]:
    return {row["number"]: (row["name"], row["checksum"]) for row in ask(client, "applied_migrations")}
