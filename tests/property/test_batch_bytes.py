"""Rows go to the wire without pydantic, as the very bytes that the codec gives for the event they are."""

import math
import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.events.codec import decode, encode, encode_fields
from pilothouse.events.telemetry import StepBatch
from pilothouse.producers.delivery.batching import Entry, Row, Rows, drafts, encoded, rows_of
from pilothouse.tests.event_strategies import event
from pilothouse.tests.outbox_bench import WHO

NUMBERS = st.floats() | st.integers(-(2**63) + 1, 2**63 - 1)
METRICS = st.dictionaries(st.sampled_from(["loss", "lr", "η", "tokens", "x" * 200]), NUMBERS, min_size=1)
STEPS = st.integers(0, 2**62 - 1)
TIMES = st.integers(0, 2**62 - 1)


def by_the_codec(rows: list[tuple[int, int, dict[str, Any]]]) -> bytes:
    """The bytes of the event that these rows are, made and judged by its own model."""
    names = dict.fromkeys(name for _, _, metrics in rows for name in metrics)
    batch = StepBatch(
        run_id=WHO.run_id,
        attempt_id=WHO.attempt_id,
        attempt=WHO.attempt,
        rank=WHO.rank,
        at=rows[-1][0],
        writer_id="w",
        seq=7,
        times=tuple(at for at, _, _ in rows),
        steps=tuple(step for _, step, _ in rows),
        metrics={name: tuple(metrics.get(name) for _, _, metrics in rows) for name in names},
    )
    return encode(batch).body


@given(st.lists(st.tuples(TIMES, STEPS, METRICS), min_size=1, max_size=8))
def test_rows_one_by_one_are_the_bytes_of_their_event(rows: list[tuple[int, int, dict[str, Any]]]) -> None:
    entries: list[Entry] = [Row(WHO, at, step, metrics) for at, step, metrics in rows]
    (draft,) = drafts(entries)
    (record,) = encoded(draft, "w", 7)
    assert record.body == by_the_codec(rows)


@given(st.lists(st.tuples(TIMES, STEPS, METRICS), min_size=1, max_size=8))
def test_rows_many_at_once_are_the_bytes_of_their_event(rows: list[tuple[int, int, dict[str, Any]]]) -> None:
    many = rows_of([(WHO, at * 1_000 + 999, step, metrics) for at, step, metrics in rows])
    assert isinstance(many, Rows)
    (draft,) = drafts([many])
    (record,) = encoded(draft, "w", 7)
    assert record.body == by_the_codec(rows)
    assert isinstance(decode(record.headers, record.body), StepBatch)


def has_only_the_usual_nan(batch: StepBatch) -> bool:
    """A NaN has bits to spare, and a validator on the way may set them: what is said is the same."""
    values = [value for column in batch.metrics.values() for value in column if value is not None and math.isnan(value)]
    return all(struct.pack("d", value) == struct.pack("d", math.nan) for value in values)


@given(event(StepBatch).filter(has_only_the_usual_nan))
def test_valid_fields_are_encoded_as_their_event(batch: StepBatch) -> None:
    assert encode_fields(StepBatch, batch.model_dump()) == encode(batch)


def test_nan_and_infinities_travel_as_they_are() -> None:
    rows = [(1, 2, {"loss": math.nan, "norm": -math.inf})]
    (draft,) = drafts([Row(WHO, *rows[0])])
    assert encoded(draft, "w", 7)[0].body == by_the_codec(rows)
