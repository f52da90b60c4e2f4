import base64
from pathlib import Path

import pytest

from pilothouse.events.errors import QueryRefused, SettingsInvalid
from pilothouse.storage import http_protocol as http
from pilothouse.storage.endpoint_config import EndpointConfig
from pilothouse.storage.engine import refusal


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    "headers,query,expected",
    [
        (basic("u:p:q"), {}, ("u", "p:q")),
        ({"X-ClickHouse-User": "u", "X-ClickHouse-Key": "k"}, {}, ("u", "k")),
        ({"Authorization": "Bearer t"}, {}, ("", "t")),
        ({}, {"user": "u", "password": "p"}, ("u", "p")),
        ({}, {}, ("", "")),
    ],
)
def test_credentials_come_from_where_clickhouse_looks(
    headers: dict[str, str], query: dict[str, str], expected: tuple[str, str]
) -> None:
    assert http.read_credentials(headers, query) == expected


def test_a_header_that_cannot_be_read_is_a_failed_login() -> None:
    with pytest.raises(QueryRefused) as refused:
        http.read_credentials({"Authorization": "Basic !!"}, {})
    assert refused.value.code == 516


def test_parameters_settings_and_transport_are_told_apart() -> None:
    query = {"param_a": "1", "max_threads": "2", "session_id": "x", "wait_end_of_query": "1", "query": "SELECT 1"}
    asked = http.read_request(True, {**query, "database": "d", "default_format": "CSV"}, {}, b"")
    assert asked.sql == b"SELECT 1"
    assert asked.params == {"a": "1"}
    assert asked.settings == {"max_threads": "2"}
    assert (asked.database, asked.default_format, asked.in_session, asked.by_get) == ("d", "CSV", True, True)


def test_the_body_follows_the_urls_query() -> None:
    asked = http.read_request(False, {"query": "INSERT INTO t FORMAT CSV"}, {"X-ClickHouse-Format": "JSON"}, b"1,2")
    assert asked.sql == b"INSERT INTO t FORMAT CSV\n1,2"
    assert asked.default_format == "JSON"


def test_the_databases_header_is_stronger_than_the_address_as_in_a_server() -> None:
    asked = http.read_request(True, {"database": "a"}, {"X-ClickHouse-Database": "b"}, b"SELECT 1")
    assert asked.database == "b"


def test_how_the_answer_is_packed_is_asked_twice_independently() -> None:
    headers = {"Accept-Encoding": "lz4"}
    assert http.read_packing({"compress": "1"}, headers) == (True, "")
    assert http.read_packing({"compress": "0", "enable_http_compression": "1"}, headers) == (False, "lz4")
    assert http.read_request(False, {"compress": "1", "enable_http_compression": "1"}, headers, b"").settings == {}


def test_a_query_that_replaces_another_waits_for_a_bounded_time() -> None:
    def seconds(**query: str) -> float | None:
        return http.read_request(False, query, {}, b"SELECT 1").replaces_for

    assert seconds() is None
    assert seconds(replace_running_query="1") == 5
    assert seconds(replace_running_query="1", replace_running_query_max_wait_ms="100") == 0.1
    assert seconds(replace_running_query="1", replace_running_query_max_wait_ms="inf") == http.LONGEST_REPLACING
    with pytest.raises(QueryRefused, match="milliseconds"):
        seconds(replace_running_query="1", replace_running_query_max_wait_ms="soon")


@pytest.mark.parametrize("name", ["client_protocol_version", "role"])
def test_what_is_not_served_is_refused_by_name(name: str) -> None:
    with pytest.raises(QueryRefused, match=name) as refused:
        http.read_request(False, {name: "54460"}, {}, b"SELECT 1")
    assert http.error_status(refused.value.code) == 501
    assert http.read_request(False, {name: "0"}, {}, b"SELECT 1").sql == b"SELECT 1"


@pytest.mark.parametrize(
    "code,status",
    [(516, 401), (40, 400), (62, 400), (60, 404), (159, 408), (229, 413), (48, 501), (202, 503), (241, 500)],
)
def test_error_codes_have_clickhouses_statuses(code: int, status: int) -> None:
    assert http.error_status(code) == status


@pytest.mark.parametrize(
    "name,expected",
    [
        ("JSONEachRow", "application/x-ndjson"),
        ("JSON", "application/json"),
        ("CSVWithNames", "text/csv"),
        ("Native", "application/octet-stream"),
    ],
)
def test_formats_have_media_types(name: str, expected: str) -> None:
    assert http.content_type(name).partition(";")[0] == expected


def test_an_engines_error_keeps_its_code_and_loses_what_is_not_the_users() -> None:
    wrapped = (
        "Code: 164. DB::Exception: Code: 164. DB::Exception: Cannot modify 'a' setting in readonly mode. (READONLY)"
        " (version 26.9.2.1). (READONLY)"
    )
    assert str(refusal(wrapped)) == "Cannot modify 'a' setting in readonly mode. (READONLY)"
    asked = refusal(
        "Code: 62. DB::Exception: Syntax error: failed at position 1: x: In scope SELECT formatQuerySingleLine('x')."
        " (SYNTAX_ERROR)"
    )
    assert (asked.code, str(asked)) == (62, "Syntax error: failed at position 1: x. (SYNTAX_ERROR)")
    assert http.error_body(asked, "26.9").startswith(b"Code: 62. DB::Exception: Syntax error")
    assert refusal("send_insert does not support this").code == 1001


@pytest.mark.parametrize(
    "config",
    [{"full_token": ""}, {"reader_token": "a"}, {"host": "0.0.0.0"}, {"host": "example.org"}],
)
def test_an_endpoint_without_tokens_or_beyond_loopback_is_not_configured(
    tmp_path: Path, config: dict[str, str]
) -> None:
    with pytest.raises(SettingsInvalid):
        EndpointConfig(**({"data_dir": tmp_path, "full_token": "a", "reader_token": "b"} | config))  # type: ignore[arg-type]


def test_tokens_are_not_printed(tmp_path: Path) -> None:
    assert "secret" not in repr(EndpointConfig(tmp_path, "secret-a", "secret-b"))
