"""The embedded archive encrypted on its disk, on another address than loopback, and over TLS."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pilothouse.events.errors import QueryRefused, SettingsInvalid, StackNotRunning
from pilothouse.settings import Settings
from pilothouse.storage.connect import connect
from pilothouse.storage.endpoint_config import EndpointConfig
from pilothouse.tests.endpoint_fixture import FULL_TOKEN, READER_TOKEN, NewEndpoint, launch

KEY, OTHER = "11" * 32, "22" * 32
SECRET = "a loss that nobody may read"
MAKE = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"


def said(folder: Path, **config: Any) -> str:
    """Why an endpoint does not start."""
    process = launch(folder, **config)
    _, said = process.communicate(timeout=120)
    assert process.returncode
    return said


def test_an_encrypted_archive_holds_nothing_that_can_be_read_and_needs_its_key(new_endpoint: NewEndpoint) -> None:
    one = new_endpoint(key=KEY)
    client = one.client()
    client.command("CREATE TABLE notes (text String) ENGINE = MergeTree ORDER BY text")
    client.insert("notes", [[SECRET]], column_names=["text"])
    one.terminate()
    found = [path for path in one.data_dir.rglob("*") if path.is_file()]
    assert any(path.stat().st_size for path in (one.data_dir / "encrypted").rglob("*") if path.is_file())
    assert not [path for path in found if SECRET.encode() in path.read_bytes() or KEY in path.read_text("latin-1")]
    assert "name its key in PILOTHOUSE_ENCRYPTION_KEY_FILE" in said(one.data_dir)
    assert "another key" in said(one.data_dir, key=OTHER)
    again = new_endpoint(key=KEY)
    assert again.client().query("SELECT text FROM notes").result_rows == [(SECRET,)]


def test_a_copy_of_an_encrypted_archive_is_one_of_its_own(new_endpoint: NewEndpoint, tmp_path: Path) -> None:
    one = new_endpoint(key=KEY)
    client = one.client()
    client.command("CREATE TABLE notes (text String) ENGINE = MergeTree ORDER BY text")
    client.insert("notes", [[SECRET]], column_names=["text"])
    one.terminate()
    copy = new_endpoint(Path(shutil.copytree(one.data_dir, tmp_path / "copy", symlinks=True)), key=KEY)
    copy.client().insert("notes", [["of the copy"]], column_names=["text"])
    copy.terminate()
    as_it_was = new_endpoint(key=KEY)
    assert as_it_was.client().query("SELECT text FROM notes").result_rows == [(SECRET,)]
    as_it_was.terminate()
    shutil.rmtree(one.data_dir)
    again = new_endpoint(copy.data_dir, key=KEY)
    assert again.client().query("SELECT text FROM notes ORDER BY text").result_rows == [(SECRET,), ("of the copy",)]


def test_an_archive_that_was_begun_plainly_does_not_become_secret_by_a_setting(new_endpoint: NewEndpoint) -> None:
    one = new_endpoint()
    one.terminate()
    assert "was begun without encryption" in said(one.data_dir, key=KEY)
    new_endpoint()


def test_it_listens_on_loopback_unless_it_is_told_and_wants_a_token_everywhere(
    new_endpoint: NewEndpoint, tmp_path: Path
) -> None:
    with pytest.raises(SettingsInvalid, match="loopback only"):
        EndpointConfig(tmp_path, FULL_TOKEN, READER_TOKEN, host="0.0.0.0")
    one = new_endpoint(host="0.0.0.0", open_to_others=True)
    wrong = Settings(clickhouse_url=one.clickhouse_url.replace(FULL_TOKEN, "guessed"))
    with pytest.raises(QueryRefused, match="refuses this user or password") as refused:
        connect(wrong)
    assert "guessed" not in str(refused.value)
    assert connect(Settings(clickhouse_url=one.clickhouse_url)).query("SELECT 1").result_rows == [(1,)]
    assert "401" in one.curl("-o", "/dev/null", "-w", "%{http_code}", "-d", "SELECT 1", user=None)


def test_over_tls_only_who_knows_its_authority_talks_to_it(new_endpoint: NewEndpoint, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs the command openssl, which makes a certificate")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = ["openssl", *MAKE.split(), "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    one = new_endpoint(certificate=str(certificate), certificate_key=str(key))
    one.scheme = "https"
    knows = Settings(clickhouse_url=one.clickhouse_url, clickhouse_ca=certificate)
    assert connect(knows).query("SELECT 1").result_rows == [(1,)]
    with pytest.raises(StackNotRunning):
        connect(Settings(clickhouse_url=one.clickhouse_url))
    with pytest.raises(SettingsInvalid, match="no such file"):
        connect(knows.model_copy(update={"clickhouse_ca": tmp_path / "none.pem"}))
    plain = Settings(clickhouse_url=one.clickhouse_url.replace("https", "http"))
    with pytest.raises((StackNotRunning, QueryRefused)):
        connect(plain)
