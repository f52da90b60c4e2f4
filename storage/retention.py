"""How long each class of data is kept: the settings as TTLs of the archive's tables.

`upgrade` calls `apply` after every migration; where nothing changed, it changes nothing. Counted from the moment at
which the archive took something in: an event's own time is data, never a clock.
"""

from typing import TYPE_CHECKING

from ..settings import Settings
from .cluster import for_cluster
from .connect import refusals

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

EVIDENCE = ("data_profiled", "heartbeat", "log_lines", "resources_sampled", "sample_recorded")
"""Kinds of events of which there are many, and on which no view of a run's life stands."""


def wanted(settings: Settings) -> dict[str, str]:
    """The TTL of each table as ClickHouse writes it down; empty is for ever."""
    kinds = ", ".join(f"'{kind}'" for kind in EVIDENCE)
    evidence = _days(settings.keep_evidence_days)
    return {
        "event_log": f"{evidence} WHERE kind IN ({kinds})" if evidence else "",
        "step_log": _days(settings.keep_steps_days),
        "tick_log": _days(settings.keep_ticks_days),
    }


def apply(client: "Client", settings: Settings) -> list[str]:
    """Make it so; the tables that were changed."""
    changed = []
    for table, ttl in wanted(settings).items():
        kept = f"{table}_local" if settings.clickhouse_cluster else table
        with refusals():
            [(engine,)] = client.query(
                "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = {table:String}",
                parameters={"table": kept},
            ).result_rows
            if _of(engine) != ttl:
                change = f"MODIFY TTL {ttl}" if ttl else "REMOVE TTL"
                client.command(for_cluster(f"ALTER TABLE {table} {change}", settings.clickhouse_cluster)[0])
                changed.append(table)
    return changed


def _days(days: int) -> str:
    return f"toDateTime(archived_at) + toIntervalDay({days})" if days else ""


def _of(engine: str) -> str:
    return engine.partition(" TTL ")[2].partition(" SETTINGS ")[0].strip()
