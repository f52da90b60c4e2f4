"""Any request at the archive's endpoint is answered or refused, and it lives on; a small file takes no large memory."""

import base64
import http.client
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.tests.archived_runs import RunArchive
from pilothouse.tests.endpoint_fixture import FULL_TOKEN, READER_TOKEN, EndpointProcess
from pilothouse.tests.fuzzing import examples, strange_text
from pilothouse.tests.governed_run import GovernedRun

pytestmark = pytest.mark.fuzz

RUN = "of-fuzz"

METHODS = st.sampled_from(["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"])
PATHS = st.sampled_from(["/", "/ping", "/play", "/replicas_status", "/../etc/passwd", "/?", "//x"])
NAMES = st.sampled_from(
    [
        "query",
        "database",
        "default_format",
        "query_id",
        "session_id",
        "compress",
        "decompress",
        "param_a",
        "readonly",
        "max_result_rows",
        "enable_http_compression",
        "replace_running_query",
        "replace_running_query_max_wait_ms",
        "user",
    ]
)
SQL = st.sampled_from(
    [
        "SELECT 1",
        "SELECT {a:String}",
        "INSERT INTO x FORMAT CSV",
        "SELEC",
        "SELECT 1; SELECT 2",
        "KILL QUERY WHERE 1",
        "SELECT * FROM file('/etc/passwd')",
        "SELECT 1 INTO OUTFILE '/tmp/x'",
        "SELECT * FROM runs FORMAT Null",
        "((((((",
    ]
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "Content-Encoding",
            "Accept-Encoding",
            "X-ClickHouse-Format",
            "X-ClickHouse-Database",
            "Content-Type",
            "X-ClickHouse-User",
            "X-ClickHouse-Key",
        ]
    ),
    st.one_of(
        st.sampled_from(["gzip", "lz4", "zstd", "multipart/form-data; boundary=x", "multipart/form-data", "a/b"]),
        st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30),
    ),
    max_size=3,
)
BODIES = st.one_of(
    SQL.map(str.encode), strange_text.map(lambda text: text.encode(errors="replace")), st.binary(max_size=200)
)


@pytest.fixture(scope="module")
def archive(endpoint: EndpointProcess, tmp_path_factory: pytest.TempPathFactory) -> EndpointProcess:
    kept = RunArchive(endpoint, tmp_path_factory.mktemp("home"))
    kept.keep(GovernedRun(world=1, run_id=RUN).begin().train(30))
    return endpoint


class Asked(NamedTuple):
    """A request as a stranger might make it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


REQUESTS = st.builds(
    Asked, METHODS, PATHS, st.dictionaries(NAMES, st.one_of(SQL, strange_text), max_size=3), HEADERS, BODIES
)


@examples(150)
@given(REQUESTS, st.booleans())
def test_any_request_at_the_endpoint_is_answered_or_refused_with_a_code(
    archive: EndpointProcess, asked: Asked, full: bool
) -> None:
    who = f"pilothouse:{FULL_TOKEN}" if full else f"reader:{READER_TOKEN}"
    given_headers = {"Authorization": f"Basic {base64.b64encode(who.encode()).decode()}"} | asked.headers
    query = "&".join(f"{name}={quote(value, errors='replace')}" for name, value in asked.query.items())
    connection = http.client.HTTPConnection("127.0.0.1", archive.port, timeout=60)
    try:
        connection.request(asked.method, f"{asked.path}?{query}", asked.body, given_headers)
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status < 500 or answer.getheader("X-ClickHouse-Exception-Code"), (answer.status, said)
        assert b"Traceback" not in said
        assert b"root:" not in said
    finally:
        connection.close()
    assert archive.process.poll() is None


GIBIBYTE = 1024**3
BOMBS = {
    "a Lightning log with YAML aliases": "lightning",
    "a policy that never ends": "endless",
    "a policy with YAML aliases": "policy",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_takes_no_large_memory(tmp_path: Path, bomb: str) -> None:
    aliases = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    aliases += [f"a{depth}: &a{depth} [{','.join([f'*a{depth - 1}'] * 9)}]" for depth in range(1, 12)]
    (tmp_path / "hparams.yaml").write_text("\n".join(aliases))
    (tmp_path / "metrics.csv").write_text("epoch,step,train_loss\n0,0,1.0\n0,1,0.9\n")
    program = {
        "lightning": "from pilothouse.storage.imports.finding import find\n"
        "from pathlib import Path\n"
        f"[source] = find(Path({str(tmp_path)!r}), None, {{}}).sources\n"
        "assert len(repr(source.said())) < 10_000",
        "endless": "import sys\nfrom pilothouse.cli.main import app\n"
        "sys.argv = ['pilothouse', 'policy', 'check', '/dev/zero']\napp()",
        "policy": "import sys\nfrom pilothouse.cli.main import app\n"
        f"sys.argv = ['pilothouse', 'policy', 'check', {str(tmp_path / 'hparams.yaml')!r}]\napp()",
    }[BOMBS[bomb]]

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2 * GIBIBYTE, 2 * GIBIBYTE))

    answer = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=bounded,
        env=os.environ | {"PILOTHOUSE_DATA_DIR": str(tmp_path)},
    )
    assert answer.returncode in (0, 2), answer.stderr
    assert "MemoryError" not in answer.stderr
