import os
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from pilothouse.events.errors import SettingsInvalid
from pilothouse.settings import NOT_SETTINGS, STACK_FILE, Settings, load_settings, usable_settings


def faults(environ: dict[str, str], **overrides: object) -> list[str]:
    with pytest.raises(SettingsInvalid) as wrong:
        load_settings(environ, **overrides)
    return str(wrong.value).splitlines()[1:]


def test_nothing_given_gives_the_defaults(tmp_path: Path) -> None:
    settings = load_settings({"PILOTHOUSE_DATA_DIR": str(tmp_path)})
    assert settings == Settings(data_dir=tmp_path)


def test_an_option_wins_over_a_variable_over_the_file_over_the_stack(tmp_path: Path) -> None:
    (tmp_path / STACK_FILE).write_text('{"kafka": "stack:1", "partitions": 7, "log_epoch": 3, "password": "not ours"}')
    file = tmp_path / "pilothouse.toml"
    file.write_text('kafka = "file:1"\npartitions = 6\nslot = "file"\n')
    environ = {
        "PILOTHOUSE_CONFIG": str(file),
        "PILOTHOUSE_DATA_DIR": str(tmp_path),
        "PILOTHOUSE_KAFKA": "variable:1",
        "PILOTHOUSE_SLOT": "variable",
    }
    settings = load_settings(environ, kafka="option:1", slot=None)
    assert (settings.kafka, settings.slot, settings.partitions, settings.log_epoch) == ("option:1", "variable", 6, 3)


def test_every_wrong_key_is_reported_at_once_with_where_it_came_from(tmp_path: Path) -> None:
    file = tmp_path / "pilothouse.toml"
    file.write_text("tick_seconds = 0\nkafcka = 'x'\n")
    environ = {"PILOTHOUSE_CONFIG": str(file), "PILOTHOUSE_PARTITIONS": "many", "PILOTHOUSE_SLOTH": "1"}
    said = "\n".join(faults(environ, clickhouse_url="ftp://x"))
    assert f"tick_seconds (file {file}): Input should be greater than 0" in said
    assert f"kafcka (file {file}): there is no such setting; there are: kafka" in said
    assert "partitions (variable PILOTHOUSE_PARTITIONS): Input should be a valid integer" in said
    assert "sloth (variable PILOTHOUSE_SLOTH): there is no such setting" in said
    assert "clickhouse_url (option clickhouse_url): must look like http://user:password@host:8123/database" in said
    assert len(said.splitlines()) == 5


@pytest.mark.parametrize(
    "content", [b"kafka = ", b"\xff\xfe", b"kafka = 'a'\nkafka = 'b'"], ids=["not TOML", "not UTF-8", "twice"]
)
def test_a_file_that_cannot_be_read_is_named_beside_the_other_faults(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "pilothouse.toml"
    file.write_bytes(content)
    said = faults({"PILOTHOUSE_CONFIG": str(file), "PILOTHOUSE_PARTITIONS": "0"})
    assert len(said) == 2
    assert f"PILOTHOUSE_CONFIG={file}" in said[0]
    assert "partitions (variable PILOTHOUSE_PARTITIONS)" in said[1]


def test_a_file_that_is_not_there_is_named() -> None:
    assert "PILOTHOUSE_CONFIG=/nowhere.toml" in faults({"PILOTHOUSE_CONFIG": "/nowhere.toml"})[0]


@pytest.mark.parametrize("url", ["http://[", "http://host:abc/db", "http://host:99999/db", "host:8123", "http://"])
def test_an_address_that_no_client_could_use_is_a_fault(url: str) -> None:
    assert "must look like http://" in faults({}, clickhouse_url=url)[0]


@pytest.mark.parametrize("text", ["[]", "7", "not JSON", '{"kafka"'])
def test_a_stack_file_that_is_none_counts_as_no_stack(tmp_path: Path, text: str) -> None:
    (tmp_path / STACK_FILE).write_text(text)
    assert load_settings({}, data_dir=tmp_path).kafka == Settings().kafka


def test_a_wrong_value_in_the_stack_file_names_that_file(tmp_path: Path) -> None:
    (tmp_path / STACK_FILE).write_text('{"partitions": 0}')
    assert f"partitions ({tmp_path / STACK_FILE})" in faults({}, data_dir=tmp_path)[0]


def test_a_data_directory_of_the_wrong_type_is_a_fault_and_no_traceback(tmp_path: Path) -> None:
    file = tmp_path / "pilothouse.toml"
    file.write_text("data_dir = 5\n")
    assert f"data_dir (file {file})" in faults({"PILOTHOUSE_CONFIG": str(file)})[0]


@pytest.mark.parametrize("name", sorted(NOT_SETTINGS - {"CONFIG"}))
def test_variables_of_our_prefix_that_are_no_settings_are_let_through(name: str) -> None:
    load_settings({f"PILOTHOUSE_{name}": "1"})


def test_home_is_looked_up_when_settings_are_made_not_when_the_module_is_imported() -> None:
    code = "import os; os.environ['HOME'] = '/first'; import pilothouse.settings as s; os.environ['HOME'] = '/second'; "
    code += "assert str(s.Settings().data_dir) == '/second/.pilothouse', s.Settings().data_dir"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_passwords_stand_in_files_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "kafka").write_text("k/a:f@k a\n")
    (tmp_path / "clickhouse").write_text("c/l@i:ck\n")
    (tmp_path / "llm").write_text("sk-none")
    settings = load_settings(
        {
            "PILOTHOUSE_KAFKA_PASSWORD_FILE": str(tmp_path / "kafka"),
            "PILOTHOUSE_CLICKHOUSE_URL": "https://archiver@host:8443/pilothouse",
            "PILOTHOUSE_CLICKHOUSE_PASSWORD_FILE": str(tmp_path / "clickhouse"),
            "PILOTHOUSE_LLM_API_KEY_FILE": str(tmp_path / "llm"),
            "PILOTHOUSE_DATA_DIR": str(tmp_path),
        }
    )
    assert settings.log_access.password == "k/a:f@k a"
    assert settings.clickhouse_url == "https://archiver:c%2Fl%40i%3Ack@host:8443/pilothouse"
    assert unquote(urlsplit(settings.clickhouse_url).password or "") == "c/l@i:ck"
    assert settings.llm_api_key.get_secret_value() == "sk-none"


def test_a_password_that_is_not_there_or_there_twice_is_a_fault_that_says_where(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("one")
    (tmp_path / "empty").write_text("\n")
    said = faults(
        {
            "PILOTHOUSE_KAFKA_PASSWORD_FILE": str(tmp_path / "secret"),
            "PILOTHOUSE_KAFKA_PASSWORD": "another",
            "PILOTHOUSE_LLM_API_KEY_FILE": str(tmp_path / "empty"),  # a model of one's own may want none
            "PILOTHOUSE_CLICKHOUSE_PASSWORD_FILE": str(tmp_path / "secret"),
            "PILOTHOUSE_CLICKHOUSE_URL": "http://a:b@host/pilothouse",
            "PILOTHOUSE_DATA_DIR": str(tmp_path),
        }
    )
    assert "kafka_password is given too (variable PILOTHOUSE_KAFKA_PASSWORD)" in said[0]
    assert "clickhouse_url (variable PILOTHOUSE_CLICKHOUSE_URL) must name a user and no password" in said[1]
    assert len(said) == 2
    assert not [line for line in said if "another" in line or "a:b" in line]
    empty = {"PILOTHOUSE_KAFKA_PASSWORD_FILE": str(tmp_path / "empty"), "PILOTHOUSE_DATA_DIR": str(tmp_path)}
    assert faults(empty)[0].endswith("the file is empty")
    missing = {"PILOTHOUSE_KAFKA_PASSWORD_FILE": "/no/such/secret", "PILOTHOUSE_DATA_DIR": str(tmp_path)}
    assert "No such file" in faults(missing)[0]
    settings, lines = usable_settings(missing)
    assert settings.kafka_password.get_secret_value() == ""
    assert len(lines) == 1


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().kafka = "other"


def test_a_training_goes_on_with_every_setting_that_is_right(tmp_path: Path) -> None:
    (tmp_path / "pilothouse.toml").write_text("tick_seconds = 0\nslot = 'seven'\n")
    environ = {
        "PILOTHOUSE_CONFIG": str(tmp_path / "pilothouse.toml"),
        "PILOTHOUSE_DATA_DIR": str(tmp_path),
        "PILOTHOUSE_KAFKA": "mine:1",
        "PILOTHOUSE_SPOOL_BYTES": "-1",
        "PILOTHOUSE_COLOUR": "red",
    }
    settings, said = usable_settings(environ)
    assert settings == Settings(data_dir=tmp_path, kafka="mine:1", slot="seven")
    assert [line.split()[0] for line in sorted(said)] == ["colour", "spool_bytes", "tick_seconds"]
    settings, said = usable_settings(environ | {"PILOTHOUSE_CONFIG": str(tmp_path / "none")})
    assert settings.kafka == "mine:1"
    assert len(said) == 3


@pytest.mark.parametrize("taken", [False, True], ids=["nobody's", "somebody else's"])
def test_a_user_without_a_home_keeps_telemetry_where_nobody_else_may_read(
    taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = 3_999_999_999  # as in a container whose user no file knows
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    wanted = tmp_path / f"pilothouse-{nobody if taken else os.getuid()}"
    with monkeypatch.context() as here:
        here.setattr(os, "getuid", lambda: nobody)
        assert "Could not determine home directory" in faults({})[0]
    monkeypatch.setattr(Path, "expanduser", no_home)
    if taken:
        monkeypatch.setattr(os, "getuid", lambda: nobody)
    settings, (said,) = usable_settings({})
    assert said.endswith(f" {settings.data_dir} is used instead.")
    assert settings.data_dir.stat().st_mode & 0o077 == 0
    assert (settings.data_dir == wanted) is not taken
    assert settings.data_dir.parent == tmp_path


def no_home(path: Path) -> Path:
    """As `expanduser` where the user is unknown."""
    if str(path).startswith("~"):
        raise RuntimeError("Could not determine home directory.")
    return path
