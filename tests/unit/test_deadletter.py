"""A dead letter carries its record whole, or says how much of it is missing."""

from collections.abc import Sequence

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from pilothouse.events.codec import KEY_ID_HEADER, SIGNATURE_HEADER, decode, encode
from pilothouse.events.topics import CONTROL, DEADLETTER, MAX_RECORD_BYTES, TELEMETRY
from pilothouse.stream_processors.deadletter import BODY_BYTES_HEADER, OURS, dead_letter
from pilothouse.stream_processors.log import Delivered, Outgoing
from pilothouse.tests.run_builder import Rank

Headers = tuple[tuple[str, bytes], ...]

LONGEST_DETAIL = "\N{FACE WITH TEARS OF JOY}" * 5_000


def wire_size(key: bytes | None, body: bytes | None, headers: Sequence[tuple[str, bytes]]) -> int:
    """At least what the record takes in a batch of its own: what producer and broker compare with their limits."""
    return int(DefaultRecordBatchBuilder.estimate_size_in_bytes(key, body, list(headers)))


def letter_of(key: bytes | None, headers: Headers, body: bytes | None) -> Outgoing:
    record = Delivered(TELEMETRY.name, 3, 2**62, key, headers, body)
    letter = dead_letter(record, "NotOurs", LONGEST_DETAIL, 4)
    assert wire_size(letter.key, letter.body, letter.headers) <= DEADLETTER.max_record_bytes
    return letter


def theirs(letter: Outgoing) -> Headers:
    return tuple(header for header in letter.headers if header[0] not in OURS)


@pytest.mark.parametrize(
    "key,headers,body",
    [
        (b"k", (), b"x" * MAX_RECORD_BYTES),
        (b"k" * MAX_RECORD_BYTES, (), None),
        (None, (("theirs", b"h" * MAX_RECORD_BYTES),), b"x"),
        (None, (("", b""),) * (MAX_RECORD_BYTES // 2), b""),
        (None, tuple((f"header-{index}", b"v" * 100) for index in range(8_000)), b"x" * 100_000),
    ],
    ids=["body", "key", "header", "headers without anything", "headers"],
)
def test_the_largest_record_of_an_event_topic_fits_whole(key: bytes | None, headers: Headers, body: bytes) -> None:
    assert max(TELEMETRY.max_record_bytes, CONTROL.max_record_bytes) <= wire_size(key, body, headers)
    letter = letter_of(key, headers, body)
    assert (letter.key, theirs(letter), letter.body) == (key, headers, body)
    assert BODY_BYTES_HEADER not in dict(letter.headers)


@pytest.mark.parametrize(
    "key,headers",
    [
        (b"run", (("theirs", b"1"),)),
        (b"k" * 3_000_000, (("theirs", b"1"),)),
        (b"run", (("long", b"h" * 3_000_000), ("theirs", b"1"))),
        (b"run", (("theirs", b"1"), *((("", b""),) * 100_000))),
    ],
    ids=["body", "key", "header", "headers"],
)
def test_a_record_that_no_letter_can_carry_is_cut_and_says_how_long_it_was(key: bytes, headers: Headers) -> None:
    letter = letter_of(key, headers, b"x" * 30_000_000)
    assert letter.body is not None
    assert len(letter.body) > DEADLETTER.max_record_bytes * 0.95
    assert dict(letter.headers)[BODY_BYTES_HEADER] == b"30000000"
    assert dict(letter.headers)["theirs"] == b"1"
    assert letter.key is not None
    assert key.startswith(letter.key)


def test_a_record_without_body_key_and_headers_is_a_letter_too() -> None:
    letter = letter_of(None, (), None)
    assert (letter.key, theirs(letter), letter.body) == (None, (), None)


def test_what_a_record_says_in_our_headers_is_not_believed() -> None:
    headers = tuple((name, b"forged") for name in OURS)
    assert b"forged" not in dict(letter_of(None, headers, b"x").headers).values()


def test_a_signature_and_its_key_survive_with_the_bytes_they_sign() -> None:
    rank = Rank("signed", 0)
    rank.started(1)
    (event,) = rank.facts
    wire = encode(event)
    signed = (*wire.headers, (SIGNATURE_HEADER, b"\x00\xff" * 32), (KEY_ID_HEADER, b"key-1"))
    letter = letter_of(b"signed", signed, wire.body)
    assert theirs(letter) == signed
    assert letter.body == wire.body
    assert decode(letter.headers, letter.body) == event
