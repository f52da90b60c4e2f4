"""The schema is made by numbered files, once each, whatever cut them off."""

from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client

from pilothouse.events.errors import MigrationRefused, QueryRefused
from pilothouse.settings import Settings
from pilothouse.storage.connect import connect
from pilothouse.storage.migrate import Migration, load_migrations, migrate
from pilothouse.storage.rows import EVENT_LOG, STEP_LOG, TICK_LOG
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


def test_rows_are_built_for_the_columns_there_are(client: Client) -> None:
    migrate(client)
    for table in (EVENT_LOG, STEP_LOG, TICK_LOG):
        described = client.query(f"DESCRIBE TABLE {table.name}").named_results()
        given = {row["name"]: row["type"] for row in described if row["default_type"] == ""}
        assert given == table.columns
