"""The archive's laws, on the real engine: what went in comes out, as often and in whatever order it went in."""

from collections.abc import Iterator
from itertools import count

import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilothouse.events.codec import encode
from pilothouse.events.commands import Tick
from pilothouse.events.envelope import LogPlace
from pilothouse.events.telemetry import StepBatch
from pilothouse.events.union import AnyEvent
from pilothouse.settings import Settings
from pilothouse.storage.archive import Archive, Archived
from pilothouse.storage.connect import connect
from pilothouse.storage.history import read_log
from pilothouse.storage.migrate import migrate
from pilothouse.storage.portable_format import STEP_COLUMNS
from pilothouse.storage.portable_format import step_columns as exported
from pilothouse.storage.rows import rows_of
from pilothouse.storage.step_columns import StepColumn, batch_of
from pilothouse.tests.archive_events import Writer, inputs, logged, rows_in, step_columns
from pilothouse.tests.endpoint_fixture import EndpointProcess

on_the_engine = settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
numbers = count()


@pytest.fixture(scope="module")
def client(endpoint: EndpointProcess) -> Iterator[Client]:
    connected = connect(Settings(clickhouse_url=endpoint.clickhouse_url))
    migrate(connected)
    yield connected
    connected.close()


@pytest.fixture
def archive(client: Client) -> Archive:
    return Archive(client)


def fresh_run(data: st.DataObject) -> tuple[str, int, list[AnyEvent]]:
    """A run that no example had before, its partition (no other run of late is there), and what is told of it."""
    number = next(numbers)
    name = data.draw(st.sampled_from(["run", "läuft", chr(0), "o'run\\", "a\tb"]))
    run_id = f"{name}-{number}"
    return run_id, number % 1_000, data.draw(inputs(run_id, number % 1_000))


def expected(records: list[Archived]) -> list[tuple[LogPlace, bytes]]:
    """What replay must see: from the first fact on, each event once, at the first of its places."""
    first: dict[tuple[str, str], Archived] = {}
    for record in sorted(records, key=lambda one: one.place):
        first.setdefault((type(record.event).__name__, record.event.event_id), record)
    facts = [record.place for record in first.values() if not isinstance(record.event, Tick)]
    began = min(facts, default=None)
    return [
        (record.place, encode(record.event).body)
        for record in sorted(first.values(), key=lambda one: one.place)
        if began is not None and record.place >= began
    ]


def told_by(client: Client, run_id: str) -> list[tuple[LogPlace, bytes]]:
    return [(record.place, encode(record.event).body) for record in read_log(client, run_id)]


@given(step_columns())
def test_a_batch_is_its_columns_to_the_last_bit(columns: dict[str, object]) -> None:
    batch = Writer("r").tell(StepBatch, **columns)
    [block] = rows_of(logged([batch])).steps
    kept = [
        StepColumn(**{name: row[name] for name in StepColumn._fields if name != "values"}, values=row["bits"])
        for row in rows_in(block)
    ]
    assert encode(batch_of("r", kept[::-1])).body == encode(batch).body


@given(step_columns())
def test_a_batch_is_what_an_export_keeps_of_it_to_the_last_bit(columns: dict[str, object]) -> None:
    batch = Writer("r").tell(StepBatch, **columns)
    names = ["log_offset" if name == "offset" else name for name in STEP_COLUMNS]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*exported(batch, 7), strict=True)]
    kept = [StepColumn(log_epoch=0, log_partition=0, **row) for row in rows]
    assert encode(batch_of("r", kept[::-1])).body == encode(batch).body


@on_the_engine
@given(data=st.data())
def test_the_log_comes_back_as_it_was_written(client: Client, archive: Archive, data: st.DataObject) -> None:
    run_id, partition, told = fresh_run(data)
    records = logged(told, partition=partition, first=data.draw(st.integers(0, 5)))
    assert archive.insert(records) == ()
    assert told_by(client, run_id) == expected(records)


@on_the_engine
@given(data=st.data())
def test_repeats_order_and_batch_edges_mean_nothing(client: Client, archive: Archive, data: st.DataObject) -> None:
    run_id, partition, told = fresh_run(data)
    again = data.draw(st.lists(st.sampled_from(told), max_size=6))
    records = [
        *logged(told, partition=partition),
        *logged(again, partition=partition, epoch=data.draw(st.integers(0, 1)), first=len(told)),
    ]
    deliveries = data.draw(st.permutations(records + data.draw(st.lists(st.sampled_from(records), max_size=6))))
    while deliveries:
        edge = data.draw(st.integers(1, len(deliveries)))
        archive.insert(deliveries[:edge])
        deliveries = deliveries[edge:]
    assert told_by(client, run_id) == expected(records)
    assert counted(client, run_id) == once_each(told)


def once_each(told: list[AnyEvent]) -> tuple[int, int]:
    batches = [event for event in told if isinstance(event, StepBatch)]
    values = [value for batch in batches for column in batch.metrics.values() for value in column]
    others = [event for event in told if not isinstance(event, StepBatch | Tick)]
    return len(others), sum(value is not None for value in values)


def counted(client: Client, run_id: str) -> tuple[int, int]:
    sql = (
        "SELECT (SELECT count() FROM events WHERE run_id = {run:String}),"
        " (SELECT count() FROM steps WHERE run_id = {run:String})"
    )
    [(events, steps)] = client.query(sql, parameters={"run": run_id}).result_rows
    return events, steps
