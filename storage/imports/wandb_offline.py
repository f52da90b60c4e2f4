"""Reads W&B's offline runs: `run-ID.wandb`, the log that its client writes before, or instead of, sending it.

A file is LevelDB's log format (blocks of 32 KiB; records cut into first, middle and last pieces, each with a CRC-32
over type and data) with a head of its own, each record a `Record` message. Field numbers are those of
wandb_internal.proto. A log whose writer died may end in the middle of a record; all else that does not fit is refused.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from ...events.errors import FileRefused
from . import wire
from .source import Item, Said, as_number, as_step, micros
from .tables import flattened

HEAD = struct.Struct("<4sHB")
MAGIC = (b":W&B", 0xBEE1, 0)
BLOCK = 32 * 1024
PIECE = struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
RECORD_BYTES = 256 * 1024**2

HISTORY, STATS, RUN, EXIT, CONFIG = 2, 7, 17, 18, 5
HISTORY_ITEM, HISTORY_STEP, STEP_NUMBER = 1, 2, 1
ITEM_KEY, ITEM_NESTED, ITEM_JSON = 1, 2, 16
ITEM_INTEGER, ITEM_NUMBER = 5, 6
"""Since 0.31 its schema has them beside the JSON."""
STATS_TIME, STATS_ITEM = 2, 3
RUN_ID, RUN_PROJECT, RUN_CONFIG, RUN_GROUP, RUN_JOB, RUN_NAME, RUN_TAGS, RUN_HOST, RUN_START, RUN_GIT = (
    1,
    3,
    4,
    6,
    7,
    8,
    10,
    13,
    17,
    21,
)
GIT_REMOTE, GIT_COMMIT = 1, 2
EXIT_CODE = 1
CONFIG_UPDATE = 1
SECONDS, NANOS = 1, 2


@dataclass(frozen=True)
class OfflineRun:
    """One `.wandb` file."""

    path: Path
    format: str = "wandb"

    @property
    def name(self) -> str:
        """Its display name, which need not be the only one of its kind, with its id, which is."""
        run_id = self._told.get("id") or self.path.stem.removeprefix("run-")
        return f"{self._told['name']}-{run_id}" if self._told.get("name") else run_id

    def said(self) -> Said:
        told = self._told
        code = told.get("exit_code")
        labels = {key: told.get(key, "") for key in ("project", "group", "job_type")}
        tags = {f"wandb.{key}": value for key, value in labels.items() if value}
        return Said(
            config=told["config"],
            tags=tags | {f"wandb.tag.{tag}": tag for tag in told.get("tags", ())},
            environment={key: told[key] for key in ("host", "git") if told.get(key)},
            code_version=told.get("git", {}).get("commit", ""),
            started_at=told.get("started_at"),
            outcome="lost" if code is None else "crashed" if code else "completed",
            error=f"exit code {code}" if code else "",
        )

    def items(self) -> Iterator[Item]:
        for kind, body in self._records():
            item = _history(body) if kind == HISTORY else _stats(body) if kind == STATS else None
            if item is not None and item.values:
                yield item

    @cached_property
    def _told(self) -> dict[str, Any]:
        """What stands in the log beside its values."""
        told: dict[str, Any] = {"config": {}}
        for kind, body in self._records():
            if kind == RUN:
                _run(body, told)
            elif kind == CONFIG:
                told["config"] |= _config(body)
            elif kind == EXIT:
                told["exit_code"] = next(
                    (wire.signed(value) for key, value in wire.fields(body) if key == EXIT_CODE), 0
                )
        return told

    def _records(self) -> Iterator[tuple[int, bytes]]:
        """The number of a record's one member, and the member's body."""
        try:
            with self.path.open("rb") as file:
                for offset, body in log_records(file, self.path):
                    try:
                        yield from (
                            (number, value)
                            for number, value in wire.fields(body)
                            if number in (HISTORY, STATS, RUN, EXIT, CONFIG) and isinstance(value, bytes)
                        )
                    except wire.Damaged as error:
                        raise FileRefused(f"{self.path}: the record at byte {offset} is none: {error}") from error
        except OSError as error:
            raise FileRefused(f"{self.path}: cannot be read: {error.strerror}") from error


def log_records(file: IO[bytes], path: Path) -> Iterator[tuple[int, bytes]]:
    """The records of a log, each with where it begins.

    Raises:
        FileRefused: a piece is not what its checksum says.
    """
    head = file.read(HEAD.size)
    if len(head) < HEAD.size or HEAD.unpack(head) != MAGIC:
        raise FileRefused(f"{path}: does not begin as a log of W&B does")
    pieces: list[bytes] = []
    began = HEAD.size
    for offset, kind, data in _pieces(file, path):
        if kind in (FULL, FIRST):
            pieces, began = [], offset
        elif not pieces:
            raise FileRefused(f"{path}: the record at byte {offset} has no beginning")
        pieces.append(data)
        if sum(map(len, pieces)) > RECORD_BYTES:
            raise FileRefused(f"{path}: the record at byte {began} is over {RECORD_BYTES} bytes")
        if kind in (FULL, LAST):
            yield began, b"".join(pieces)
            pieces = []


def _pieces(file: IO[bytes], path: Path) -> Iterator[tuple[int, int, bytes]]:
    offset = HEAD.size
    while True:
        left = BLOCK - offset % BLOCK
        if left < PIECE.size:
            file.read(left)  # too small for a piece's head: padding
            offset += left
        head = file.read(PIECE.size)
        if len(head) < PIECE.size:
            return
        checksum, size, kind = PIECE.unpack(head)
        if not (checksum or size or kind):
            return  # room that was never written to
        data = file.read(size)
        if len(data) < size:
            return  # whoever wrote it died in here
        if kind not in (FULL, FIRST, MIDDLE, LAST) or zlib.crc32(data, zlib.crc32(bytes((kind,)))) != checksum:
            raise FileRefused(f"{path}: the record at byte {offset} is damaged (it does not fit its checksum)")
        yield offset, kind, data
        offset += PIECE.size + size


def _history(body: bytes) -> Item | None:
    counted: int | None = None
    cells: dict[str, Any] = {}
    for number, value in wire.fields(body):
        if number == HISTORY_ITEM:
            name, content = _item(wire.raw(value))
            cells[name] = content
        elif number == HISTORY_STEP:
            counted = next((wire.signed(part) for key, part in wire.fields(wire.raw(value)) if key == STEP_NUMBER), 0)
    told = as_step(as_number(cells.pop("_step", None)))
    seconds = as_number(cells.pop("_timestamp", None))
    values: dict[str, float] = {}
    for name, content in flattened(cells):
        measured = None if name.startswith("_") else as_number(content)
        if measured is not None:
            values[name] = measured
    step = counted if told is None else told
    if step is None or step < 0:
        return None
    return Item(None if seconds is None else micros(seconds), step, values)


def _stats(body: bytes) -> Item | None:
    """What the client measured of the machine; `system/` before each name, as W&B shows them."""
    at: int | None = None
    values: dict[str, float] = {}
    for number, value in wire.fields(body):
        if number == STATS_TIME:
            at = _time(wire.raw(value))
        elif number == STATS_ITEM:
            name, content = _item(wire.raw(value))
            if (measured := as_number(content)) is not None:
                values[f"system/{name}"] = measured
    return Item(at, None, values) if at is not None else None


def _item(body: bytes) -> tuple[str, Any]:
    """A key, nested ones joined as W&B shows them, and the value that its JSON says."""
    keys: list[str] = []
    content = "null"
    for number, value in wire.fields(body):
        if number in (ITEM_KEY, ITEM_NESTED) and value:
            keys.append(wire.text(value))
        elif number == ITEM_JSON:
            content = wire.text(value)
        elif number == ITEM_INTEGER:
            return "/".join(keys), wire.signed(value)
        elif number == ITEM_NUMBER:
            return "/".join(keys), wire.double(value)
    try:
        return "/".join(keys), json.loads(content)
    except (ValueError, RecursionError):
        return "/".join(keys), None


def _config(body: bytes) -> dict[str, Any]:
    updates = [_item(wire.raw(value)) for number, value in wire.fields(body) if number == CONFIG_UPDATE]
    return {key: value for key, value in updates if key.partition("/")[0] != "_wandb"}


def _run(body: bytes, told: dict[str, Any]) -> None:
    texts = {RUN_ID: "id", RUN_PROJECT: "project", RUN_GROUP: "group", RUN_JOB: "job_type", RUN_NAME: "name"}
    for number, value in wire.fields(body):
        if number in texts:
            told[texts[number]] = wire.text(value)
        elif number == RUN_HOST:
            told["host"] = wire.text(value)
        elif number == RUN_TAGS:
            told.setdefault("tags", []).append(wire.text(value))
        elif number == RUN_CONFIG:
            told["config"] |= _config(wire.raw(value))
        elif number == RUN_START:
            told["started_at"] = _time(wire.raw(value))
        elif number == RUN_GIT:
            pair = dict(wire.fields(wire.raw(value)))
            told["git"] = {
                "remote": wire.text(pair.get(GIT_REMOTE, b"")),
                "commit": wire.text(pair.get(GIT_COMMIT, b"")),
            }


def _time(body: bytes) -> int | None:
    parts = dict(wire.fields(body))
    seconds, nanos = parts.get(SECONDS, 0), parts.get(NANOS, 0)
    return micros(wire.signed(seconds) + wire.signed(nanos) / 1e9)
