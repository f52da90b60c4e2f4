"""What no worker can use stands in the dead-letter topic of a real broker with its original bytes."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaProducer
from kafka.errors import MessageSizeTooLargeError

from pilothouse.cli.brokers import LocalBroker
from pilothouse.events.codec import KEY_ID_HEADER, KIND_HEADER, SCHEMA_HEADER, SIGNATURE_HEADER
from pilothouse.events.topics import DEADLETTER, MAX_RECORD_BYTES, TELEMETRY
from pilothouse.stream_processors.deadletter import BODY_BYTES_HEADER, OURS, REASON_HEADER
from pilothouse.tests.broker_fixture import PARTITIONS, NewBroker
from pilothouse.tests.dying_worker import DyingWorker, Feed
from pilothouse.tests.log_reader import Read, Reader, read_all
from pilothouse.tests.outbox_bench import wait_until

Headers = list[tuple[str, bytes]]

SIGNED: Headers = [
    (KIND_HEADER, b"run_started"),
    (SCHEMA_HEADER, b"99"),
    (SIGNATURE_HEADER, b"\x00\xff" * 32),
    (KEY_ID_HEADER, b"key-1"),
]


class NoText(str):
    """The name of a header that no text has: the protocol takes any bytes."""

    __slots__ = ()

    def encode(self, *_: str) -> bytes:
        return b"\xff\xfename"


def send(broker: LocalBroker, headers: Headers, body: bytes, compression: str | None = None) -> None:
    """One record, through a client that has no limit of its own."""
    producer = KafkaProducer(
        bootstrap_servers=[broker.address], compression_type=compression, max_request_size=100_000_000
    )
    with closing(producer):
        producer.send(TELEMETRY.name, body, key=b"key", headers=headers, partition=1).get(30)


def largest_body(broker: LocalBroker, headers: Headers) -> bytes:
    """Sends the largest record that this broker takes under the declared limit; what its body was."""
    for length in range(MAX_RECORD_BYTES - sum(len(name) + len(value) for name, value in headers), 0, -8):
        try:
            send(broker, headers, body := os.urandom(length))
        except MessageSizeTooLargeError:
            continue
        return body
    raise AssertionError("it takes nothing")


@pytest.fixture
def governed(new_broker: NewBroker, tmp_path: Path) -> Iterator[LocalBroker]:
    """A broker with a governor on it."""
    broker = new_broker()
    tmp_path.joinpath("policy.yaml").write_text("name: none\nrules: []\n")
    settings = {
        "PILOTHOUSE_KAFKA": broker.address,
        "PILOTHOUSE_EMBEDDED_BROKER": str(not broker.keeps_log).lower(),
        "PILOTHOUSE_POLICY_FILE": str(tmp_path / "policy.yaml"),
    }
    worker = DyingWorker("governor", tmp_path / "data", settings)
    worker.start()
    yield broker
    worker.kill()


def letters(broker: LocalBroker, count: int) -> list[Read]:
    """The first `count` dead letters."""
    read: list[Read] = []

    def all_there() -> bool:
        read.extend(reader.more())
        return len(read) >= count

    with closing(Reader(broker.address, DEADLETTER.name, PARTITIONS)) as reader:
        wait_until(all_there, 60.0)
    return read


def test_the_largest_record_is_a_letter_whole_a_larger_one_says_what_it_lacks_and_none_is_in_the_way(
    governed: LocalBroker,
) -> None:
    headers: Headers = [*SIGNED, ("theirs", os.urandom(100_000))]
    body = largest_body(governed, headers)
    send(governed, SIGNED, b"x" * 20_000_000, "gzip")
    send(governed, [(NoText("name"), b"")], b"cannot be read")
    send(governed, [], b"the last")
    whole, cut, unreadable, last = letters(governed, 4)
    assert dict(whole.headers)[REASON_HEADER] == b"NewerSchema"
    assert [header for header in whole.headers if header[0] not in OURS] == headers
    assert (whole.key, whole.body) == (b"key", body)
    assert dict(cut.headers)[REASON_HEADER] == b"TooLarge"
    assert dict(cut.headers)[BODY_BYTES_HEADER] == b"20000000"
    assert dict(cut.headers).items() >= dict(SIGNED).items()
    assert cut.body == b"x" * len(cut.body or b"")
    assert len(cut.body or b"") > 1.9 * MAX_RECORD_BYTES
    assert dict(unreadable.headers)[REASON_HEADER] == b"NotOurs"
    assert b"\xff\xfename" in (unreadable.body or b"")
    assert b"cannot be read" in (unreadable.body or b"")
    assert last.body == b"the last"


MISTAKE = 2


@pytest.mark.parametrize("new_broker", ["embedded"], indirect=True)
def test_a_topic_of_nothing_but_junk_stops_the_worker_and_is_not_drained_by_the_next_one(
    new_broker: NewBroker, tmp_path: Path
) -> None:
    broker = new_broker()
    settings = {
        "PILOTHOUSE_KAFKA": broker.address,
        "PILOTHOUSE_EMBEDDED_BROKER": "true",
        "PILOTHOUSE_DEAD_LETTER_LIMIT": "5",
    }
    worker = DyingWorker("governor", tmp_path, settings)
    with closing(Feed(broker.address)) as feed:
        for number in range(20):
            feed.send_bytes(TELEMETRY.name, number % PARTITIONS, b"junk")
        feed.ends()
        for _ in range(2):
            worker.start()
            assert worker.ended() == MISTAKE, worker.said()
        feed.end(DEADLETTER.name)
    assert worker.said().count("none of the last 5 records could be read") == 2
    assert len(read_all(broker.address, DEADLETTER.name, PARTITIONS)) < 5
