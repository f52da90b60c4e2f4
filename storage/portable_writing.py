"""Writes a run out of the archive into one portable file (`portable_format`). Called by `cli.export_command`.

The file appears under its name when it is whole. The same history gives the same bytes, as long as zlib and pyarrow
are the same ones, and the same content digest whatever they are.
"""

import json
import os
import shutil
import zipfile
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from ..events.codec import to_json
from ..events.commands import Tick
from ..events.errors import UserMistake
from ..events.telemetry import StepBatch
from ..events.union import AnyDecision, AnyInput
from .history import order_of, read_decisions, stream_log
from .portable_format import (
    CONTROL,
    EVENTS,
    LOG,
    MANIFEST,
    STEP_COLUMNS,
    STEPS,
    TICK_COLUMNS,
    TICKS,
    Content,
    Manifest,
    place,
    schema,
    step_columns,
)
from .queries import known_run

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

GROUP_WEIGHT = 1_000_000
"""Values in a group of rows of a Parquet file, about."""
LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The zip's time of every member: when it was written is no part of a run."""

Seen = Callable[[int], None]


class Members(NamedTuple):
    """What is being written, each into a file of its own."""

    events: IO[str]
    steps: "_Table"
    ticks: "_Table"


class _Table:
    """A Parquet file that grows by groups of rows, of some `GROUP_WEIGHT` values each."""

    def __init__(self, path: Path, columns: dict[str, str]) -> None:
        import pyarrow.parquet as pq

        self.rows = 0
        self._schema = schema(columns)
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd", version="2.6", store_schema=False)
        self._waiting: list[list[Any]] = [[] for _ in columns]
        self._weight = 0

    def add(self, columns: list[list[Any]], weight: int) -> None:
        for waiting, more in zip(self._waiting, columns, strict=True):
            waiting.extend(more)
        self._weight += weight
        if self._weight >= GROUP_WEIGHT:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting[0]:
            self.rows += len(self._waiting[0])
            arrays = [pa.array(column, field.type) for column, field in zip(self._waiting, self._schema, strict=True)]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
            self._waiting, self._weight = [[] for _ in self._waiting], 0


def export_run(
    client: "Client", run_id: str, path: Path, *, replace: bool = False, seen: Seen = lambda _: None
) -> Manifest:
    """The whole run into `path`.

    Raises:
        UserMistake: the file is there already, or cannot be written.
        UnknownRun: there is no such run.
    """
    if path.exists() and not replace:
        raise UserMistake(f"{path} is there already: choose another name, or say --force")
    known_run(client, run_id)
    with _written(path) as (folder, draft):
        manifest = _write_members(client, run_id, folder, seen)
        (folder / MANIFEST).write_text(json.dumps(manifest.model_dump(), indent=1, sort_keys=True) + "\n")
        _zip(folder, draft)
    return manifest


@contextmanager
def _written(path: Path) -> Iterator[tuple[Path, Path]]:
    """A folder to work in beside the file, which takes its place at the end; nothing is left where that fails."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    try:
        with TemporaryDirectory(prefix=".pilothouse-export-", dir=path.absolute().parent) as folder:
            yield Path(folder), draft
            os.replace(draft, path)
    except OSError as error:
        raise UserMistake(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def content_of(client: "Client", run_id: str) -> str:
    """The digest that an export of this run would have."""
    content = Content()
    for part, offset, event in _told(client, run_id):
        content.take(part, offset, event)
    return content.hex


def _told(client: "Client", run_id: str) -> Iterator[tuple[str, int, AnyInput | AnyDecision]]:
    """The run's log in its order, then its decisions in theirs."""
    stood: list[tuple[bool, int, int]] = []
    for offset, record in enumerate(stream_log(client, run_id)):
        stood.append(order_of(record.place))
        yield LOG, offset, record.event
    for offset, decision in enumerate(read_decisions(client, run_id)):
        # The last record up to its basis: the very one, unless time has deleted it.
        number = bisect_right(stood, order_of(decision.basis)) - 1
        yield CONTROL, offset, decision.model_copy(update={"basis": place(max(0, number))})


def _write_members(client: "Client", run_id: str, folder: Path, seen: Seen) -> Manifest:
    content, schemas, count = Content(), dict[str, int](), {LOG: 0, CONTROL: 0}
    with (folder / EVENTS).open("w", encoding="utf-8", newline="\n") as events:
        members = Members(events, _Table(folder / STEPS, STEP_COLUMNS), _Table(folder / TICKS, TICK_COLUMNS))
        for part, offset, event in _told(client, run_id):
            content.take(part, offset, event)
            schemas[event.kind] = event.schema_version
            count[part] += 1
            _write(members, part, offset, event)
            seen(count[LOG] + count[CONTROL])
        members.steps.close()
        members.ticks.close()
    return Manifest(
        run_id=run_id,
        records=count[LOG],
        decisions=count[CONTROL],
        step_rows=members.steps.rows,
        ticks=members.ticks.rows,
        content=content.hex,
        schemas=schemas,
    )


def _write(members: Members, part: str, offset: int, event: AnyInput | AnyDecision) -> None:
    match event:
        case StepBatch() as batch:
            members.steps.add(step_columns(batch, offset), (1 + len(batch.steps)) * len(batch.metrics))
        case Tick() as tick:
            members.ticks.add([[offset], [tick.partition], [tick.writer_id], [tick.seq], [tick.at]], 1)
        case other:
            members.events.write(f'{{"part":"{part}","offset":{offset},"event":{to_json(other)}}}\n')


def _zip(folder: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w") as file:
        for name in (MANIFEST, EVENTS, STEPS, TICKS):
            told = zipfile.ZipInfo(name, LONG_AGO)
            told.external_attr = 0o600 << 16
            # Parquet is compressed already.
            told.compress_type = zipfile.ZIP_DEFLATED if name in (MANIFEST, EVENTS) else zipfile.ZIP_STORED
            with (folder / name).open("rb") as source, file.open(told, "w", force_zip64=True) as member:
                shutil.copyfileobj(source, member, 1024**2)
