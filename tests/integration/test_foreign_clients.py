"""Programs in other languages, by ClickHouse's own clients, against the embedded archive: each proves what it prints.

They need what is no part of this project, and a test without its variable skips. `make test-clients` brings the first:

- PILOTHOUSE_TEST_JS: a folder with `node_modules/@clickhouse/client` in it, and `node` on the PATH.
- PILOTHOUSE_TEST_JDBC: a class path with ClickHouse's JDBC driver (`mvn dependency:get
  -Dartifact=com.clickhouse:clickhouse-jdbc:0.9.4:jar:all` leaves one jar in ~/.m2), and Java 17.
- PILOTHOUSE_TEST_JAVA: a class path with the Java client that the driver is built on; the driver's has it.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pilothouse.tests.endpoint_fixture import FULL_TOKEN, READER_TOKEN, EndpointProcess

Endpoint = Callable[[], EndpointProcess]

PROGRAMS = Path(__file__).parent / "foreign"
SECONDS = 300


@pytest.fixture
def open_endpoint(request: pytest.FixtureRequest) -> Endpoint:
    """The shared endpoint, started only where a client is there to try it."""

    def opened() -> EndpointProcess:
        endpoint: EndpointProcess = request.getfixturevalue("endpoint")
        return endpoint

    return opened


def printed_by(command: list[str], open_endpoint: Endpoint, **environ: str) -> list[str]:
    """What a client's program says it has seen to work."""
    endpoint = open_endpoint()
    told = {"URL": endpoint.url, "PORT": str(endpoint.port), "FULL_TOKEN": FULL_TOKEN, "READER_TOKEN": READER_TOKEN}
    done = subprocess.run(
        command, env=os.environ | told | environ, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()


def needed(what: str, *variables: str) -> str:
    value = next((os.environ[name] for name in variables if os.environ.get(name)), "")
    if not value:
        pytest.skip(f"set {variables[0]} to {what}: see the head of this file")
    return value


def test_the_javascript_client_works_as_with_a_server(open_endpoint: Endpoint) -> None:
    folder = needed("a folder with node_modules/@clickhouse/client", "PILOTHOUSE_TEST_JS")
    program = str(PROGRAMS / "javascript_client.cjs")
    printed = printed_by(["node", program], open_endpoint, NODE_PATH=str(Path(folder).absolute() / "node_modules"))
    assert len(printed) == 6, printed


def test_the_java_client_works_as_with_a_server(open_endpoint: Endpoint) -> None:
    class_path = needed("a class path with ClickHouse's Java client", "PILOTHOUSE_TEST_JAVA", "PILOTHOUSE_TEST_JDBC")
    printed = printed_by(["java", "-cp", class_path, str(PROGRAMS / "JavaClient.java")], open_endpoint)
    assert len(printed) == 5, printed


def test_the_jdbc_driver_works_as_with_a_server(open_endpoint: Endpoint) -> None:
    class_path = needed("a class path with clickhouse-jdbc, classifier all", "PILOTHOUSE_TEST_JDBC")
    printed = printed_by(["java", "-cp", class_path, str(PROGRAMS / "Jdbc.java")], open_endpoint)
    assert len(printed) == 5, printed
