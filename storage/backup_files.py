"""What makes a folder a backup of ours: `manifest.json`, written last, with size and digest of every file beside it.

A folder without one is half a backup. What the manifest says is compared with what lies there, and never used as a
path; links are refused. `cli` seals and checks, `storage.backup` makes what lies there.
"""

import os
import shutil
from collections.abc import Iterator
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..events.codec import first_fault
from ..events.errors import FileRefused

MANIFEST = "manifest.json"
VERSION = 1
LARGEST_MANIFEST = 256 * 1024 * 1024
"""A thousand runs have some thousand files; nobody's have so many."""

Amount = Annotated[int, Field(ge=0, lt=2**62)]


class Content(BaseModel):
    """One file of a backup."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    bytes: Amount
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """What a backup holds. `epoch` and `cluster_id` say which log its events' places are of; `rows` is by table,
    `files` by their path below the backup.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal["pilothouse-backup"] = "pilothouse-backup"
    version: Annotated[int, Field(ge=1)] = VERSION
    made_at: Amount
    pilothouse: str
    clickhouse: str
    migrations: int
    epoch: Amount
    cluster_id: str
    rows: dict[str, Amount]
    files: dict[str, Content]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(content.bytes for content in self.files.values())


def contents(folder: Path) -> dict[str, Content]:
    """Every file of a backup but its manifest.

    Raises:
        FileRefused: a link, or what is neither a file nor a folder, lies in it.
        OSError: it cannot be read.
    """
    return {str(file.relative_to(folder)): _content(file) for file in _files(folder)}


def seal(folder: Path, manifest: Manifest) -> None:
    """Write the manifest: from here on the folder is a backup."""
    draft = folder / f"{MANIFEST}.new"
    with draft.open("w") as file:
        file.write(manifest.model_dump_json(indent=1))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / MANIFEST)


def open_sealed(folder: Path) -> Manifest:
    """The manifest of a backup of which nothing is missing, changed or added.

    Raises:
        FileRefused: it is no backup, half of one, or not what was sealed; says which file.
    """
    manifest = _manifest(folder)
    if manifest.version > VERSION:
        raise FileRefused(f"{folder}: a backup of form {manifest.version}, and this version reads {VERSION}: upgrade")
    try:
        found = contents(folder)
    except OSError as error:
        raise FileRefused(f"{folder}: cannot be read: {error}") from error
    for name in sorted(manifest.files.keys() | found.keys()):
        if name not in found:
            raise FileRefused(f"{folder}: {name!r} is missing: take another backup")
        if name not in manifest.files:
            raise FileRefused(f"{folder}: {name!r} was not there when the backup was made: take another backup")
        if found[name] != manifest.files[name]:
            raise FileRefused(f"{folder}: {name!r} is not what was backed up: take another backup")
    return manifest


def stage(folder: Path, into: Path) -> None:
    """Lay a backup where the engine may read it: by links where that is possible, else by copies."""

    def lay(source: str, target: str) -> str:
        try:
            os.link(source, target)
        except OSError:  # another disk, or one that knows no links
            shutil.copyfile(source, target)
        return target

    shutil.copytree(folder, into, ignore=shutil.ignore_patterns(MANIFEST), copy_function=lay)


def _manifest(folder: Path) -> Manifest:
    file = folder / MANIFEST
    try:
        if file.stat().st_size > LARGEST_MANIFEST:
            raise FileRefused(f"{file}: too large to be one of ours")
        return Manifest.model_validate_json(file.read_bytes())
    except FileNotFoundError as error:
        why = "half a backup, whose making did not come to its end" if (folder / ".backup").exists() else "no backup"
        raise FileRefused(f"{folder}: {why}: it has no {MANIFEST}") from error
    except ValidationError as error:
        raise FileRefused(f"{file}: not what `pilothouse storage backup` writes: {first_fault(error)}") from error
    except OSError as error:
        raise FileRefused(f"{folder}: cannot be read: {error}") from error


def _files(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder, onerror=_raise):
        for name in (*folders, *files):
            path = Path(where, name)
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise FileRefused(f"{path}: neither a file nor a folder: no backup of ours has one")
        yield from (Path(where, name) for name in files if Path(where, name) != folder / MANIFEST)


def _raise(error: OSError) -> None:
    raise error


def _content(file: Path) -> Content:
    with file.open("rb") as opened:
        return Content(bytes=file.stat().st_size, sha256=file_digest(opened, sha256).hexdigest())
