"""A checkpoint is whole or not there, is what it says, and is gone only when its time has come."""

import hashlib
import json
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pilothouse.events.actions import CheckpointRef
from pilothouse.events.errors import CheckpointCorrupt, CheckpointError, CheckpointMissing, UserMistake
from pilothouse.producers.checkpoints.manifest import Standing
from pilothouse.producers.checkpoints.retention import Judgement
from pilothouse.producers.checkpoints.store import Checkpoints
from pilothouse.producers.ranks.context import Lineage, read_lineage


def standing(step: int, attempt_id: str = "0123456789abcdef") -> Standing:
    return Standing(
        step=step,
        run_id="r",
        attempt_id=attempt_id,
        attempt=2,
        parent_attempt_id="p",
        data_position=7,
        torch_version="2",
    )


def save(checkpoints: Checkpoints, step: int, attempt_id: str = "0123456789abcdef") -> CheckpointRef:
    content = b"weights of step %d" % step
    return checkpoints.save({"model.pt": lambda file: file.write(content)}, standing(step, attempt_id)).ref


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    ref = save(checkpoints, 100)
    manifest, files = checkpoints.load(ref)
    assert files == {"model.pt": b"weights of step 100"}
    assert (manifest.step, manifest.data_position, manifest.parent_attempt_id) == (100, 7, "p")
    assert ref.checkpoint_id == "step-00000100-01234567"


def test_the_announced_hash_is_that_of_the_manifest(tmp_path: Path) -> None:
    ref = save(Checkpoints(tmp_path), 1)
    raw = (Path(ref.path) / "manifest.json").read_bytes()
    assert ref.manifest_sha256 == hashlib.sha256(raw).hexdigest()


def test_a_manifest_is_the_sidecar_of_a_restart(tmp_path: Path) -> None:
    ref = save(Checkpoints(tmp_path), 1)
    assert read_lineage(Path(ref.path) / "manifest.json") == Lineage("r", "0123456789abcdef", 2)


@pytest.mark.parametrize(
    "damage, says",
    [
        (lambda folder: (folder / "model.pt").write_bytes(b"weights of step 101"), "model.pt: its sha256"),
        (lambda folder: (folder / "model.pt").write_bytes(b"short"), "model.pt: 5 bytes, saved were 19"),
        (lambda folder: (folder / "model.pt").unlink(), "model.pt is missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json cannot be read"),
    ],
)
def test_damage_is_found_and_named(tmp_path: Path, damage: object, says: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    ref = save(checkpoints, 100)
    assert callable(damage)
    damage(Path(ref.path))
    with pytest.raises(CheckpointCorrupt, match=says):
        checkpoints.load(ref)


def test_another_manifest_than_the_announced_one_is_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    ref = save(checkpoints, 100)
    manifest = Path(ref.path) / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"step": 99}))
    with pytest.raises(CheckpointCorrupt, match="not the one that was announced"):
        checkpoints.load(ref)


@pytest.mark.parametrize("name", ["../../etc", "step-1/../../x", "/etc", "", "step-00000009-01234567"])
def test_only_a_checkpoint_of_this_folder_can_be_named(tmp_path: Path, name: str) -> None:
    ref = save(Checkpoints(tmp_path), 1).model_copy(update={"checkpoint_id": name})
    with pytest.raises(CheckpointMissing):
        Checkpoints(tmp_path).load(ref)


def test_the_newest_are_kept_and_one_attempt_never_overwrites_another(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=3)
    for step in (10, 20, 30):
        save(checkpoints, step)
    save(checkpoints, 20, attempt_id="ffff0000")
    assert names(tmp_path) == ["step-00000020-01234567", "step-00000020-ffff0000", "step-00000030-01234567"]
    assert next(checkpoints.newest_first()).checkpoint_id == "step-00000020-ffff0000"


def test_while_a_run_is_suspect_the_last_one_from_before_is_kept_however_long_that_takes(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (10, 20, 30):
        save(checkpoints, step)
    checkpoints.judged = lambda: Judgement(suspect_since=25)
    for step in (40, 50, 60):
        save(checkpoints, step)
    assert [name[:13] for name in names(tmp_path)] == ["step-00000020", "step-00000050", "step-00000060"]
    checkpoints.judged = Judgement
    save(checkpoints, 70)
    assert [name[:13] for name in names(tmp_path)] == ["step-00000060", "step-00000070"]


def test_what_a_rollback_gave_up_is_not_spared(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    first, _ = save(checkpoints, 10), save(checkpoints, 20)
    checkpoints.abandon_after(first, "0123456789abcdef")
    checkpoints.judged = lambda: Judgement(suspect_since=25)
    for step in (30, 40):
        save(checkpoints, step, attempt_id="ffff0000")
    assert [name[:13] for name in names(tmp_path)] == ["step-00000010", "step-00000030", "step-00000040"]


def test_a_step_of_an_attempt_is_saved_once(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert save(checkpoints, 10) == save(checkpoints, 10)


def test_a_restart_does_not_go_on_from_a_future_that_a_rollback_gave_up(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    first, *_ = [save(checkpoints, step) for step in (10, 20, 30)]
    checkpoints.abandon_after(first, "0123456789abcdef")
    assert [ref.step for ref in checkpoints.newest_first()] == [10]
    save(checkpoints, 15, attempt_id="ffff0000")
    assert [ref.step for ref in checkpoints.newest_first()] == [15, 10]


def test_an_unreadable_checkpoint_is_passed_over_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 10)
    (Path(save(checkpoints, 20).path) / "manifest.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        assert [ref.step for ref in checkpoints.newest_first()] == [10]
    assert "step-00000020-01234567 is passed over" in caplog.text


def test_a_disk_that_does_not_take_it_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(_file: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointError, match="No space left on device"):
        Checkpoints(tmp_path).save({"model.pt": fail}, standing(1))
    assert names(tmp_path) == []


def test_a_save_that_was_killed_is_no_checkpoint_and_is_swept_away_by_the_next(tmp_path: Path) -> None:
    killed = subprocess.Popen([sys.executable, "-c", "pass"])
    killed.wait()
    left = tmp_path / f"step-00000010-01234567.tmp-{socket.gethostname()}-{killed.pid}"
    left.mkdir(parents=True)
    elsewhere = tmp_path / "step-00000010-01234567.tmp-another-machine-1"
    elsewhere.mkdir()
    alive = tmp_path / f"step-00000010-01234567.tmp-{socket.gethostname()}-{os.getppid()}"
    alive.mkdir()
    checkpoints = Checkpoints(tmp_path)
    assert list(checkpoints.newest_first()) == []
    save(checkpoints, 20)
    assert not left.exists()
    assert elsewhere.exists()
    assert alive.exists()


@pytest.mark.parametrize("numbers", [{"keep": 0}, {"every": 0}])
def test_keep_and_every_count_from_one(tmp_path: Path, numbers: dict[str, int]) -> None:
    with pytest.raises(UserMistake, match="count from 1"):
        Checkpoints(tmp_path, **numbers)
