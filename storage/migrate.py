"""Brings a ClickHouse to the schema this code knows: numbered files, each run once, with a checksum of what was run.

`pilothouse migrate`, `pilothouse up` and the tests call it. Statements may be run again without harm, so a migration
that was cut off is simply repeated; what has been recorded must never be edited.
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from ..events.errors import MigrationRefused
from .cluster import for_cluster
from .connect import DEFAULT_DATABASE, refusals
from .dangers import dangers
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
    def loses(self) -> str:
        """What it says of itself that it loses, in its comment `-- loses: …`; empty for nothing."""
        said = re.search(r"^-- loses: (.+)$", self.text, flags=re.MULTILINE)
        return said[1] if said else ""

    @property
    def statements(self) -> list[str]:
        """Split where a line ends with a semicolon: ClickHouse's HTTP takes one at a time."""
        code = "\n".join(line for line in self.text.splitlines() if not line.lstrip().startswith("--"))
        return [part.strip() for part in (code + "\n").split(";\n") if part.strip()]


def load_migrations(folder: Path = FOLDER) -> list[Migration]:
    """The files `NNNN_name.sql` of a folder, in order."""
    files = sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    return [Migration(int(file.name[:4]), file.stem[5:], file.read_text()) for file in files]


def migrate(
    client: "Client", migrations: list[Migration] | None = None, *, cluster: str = "", accept_loss: bool = False
) -> list[Migration]:
    """Runs what has not been run; returns it. On a `cluster` as its servers need it (`storage.cluster`).

    Raises:
        MigrationRefused: an applied file was edited, the archive is ahead of this code, or a file would lose what
            cannot be made again; nothing was changed then.
        QueryRefused: ClickHouse refused a statement.
        StackNotRunning: nothing answers.
    """
    wanted = load_migrations() if migrations is None else migrations
    with refusals():
        _create_record(client, cluster)
        due = pending(wanted, _applied(client))
        refuse_losses(wanted, due, accept_loss=accept_loss)
        for migration in due:
            for statement in migration.statements:
                for each in for_cluster(statement, cluster):
                    client.command(each)
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


def refuse_losses(wanted: list[Migration], due: list[Migration], *, accept_loss: bool) -> None:
    """Nothing, where no migration that is due would lose anything that nobody agreed to lose.

    Raises:
        MigrationRefused: names the file and what it would lose.
    """
    before: list[str] = []
    for migration in wanted:
        found = dangers(migration.statements, before) if migration in due else []
        label = f"migration {migration.number:04}_{migration.name}.sql"
        if found and not migration.loses:
            raise MigrationRefused(
                f"{label} would lose what cannot be made again: {'; '.join(found)}. Write it so that nothing is lost, "
                "or say in it `-- loses: WHAT, AND WHY`"
            )
        if found and not accept_loss:
            raise MigrationRefused(
                f"{label} loses {migration.loses} ({'; '.join(found)}): export what you want to keep, then run "
                "`pilothouse migrate --accept-loss`"
            )
        before += migration.statements


def _create_record(client: "Client", cluster: str) -> None:
    database = client.database or DEFAULT_DATABASE
    where = f" ON CLUSTER '{cluster}'" if cluster else ""
    client.command(statements()["create_database"] + where, {"database": database}, use_database=False)
    for statement in for_cluster(statements()["create_migrations_record"], cluster):
        client.command(statement)


def _applied(client: "Client") -> dict[int, tuple[str, str]]:
    return {row["number"]: (row["name"], row["checksum"]) for row in ask(client, "applied_migrations")}
