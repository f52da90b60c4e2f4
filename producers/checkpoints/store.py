"""Checkpoints on disk: saved whole or not at all, verified before they are used, rotated.

`checkpoints.saving` gives it the parts to write and takes verified bytes back; nothing here knows PyTorch. One
checkpoint is one folder, `step-00000100-1f3a9c2e` (its step and the first letters of its attempt: after a rollback
step 100 may come again), written under a temporary name and renamed when every file, its `manifest.json` (last) and
the folder are on the disk. The manifest holds size and sha256 of every file and where the run stood; its own sha256
travels in `CheckpointSaved` and comes back in the governor's order.

`checkpoints.retention` says which are removed when another was saved: never the one that a rollback would go back to.
(One that a rollback names and somebody has taken all the same is refused as `CheckpointMissing`, on all ranks alike.)
"""

import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ...events.actions import CheckpointRef
from ...events.errors import CheckpointCorrupt, CheckpointError, CheckpointMissing, UserMistake
from ...sealing import Unsealable, is_sealed, opened_file, sealed_part
from ..voice import logger
from .manifest import MANIFEST, FileSum, Manifest, Part, Standing, sync_folder, write_file
from .retention import Judgement, Kept, Retention

ABANDONED = "abandoned.json"
_FOLDER = re.compile(r"step-\d{8,}-[0-9a-zA-Z]{1,16}")
_NOT_PLAIN = re.compile(r"[^0-9a-zA-Z]")
_TEMPORARY = re.compile(r"step-.+\.tmp-(?P<host>.+)-(?P<pid>\d+)")


@dataclass(frozen=True, slots=True)
class Saved:
    """A complete checkpoint on disk, and those that made room for it."""

    ref: CheckpointRef
    size_bytes: int
    removed: tuple[CheckpointRef, ...] = ()


class Checkpoints:
    """A folder of checkpoints. `every`: save each so many steps; None: only when asked, by `pilot.checkpoint(step)`.

    The newest `keep` are kept, and those whose step `keep_every` divides; in all at most `max_bytes`, but for the
    newest and those that a rollback may want. `judged` is asked for these before anything is removed.

    Raises:
        UserMistake: a number is no count.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        every: int | None = None,
        keep: int = 5,
        *,
        keep_every: int | None = None,
        max_bytes: int | None = None,
    ) -> None:
        counts = {"every": every, "keep": keep, "keep_every": keep_every, "max_bytes": max_bytes}
        if any(count is not None and count < 1 for count in counts.values()):
            got = ", ".join(f"{name}={count}" for name, count in counts.items() if count is not None)
            raise UserMistake(f"Checkpoints: all numbers count from 1; got {got}")
        self.directory = Path(directory).expanduser().absolute()
        self.every = every
        self.retention = Retention(keep, keep_every, max_bytes)
        self.judged: Callable[[], Judgement] = Judgement
        self.key: bytes | None = None
        """What files are encrypted with (`keyring.sealing_key`); the pilot gives it."""

    def due(self, step: int) -> bool:
        return self.every is not None and step > 0 and step % self.every == 0

    def save(self, parts: Mapping[str, Part], standing: Standing) -> Saved:
        """Write a checkpoint, whole or not at all, and remove what retention says. Saving the same step of an attempt
        again changes nothing.

        Raises:
            CheckpointError: the disk did not take it; nothing of it is left.
        """
        name = name_of(standing)
        final = self.directory / name
        if final.exists():
            return self._as_saved(final, self.read_manifest(name)[0])
        temporary = self.directory / f"{name}.tmp-{socket.gethostname()}-{os.getpid()}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._sweep()
            manifest = self._write(temporary, parts, standing)
            temporary.rename(final)
            sync_folder(self.directory)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise CheckpointError(f"checkpoint {name} could not be written to {self.directory}: {error}") from error
        return self._as_saved(final, manifest, self._rotate())

    def load(self, ref: CheckpointRef) -> tuple[Manifest, dict[str, bytes]]:
        """Every file of a checkpoint, in memory: the very bytes that were verified.

        Raises:
            CheckpointMissing: it is not in this folder (any more).
            CheckpointCorrupt: a file, or the manifest, is not what was saved; the message names it.
        """
        manifest, digest = self.read_manifest(ref.checkpoint_id)
        if digest != ref.manifest_sha256:
            raise CheckpointCorrupt(f"{ref.checkpoint_id}/{MANIFEST}: its sha256 is not the one that was announced")
        return manifest, {name: self._opened(ref.checkpoint_id, name, must) for name, must in manifest.files.items()}

    def read_manifest(self, checkpoint_id: str) -> tuple[Manifest, str]:
        """The manifest and its sha256. Raises as `load` does."""
        # The id came over the wire: only a plain name of ours may become a path.
        if not _FOLDER.fullmatch(checkpoint_id):
            raise CheckpointMissing(f"{checkpoint_id!r:.100} is no checkpoint of {self.directory}")
        raw = self._bytes(checkpoint_id, MANIFEST)
        try:
            return Manifest.model_validate_json(raw), hashlib.sha256(raw).hexdigest()
        except ValidationError as error:
            raise CheckpointCorrupt(
                f"{checkpoint_id}/{MANIFEST} cannot be read: {error.error_count()} faults"
            ) from error

    def newest_first(self) -> Iterator[CheckpointRef]:
        """What a restart may continue from: not what a rollback gave up, nothing with an unreadable manifest."""
        for name, manifest, digest in reversed(self._readable()):
            if not self._is_abandoned(name):
                yield self._ref(name, manifest.step, digest)

    def damaged(self) -> Iterator[tuple[str, str]]:
        """The checkpoints whose manifest cannot be read, by name, and why."""
        for folder in sorted(self.directory.glob("step-*")):
            if _FOLDER.fullmatch(folder.name):
                try:
                    self.read_manifest(folder.name)
                except CheckpointError as error:
                    yield folder.name, f"{type(error).__name__}: {error}"

    def at_step(self, step: int) -> CheckpointRef | None:
        """The newest of those of this step; None where none of them may be gone back to."""
        return next((ref for ref in self.newest_first() if ref.step == step), None)

    def abandon_after(self, ref: CheckpointRef, attempt_id: str) -> None:
        """A rollback went back to `ref`: what was saved later belongs to a future that was given up. It is marked, not
        removed.
        """
        manifest, _ = self.read_manifest(ref.checkpoint_id)
        for name, later, _ in self._readable():
            if later.serial > manifest.serial:
                (self.directory / name / ABANDONED).write_text(
                    json.dumps({"for": ref.checkpoint_id, "attempt_id": attempt_id})
                )

    # ------------------------------------------------------------------------------------------------------ writing

    def _write(self, folder: Path, parts: Mapping[str, Part], standing: Standing) -> Manifest:
        folder.mkdir()
        key = self.key
        files = {
            name: write_file(folder / name, part if key is None else sealed_part(part, key))
            for name, part in parts.items()
        }
        manifest = Manifest(**dict(standing), serial=self._next_serial(), created=time.time_ns() // 1_000, files=files)
        write_file(folder / MANIFEST, lambda file: file.write(manifest.model_dump_json(indent=1).encode()))
        sync_folder(folder)
        return manifest

    def _next_serial(self) -> int:
        return max((manifest.serial for _, manifest, _ in self._readable()), default=0) + 1

    def _rotate(self) -> tuple[CheckpointRef, ...]:
        known = {name: (manifest, digest) for name, manifest, digest in self._readable()}
        kept = [self._kept(name, manifest) for name, (manifest, _) in known.items()]
        gone = [one.name for one in self.retention.doomed(kept, self.judged()) if self._remove(one.name)]
        return tuple(self._ref(name, known[name][0].step, known[name][1]) for name in gone)

    def _kept(self, name: str, manifest: Manifest) -> Kept:
        size = sum(file.size for file in manifest.files.values())
        whole = all(_size_of(self.directory / name / part) == file.size for part, file in manifest.files.items())
        return Kept(name, manifest.step, size, whole, self._is_abandoned(name))

    def _remove(self, name: str) -> bool:
        # Renamed first: a folder that is only half removed must not look like a checkpoint.
        doomed = self.directory / f"{name}.tmp-{socket.gethostname()}-{os.getpid()}"
        try:
            (self.directory / name).rename(doomed)
        except OSError as error:
            logger.warning("pilothouse: old checkpoint %s cannot be removed: %s", name, error)
            return False
        shutil.rmtree(doomed, ignore_errors=True)
        return True

    def _is_abandoned(self, name: str) -> bool:
        return (self.directory / name / ABANDONED).exists()

    def _sweep(self) -> None:
        """Remove what dead processes of this machine began and did not finish."""
        for leftover in self.directory.glob("step-*.tmp-*"):
            named = _TEMPORARY.fullmatch(leftover.name)
            if named and named["host"] == socket.gethostname() and _is_gone(int(named["pid"])):
                shutil.rmtree(leftover, ignore_errors=True)

    # ------------------------------------------------------------------------------------------------------ reading

    def _readable(self) -> list[tuple[str, Manifest, str]]:
        found = []
        for folder in self.directory.glob("step-*"):
            if _FOLDER.fullmatch(folder.name):
                try:
                    found.append((folder.name, *self.read_manifest(folder.name)))
                except CheckpointError as error:
                    logger.warning("pilothouse: checkpoint %s is passed over: %s", folder.name, error)
        return sorted(found, key=lambda entry: entry[1].serial)

    def _opened(self, checkpoint_id: str, name: str, must: FileSum) -> bytes:
        raw = self._verified(checkpoint_id, name, must)
        if not is_sealed(raw):
            return raw
        if self.key is None:
            raise CheckpointError(
                f"{checkpoint_id}/{name} is encrypted: name its key in PILOTHOUSE_ENCRYPTION_KEY_FILE"
            )
        try:
            return opened_file(raw, self.key)
        except Unsealable as error:
            raise CheckpointCorrupt(f"{checkpoint_id}/{name} cannot be opened: {error}") from error

    def _verified(self, checkpoint_id: str, name: str, must: FileSum) -> bytes:
        raw = self._bytes(checkpoint_id, name)
        if len(raw) != must.size:
            raise CheckpointCorrupt(f"{checkpoint_id}/{name}: {len(raw)} bytes, saved were {must.size}")
        if hashlib.sha256(raw).hexdigest() != must.sha256:
            raise CheckpointCorrupt(f"{checkpoint_id}/{name}: its sha256 is not the one that was saved")
        return raw

    def _bytes(self, checkpoint_id: str, name: str) -> bytes:
        try:
            return (self.directory / checkpoint_id / name).read_bytes()
        except FileNotFoundError as error:
            if (self.directory / checkpoint_id).is_dir():
                raise CheckpointCorrupt(f"{checkpoint_id}/{name} is missing") from error
            raise CheckpointMissing(f"{checkpoint_id} is not in {self.directory} (any more)") from error
        except OSError as error:
            raise CheckpointCorrupt(f"{checkpoint_id}/{name} cannot be read: {error}") from error

    def _as_saved(self, folder: Path, manifest: Manifest, removed: tuple[CheckpointRef, ...] = ()) -> Saved:
        digest = self.read_manifest(folder.name)[1]
        size = sum(file.size for file in manifest.files.values())
        return Saved(self._ref(folder.name, manifest.step, digest), size, removed)

    def _ref(self, name: str, step: int, digest: str) -> CheckpointRef:
        return CheckpointRef(checkpoint_id=name, step=step, path=str(self.directory / name), manifest_sha256=digest)


def name_of(standing: Standing) -> str:
    """What a checkpoint is called, on disk and in every event."""
    return f"step-{standing.step:08d}-{_NOT_PLAIN.sub('', standing.attempt_id)[:8] or 'x'}"


def step_of(name: str) -> int:
    """The step in such a name."""
    return int(name.split("-")[1])


def _size_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1


def _is_gone(pid: int) -> bool:
    """Whether nobody can still be writing under this process id; our own never overlaps with itself."""
    if pid == os.getpid():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
