"""The endpoint as a process: one owner, limits, cancelled queries, kills."""

import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError

from pilothouse.events.errors import DirectoryInUse, SettingsInvalid
from pilothouse.storage.endpoint_config import EndpointConfig
from pilothouse.storage.ownership import DirectoryLock
from pilothouse.tests.endpoint_fixture import FULL_TOKEN, EndpointProcess, NewEndpoint, launch, token_of

LONG = "SELECT count() FROM numbers(1000000000000)"


def running(endpoint: EndpointProcess, sql: str = LONG) -> int:
    """How many statements beginning with `sql` run right now."""
    return int(endpoint.curl("-d", f"SELECT count() FROM system.processes WHERE startsWith(query, '{sql}')"))


def until(endpoint: EndpointProcess, count: int, sql: str = LONG) -> None:
    deadline = time.monotonic() + 30
    while running(endpoint, sql) != count:
        assert time.monotonic() < deadline, f"never {count} of {sql!r} at once"


@pytest.fixture
def long_query(endpoint: EndpointProcess) -> Iterator["subprocess.Popen[bytes]"]:
    """A curl that waits for an answer that takes hours."""
    with subprocess.Popen(
        ["curl", "-sS", "-u", f"pilothouse:{FULL_TOKEN}", "-d", LONG, endpoint.url], stdout=subprocess.PIPE
    ) as curl:
        until(endpoint, 1)
        yield curl
        curl.kill()


def test_a_client_that_goes_away_takes_its_query_along(
    endpoint: EndpointProcess, long_query: "subprocess.Popen[bytes]"
) -> None:
    long_query.kill()
    until(endpoint, 0)


def test_a_query_that_waits_for_a_handle_goes_with_its_client(new_endpoint: NewEndpoint) -> None:
    endpoint = new_endpoint(query_handles=1)
    waiting = [raw_request(endpoint, LONG) for _ in range(3)]
    for connection in waiting:
        connection.close()
    assert endpoint.curl("-d", "SELECT 1") == "1\n"


def raw_request(endpoint: EndpointProcess, sql: str) -> socket.socket:
    connection = socket.create_connection((endpoint.host, endpoint.port))
    head = f"POST / HTTP/1.1\r\nHost: x\r\nX-ClickHouse-User: pilothouse\r\nX-ClickHouse-Key: {FULL_TOKEN}\r\n"
    connection.sendall(f"{head}Content-Length: {len(sql)}\r\n\r\n{sql}".encode())
    return connection


def test_a_long_query_does_not_delay_inserts(endpoint: EndpointProcess, long_query: "subprocess.Popen[bytes]") -> None:
    client = endpoint.client()
    client.command("CREATE TABLE beside (a Int64) ENGINE = MergeTree ORDER BY a")
    for number in range(50):
        client.insert("beside", [[number]], column_names=["a"])
    assert client.command("SELECT count() FROM beside") == 50
    assert running(endpoint) == 1  # no insert waited for its end


def test_inserts_go_on_when_every_query_handle_is_busy(new_endpoint: NewEndpoint) -> None:
    endpoint = new_endpoint(query_handles=1)
    endpoint.curl("-d", "CREATE TABLE beside (a Int64) ENGINE = MergeTree ORDER BY a")
    with raw_request(endpoint, LONG):
        assert endpoint.curl("-d", "INSERT INTO beside VALUES (1)") == ""
    assert endpoint.curl("-d", "SELECT count() FROM beside") == "1\n"


def test_a_query_id_runs_once_at_a_time(endpoint: EndpointProcess) -> None:
    command = ["curl", "-sS", "-u", f"pilothouse:{FULL_TOKEN}", "-d", LONG, f"{endpoint.url}?query_id=twice"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as first:
        until(endpoint, 1)
        second = endpoint.curl("-d", "SELECT 1", "--url", f"{endpoint.url}?query_id=twice")
        first.kill()
    assert second.startswith("Code: 216.")
    until(endpoint, 0)
    assert endpoint.curl("-d", "SELECT 1", "--url", f"{endpoint.url}?query_id=twice") == "1\n"


def test_a_kill_ends_what_its_condition_names_even_where_every_handle_is_busy(endpoint: EndpointProcess) -> None:
    busy = [asked_by(endpoint, "reader", f"busy-{number}") for number in range(EndpointConfig.query_handles)]
    wait_for_ids(endpoint, {f"busy-{number}" for number in range(len(busy))})
    waiting = asked_by(endpoint, "reader", "waiting")
    wait_for_ids(endpoint, {"waiting"})
    named = endpoint.curl("-d", "KILL QUERY WHERE query_id = 'waiting' TEST", user="reader")
    assert named == f"unknown_status\twaiting\treader\t{LONG}\n"
    by_parameter = ["-d", "KILL QUERY WHERE query_id = {id:String} SYNC FORMAT CSV", "--url"]
    killed = endpoint.curl(*by_parameter, f"{endpoint.url}?param_id=waiting", user="reader")
    assert killed == f'"finished","waiting","reader","{LONG}"\n'
    rest = endpoint.curl("-d", "KILL QUERY WHERE elapsed >= 0 AND query LIKE '%numbers%'")
    assert sorted(line.split("\t")[:2] for line in rest.splitlines()) == [
        ["waiting", f"busy-{n}"] for n in range(len(busy))
    ]
    for connection in (waiting, *busy):
        with connection:
            assert b"Code: 394." in read_all(connection)
    assert endpoint.curl("-d", "SELECT 1") == "1\n"


def test_a_reader_ends_only_what_readers_run_and_by_no_other_means(endpoint: EndpointProcess) -> None:
    with asked_by(endpoint, "pilothouse", "not-yours"):
        wait_for_ids(endpoint, {"not-yours"})
        assert endpoint.curl("-d", "KILL QUERY WHERE 1 SYNC", user="reader") == ""
        for condition in ("(SELECT count() FROM file('/etc/passwd', LineAsString)) > 0", "file('x') = ''"):
            assert "Code: 164." in endpoint.curl("-d", f"KILL QUERY WHERE {condition}", user="reader")
        assert "Code: 48." in endpoint.curl("-d", "KILL QUERY ON CLUSTER c WHERE 1")
        assert "Code: 47." in endpoint.curl("-d", "KILL QUERY WHERE nonsense = 1")
        assert "Code: 62." in endpoint.curl("-d", "KILL QUERY WHERE 1; SELECT 1")
        assert endpoint.curl("-d", "KILL QUERY WHERE 1 SYNC").startswith("finished\tnot-yours\t")


def test_a_query_may_replace_the_one_of_its_id_but_not_another_users(endpoint: EndpointProcess) -> None:
    again = f"{endpoint.url}?query_id=again&replace_running_query=1"
    with asked_by(endpoint, "pilothouse", "again") as first:
        wait_for_ids(endpoint, {"again"})
        assert endpoint.curl("-d", "SELECT 1", "--url", again, user="reader").startswith("Code: 216.")
        assert endpoint.curl("-d", "SELECT 2", "--url", again) == "2\n"
        assert b"Code: 394." in read_all(first)


def asked_by(endpoint: EndpointProcess, user: str, query_id: str) -> socket.socket:
    """A connection that waits for an answer that takes hours."""
    connection = socket.create_connection((endpoint.host, endpoint.port))
    head = f"POST / HTTP/1.1\r\nHost: x\r\nX-ClickHouse-User: {user}\r\nX-ClickHouse-Key: {token_of(user)}\r\n"
    own = f"X-ClickHouse-Query-Id: {query_id}\r\nConnection: close\r\n"
    connection.sendall(f"{head}{own}Content-Length: {len(LONG)}\r\n\r\n{LONG}".encode())
    return connection


def wait_for_ids(endpoint: EndpointProcess, wanted: set[str]) -> None:
    deadline = time.monotonic() + 30
    while set(endpoint.curl("-d", "KILL QUERY WHERE 1 TEST FORMAT TSV").split("\t")) & wanted != wanted:
        assert time.monotonic() < deadline, f"never {wanted} at once"


def test_bodies_and_requests_are_bounded(new_endpoint: NewEndpoint) -> None:
    endpoint = new_endpoint(max_body_bytes=10_000, max_requests=2, query_handles=1, max_result_bytes=100_000)
    too_long = b"SELECT '" + b"x" * 20_000 + b"'"
    for arguments in ((), ("-H", "Transfer-Encoding: chunked")):
        assert endpoint.curl(*arguments, "--data-binary", "@-", data=too_long).startswith("Code: 229.")
    assert endpoint.curl("-d", "SELECT number FROM numbers(1000000)").startswith("Code: 396.")
    with raw_request(endpoint, LONG), raw_request(endpoint, LONG):
        deadline = time.monotonic() + 30
        while not (answer := endpoint.curl("-i", "-d", "SELECT 1")).startswith("HTTP/1.1 503"):
            assert time.monotonic() < deadline
        assert "Code: 202." in answer
        assert endpoint.curl("--url", f"{endpoint.url}ping") == "Ok.\n"


def test_inserts_that_were_acknowledged_survive_sigkill(new_endpoint: NewEndpoint) -> None:
    endpoint = new_endpoint()
    client = endpoint.client()
    client.command("CREATE TABLE kept (n UInt64) ENGINE = MergeTree ORDER BY n")
    client.insert("kept", [[0]], column_names=["n"])
    killer = threading.Timer(0.5, os.kill, (endpoint.process.pid, signal.SIGKILL))
    killer.start()
    acknowledged = inserted_until_it_dies(client, first=1)
    endpoint.kill()
    kept = new_endpoint().client().query("SELECT n FROM kept ORDER BY n").result_rows
    assert [row[0] for row in kept][:acknowledged] == list(range(acknowledged))
    assert len(kept) <= acknowledged + 1


def inserted_until_it_dies(client: Client, first: int) -> int:
    for number in itertools.count(first):
        try:
            client.insert("kept", [[number]], column_names=["n"])
        except (DatabaseError, OperationalError):
            return number
    raise AssertionError


def test_history_is_there_after_a_stop(new_endpoint: NewEndpoint) -> None:
    endpoint = new_endpoint()
    endpoint.curl("-d", "CREATE TABLE kept ENGINE = MergeTree ORDER BY a AS SELECT 7 AS a")
    assert endpoint.terminate() == 0
    assert new_endpoint().curl("-d", "SELECT a FROM kept") == "7\n"


def test_a_stop_ends_queries_and_finishes_inserts(new_endpoint: NewEndpoint) -> None:
    endpoint = new_endpoint()
    endpoint.curl("-d", "CREATE TABLE slow (a UInt64, b UInt8 DEFAULT sleepEachRow(0.5)) ENGINE = MergeTree ORDER BY a")
    slow = "INSERT INTO slow (a)"
    with raw_request(endpoint, LONG) as query, raw_request(endpoint, f"{slow} VALUES (1), (2), (3)") as insert:
        until(endpoint, 1)
        until(endpoint, 1, slow)
        assert endpoint.terminate() == 0
        assert b"Code: 394." in read_all(query)
        assert b"200 OK" in read_all(insert)
    assert new_endpoint().curl("-d", "SELECT count() FROM slow") == "3\n"


def read_all(connection: socket.socket) -> bytes:
    connection.settimeout(30)
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_stop_it_cleanly(new_endpoint: NewEndpoint, number: int) -> None:
    endpoint = new_endpoint()
    endpoint.process.send_signal(number)
    assert endpoint.process.wait(30) == 0


def test_a_second_owner_is_told_who_the_first_is(new_endpoint: NewEndpoint, tmp_path: Path) -> None:
    endpoint = new_endpoint(tmp_path / "archive")
    second = launch(tmp_path / "archive")
    _, complaint = second.communicate(timeout=60)
    assert second.returncode == 1
    assert complaint.startswith("DirectoryInUse: ")
    assert complaint.count("\n") == 1
    assert f"process {endpoint.process.pid}" in complaint
    assert endpoint.curl("-d", "SELECT 1") == "1\n"


def test_a_port_that_is_taken_is_a_clear_error(endpoint: EndpointProcess, tmp_path: Path) -> None:
    second = launch(tmp_path, port=endpoint.port)
    _, complaint = second.communicate(timeout=60)
    assert f"cannot listen on 127.0.0.1:{endpoint.port}" in complaint


def test_a_lock_is_free_again_when_it_is_released(tmp_path: Path) -> None:
    first = DirectoryLock.take(tmp_path / "new")
    with pytest.raises(DirectoryInUse, match=f"process {os.getpid()}"):
        DirectoryLock.take(tmp_path / "new")
    first.release()
    DirectoryLock.take(tmp_path / "new").release()


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsInvalid, match="choose another"):
        DirectoryLock.take(tmp_path / "file" / "archive")


def test_rows_that_could_not_be_written_are_not_said_to_be_stored(endpoint: EndpointProcess) -> None:
    """The engine reports what is wrong with rows as it reads them, and is silent where writing them failed."""
    client = endpoint.client()
    client.command("CREATE TABLE few (a Int64, CONSTRAINT few CHECK a < 5) ENGINE = MergeTree ORDER BY a")
    client.insert("few", [[1], [2]], column_names=["a"])
    with pytest.raises(DatabaseError, match=r"VIOLATED_CONSTRAINT"):
        client.insert("few", [[3], [9]], column_names=["a"])
    client.insert("few", [[4]], column_names=["a"])
    assert client.query("SELECT a FROM few ORDER BY a").result_rows == [(1,), (2,), (4,)]
