"""The archive in a folder and back, by the command line: the same rows, the same decisions; nothing less than whole."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from pilothouse.cli.stack_file import Epoch, read_epoch, write_epoch
from pilothouse.events.codec import to_json
from pilothouse.settings import Settings
from pilothouse.storage.backup_files import MANIFEST
from pilothouse.storage.connect import connect
from pilothouse.storage.history import read_decisions, read_log
from pilothouse.stream_processors.replay import replay
from pilothouse.tests.archived_runs import RunArchive
from pilothouse.tests.endpoint_fixture import start_endpoint
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.run_builder import quiet_loss
from pilothouse.tests.stack_fixture import refused, typed

COUNTS = "SELECT table, sum(rows) FROM system.parts WHERE active AND database = 'pilothouse' GROUP BY table ORDER BY 1"


@dataclass(frozen=True)
class BackedUp:
    """An archive's directory, its backup, and what stood in it."""

    home: Path
    folder: Path
    told: dict[str, object]
    run: GovernedRun


def spiking(_: int, step: int, rank: int) -> float:
    return quiet_loss(step, rank) + (4.0 if 60 <= step < 64 else 0.0)


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> BackedUp:
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("kept") / "monday"
    endpoint = start_endpoint(home / "archive")
    run = RunArchive(endpoint, home).keep(GovernedRun(world=2, run_id="gpt", loss=spiking).begin().train(120).end())
    write_epoch(home, Epoch(3, "a-cluster"))
    (home / "stack.json").write_text(json.dumps({"clickhouse_url": endpoint.clickhouse_url}))
    answer = typed("storage", "backup", str(folder), "--json", data_dir=home)
    assert answer.returncode == 0, answer.stderr
    assert not list((home / "archive" / "backups").iterdir()), "it was moved"
    endpoint.terminate()
    return BackedUp(home, folder, json.loads(answer.stdout), run)


@pytest.fixture
def copy(backed_up: BackedUp, tmp_path: Path) -> Path:
    """A backup of the test's own, to be spoilt."""
    return Path(shutil.copytree(backed_up.folder, tmp_path / "copy"))


def test_a_restored_archive_has_every_row_and_decides_what_was_decided(backed_up: BackedUp, tmp_path: Path) -> None:
    answer = typed("storage", "restore", str(backed_up.folder), "--json", data_dir=tmp_path)
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert told["rows"] == backed_up.told["rows"]
    assert not [line for line in told["done"] if line.startswith("ran ")], "the tables are those of this version"
    assert read_epoch(tmp_path) == Epoch(3, "a-cluster"), "what Kafka still holds stands at the places it stood at"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "epoch.json", "owner.lock"]
    endpoint = start_endpoint(tmp_path / "archive")
    try:
        client = connect(Settings(clickhouse_url=endpoint.clickhouse_url))
        decided = [to_json(decision) for decision in read_decisions(client, "gpt")]
        assert len(decided) == len(backed_up.run.decisions) > 10
        assert [to_json(decision) for decision in replay("gpt", read_log(client, "gpt"))] == decided
        assert len(read_log(client, "gpt")) == len(backed_up.run.records)
    finally:
        endpoint.terminate()


def spoil_nothing_written_last(copy: Path) -> None:
    (copy / MANIFEST).unlink()


def spoil_one_byte(copy: Path) -> None:
    data = max(copy.glob("data/*/event_log/*/data.bin"), key=lambda file: file.stat().st_size)
    with data.open("r+b") as file:
        file.seek(100)
        byte = file.read(1)
        file.seek(100)
        file.write(bytes([byte[0] ^ 1]))


def spoil_a_file_gone(copy: Path) -> None:
    next(copy.glob("data/*/step_log/*/count.txt")).unlink()


def spoil_a_file_more(copy: Path) -> None:
    (copy / "data" / "more").write_text("?")


def spoil_a_link_out(copy: Path) -> None:
    metadata = copy / ".backup"
    metadata.unlink()
    metadata.symlink_to("/etc/passwd")


def spoil_a_manifest_that_leaves(copy: Path) -> None:
    told = json.loads((copy / MANIFEST).read_text())
    told["files"]["../../../etc/passwd"] = {"bytes": 1, "sha256": "0" * 64}
    (copy / MANIFEST).write_text(json.dumps(told))


def spoil_a_manifest_of_lies(copy: Path) -> None:
    (copy / MANIFEST).write_text('{"rows": 1e999}')


SPOILT = {
    spoil_nothing_written_last: "half a backup",
    spoil_one_byte: "is not what was backed up",
    spoil_a_file_gone: "is missing",
    spoil_a_file_more: "was not there",
    spoil_a_link_out: "neither a file nor a folder",
    spoil_a_manifest_that_leaves: "is missing",
    spoil_a_manifest_of_lies: "not what `pilothouse storage backup` writes",
}


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_what_is_not_whole_is_refused_and_leaves_nothing_behind(copy: Path, tmp_path: Path, spoil: object) -> None:
    spoil(copy)  # type: ignore[operator]  # mypy does not see the keys' own type through the parametrization
    home = tmp_path / "new"
    assert SPOILT[spoil] in refused(typed("storage", "restore", str(copy), data_dir=home))  # type: ignore[index]  # as above
    assert not home.exists() or not list(home.iterdir())


def test_nothing_is_overwritten(backed_up: BackedUp) -> None:
    again = refused(typed("storage", "backup", str(backed_up.folder), data_dir=backed_up.home))
    assert "is there already" in again
    onto = refused(typed("storage", "restore", str(backed_up.folder), data_dir=backed_up.home))
    assert "name another --data-dir" in onto


def test_a_server_is_told_of_its_own_statement(backed_up: BackedUp) -> None:
    elsewhere = {"PILOTHOUSE_CLICKHOUSE_URL": "http://somebody:secret@ch.example:8123/pilothouse"}
    answer = refused(typed("storage", "backup", data_dir=backed_up.home, more=elsewhere))
    assert "BACKUP DATABASE pilothouse TO" in answer
    assert "secret" not in answer


def test_an_encrypted_archive_is_refused_with_what_to_do_instead(backed_up: BackedUp, tmp_path: Path) -> None:
    key = tmp_path / "encryption.key"
    key.write_text("A" * 43 + "=\n")
    key.chmod(0o600)
    for words in (("backup",), ("restore", str(backed_up.folder))):
        more = {"PILOTHOUSE_ENCRYPTION_KEY_FILE": str(key)}
        answer = refused(typed("storage", *words, data_dir=tmp_path / "home", more=more))
        assert "stop the stack, and copy its data directory as a whole and with its links (cp -a)" in answer
    assert not (tmp_path / "home").exists()
