"""A script's own checkpoints are told as they are, by rank 0, and a mistake costs no training."""

import logging
from pathlib import Path

import pytest

from pilothouse import announce_checkpoint
from pilothouse.tests.pilot_world import Tape


def test_a_file_and_a_folder_are_told_with_their_sizes_and_another_content_has_another_sum(tmp_path: Path) -> None:
    tape, folder = Tape(), tmp_path / "step-7"
    (folder / "shards").mkdir(parents=True)
    (folder / "model.pt").write_bytes(b"abc")
    (folder / "shards" / "0").write_bytes(b"de")
    announce_checkpoint(tape, 7, folder)
    announce_checkpoint(tape, 7, folder / "model.pt", took_s=1.5)
    (folder / "shards" / "0").write_bytes(b"def")
    announce_checkpoint(tape, 7, folder)
    first, file, again = tape.of("checkpoint_saved")
    assert (first["path"], first["size_bytes"], first["by_script"]) == (str(folder), 5, True)
    assert (file["checkpoint_id"], file["size_bytes"], file["took_s"]) == ("own-00000007-model.pt", 3, 1.5)
    assert first["checkpoint_id"] == again["checkpoint_id"]
    assert first["manifest_sha256"] != again["manifest_sha256"]


@pytest.mark.parametrize("name", ["nowhere", "empty", "\0"])
def test_what_is_not_there_is_told_to_nobody_and_said(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    tape = Tape()
    with caplog.at_level(logging.ERROR):
        announce_checkpoint(tape, 7, tmp_path / name)
    assert tape.told == []
    assert "the checkpoint of step 7 was not announced" in caplog.text


def test_other_ranks_tell_nothing(tmp_path: Path) -> None:
    tape = Tape(rank=1, world_size=2)
    announce_checkpoint(tape, 7, tmp_path)
    assert tape.told == []
