"""Brings an archive up to this code and these settings: its migrations, how long it keeps what, its service levels.

Whoever composes a stack (`pilothouse up`, `migrate`, an import into an archive of its own) calls it once; a second time
changes nothing.
"""

from hashlib import sha256
from typing import TYPE_CHECKING

from ..settings import Settings
from . import retention, slo
from .cluster import for_cluster
from .connect import refusals
from .migrate import migrate

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


def bring_up_to_date(client: "Client", settings: Settings, *, accept_loss: bool = False) -> list[str]:
    """What was done, a line each; nothing where all was as it should be.

    Raises:
        MigrationRefused: see `migrate`.
        SettingsInvalid: the file of service levels is wrong; nothing was changed then.
        QueryRefused: ClickHouse refused a statement.
    """
    objectives = slo.load_objectives(settings.slo_file or slo.SHIPPED)
    ran = migrate(client, cluster=settings.clickhouse_cluster, accept_loss=accept_loss)
    done = [f"ran {migration.number:04} {migration.name}" for migration in ran]
    done += [f"{table} is kept as long as the settings say" for table in retention.apply(client, settings)]
    statements = slo.view_statements(objectives)
    mark = f"of objectives {sha256(repr(statements).encode()).hexdigest()[:16]}"
    if ran or _mark(client) != mark:
        with refusals():
            for statement in statements:
                for each in for_cluster(statement, settings.clickhouse_cluster):
                    client.command(each)
            marked = for_cluster(f"ALTER TABLE slo MODIFY COMMENT '{mark}'", "")[0]
            client.command(marked)
        done.append(f"{len(objectives)} service levels are in force")
    return done


def _mark(client: "Client") -> str:
    sql = "SELECT comment FROM system.tables WHERE database = currentDatabase() AND name = 'slo'"
    with refusals():
        rows = client.query(sql).result_rows
    return str(rows[0][0]) if rows else ""
