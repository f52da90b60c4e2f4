"""The embedded archive as a real process, for every test that wants a ClickHouse.

`endpoint` is one that answers, with an empty directory of its own, shared by a module's tests. A test that restarts or
kills its endpoint takes `new_endpoint` instead.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pilothouse.storage.endpoint_config import FULL_USER, READER_USER

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

FULL_TOKEN, READER_TOKEN = "full-token-of-tests", "reader-token-of-tests"

_PROGRAM = """
import json, sys
from pathlib import Path
from pilothouse.events.errors import UserMistake
from pilothouse.storage.endpoint import EndpointConfig, run
given = json.load(sys.stdin)
if "key" in given:
    given["key"] = bytes.fromhex(given["key"])
try:
    run(EndpointConfig(data_dir=Path(given.pop("data_dir")), **given), lambda port: print(port, flush=True))
except UserMistake as mistake:
    sys.exit(f"{type(mistake).__name__}: {mistake}")
"""


@dataclass
class EndpointProcess:
    """A running endpoint. `url` has neither user nor token; `client()` and `curl()` bring those of `pilothouse`."""

    data_dir: Path
    process: subprocess.Popen[str]
    port: int
    clients: "list[Client]" = field(default_factory=list)
    host: str = "127.0.0.1"
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}/"

    @property
    def clickhouse_url(self) -> str:
        """As `Settings.clickhouse_url` wants it, with full rights."""
        return f"{self.scheme}://{FULL_USER}:{FULL_TOKEN}@{self.host}:{self.port}/pilothouse"

    def client(self, user: str = FULL_USER, **arguments: Any) -> "Client":
        """A clickhouse-connect client, closed with the endpoint."""
        # Most tests want no ClickHouse: they need not wait for its driver.
        import clickhouse_connect

        arguments = {"password": token_of(user)} | arguments
        self.clients.append(clickhouse_connect.get_client(host=self.host, port=self.port, username=user, **arguments))
        return self.clients[-1]

    def curl(self, *arguments: str, user: str | None = FULL_USER, data: bytes | None = None) -> str:
        """What the real curl prints; `arguments` come before the address, which `--url` in them replaces."""
        return self.curl_bytes(*arguments, user=user, data=data).decode()

    def curl_bytes(self, *arguments: str, user: str | None = FULL_USER, data: bytes | None = None) -> bytes:
        """The same, where an answer is no text."""
        credentials = ["-u", f"{user}:{token_of(user)}"] if user else []
        command = ["curl", "-sS", *credentials, *arguments]
        if "--url" not in arguments:
            command += ["--url", self.url]
        return subprocess.run(command, input=data, capture_output=True, check=True, timeout=60).stdout

    def terminate(self) -> int:
        """Stop it as a supervisor does; its exit status."""
        self.process.terminate()
        return self._ended()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self._ended()

    def _ended(self) -> int:
        for client in self.clients:
            client.close()
        self.clients.clear()
        try:
            return self.process.wait(timeout=60)
        finally:
            for stream in (self.process.stdout, self.process.stderr):
                if stream is not None:
                    stream.close()


NewEndpoint = Callable[..., EndpointProcess]


def token_of(user: str) -> str:
    return READER_TOKEN if user == READER_USER else FULL_TOKEN


def launch(data_dir: Path, inside: Sequence[str] = (), **config: Any) -> "subprocess.Popen[str]":
    """An endpoint's process that has not answered yet; `config` are fields of EndpointConfig. `inside`: a command that
    becomes the one behind it.
    """
    given: Mapping[str, Any] = {"full_token": FULL_TOKEN, "reader_token": READER_TOKEN, "data_dir": str(data_dir)}
    process = subprocess.Popen(
        [*inside, sys.executable, "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({**given, **config}))
    process.stdin.close()
    process.stdin = None  # so that communicate() does not look for it
    return process


def start_endpoint(data_dir: Path, **config: Any) -> EndpointProcess:
    """An endpoint that answers."""
    process = launch(data_dir, **config)
    assert process.stdout is not None
    assert process.stderr is not None
    port = process.stdout.readline()
    if not port:
        raise AssertionError(f"the endpoint did not start: {process.stderr.read()}")
    return EndpointProcess(data_dir, process, int(port))


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EndpointProcess]:
    """A running embedded archive, empty at first, shared by the tests of a module."""
    running = start_endpoint(tmp_path_factory.mktemp("archive"))
    yield running
    running.terminate()


@pytest.fixture
def new_endpoint(tmp_path: Path) -> Iterator[NewEndpoint]:
    """Starts endpoints (on one directory of this test, unless told otherwise) that the test may stop or kill."""
    started: list[EndpointProcess] = []

    def start(data_dir: Path = tmp_path / "archive", **config: Any) -> EndpointProcess:
        started.append(start_endpoint(data_dir, **config))
        return started[-1]

    yield start
    for running in started:
        running.kill()
