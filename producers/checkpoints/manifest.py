"""What a checkpoint's folder must contain: its manifest, and files written through to the disk while they are summed
up.

For `checkpoints.store` alone. A restart reads a manifest as a sidecar, too (`ranks.context.read_lineage`).
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ConfigDict

MANIFEST = "manifest.json"

Part = Callable[[IO[bytes]], object]
"""Writes one file of a checkpoint."""


class FileSum(BaseModel):
    """What a file must be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    sha256: str


class Standing(BaseModel):
    """Where the run stood when it was saved. `run_id`, `attempt_id` and `attempt` are the sidecar's lineage for a
    restart.
    """

    model_config = ConfigDict(frozen=True)

    step: int
    run_id: str
    attempt_id: str
    attempt: int
    parent_attempt_id: str | None = None
    data_position: int
    torch_version: str


class Manifest(Standing):
    """What is in a checkpoint. `serial` orders the checkpoints of a folder as they were saved; `created` is in
    microseconds, UTC.
    """

    serial: int
    created: int
    files: dict[str, FileSum]


class _Summing:
    """A file that sums up what is written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        self._size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def sum(self) -> FileSum:
        return FileSum(size=self._size, sha256=self._digest.hexdigest())


def write_file(path: Path, part: Part) -> FileSum:
    """Write a file through to the disk, and say what it must be from now on."""
    with path.open("wb") as file:
        summing = _Summing(file)
        part(summing)  # type: ignore[arg-type]  # a writer needs no more of a file than this
        file.flush()
        os.fsync(file.fileno())
    return summing.sum()


def sync_folder(folder: Path) -> None:
    """Write a folder's entries through to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
