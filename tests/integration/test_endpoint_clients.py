"""clickhouse-connect and curl against the embedded archive, as against a server."""

import gzip
import json
import math
import random
import struct
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from email.message import Message
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import UUID

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from pilothouse.storage.block_compression import compress_blocks, decompress_blocks
from pilothouse.tests.endpoint_fixture import FULL_TOKEN, EndpointProcess

NOT_FINITE = [math.nan, math.inf, -math.inf]


def code_of(endpoint: EndpointProcess, sql: str, **arguments: Any) -> int | None:
    with pytest.raises(DatabaseError) as refused:
        endpoint.client().command(sql, **arguments)
    return refused.value.code


def bits(values: list[float]) -> list[bytes]:
    return [struct.pack("<d", value) for value in values]


@pytest.mark.parametrize("compress", [True, False, "lz4", "zstd", "gzip"])
def test_numbers_that_are_not_finite_survive_a_native_round_trip(
    endpoint: EndpointProcess, compress: bool | str
) -> None:
    client = endpoint.client(compress=compress)
    client.command("CREATE OR REPLACE TABLE native_trip (i UInt8, f Float64) ENGINE = MergeTree ORDER BY i")
    values = [*NOT_FINITE, -0.0, 5e-324, 1.7976931348623157e308, 0.1]
    summary = client.insert("native_trip", list(enumerate(values)), column_names=["i", "f"])
    assert summary.written_rows == len(values)
    found = [row[0] for row in client.query("SELECT f FROM native_trip ORDER BY i").result_rows]
    assert bits(found) == bits(values)


@pytest.mark.parametrize("compress", [True, False, "lz4", "zstd", "gzip"])
def test_an_insert_of_several_blocks_is_written_whole(endpoint: EndpointProcess, compress: bool | str) -> None:
    client = endpoint.client(compress=compress)
    client.command("CREATE TABLE blocks (n UInt64, text String) ENGINE = MergeTree ORDER BY n")
    try:
        rows = [(number, f"{number:x}" * 3_000) for number in range(2_000)]  # clickhouse-connect sends 2 MB in a block
        client.insert("blocks", rows, column_names=["n", "text"])
        assert client.query("SELECT n, text FROM blocks ORDER BY n").result_rows == rows
    finally:
        client.command("DROP TABLE blocks")


def test_numbers_that_are_not_finite_survive_json(endpoint: EndpointProcess) -> None:
    client = endpoint.client()
    client.command("CREATE TABLE json_trip (i UInt8, f Float64) ENGINE = MergeTree ORDER BY i")
    rows = b'{"i":0,"f":"nan"}\n{"i":1,"f":"inf"}\n{"i":2,"f":"-inf"}\n{"i":3,"f":2.5}\n'
    endpoint.curl(
        "--data-binary", "@-", "--url", f"{endpoint.url}?query=INSERT+INTO+json_trip+FORMAT+JSONEachRow", data=rows
    )
    printed = endpoint.curl("-d", "SELECT f FROM json_trip ORDER BY i FORMAT JSONEachRow")
    assert [json.loads(line)["f"] for line in printed.splitlines()] == ["nan", "inf", "-inf", 2.5]
    assert bits([row[0] for row in client.query("SELECT f FROM json_trip ORDER BY i LIMIT 3").result_rows]) == bits(
        NOT_FINITE
    )


def test_a_json_null_is_never_a_loss_of_zero(endpoint: EndpointProcess) -> None:
    endpoint.client().command("CREATE TABLE json_null (f Float64) ENGINE = MergeTree ORDER BY tuple()")
    endpoint.curl("-d", 'INSERT INTO json_null FORMAT JSONEachRow {"f":null}')
    assert endpoint.curl("-d", "SELECT f FROM json_null").strip() == "nan"


@pytest.mark.parametrize(
    "kind,value",
    [
        ("String", "tab\t line\n return\r quote' double\" back\\slash \\N \\t {x:Int} ; é 漢 \x07"),
        ("String", ""),
        ("Int64", -(2**63)),
        ("UInt64", 2**64 - 1),
        ("Float64", -math.inf),
        ("Float64", 1e-300),
        ("Bool", True),
        ("Date", date(2026, 3, 1)),
        ("DateTime64(6, 'UTC')", datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)),
        ("UUID", UUID(int=7)),
        ("Decimal(18, 4)", Decimal("-12.3456")),
        ("IPv4", IPv4Address("127.0.0.1")),
        ("Nullable(String)", None),
        ("Nullable(Int8)", None),
        ("Array(String)", ["a'b", "c\\d", "e\tf", "g\nh", ""]),
        ("Array(Float64)", [math.inf, 0.5]),
        ("Tuple(Int8, String)", (1, "x\ny")),
        ("LowCardinality(String)", "run-1"),
        ("FixedString(3)", "abc"),
    ],
)
def test_server_side_parameters_arrive_as_they_were(endpoint: EndpointProcess, kind: str, value: Any) -> None:
    found = endpoint.client(tz_mode="aware").query(f"SELECT {{p:{kind}}}", parameters={"p": value}).result_rows[0][0]
    assert (bytes(found).decode() if isinstance(found, bytes) else found) == value


def test_a_nan_parameter_arrives(endpoint: EndpointProcess) -> None:
    assert math.isnan(endpoint.client().query("SELECT {p:Float64}", parameters={"p": math.nan}).result_rows[0][0])


def test_identifiers_are_parameters_too_in_every_kind_of_statement(endpoint: EndpointProcess) -> None:
    client = endpoint.client()
    table = {"t": "odd `name'"}
    client.command("CREATE TABLE {t:Identifier} (a Int64) ENGINE = MergeTree ORDER BY a", parameters=table)
    client.command("INSERT INTO {t:Identifier} VALUES ({a:Int64}), (2)", parameters=table | {"a": 1})
    client.command("INSERT INTO {t:Identifier} SELECT 3", parameters=table)
    assert client.command("SELECT sum(a) FROM {t:Identifier}", parameters=table) == 6


def test_parameters_too_long_for_an_address_arrive(endpoint: EndpointProcess) -> None:
    long = "x\t'" * 100_000
    assert endpoint.client().query("SELECT {p:String}", parameters={"p": long}).result_rows == [(long,)]


def test_results_come_as_frames_and_as_arrow(endpoint: EndpointProcess) -> None:
    client = endpoint.client()
    frame = client.query_df("SELECT number AS n, nan AS x FROM numbers(3)")
    assert list(frame["n"]) == [0, 1, 2]
    assert frame["x"].isna().all()
    table = client.query_arrow("SELECT number AS n, inf AS x FROM numbers(3)")
    assert table.column("x").to_pylist() == [math.inf] * 3
    client.command("CREATE TABLE arrows (n UInt64, x Float64) ENGINE = MergeTree ORDER BY n")
    client.insert_arrow("arrows", table)
    client.insert_df("arrows", frame)
    assert client.command("SELECT count() FROM arrows") == 6


def test_a_large_result_arrives_whole(endpoint: EndpointProcess) -> None:
    with endpoint.client().query_rows_stream("SELECT number, toString(number) FROM numbers(500000)") as rows:
        assert sum(row[0] for row in rows) == 500_000 * 499_999 // 2


def test_an_empty_result_has_its_columns(endpoint: EndpointProcess) -> None:
    client = endpoint.client()
    client.command("CREATE TABLE hollow (a Int8, b String) ENGINE = MergeTree ORDER BY a")
    assert client.query("SELECT * FROM hollow LIMIT 0").column_names == ("a", "b")
    assert client.query("SELECT * FROM hollow").result_rows == []
    assert client.command("SELECT * FROM hollow") == ""


def test_errors_have_clickhouses_codes(endpoint: EndpointProcess) -> None:
    assert code_of(endpoint, "SELEC 1") == 62
    assert code_of(endpoint, "prepare") == 62
    assert code_of(endpoint, "SELECT * FROM nowhere") == 60
    assert code_of(endpoint, "SELECT nothing") == 47
    assert code_of(endpoint, "SELECT 1 FORMAT Nonsense") == 73
    assert code_of(endpoint, "SELECT 1 FORMAT DataFrame") == 73
    assert code_of(endpoint, "SELECT {missing:Int64}") == 456
    assert code_of(endpoint, "SELECT throwIf(1)") == 395
    assert code_of(endpoint, "SELECT 1; SELECT 2") == 62
    assert code_of(endpoint, "SELECT 1 INTO OUTFILE 'x'") == 358
    assert code_of(endpoint, "SELECT count() FROM numbers(100000000000)", settings={"max_execution_time": 1}) == 159
    assert (
        code_of(
            endpoint, "SELECT groupArray(number) FROM numbers(100000000)", settings={"max_memory_usage": 10_000_000}
        )
        == 241
    )


def test_a_second_statement_is_not_run(endpoint: EndpointProcess) -> None:
    client = endpoint.client()
    client.command("CREATE TABLE kept (a Int8) ENGINE = MergeTree ORDER BY a")
    for sql in (
        "SELECT 1; DROP TABLE kept",
        "INSERT INTO kept VALUES (1); DROP TABLE kept",
        "SELECT 1;\nDROP TABLE kept;",
    ):
        assert code_of(endpoint, sql) == 62
    assert client.command("SELECT count() FROM kept") == 0
    assert client.command("SELECT 1;") == 1


def test_rows_that_cannot_be_read_are_refused(endpoint: EndpointProcess) -> None:
    client = endpoint.client()
    client.command("CREATE TABLE picky (a Int8) ENGINE = MergeTree ORDER BY a")
    for rows, name in ((b"x", "CSV"), (b"garbage", "Native"), (b"(1),(", "Values")):
        with pytest.raises(DatabaseError):
            client.raw_insert("picky", insert_block=rows, fmt=name)
    with pytest.raises(DatabaseError) as refused:
        client.raw_insert("nowhere", insert_block=b"1", fmt="CSV")
    assert refused.value.code == 60
    assert client.command("SELECT count() FROM picky") == 0


def test_settings_hold_for_one_query_and_no_longer(endpoint: EndpointProcess) -> None:
    client = endpoint.client()
    assert client.command("SELECT getSetting('max_threads')", settings={"max_threads": 1}) == 1
    assert client.command("SELECT getSetting('max_result_rows')", settings={"max_result_rows": 7}) == 7
    assert client.command("SELECT getSetting('max_result_rows')") == 0


def test_what_a_session_would_have_to_remember_is_refused_in_words(endpoint: EndpointProcess) -> None:
    for sql in ("SET max_threads = 1", "USE system", "CREATE TEMPORARY TABLE x (a Int8)"):
        with pytest.raises(DatabaseError, match="Sessions are not kept"):
            endpoint.client(autogenerate_session_id=True).command(sql)


def test_the_default_database_is_ours_and_another_can_be_named(endpoint: EndpointProcess) -> None:
    assert endpoint.client().command("SELECT currentDatabase()") == "pilothouse"
    assert endpoint.client(database="system").command("SELECT currentDatabase()") == "system"
    with pytest.raises(DatabaseError, match="nowhere"):
        endpoint.client(database="nowhere").command("SELECT 1")


def test_inserts_and_queries_of_many_clients_do_not_mix(endpoint: EndpointProcess) -> None:
    endpoint.client().command(
        "CREATE TABLE crowd (who UInt8, n UInt32, x Float64) ENGINE = MergeTree ORDER BY (who, n)"
    )

    def one_client(who: int) -> int:
        client = endpoint.client()
        for n in range(20):
            client.insert("crowd", [[who, n, random.random()]], column_names=["who", "n", "x"])
            assert client.command("SELECT {w:UInt8}", parameters={"w": who}) == who
        found = client.command("SELECT count() FROM crowd WHERE who = {w:UInt8}", parameters={"w": who})
        assert isinstance(found, int)
        return found

    with ThreadPoolExecutor(8) as crowd:
        assert list(crowd.map(one_client, range(8))) == [20] * 8


def test_curl_asks_in_every_way_clickhouse_allows(endpoint: EndpointProcess) -> None:
    base = endpoint.url
    assert endpoint.curl("-G", "--data-urlencode", "query=SELECT 1 + 1") == "2\n"
    assert endpoint.curl("-d", "SELECT 2") == "2\n"
    assert endpoint.curl("-d", "SELECT 3", "--url", f"{base}?default_format=JSONEachRow") == '{"3":3}\n'
    assert endpoint.curl("-d", "SELECT 4", "-H", "X-ClickHouse-Format: CSVWithNames") == '"4"\n4\n'
    assert endpoint.curl("-d", "SELECT 5 FORMAT CSV", "-H", "X-ClickHouse-Format: JSON") == "5\n"
    assert endpoint.curl("-d", "SELECT currentDatabase()", "-H", "X-ClickHouse-Database: system") == "system\n"
    assert endpoint.curl("-d", "SELECT currentDatabase()", "--url", f"{base}?database=default") == "default\n"
    assert endpoint.curl("-d", "SELECT {x:String}", "--url", f"{base}?param_x=a%5Ctb") == "a\\tb\n"
    assert endpoint.curl("-d", " + 1", "--url", f"{base}?query=SELECT+1") == "2\n"
    assert (
        endpoint.curl("--compressed", "-d", "SELECT repeat('x', 2000)", "--url", f"{base}?enable_http_compression=1")
        == "x" * 2000 + "\n"
    )
    assert endpoint.curl("-d", "SHOW TABLES FROM system LIKE 'one'") == "one\n"


def test_curl_sends_chunked_and_compressed_bodies(endpoint: EndpointProcess) -> None:
    endpoint.curl("-d", "CREATE TABLE chunks (a UInt32) ENGINE = MergeTree ORDER BY a")
    rows = "\n".join(map(str, range(100_000))).encode()
    address = f"{endpoint.url}?query=INSERT+INTO+chunks+FORMAT+TSV"
    endpoint.curl("-H", "Transfer-Encoding: chunked", "--data-binary", "@-", "--url", address, data=rows)
    endpoint.curl("-H", "Content-Encoding: gzip", "--data-binary", "@-", "--url", address, data=gzip.compress(rows))
    assert endpoint.curl("-d", "SELECT count(), uniqExact(a) FROM chunks") == "200000\t100000\n"


def test_get_only_reads(endpoint: EndpointProcess) -> None:
    printed = endpoint.curl("-G", "--data-urlencode", "query=CREATE TABLE gotten (a Int8) ENGINE = Memory")
    assert "Code: 164." in printed
    assert "use POST" in printed


def test_health_checks_need_no_token(endpoint: EndpointProcess) -> None:
    assert endpoint.curl("--url", f"{endpoint.url}ping", user=None) == "Ok.\n"
    assert endpoint.curl(user=None) == "Ok.\n"
    assert "There is no /replicas_status" in endpoint.curl("--url", f"{endpoint.url}replicas_status")


def test_answers_and_errors_carry_the_headers_clients_read(endpoint: EndpointProcess) -> None:
    answered = endpoint.curl(
        "-i", "-d", "SELECT 1 WHERE 0", "--url", f"{endpoint.url}?query_id=abc&default_format=CSV"
    ).lower()
    for line in (
        "x-clickhouse-query-id: abc",
        "x-clickhouse-format: csv",
        "x-clickhouse-timezone: utc",
        "x-clickhouse-summary: {",
    ):
        assert line in answered
    assert "x-clickhouse-format" not in endpoint.curl("-i", "-d", "DROP TABLE IF EXISTS nowhere").lower()
    failed = endpoint.curl("-i", "-d", "SELECT * FROM nowhere", "--url", f"{endpoint.url}?query_id=def").lower()
    assert failed.startswith("http/1.1 404")
    assert "x-clickhouse-exception-code: 60" in failed
    assert "x-clickhouse-query-id: def" in failed
    assert "\r\n\r\ncode: 60. db::exception: unknown table" in failed


def test_clients_that_need_more_are_told_so(endpoint: EndpointProcess) -> None:
    printed = endpoint.curl("-i", "-d", "SELECT 1", "--url", f"{endpoint.url}?client_protocol_version=54460")
    assert printed.startswith("HTTP/1.1 501")
    assert "is not supported" in printed


def test_a_wrong_token_gets_nowhere(endpoint: EndpointProcess) -> None:
    for arguments in (
        ("-u", "pilothouse:wrong"),
        ("-u", f"nobody:{FULL_TOKEN}"),
        ("-u", ":"),
        ("-H", "Authorization: Bearer wrong", "-u", ":"),
    ):
        printed = endpoint.curl("-i", "-d", "SELECT 1", *arguments)
        assert printed.startswith("HTTP/1.1 401")
        assert "X-ClickHouse-Exception-Code: 516" in printed
    with pytest.raises(DatabaseError) as refused:
        endpoint.client(password="wrong")
    assert refused.value.code == 516


@pytest.mark.parametrize(
    "arguments",
    [
        ["-u", f"pilothouse:{FULL_TOKEN}"],
        ["-H", "X-ClickHouse-User: pilothouse", "-H", f"X-ClickHouse-Key: {FULL_TOKEN}"],
        ["-H", f"Authorization: Bearer {FULL_TOKEN}"],
    ],
)
def test_a_token_may_travel_in_every_header(endpoint: EndpointProcess, arguments: list[str]) -> None:
    assert endpoint.curl("-d", "SELECT 1", *arguments, user=None) == "1\n"


def test_a_token_may_travel_in_the_address(endpoint: EndpointProcess) -> None:
    address = f"{endpoint.url}?user=pilothouse&password={FULL_TOKEN}"
    assert endpoint.curl("-d", "SELECT 1", "--url", address, user=None) == "1\n"


def test_a_form_carries_sql_and_parameters_but_no_external_tables(endpoint: EndpointProcess) -> None:
    assert endpoint.curl("-F", "query=SELECT {x:String}", "-F", "param_x=a=b&c") == "a=b&c\n"
    printed = endpoint.curl("-F", "query=SELECT 1", "-F", "rows=@-;filename=rows.csv", data=b"1")
    assert printed.startswith("Code: 48.")
    assert "External data" in printed


def test_sql_in_the_address_may_be_long(endpoint: EndpointProcess) -> None:
    assert endpoint.curl("-G", "--data-urlencode", f"query=SELECT length('{'x' * 60_000}')") == "60000\n"


class Posted(NamedTuple):
    status: int
    headers: Message
    body: bytes


def post(
    endpoint: EndpointProcess,
    query: str,
    body: bytes,
    headers: Mapping[str, str] = MappingProxyType({}),
    token: str = FULL_TOKEN,
) -> Posted:
    """One request, with nothing done to its bytes on either way."""
    known = {"X-ClickHouse-User": "pilothouse", "X-ClickHouse-Key": token, "Content-Type": "application/octet-stream"}
    request = Request(f"{endpoint.url}?{query}", data=body, headers=known | dict(headers), method="POST")
    try:
        with urlopen(request, timeout=60) as answer:
            return Posted(answer.status, answer.headers, answer.read())
    except HTTPError as error:
        with error:
            return Posted(error.code, error.headers, error.read())


def test_blocks_go_both_ways(endpoint: EndpointProcess) -> None:
    packed = post(endpoint, "compress=1", b"SELECT number FROM numbers(300000) FORMAT RowBinary")
    assert len(packed.body) < 300_000 * 8
    assert decompress_blocks(packed.body, 10**7) == struct.pack("<300000Q", *range(300_000))
    assert packed.headers["X-ClickHouse-Format"] == "RowBinary"
    assert "Content-Encoding" not in packed.headers
    assert post(endpoint, "decompress=1", compress_blocks(b"SELECT 1 + 1")).body == b"2\n"
    both = post(endpoint, "decompress=1", gzip.compress(compress_blocks(b"SELECT 3")), {"Content-Encoding": "gzip"})
    assert both.body == b"3\n"
    around = "compress=1&enable_http_compression=1"
    twice = post(endpoint, around, b"SELECT number FROM numbers(10000)", {"Accept-Encoding": "gzip"})
    assert decompress_blocks(gzip.decompress(twice.body), 10**6).endswith(b"9999\n")
    assert post(endpoint, "compress=1", b"DROP TABLE IF EXISTS nowhere").body == b""


def test_an_error_comes_in_blocks_too_but_not_before_a_client_is_known(endpoint: EndpointProcess) -> None:
    failed = post(endpoint, "compress=1", b"SELECT * FROM nowhere")
    assert (failed.status, failed.headers["X-ClickHouse-Exception-Code"]) == (404, "60")
    assert decompress_blocks(failed.body, 10_000).startswith(b"Code: 60. DB::Exception: Unknown table")
    by_http = post(endpoint, "enable_http_compression=1", b"SELECT * FROM nowhere", {"Accept-Encoding": "gzip"})
    assert gzip.decompress(by_http.body).startswith(b"Code: 60.")
    for packing in ("compress=1", "enable_http_compression=1"):
        refused = post(endpoint, packing, b"SELECT 1", {"Accept-Encoding": "gzip"}, token="wrong")
        assert refused.body.startswith(b"Code: 516.")


@pytest.mark.parametrize(
    "body,code",
    [
        (b"SELECT 1", "33"),
        (compress_blocks(b"SELECT 1")[:-1], "33"),
        (compress_blocks(b"SELECT 1")[:-1] + b"2", "40"),
        (compress_blocks(b"SELECT " + b" " * 4_000_000 + b"1") * 100, "229"),
    ],
)
def test_blocks_that_are_damaged_or_too_many_are_refused_and_nothing_runs(
    endpoint: EndpointProcess, body: bytes, code: str
) -> None:
    failed = post(endpoint, "decompress=1", body)
    assert failed.headers["X-ClickHouse-Exception-Code"] == code
    assert failed.status in (400, 413)


def test_rows_of_bytes_arrive_as_they_are(endpoint: EndpointProcess) -> None:
    endpoint.curl("-d", "CREATE TABLE bytes (s String, f Float32) ENGINE = MergeTree ORDER BY s")
    # The first bytes of each body would be blanks and line ends, were this text.
    spaces = [(b" " * 9, math.nan), (b"\n" * 10, -math.inf), (b"\r" * 13, 0.5), (b"\x00;\xff", 1.0)]
    rows = b"".join(bytes([len(text)]) + text + struct.pack("<f", value) for text, value in spaces)
    into = "query=INSERT+INTO+bytes+FORMAT+RowBinary"
    for part in (rows[:14], rows[14:]):
        assert post(endpoint, f"{into}&decompress=1", compress_blocks(part)).status == 200
    found = post(endpoint, "query=SELECT+*+FROM+bytes+ORDER+BY+f+FORMAT+RowBinary", b"").body
    assert sorted(cut(found)) == sorted(cut(rows))
    named = post(endpoint, "", b"SELECT s, f FROM bytes LIMIT 0", {"X-ClickHouse-Format": "RowBinaryWithNamesAndTypes"})
    assert named.body == b"\x02\x01s\x01f\x06String\x07Float32"
    again = post(endpoint, "query=INSERT+INTO+bytes+FORMAT+RowBinaryWithNamesAndTypes", named.body + rows)
    assert json.loads(again.headers["X-ClickHouse-Summary"])["written_rows"] == "4"


def cut(rows: bytes) -> list[bytes]:
    """Rows of a string and a Float32, each by itself."""
    found = []
    while rows:
        size = 1 + rows[0] + 4
        found.append(rows[:size])
        rows = rows[size:]
    return found
