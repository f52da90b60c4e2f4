"""What the `reader` cannot do, each in the way it was once seen to succeed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from pilothouse.storage.block_compression import decompress_blocks
from pilothouse.tests.endpoint_fixture import EndpointProcess

READONLY = 164


@pytest.fixture(scope="module")
def table(endpoint: EndpointProcess) -> str:
    client = endpoint.client()
    client.command("CREATE TABLE notes (a Int64, f Float64) ENGINE = MergeTree ORDER BY a")
    client.command("INSERT INTO notes VALUES (1, nan), (2, 0.5)")
    client.command("CREATE VIEW seen AS SELECT a FROM notes")
    return "notes"


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder with one file in it, which must stay the only one."""
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    yield tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count() FROM notes",
        "WITH x AS (SELECT a FROM notes) SELECT * FROM x UNION ALL SELECT 1",
        "SELECT * FROM (SELECT a FROM notes INTERSECT SELECT a FROM seen)",
        "SELECT n.a, s.a FROM notes AS n LEFT JOIN seen AS s ON n.a = s.a",
        "SELECT number FROM numbers(3)",
        "SELECT * FROM merge('pilothouse', '^notes$')",
        "SELECT format('{}', 'x'), formatReadableSize(1)",
        "SHOW TABLES",
        "SHOW DATABASES",
        "SHOW CREATE TABLE notes",
        "SHOW COLUMNS FROM notes",
        "DESCRIBE TABLE notes",
        "EXISTS TABLE notes",
        "EXPLAIN SELECT * FROM notes",
        "EXPLAIN AST SELECT 1",
        "SELECT name FROM system.tables",
        "USE system",
    ],
)
def test_a_reader_reads(endpoint: EndpointProcess, table: str, sql: str) -> None:
    assert "Exception" not in endpoint.curl("-d", sql, user="reader")


def test_a_reader_gets_what_an_editor_asks_through_jdbc(endpoint: EndpointProcess, table: str) -> None:
    # What the driver sends with every query, and how it says that there is no limit of rows.
    driver = "compress=1&async_insert=0&wait_end_of_query=1"
    no_limit = "max_result_rows=9223372036854775807&result_overflow_mode=break"
    for sql in (
        "SELECT currentUser() AS user, timezone() AS timezone, version() AS version LIMIT 1",
        "SELECT name AS TABLE_SCHEM FROM system.databases ORDER BY name",
        (
            "SELECT t.database, t.name, t.engine, d.engine FROM system.tables t JOIN system.databases d"
            " ON system.tables.database = system.databases.name WHERE t.name LIKE 'notes' AND t.is_temporary = 0"
        ),
        (
            "SELECT database, table, name, type, numeric_scale, numeric_precision_radix, character_octet_length,"
            " comment, default_expression, position FROM system.columns WHERE table LIKE 'notes'"
        ),
        (
            "SELECT name, c.1, c.2 FROM system.tables ARRAY JOIN"
            " arrayZip(splitByChar(',', primary_key), arrayEnumerate(splitByChar(',', primary_key))) AS c"
            " WHERE primary_key != '' AND database = 'pilothouse'"
        ),
        "SELECT name, is_aggregate FROM system.functions",
        "SELECT keyword FROM system.keywords",
    ):
        arguments = ["-f", "-H", "X-ClickHouse-Format: RowBinaryWithNamesAndTypes", "-d", sql]
        answer = endpoint.curl_bytes(*arguments, "--url", f"{endpoint.url}?{driver}&{no_limit}", user="reader")
        assert decompress_blocks(answer, 10**7)


def test_a_reader_reads_with_clickhouse_connect(endpoint: EndpointProcess, table: str) -> None:
    reader = endpoint.client("reader")
    assert reader.query("SELECT a FROM notes WHERE a = {a:Int64}", parameters={"a": 2}).result_rows == [(2,)]
    assert list(reader.query_df("SELECT a FROM notes ORDER BY a")["a"]) == [1, 2]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO notes VALUES (3, 3)",
        "INSERT INTO notes SELECT 3, 3",
        "INSERT INTO notes FORMAT CSV\n3,3",
        "insert /* */ into notes (a) format JSONEachRow {}",
        "CREATE TABLE mine (a Int8) ENGINE = MergeTree ORDER BY a",
        "CREATE TEMPORARY TABLE mine (a Int8)",
        "CREATE FUNCTION mine AS x -> x",
        "DROP TABLE notes",
        "TRUNCATE TABLE notes",
        "ALTER TABLE notes DELETE WHERE 1",
        "DELETE FROM notes WHERE 1",
        "OPTIMIZE TABLE notes",
        "RENAME TABLE notes TO mine",
        "KILL MUTATION WHERE 1",
        "SYSTEM FLUSH LOGS",
        "BACKUP TABLE notes TO Null",
        "GRANT ALL ON *.* TO default",
        "CREATE USER me",
        "SET max_execution_time = 0",
        "BEGIN TRANSACTION",
        "EXPLAIN AST DROP TABLE notes",
        "SELECT 1; DROP TABLE notes",
    ],
)
def test_a_reader_writes_nothing(endpoint: EndpointProcess, table: str, sql: str) -> None:
    printed = endpoint.curl("-d", sql, user="reader")
    assert printed.startswith(("Code: 164.", "Code: 62."))
    assert endpoint.curl("-d", "SELECT count() FROM notes") == "2\n"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM file('{0}/secret.csv')",
        "SELECT file('{0}/secret.csv')",
        "SELECT FILE('{0}/secret.csv')",
        "SELECT arrayMap(x -> file(x), ['{0}/secret.csv'])",
        "SELECT 1 WHERE 1 IN file('{0}/secret.csv')",
        "SELECT * FROM '{0}/secret.csv'",
        "SELECT * FROM `{0}/secret.csv`",
        "SELECT * FROM default.`{0}/secret.csv`",
        "DESCRIBE TABLE default.`{0}/secret.csv`",
        "EXISTS TABLE default.`{0}/secret.csv`",
        "SHOW CREATE TABLE default.`{0}/secret.csv`",
        "DESCRIBE TABLE file('{0}/secret.csv')",
        "DESC file('{0}/secret.csv')",
        "DESCRIBE TABLE (SELECT * FROM file('{0}/secret.csv'))",
        "EXPLAIN SELECT * FROM file('{0}/secret.csv')",
        "SELECT * FROM view(SELECT * FROM file('{0}/secret.csv'))",
        "SELECT * FROM (EXPLAIN SELECT * FROM file('{0}/secret.csv'))",
        "SELECT * FROM filesystem('{0}')",
        "SELECT * FROM sqlite('{0}/new.db', 't')",
        "SELECT * FROM executable('ls {0}', 'TSV', 'a String')",
        "SELECT * FROM python('os')",
        "SELECT * FROM remote('127.0.0.1', 'system.one')",
        "SELECT * FROM url('http://127.0.0.1:1/x', 'CSV', 'a Int8')",
        "DESCRIBE TABLE url('http://127.0.0.1:1/x', 'CSV', 'a Int8')",
        "SELECT * FROM s3('http://127.0.0.1:1/bucket/x', 'CSV', 'a Int8')",
        "SELECT 1 INTO OUTFILE '{0}/new.csv'",
        "SELECT 1 INTO OUTFILE '{0}/new.csv' FORMAT CSV SETTINGS max_threads = 1",
        "(SELECT 1) INTO OUTFILE '{0}/new.csv'",
        "SELECT 1 AS `a\nShowTables` INTO OUTFILE '{0}/new.csv'",
        "EXPLAIN SELECT 1 INTO OUTFILE '{0}/new.csv'",
        "SHOW TABLES INTO OUTFILE '{0}/new.csv'",
        "DESCRIBE TABLE notes INTO OUTFILE '{0}/new.csv'",
        "EXISTS TABLE notes INTO OUTFILE '{0}/new.csv'",
        "SHOW CREATE TABLE notes INTO OUTFILE '{0}/new.csv'",
        "CREATE TABLE x (a Int8) ENGINE = Memory INTO OUTFILE '{0}/new.csv'",
        "INSERT INTO FUNCTION file('{0}/new.csv') SELECT 1",
        "INSERT INTO FUNCTION file('{0}/new.csv') VALUES (1)",
        "INSERT INTO notes FROM INFILE '{0}/secret.csv' FORMAT CSV",
        "SELECT aiGenerate('x')",
    ],
)
def test_a_reader_stays_inside_the_archive(endpoint: EndpointProcess, table: str, outside: Path, sql: str) -> None:
    printed = endpoint.curl("-d", sql.format(outside), user="reader")
    assert printed.startswith("Code: 164.")
    assert "1,2" not in printed


@pytest.mark.parametrize(
    "clause", ["max_execution_time = 0", "readonly = 0", "max_result_rows = 0", "max_memory_usage = 0", "readonly = 2"]
)
def test_a_reader_raises_no_limit_inside_its_sql(endpoint: EndpointProcess, clause: str) -> None:
    for sql in (f"SELECT 1 SETTINGS {clause}", f"SELECT * FROM (SELECT 1 SETTINGS {clause})"):
        assert endpoint.curl("-d", sql, user="reader").startswith("Code: 164.")


@pytest.mark.parametrize(
    "parameter", ["max_execution_time=0", "readonly=0", "max_result_rows=9999999", "log_comment=x"]
)
def test_a_reader_raises_no_limit_in_the_address(endpoint: EndpointProcess, parameter: str) -> None:
    printed = endpoint.curl("-d", "SELECT 1", "--url", f"{endpoint.url}?{parameter}", user="reader")
    assert printed.startswith("Code: 164.")


def test_a_reader_has_limits_and_may_lower_them(endpoint: EndpointProcess) -> None:
    settings = "SELECT getSetting('max_execution_time'), getSetting('readonly'), getSetting('max_memory_usage') > 0"
    assert endpoint.curl("-d", settings, user="reader") == "60\t1\t1\n"
    assert endpoint.curl("-d", settings, "--url", f"{endpoint.url}?max_execution_time=5", user="reader") == "5\t1\t1\n"
    assert endpoint.curl("-d", "SELECT number FROM numbers(2000000)", user="reader").startswith("Code: 396.")


def test_the_driver_cannot_write_for_a_reader(endpoint: EndpointProcess, table: str) -> None:
    with pytest.raises(DatabaseError) as refused:
        endpoint.client("reader").insert(table, [[3, 3.0]], column_names=["a", "f"])
    assert refused.value.code == READONLY


def test_nobody_writes_the_endpoints_files_by_outfile(endpoint: EndpointProcess, outside: Path) -> None:
    for sql in (f"SELECT 1 INTO OUTFILE '{outside}/new.csv'", f"SHOW TABLES INTO OUTFILE '{outside}/new.csv'"):
        assert endpoint.curl("-d", sql).startswith("Code: 358.")
