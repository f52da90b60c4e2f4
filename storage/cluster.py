"""The schema of a cluster, out of the text of the schema of one server. Pure; `migrate` calls it.

Every table becomes a replicated one on each shard (`NAME_local`) and a distributed one over them under its own name, so
that views and queries are the same everywhere. A run lies on one shard, whole: what collapses its repeats happens
there. What is small and belongs to no run is on every server. Placeholders `{shard}` and `{replica}` are the servers'
own macros.
"""

import re

EVERYWHERE = frozenset({"regime_bands", "schema_migrations"})
"""Tables of which every server has all."""
SHARDED_BY = ("run_id", "partition", "topic")
"""The first of these that a table has says where a row lies."""

_TABLE = re.compile(
    r"CREATE TABLE IF NOT EXISTS (?P<name>\w+)\n\((?P<columns>.*)\n\)\n"
    r"ENGINE = (?P<engine>\w*MergeTree)(?:\((?P<arguments>[^)]*)\))?(?P<rest>.*)",
    re.DOTALL,
)
_FILLED = re.compile(
    r"CREATE MATERIALIZED VIEW IF NOT EXISTS (?P<name>\w+) TO (?P<target>\w+) AS(?P<query>.*)", re.DOTALL
)
_SOURCE = re.compile(r"\bFROM (?P<source>\w+)\b")
_VIEW = re.compile(r"CREATE OR REPLACE VIEW (?P<name>\w+)(?P<rest>.*)", re.DOTALL)
_ALTER = re.compile(r"ALTER TABLE (?P<name>\w+) (?P<change>.*)", re.DOTALL)
_OF_COLUMNS = re.compile(r"(ADD|MODIFY|COMMENT|RENAME|DROP) COLUMN\b")


def for_cluster(statement: str, cluster: str) -> list[str]:
    """The statements that do on a cluster what this one does on a server; itself, where no cluster is named."""
    if not cluster:
        return [statement]
    where = f"ON CLUSTER {_quoted(cluster)}"
    if table := _TABLE.fullmatch(statement):
        return _table(table, cluster, where)
    if filled := _FILLED.fullmatch(statement):
        query = _SOURCE.sub(r"FROM \g<source>_local", filled["query"])
        name, target = filled["name"], _local(filled["target"])
        return [f"CREATE MATERIALIZED VIEW IF NOT EXISTS {name} {where} TO {target} AS{query}"]
    if view := _VIEW.fullmatch(statement):
        return [f"CREATE OR REPLACE VIEW {view['name']} {where}{view['rest']}"]
    if alter := _ALTER.fullmatch(statement):
        return _altered(alter["name"], alter["change"], where)
    return [statement]


def _table(table: re.Match[str], cluster: str, where: str) -> list[str]:
    name, local = table["name"], _local(table["name"])
    shard, replica = ("all", "{shard}-{replica}") if name in EVERYWHERE else ("{shard}", "{replica}")
    path = f"'/clickhouse/tables/{shard}/{{database}}/{name}', '{replica}'"
    arguments = ", ".join(filter(None, (path, table["arguments"])))
    kept = (
        f"CREATE TABLE IF NOT EXISTS {local} {where}\n({table['columns']}\n)\n"
        f"ENGINE = Replicated{table['engine']}({arguments}){table['rest']}"
    )
    if name in EVERYWHERE:
        return [kept]
    key = next(column for column in SHARDED_BY if re.search(rf"^\s*{column}\s", table["columns"], re.MULTILINE))
    over = f"Distributed({_quoted(cluster)}, currentDatabase(), {_quoted(local)}, cityHash64({key}))"
    return [kept, f"CREATE TABLE IF NOT EXISTS {name} {where} AS {local} ENGINE = {over}"]


def _altered(name: str, change: str, where: str) -> list[str]:
    statements = [f"ALTER TABLE {_local(name)} {where} {change}"]
    if _OF_COLUMNS.match(change) and name not in EVERYWHERE:
        statements.append(f"ALTER TABLE {name} {where} {re.sub(r' CODEC[(].*[)]', '', change)}")
    return statements


def _local(name: str) -> str:
    return name if name in EVERYWHERE else f"{name}_local"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
