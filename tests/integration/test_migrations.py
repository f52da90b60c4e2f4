"""The schema is made by numbered files, once each, whatever cut them off; none of them loses anything in silence."""

from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client

from pilothouse.events.errors import MigrationRefused, QueryRefused
from pilothouse.settings import Settings
from pilothouse.storage import step_block
from pilothouse.storage.cluster import for_cluster
from pilothouse.storage.connect import connect
from pilothouse.storage.migrate import Migration, load_migrations, migrate
from pilothouse.storage.rows import EVENT_LOG, TICK_LOG, Rows, rows_of
from pilothouse.tests.archive_events import logged, story
from pilothouse.tests.endpoint_fixture import EndpointProcess


@pytest.fixture
def client(endpoint: EndpointProcess, request: pytest.FixtureRequest) -> Iterator[Client]:
    """An archive without a database, for each test its own."""
    server, _ = endpoint.clickhouse_url.rsplit("/", 1)
    connected = connect(Settings(clickhouse_url=f"{server}/{request.node.name}"))
    yield connected
    connected.close()


def schema(client: Client) -> list[tuple[object, ...]]:
    sql = "SELECT name, engine, create_table_query FROM system.tables WHERE database = currentDatabase() ORDER BY name"
    return [tuple(row) for row in client.query(sql).result_rows]


def test_a_second_time_nothing_happens(client: Client) -> None:
    assert migrate(client) == load_migrations()
    before = schema(client)
    assert migrate(client) == []
    assert schema(client) == before


def test_one_that_was_cut_off_is_repeated(client: Client) -> None:
    migrate(client)
    before = schema(client)
    client.command("DROP TABLE schema_migrations")
    assert migrate(client) == load_migrations()
    assert schema(client) == before


def test_a_refused_statement_is_not_recorded(client: Client) -> None:
    broken = Migration(1, "broken", "SELECT 1;\nSELECT nonsense;\n")
    with pytest.raises(QueryRefused, match="nonsense") as refused:
        migrate(client, [broken])
    assert refused.value.code == 47
    fixed = Migration(1, "broken", "SELECT 1;\n")
    assert migrate(client, [fixed]) == [fixed]


def test_what_ran_may_not_be_edited(client: Client) -> None:
    migrate(client, [Migration(1, "log", "SELECT 1;\n")])
    with pytest.raises(MigrationRefused, match=r"0001_log\.sql was changed"):
        migrate(client, [Migration(1, "log", "SELECT 2;\n")])


@pytest.mark.parametrize("version", [1, 3])
def test_an_archive_of_an_earlier_version_becomes_what_a_fresh_one_is(client: Client, version: int) -> None:
    migrations = load_migrations()
    migrate(client, migrations[:version])
    write_as_then(client, rows_of(logged(story("old"))))
    assert [migration.number for migration in migrate(client)] == list(range(version + 1, len(migrations) + 1))
    grown = schema(client)
    assert client.query("SELECT signature, steps_lost FROM incidents").result_rows == [("Stable/Spike", 2)]
    client.command(f"DROP DATABASE `{client.database}`")
    migrate(client)
    assert schema(client) == grown


def write_as_then(client: Client, rows: Rows) -> None:
    """As an archiver of that version did: without the columns that came later."""
    for table, lines in rows.by_table():
        there = {row["name"] for row in client.query(f"DESCRIBE TABLE {table.name}").named_results()}
        kept = [(number, name) for number, name in enumerate(table.columns) if name in there]
        values = [[line[number] for number, _ in kept] for line in lines]
        client.insert(table.name, values, column_names=[name for _, name in kept])
    for block in rows.steps:
        client.raw_insert(step_block.NAME, list(step_block.COLUMNS), block.native(), fmt="Native")


def test_nothing_runs_where_something_would_be_lost(client: Client) -> None:
    wanted = load_migrations()
    migrate(client, wanted)
    text = "CREATE TABLE t (a Int64) ENGINE = Memory;\nALTER TABLE event_log DROP COLUMN team;\n"
    careless = Migration(len(wanted) + 1, "tidy", text)
    with pytest.raises(MigrationRefused, match=r"_tidy\.sql would lose .*: DROP COLUMN in event_log"):
        migrate(client, [*wanted, careless])
    meant = Migration(careless.number, "tidy", f"-- loses: the teams, for a test\n{text}")
    with pytest.raises(MigrationRefused, match=r"loses the teams, for a test .* --accept-loss"):
        migrate(client, [*wanted, meant])
    assert client.query(
        "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 't'"
    ).result_rows == [(0,)]


def test_what_a_cluster_would_be_told_is_clickhouse_s_own_language(client: Client) -> None:
    ours = [statement for migration in load_migrations() for statement in migration.statements]
    told = [each for statement in ours for each in for_cluster(statement, "prod")]
    for statement in told:
        client.command(f"EXPLAIN AST {statement}", use_database=False)
    tables = sum(statement.startswith("CREATE TABLE") for statement in ours)
    assert sum("ENGINE = Replicated" in statement for statement in told) == tables


def test_rows_are_built_for_the_columns_there_are(client: Client) -> None:
    migrate(client)
    tables = {step_block.NAME: step_block.COLUMNS} | {table.name: table.columns for table in (EVENT_LOG, TICK_LOG)}
    for name, columns in tables.items():
        described = client.query(f"DESCRIBE TABLE {name}").named_results()
        given = {row["name"]: row["type"] for row in described if row["default_type"] == ""}
        assert given == columns
