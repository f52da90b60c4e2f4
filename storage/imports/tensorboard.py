"""Reads TensorBoard's event files: a folder of them is one run, whatever wrote them (PyTorch, Keras, Lightning, JAX).

A file is a sequence of TFRecords (length, checksum, body, checksum; the sums are masked CRC-32C), each body an `Event`
message. Field numbers are those of tensorflow's event.proto, summary.proto, tensor.proto and the hparams plugin.
A file whose writer died may end in the middle of a record; anything else that does not add up is refused.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ...events.errors import FileRefused
from . import wire
from .source import MAX_STEP, Item, Said, micros

PATTERN = "events.out.tfevents.*"
RECORD_BYTES = 256 * 1024**2
WALL_TIME, STEP, SUMMARY = 1, 2, 5
VALUE, TAG, SIMPLE_VALUE, TENSOR, METADATA = 1, 1, 2, 8, 9
PLUGIN_DATA, PLUGIN_CONTENT = 1, 2
DTYPE, SHAPE, CONTENT, FLOATS, DOUBLES = 1, 2, 4, 5, 6
DT_FLOAT, DT_DOUBLE, DT_HALF = 1, 2, 19
FORMS = {DT_FLOAT: "<f", DT_DOUBLE: "<d", DT_HALF: "<e"}
HPARAMS_TAG, SESSION_START, HPARAMS = "_hparams_/session_start_info", 3, 1


@dataclass(frozen=True)
class EventFiles:
    """The event files of one folder, in the order in which they were begun."""

    path: Path
    name: str
    format: str = "tensorboard"

    def said(self) -> Said:
        return Said(config=self._hyperparameters(), clock="wall")

    def items(self) -> Iterator[Item]:
        for event in self._events():
            if event.values and 0 <= event.step < MAX_STEP:
                yield Item(event.at, event.step, event.values)

    def _hyperparameters(self) -> dict[str, Any]:
        config: dict[str, Any] = {}
        for event in self._events():
            config |= event.hyperparameters
        return config

    def _events(self) -> Iterator["_Event"]:
        for file in event_files(self.path):
            for offset, body in records(file):
                try:
                    yield _event(body)
                except wire.Damaged as error:
                    raise FileRefused(f"{file}: the record at byte {offset} is no event: {error}") from error


@dataclass(frozen=True, slots=True)
class _Event:
    at: int
    step: int
    values: dict[str, float]
    hyperparameters: dict[str, Any]


def event_files(folder: Path) -> list[Path]:
    """By the second in their names, at which they were begun. A single file stands for itself."""
    if folder.is_file():
        return [folder]

    def begun(file: Path) -> tuple[int, str]:
        second = file.name.split(".")[3]
        return (int(second) if second.isdecimal() else 0, file.name)

    return sorted((file for file in folder.glob(PATTERN) if file.is_file() and "profile-empty" not in file.name),
                  key=begun)  # fmt: skip


def records(path: Path) -> Iterator[tuple[int, bytes]]:
    """The TFRecords of a file, each with where it begins.

    Raises:
        FileRefused: a record is not what its checksum says.
    """
    try:
        with path.open("rb") as file:
            offset = 0
            while (body := _record(file, path, offset)) is not None:
                yield offset, body
                offset += len(body) + 16
    except OSError as error:
        raise FileRefused(f"{path}: cannot be read: {error.strerror}") from error


def _record(file: IO[bytes], path: Path, offset: int) -> bytes | None:
    """None at the end, and where the writer died in the middle of one."""
    head = file.read(12)
    if len(head) < 12:
        return None
    size, told = struct.unpack("<QI", head)
    if _masked(head[:8]) != told or size > RECORD_BYTES:
        raise FileRefused(f"{path}: the record at byte {offset} is damaged (its length does not fit its checksum)")
    body = file.read(size + 4)
    if len(body) < size + 4:
        return None
    if _masked(body[:size]) != struct.unpack("<I", body[size:])[0]:
        raise FileRefused(f"{path}: the record at byte {offset} is damaged (its body does not fit its checksum)")
    return body[:size]


def _masked(data: bytes) -> int:
    import crc32c

    crc = crc32c.crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFF_FFFF


def _event(body: bytes) -> _Event:
    at, step = 0.0, 0
    values: dict[str, float] = {}
    hyperparameters: dict[str, Any] = {}
    for number, value in wire.fields(body):
        if number == WALL_TIME:
            at = wire.double(value)
        elif number == STEP:
            step = wire.signed(value)
        elif number == SUMMARY:
            for _, one in (found for found in wire.fields(wire.raw(value)) if found[0] == VALUE):
                _take(wire.raw(one), values, hyperparameters)
    when = micros(at)
    if when is None:
        raise wire.Damaged(f"its time is {at}")
    return _Event(when, step, values, hyperparameters)


def _take(body: bytes, values: dict[str, float], hyperparameters: dict[str, Any]) -> None:
    tag, scalar, metadata = "", None, b""
    for number, value in wire.fields(body):
        if number == TAG:
            tag = wire.text(value)
        elif number == SIMPLE_VALUE:
            scalar = wire.single(value)
        elif number == TENSOR:
            scalar = _scalar(wire.raw(value))
        elif number == METADATA:
            metadata = wire.raw(value)
    if tag == HPARAMS_TAG:
        hyperparameters |= _session(metadata)
    elif scalar is not None and tag:
        values[tag] = scalar


def _scalar(tensor: bytes) -> float | None:
    """The number of a tensor of no dimensions; None for every other one."""
    dtype, content, packed = 0, b"", b""
    for number, value in wire.fields(tensor):
        if number == DTYPE:
            dtype = wire.signed(value)
        elif number == SHAPE and wire.raw(value):
            return None
        elif number == CONTENT:
            content = wire.raw(value)
        elif number in (FLOATS, DOUBLES):
            packed = wire.raw(value)
    form, data = FORMS.get(dtype), content or packed
    if form is None or len(data) != struct.calcsize(form):
        return None
    return float(struct.unpack(form, data)[0])


def _session(metadata: bytes) -> dict[str, Any]:
    """The hyperparameters that the hparams plugin was told: a map of names to google.protobuf.Value."""
    found: dict[str, Any] = {}
    for start in _within(metadata, PLUGIN_DATA, PLUGIN_CONTENT, SESSION_START):
        for number, entry in wire.fields(start):
            if number == HPARAMS:
                pair = dict(wire.fields(wire.raw(entry)))
                found[wire.text(pair.get(1, b""))] = _plain(wire.raw(pair.get(2, b"")))
    return found


def _within(body: bytes, *path: int) -> Iterator[bytes]:
    if not path:
        yield body
        return
    for number, value in wire.fields(body):
        if number == path[0] and isinstance(value, bytes):
            yield from _within(value, *path[1:])


def _plain(value: bytes) -> Any:
    """Of a google.protobuf.Value: a number, a text or a truth."""
    readers: dict[int, Callable[[int | bytes], Any]] = {2: wire.double, 3: wire.text, 4: bool}
    return next((readers[number](content) for number, content in wire.fields(value) if number in readers), None)
