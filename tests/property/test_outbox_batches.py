"""Where a batch begins and ends means nothing, and what was told comes out in the order in which it was told."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.events.codec import decode
from pilothouse.events.envelope import TrainerFact
from pilothouse.events.telemetry import SampleRecorded
from pilothouse.events.topics import MAX_RECORD_BYTES
from pilothouse.producers.delivery import batching
from pilothouse.producers.delivery.batching import Entry, Row, Told, drafts, encoded
from pilothouse.tests.outbox_bench import WHO, told

NAMES = st.sampled_from(["loss", "grad_norm", "lr", "η", "tokens"])
ROWS = st.builds(
    Row,
    st.sampled_from([WHO, WHO._replace(attempt_id="attempt-2", attempt=2)]),
    st.integers(0, 2**50),
    st.integers(0, 2**62 - 1),
    st.dictionaries(NAMES, st.floats(allow_nan=False), min_size=1),
    st.just(()),
)
FACTS = st.builds(
    Told,
    st.just(WHO),
    st.integers(0, 2**50),
    st.just(SampleRecorded),
    st.fixed_dictionaries({"step": st.integers(0, 9), "name": NAMES, "output": st.text(max_size=5)}),
    st.just(()),
)


def published(entries: list[Entry]) -> list[TrainerFact]:
    """The facts of the records that carry `entries`."""
    facts: list[TrainerFact] = []
    for draft in drafts(entries):
        for record in encoded(draft, "w", len(facts) + 1):
            assert record.size <= MAX_RECORD_BYTES
            fact = decode(record.headers, record.body)
            assert isinstance(fact, TrainerFact), fact
            facts.append(fact)
    return facts


def as_told(entry: Entry) -> Any:
    if isinstance(entry, Row):
        return entry.identity.attempt_id, entry.at, entry.step, dict(entry.metrics)
    return entry.fields["output"]


def read_back(facts: list[TrainerFact]) -> list[Any]:
    return [fact.output if isinstance(fact, SampleRecorded) else fact for fact in told(facts)]


@given(st.lists(st.one_of(ROWS, FACTS), max_size=40), st.integers(1, 10), st.integers(60, 400))
def test_any_split_into_batches_reads_back_as_the_same_rows_in_the_same_order(
    entries: list[Entry], rows: int, size: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "MAX_ROWS", rows)
        patch.setattr(batching, "BATCH_BYTES", size)
        facts = published(entries)
    assert read_back(facts) == [as_told(entry) for entry in entries]
    assert [fact.seq for fact in facts] == list(range(1, len(facts) + 1))


@given(st.lists(st.one_of(ROWS, FACTS), max_size=30), st.integers(0, 30))
def test_draining_twice_gives_the_same_as_draining_once(entries: list[Entry], cut: int) -> None:
    once = read_back(published(entries))
    twice = read_back(published(entries[:cut])) + read_back(published(entries[cut:]))
    assert once == twice


@given(st.integers(1, 60), st.integers(1, 1_000), st.integers(1, 190))
def test_no_record_is_longer_than_the_log_takes(rows: int, names: int, length: int) -> None:
    metrics = {f"{index:04d}".ljust(length, "ü"): 0.1 for index in range(names)}
    entries: list[Entry] = [Row(WHO, index, index, metrics) for index in range(rows)]
    facts = published(entries)
    assert [step for _, _, step, _ in told(facts)] == list(range(rows))
