"""What lies on disks is encrypted where that was asked for, and given back whole or refused."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from pilothouse.events.errors import CheckpointCorrupt, CheckpointError, UserMistake
from pilothouse.producers.checkpoints.store import Checkpoints
from pilothouse.producers.delivery import spool_sealing
from pilothouse.producers.delivery.batching import Outgoing
from pilothouse.producers.delivery.leftovers import find_leftovers
from pilothouse.producers.delivery.spool import Spool, read_folder
from pilothouse.producers.metrics.thinning import Thinning
from pilothouse.producers.opening import outbox_of
from pilothouse.producers.ranks.context import Identity
from pilothouse.producers.steering.pilot import Pilot
from pilothouse.sealing import CHUNK_BYTES, MAGIC, Unsealable, opened, opened_file, sealed, sealed_part
from pilothouse.settings import Settings
from pilothouse.tests.pilot_world import Tape, links_of
from pilothouse.tests.unit.test_checkpoints import save

KEY, OTHER = os.urandom(32), os.urandom(32)


@pytest.fixture(autouse=True)
def _one_key() -> Iterator[None]:
    yield
    spool_sealing.use(None)


def file_of(plain: bytes, piece: int = 300_000) -> bytes:
    def part(file: IO[bytes]) -> None:
        for at in range(0, len(plain), piece):
            file.write(plain[at : at + piece])

    written = io.BytesIO()
    sealed_part(part, KEY)(written)
    return written.getvalue()


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_a_file_of_any_size_comes_back_as_it_was(size: int) -> None:
    plain = os.urandom(size)
    assert opened_file(file_of(plain), KEY) == plain


def test_a_file_that_was_cut_changed_or_put_together_anew_is_refused() -> None:
    raw = file_of(os.urandom(3 * CHUNK_BYTES))
    start, step = len(MAGIC) + 7, CHUNK_BYTES + 16
    first, second = raw[start : start + step], raw[start + step : start + 2 * step]
    damaged = [
        raw[:-1],
        raw[: start + 2 * step],
        raw[:start],
        raw[:start] + second + first + raw[start + 2 * step :],
        raw[:100] + bytes([raw[100] ^ 1]) + raw[101:],
        raw + b"x",
    ]
    for one in damaged:
        with pytest.raises(Unsealable):
            opened_file(one, KEY)
    with pytest.raises(Unsealable):
        opened_file(raw, OTHER)


def test_a_text_is_opened_with_its_key_for_what_it_was_sealed_for() -> None:
    assert opened(sealed(b"text", KEY, b"7"), KEY, b"7") == b"text"
    for key, about in ((OTHER, b"7"), (KEY, b"8")):
        with pytest.raises(Unsealable):
            opened(sealed(b"text", KEY, b"7"), key, about)
    with pytest.raises(Unsealable):
        opened(b"short", KEY, b"7")


def test_a_checkpoint_is_encrypted_and_needs_its_key(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.key = KEY
    ref = save(checkpoints, 100)
    raw = (Path(ref.path) / "model.pt").read_bytes()
    assert b"weights" not in raw
    assert checkpoints.load(ref)[1] == {"model.pt": b"weights of step 100"}
    checkpoints.key = None
    with pytest.raises(CheckpointError, match="PILOTHOUSE_ENCRYPTION_KEY_FILE"):
        checkpoints.load(ref)
    checkpoints.key = OTHER
    with pytest.raises(CheckpointCorrupt, match="another key"):
        checkpoints.load(ref)


def test_a_checkpoint_from_before_the_key_is_read_as_it_is(tmp_path: Path) -> None:
    ref = save(Checkpoints(tmp_path), 100)
    later = Checkpoints(tmp_path)
    later.key = KEY
    assert later.load(ref)[1] == {"model.pt": b"weights of step 100"}


def spooled(folder: Path) -> Spool:
    spool = Spool(folder / "run" / "writer", 10**6)
    for seq in range(1, 4):
        assert spool.append(Outgoing(seq, 1, b"a secret loss", [("ph-kind", b"x")]))
    return spool


def test_what_waits_is_encrypted_and_stays_where_it_is_without_its_key(tmp_path: Path) -> None:
    spool_sealing.use(KEY)
    spool = spooled(tmp_path)
    assert all(b"a secret loss" not in path.read_bytes() for path in spool.folder.iterdir())
    first = spool.read()
    assert isinstance(first, Outgoing)
    assert first.body == b"a secret loss"
    spool.close()
    for key in (None, OTHER):
        spool_sealing.use(key)
        with pytest.raises(UserMistake, match="telemetry that waits"):
            find_leftovers(tmp_path)
        with pytest.raises(OSError, match="telemetry that waits"):
            Spool.left_in(spool.folder)
    spool_sealing.use(KEY)
    assert [record.seq for record in read_folder(spool.folder)] == [1, 2, 3]
    left = Spool.left_in(spool.folder)
    assert left.entries == 3
    left.close()


def test_where_the_key_cannot_be_read_nothing_is_written_plainly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    settings = Settings(data_dir=tmp_path, encryption_key_file=tmp_path / "none")
    outbox = outbox_of(Identity("run", "a", 1, 0, 1), settings, Thinning())
    assert not outbox.backlog.spool.append(Outgoing(1, 1, b"x", []))
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    pilot = Pilot(Tape(), model, optimizer, settings=settings, checkpoints=tmp_path / "ckpts", links=links_of(None))
    pilot.checkpoint(1)
    assert not (tmp_path / "ckpts").exists()
    assert caplog.text.count("cannot be read from") >= 2
