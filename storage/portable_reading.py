"""Reads a file of `pilothouse export` (`portable_format`), which may come from anybody: nothing in it is believed.

No member is written anywhere under a name of the file's choosing; only the four that there are may be there; what they
hold is bounded before it is read, and checked against the manifest and its digest, all of it, before the first record
is handed on to be written. Called by `cli.importing`.
"""

import heapq
import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, groupby
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from ..events.codec import UPCASTS, first_fault
from ..events.commands import Tick
from ..events.envelope import Decision, Fact
from ..events.errors import FileRefused
from ..events.telemetry import StepBatch
from ..events.topics import CONTROL as CONTROL_TOPIC
from ..events.topics import TELEMETRY
from ..events.union import EVENT, KINDS, AnyEvent
from .portable_format import (
    CONTROL,
    EVENTS,
    LOG,
    MANIFEST,
    MEMBERS,
    STEP_COLUMNS,
    STEPS,
    TICK_COLUMNS,
    TICKS,
    VERSION,
    Content,
    Manifest,
    place,
    schema,
)
from .rows import Archived
from .step_columns import StepColumn, batch_of

if TYPE_CHECKING:
    import pyarrow.parquet as pq

MANIFEST_BYTES = 1024**2
MEMBER_BYTES = 64 * 1024**3
LINE_BYTES = 4 * 1024**2
INFLATED = 300
"""Times its size a compressed member may become; text of events becomes ten to thirty."""
ROWS_A_BYTE = 100
SMALL = 100_000
"""Rows, and bytes, that are harmless whatever the ratio."""
GROUP_BYTES = 1024**3
GROUP_VALUES = 8_000_000
PIECE_ROWS = 500

Seen = Callable[[int], None]


def _beginning(part: str) -> bytes:
    return b'{"part":"%s",' % part.encode()


BEGINNINGS = (_beginning(LOG), _beginning(CONTROL))
"""Every line begins with one of them, so that what is read apart need not be parsed twice."""


class _Told(NamedTuple):
    part: str
    offset: int
    event: AnyEvent


class Portable:
    """One file. `manifest` is what it claims to be; `check` finds out; `records` gives it to be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._opened() as file:
            self.manifest = self._manifest(file)

    def check(self, seen: Seen = lambda _: None) -> None:
        """Read all of it, and believe it only then.

        Raises:
            FileRefused: where it is not what it claims.
        """
        content, count = Content(), {LOG: 0, CONTROL: 0}
        for told in chain(self._log(), self._control()):
            if told.offset != count[told.part]:
                raise self._refused(f"record {count[told.part]} of its {told.part} is missing or there twice")
            content.take(told.part, told.offset, told.event)
            count[told.part] += 1
            seen(sum(count.values()))
        if (count[LOG], count[CONTROL]) != (self.manifest.records, self.manifest.decisions):
            raise self._refused("does not hold as many records as its manifest says")
        if content.hex != self.manifest.content:
            raise self._refused("its records are not those that its manifest was made for")

    def records(self) -> Iterator[Archived]:
        """Each record of the log, and, behind the record it was made on, each decision."""
        control = self._control()
        waiting = next(control, None)
        for told in self._log():
            yield Archived(TELEMETRY.name, place(told.offset), told.event)
            while waiting is not None and _basis(waiting) <= told.offset:
                yield Archived(CONTROL_TOPIC.name, place(waiting.offset), waiting.event)
                waiting = next(control, None)
        while waiting is not None:
            yield Archived(CONTROL_TOPIC.name, place(waiting.offset), waiting.event)
            waiting = next(control, None)

    def _log(self) -> Iterator[_Told]:
        with (
            self._opened() as file,
            self._table(file, STEPS, STEP_COLUMNS, self.manifest.step_rows) as steps,
            self._table(file, TICKS, TICK_COLUMNS, self.manifest.ticks) as ticks,
        ):
            parts = (self._events(file, LOG), self._batches(steps), self._ticks(ticks))
            yield from heapq.merge(*parts, key=lambda told: told.offset)

    def _control(self) -> Iterator[_Told]:
        with self._opened() as file:
            yield from self._events(file, CONTROL)

    # ------------------------------------------------------------------------------------------------- the container

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self.path) as file:
                self._check_members(file)
                yield file
        except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError) as error:
            raise self._refused(f"is no export of a run, or was cut off: {error}") from error
        except OSError as error:
            raise self._refused(f"cannot be read: {error.strerror or error}") from error
        except RuntimeError as error:  # an encrypted member
            raise self._refused(f"cannot be read: {error}") from error

    def _check_members(self, file: zipfile.ZipFile) -> None:
        told = file.infolist()
        names = [member.filename for member in told]
        if strange := [name for name in names if name not in MEMBERS]:
            raise self._refused(f"holds {strange[0]!r:.100}, which is no part of an export")
        if sorted(names) != sorted(MEMBERS):
            raise self._refused(f"must hold {', '.join(MEMBERS)}, each once; it holds {', '.join(names) or 'nothing'}")
        for member in told:
            stored = member.compress_type == zipfile.ZIP_STORED
            if not stored and (member.compress_type != zipfile.ZIP_DEFLATED or member.filename in (STEPS, TICKS)):
                raise self._refused(f"{member.filename} is packed in another way than an export's")
            most = member.compress_size * (1 if stored else INFLATED) + (0 if stored else SMALL)
            if member.file_size > min(most, MEMBER_BYTES):
                raise self._refused(f"{member.filename} would become {member.file_size} bytes: more than is believed")

    def _manifest(self, file: zipfile.ZipFile) -> Manifest:
        with file.open(MANIFEST) as member:
            text = member.read(MANIFEST_BYTES + 1)
        try:
            told = json.loads(text) if len(text) <= MANIFEST_BYTES else None
        except (ValueError, RecursionError) as error:
            raise self._refused(f"{MANIFEST} is no JSON: {error}") from error
        if not isinstance(told, dict) or told.get("format") != "pilothouse-run":
            raise self._refused(f"{MANIFEST} is not that of an export")
        if isinstance(told.get("version"), int) and told["version"] > VERSION:
            raise self._refused(f"has format {told['version']}, this version reads up to {VERSION}: upgrade Pilothouse")
        try:
            manifest = Manifest.model_validate(told)
        except ValidationError as error:
            raise self._refused(f"{MANIFEST}: {first_fault(error)}") from error
        for kind, version in manifest.schemas.items():
            if kind not in KINDS or version > KINDS[kind].schema_version:
                raise self._refused(
                    f"holds {kind[:80]!r} of version {version}, which is not known here: upgrade Pilothouse"
                )
        return manifest

    # ------------------------------------------------------------------------------------------------------ its parts

    def _events(self, file: zipfile.ZipFile, part: str) -> Iterator[_Told]:
        with file.open(EVENTS) as lines:
            number = 0
            while line := lines.readline(LINE_BYTES + 1):
                number += 1
                if len(line) > LINE_BYTES:
                    raise self._refused(f"{EVENTS}: line {number} is over {LINE_BYTES} bytes")
                if not line.startswith(BEGINNINGS):
                    raise self._refused(f"{EVENTS}: line {number} stands nowhere")
                if line.startswith(_beginning(part)):
                    yield self._parsed(line, number, part)

    def _parsed(self, line: bytes, number: int, part: str) -> _Told:
        try:
            fields = json.loads(line)
            told = _Told(fields["part"], fields["offset"], self._event(fields["event"]))
            usable = told.part == part and type(told.offset) is int and told.offset >= 0
        except ValidationError as error:
            raise self._refused(f"{EVENTS}: line {number}: {first_fault(error)}") from error
        except (ValueError, TypeError, LookupError, RecursionError, AttributeError) as error:
            raise self._refused(f"{EVENTS}: line {number} is no event: {type(error).__name__}") from error
        if not usable:
            raise self._refused(f"{EVENTS}: line {number} stands nowhere")
        return self._checked(told, f"{EVENTS}: line {number}")

    def _event(self, fields: dict[str, Any]) -> AnyEvent:
        """As the codec does on the wire: what is of an older schema is brought to this one."""
        kind = fields["kind"]
        for old in range(self.manifest.schemas[kind], KINDS[kind].schema_version):
            fields = UPCASTS[kind, old](fields)
        return EVENT.validate_json(json.dumps(fields))

    def _checked(self, told: _Told, where: str) -> _Told:
        """What is of another run, or would be read as what it is not, has no place here."""
        event = told.event
        fits = isinstance(event, Decision) if told.part == CONTROL else isinstance(event, Fact)
        if not fits or isinstance(event, StepBatch) or getattr(event, "run_id", "") != self.manifest.run_id:
            raise self._refused(f"{where}: {event.kind} has no place there, or is of another run")
        return told

    @contextmanager
    def _table(
        self, file: zipfile.ZipFile, name: str, columns: dict[str, str], rows: int
    ) -> Iterator["pq.ParquetFile"]:
        """A Parquet member, out of the zip (its reader jumps), in a file that has no name."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with TemporaryFile(prefix="pilothouse-import-") as copy:
            with file.open(name) as member:
                _copy(member, copy)
            try:
                with pq.ParquetFile(copy, thrift_string_size_limit=2**26, thrift_container_size_limit=2**20) as table:
                    self._check_table(table, name, schema(columns), rows, copy.tell())
                    yield table
            except (pa.ArrowException, ValueError, OverflowError) as error:
                raise self._refused(f"{name} is damaged: {' '.join(str(error).split())[:200]}") from error

    def _check_table(self, table: "pq.ParquetFile", name: str, wanted: Any, rows: int, size: int) -> None:
        told = table.metadata
        if told.num_rows != rows:
            raise self._refused(f"{name} has {told.num_rows} rows, where the manifest says {rows}")
        if rows > ROWS_A_BYTE * size + SMALL:
            raise self._refused(f"{name} has {rows} rows in {size} bytes: more than is believed")
        found = table.schema_arrow
        if found.names != wanted.names or found.types != wanted.types:
            raise self._refused(f"{name} has other columns than an export's")
        for number in range(told.num_row_groups):
            group = told.row_group(number)
            values = max((group.column(column).num_values for column in range(group.num_columns)), default=0)
            if group.total_byte_size > GROUP_BYTES or values > GROUP_VALUES:
                raise self._refused(f"{name} would take more memory than is believed")

    def _batches(self, table: "pq.ParquetFile") -> Iterator[_Told]:
        for offset, rows in groupby(_rows(table), key=lambda row: row["offset"]):
            try:
                batch = batch_of(self.manifest.run_id, [_step_column(row) for row in rows])
            except ValidationError as error:
                raise self._refused(f"{STEPS}: record {offset}: {first_fault(error)}") from error
            except (LookupError, ValueError) as error:
                raise self._refused(f"{STEPS}: record {offset} is no batch of steps") from error
            yield _Told(LOG, offset, batch)

    def _ticks(self, table: "pq.ParquetFile") -> Iterator[_Told]:
        for row in _rows(table):
            offset = row.pop("offset")
            try:
                yield _Told(LOG, offset, Tick.model_validate(row))
            except ValidationError as error:
                raise self._refused(f"{TICKS}: record {offset}: {first_fault(error)}") from error

    def _refused(self, what: str) -> FileRefused:
        return FileRefused(f"{self.path}: {what}")


def _copy(member: IO[bytes], copy: IO[bytes]) -> None:
    shutil.copyfileobj(member, copy, 1024**2)
    copy.flush()


def _rows(table: "pq.ParquetFile") -> Iterator[dict[str, Any]]:
    for piece in table.iter_batches(batch_size=PIECE_ROWS):
        yield from piece.to_pylist()


def _step_column(row: dict[str, Any]) -> StepColumn:
    offset = row.pop("offset")
    return StepColumn(*place(offset), **row)


def _basis(told: _Told) -> int:
    event = told.event
    return event.basis.offset if isinstance(event, Decision) else 0
