"""Which keys a process has and whom it believes, from its settings."""

import logging
import os
from base64 import b64encode
from pathlib import Path

import pytest

from pilothouse.cli.key_files import TRUSTED_FILE, KeyFolder
from pilothouse.events.errors import SettingsInvalid, UserMistake
from pilothouse.keyring import sealing_key, signer_of, trust_of
from pilothouse.producers.steering.pilot import trusted
from pilothouse.settings import STACK_FILE, Settings, load_settings, usable_settings
from pilothouse.stream_processors.parts import production_parts


@pytest.fixture
def folder(tmp_path: Path) -> KeyFolder:
    one = KeyFolder(tmp_path / "keys")
    one.ensure()
    return one


def settings_of(folder: KeyFolder, **other: object) -> Settings:
    named = {"trusted_keys_file": folder.path / TRUSTED_FILE, "signing_key_file": folder.path / "governor.key"}
    return Settings.model_validate(named | other)


def test_without_keys_everybody_is_believed_on_loopback_and_nobody_elsewhere() -> None:
    assert not trust_of(Settings(kafka="127.0.0.1:1,[::1]:2,localhost:3"))().required
    assert trust_of(Settings(kafka="127.0.0.1:1,10.0.0.1:2"))().required
    assert trust_of(Settings(kafka="kafka:9092"))().required


def test_a_file_that_names_nobody_is_obeyed_as_well(tmp_path: Path) -> None:
    (tmp_path / "none").write_text("# nobody yet\n")
    assert trust_of(Settings(trusted_keys_file=tmp_path / "none"))().required


def test_keys_stand_in_files_that_only_their_owner_reads(folder: KeyFolder) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.path.iterdir()}
    assert modes == {"governor.key": 0o600, "operator.key": 0o600, "advisor.key": 0o600, TRUSTED_FILE: 0o644}
    assert folder.path.stat().st_mode & 0o077 == 0


def test_keys_may_stand_in_the_environment(folder: KeyFolder) -> None:
    (public,) = [key for key in folder.trusted() if key.role == "governor"]
    (private,) = folder.signing("governor")
    environ = {"PILOTHOUSE_TRUSTED_KEYS": public.line(), "PILOTHOUSE_SIGNING_KEY": private.line()}
    settings = load_settings({"PILOTHOUSE_DATA_DIR": "/none", **environ})
    assert trust_of(settings)().keys == (public,)
    assert signer_of(settings).held() == (private,)
    assert private.line().split()[2] not in repr(settings)


def test_a_running_process_takes_up_a_rotation(folder: KeyFolder) -> None:
    trust, signer = trust_of(settings_of(folder)), signer_of(settings_of(folder))
    old = folder.signing("governor")[0].public
    folder.add("governor", "governor-2")
    assert [key.name for key in signer.held()] == ["governor-1", "governor-2"]
    assert {"governor-1", "governor-2"} <= {key.name for key in trust().keys}
    folder.retire(old.id)
    assert [key.name for key in signer.held()] == ["governor-2"]
    assert [key.name for key in trust().keys if key.retired] == ["governor-1"]


def test_a_file_that_was_spoilt_or_is_gone_still_says_what_it_did(
    folder: KeyFolder, caplog: pytest.LogCaptureFixture
) -> None:
    trust = trust_of(settings_of(folder))
    before = trust()
    (folder.path / TRUSTED_FILE).write_text("half a line")
    assert trust() == before
    assert "stay as they were" in caplog.text
    (folder.path / TRUSTED_FILE).unlink()
    assert trust() == before


def test_the_last_key_of_a_role_cannot_be_retired(folder: KeyFolder) -> None:
    with pytest.raises(UserMistake, match="keys rotate governor"):
        folder.retire("governor-1")


def test_a_training_with_keys_that_cannot_be_read_obeys_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for wrong in ({"TRUSTED_KEYS": "nonsense"}, {"TRUSTED_KEYS_FILE": "/no/such/file"}, {"TRUSTED_KEYS_FILE": "~no/x"}):
        environ = {f"PILOTHOUSE_{name}": value for name, value in wrong.items()}
        settings, _ = usable_settings({"PILOTHOUSE_DATA_DIR": str(tmp_path), **environ})
        assert trusted(settings)().required, wrong
        assert trusted(settings)().keys == (), wrong
    assert caplog.text.count("no command will be obeyed") == 6


def test_unsigned_is_said_loudly_by_trainer_and_governor(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        trusted(Settings(data_dir=tmp_path))
        production_parts(Settings(data_dir=tmp_path), "governor")
    assert "whoever can write to Kafka at 127.0.0.1:19092 can steer this run" in caplog.text
    assert "NOTHING IS SIGNED" in caplog.text


def test_a_governor_does_not_start_where_nobody_would_believe_it(folder: KeyFolder, tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="pilothouse keys new governor"):
        production_parts(Settings(kafka="kafka:9092", data_dir=tmp_path), "governor")
    with pytest.raises(SettingsInvalid, match="pilothouse keys new advisor"):
        production_parts(settings_of(folder), "advisor")
    stranger = KeyFolder(tmp_path / "other")
    stranger.ensure()
    with pytest.raises(SettingsInvalid, match="not trusted here"):
        production_parts(settings_of(folder, signing_key_file=stranger.path / "governor.key"), "governor")
    assert production_parts(settings_of(folder), "governor").guard.trust().keys == folder.trusted()


def test_the_keys_of_a_stack_are_for_its_own_log_alone(folder: KeyFolder, tmp_path: Path) -> None:
    told = f'{{"kafka": "127.0.0.1:5", "trusted_keys_file": "{folder.path / TRUSTED_FILE}"}}'
    (tmp_path / STACK_FILE).write_text(told)
    here = {"PILOTHOUSE_DATA_DIR": str(tmp_path)}
    assert load_settings(here).trusted_keys_file is not None
    assert load_settings({**here, "PILOTHOUSE_KAFKA": "127.0.0.1:5"}).trusted_keys_file is not None
    assert load_settings({**here, "PILOTHOUSE_KAFKA": "127.0.0.1:6"}).trusted_keys_file is None
    line = folder.trusted()[0].line()
    assert load_settings({**here, "PILOTHOUSE_TRUSTED_KEYS": line}).trusted_keys_file is None


def test_a_key_of_encryption_is_32_bytes_in_base64_or_said_to_be_none(folder: KeyFolder) -> None:
    assert sealing_key(Settings()) is None
    assert len(sealing_key(Settings(encryption_key_file=folder.add_encryption())) or b"") == 32
    key = b64encode(os.urandom(32)).decode()
    environ = {"PILOTHOUSE_ENCRYPTION_KEY": key, "PILOTHOUSE_DATA_DIR": "/none"}
    assert sealing_key(load_settings(environ)) is not None
    for wrong in (Settings.model_validate({"encryption_key": "x"}), Settings(encryption_key_file=Path("/no/such"))):
        with pytest.raises(SettingsInvalid, match="encryption"):
            sealing_key(wrong)
    with pytest.raises(UserMistake, match="there already"):
        folder.add_encryption()
