from datetime import UTC

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.events.codec import (
    KIND_HEADER,
    SCHEMA_HEADER,
    Encoded,
    Malformed,
    decode,
    encode,
    from_json,
    to_json,
)
from pilothouse.events.telemetry import RunStarted
from pilothouse.events.topics import partition_key
from pilothouse.events.union import KINDS, AnyEvent
from pilothouse.tests.event_strategies import event, events

pytestmark = pytest.mark.fuzz

KIND_NAMES = st.sampled_from([name.encode() for name in KINDS])
HEADER_NAMES = st.sampled_from([KIND_HEADER, SCHEMA_HEADER, "ph-signature", "other"]) | st.text(max_size=5)
HEADER_VALUES = st.none() | st.binary(max_size=20) | KIND_NAMES | st.sampled_from([b"1", b"0", b"-1", b"2", b"1e3"])
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.datetimes(timezones=st.just(UTC)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=5) | st.integers(0, 9) | st.none() | st.binary(max_size=2), inner, max_size=4
        )
    ),
)


@given(events())
def test_every_event_survives_the_wire(original: AnyEvent) -> None:
    sent = encode(original)
    received = decode(sent.headers, sent.body)
    assert not isinstance(received, Malformed)
    assert type(received) is type(original)
    assert encode(received) == sent  # by bytes: NaN equals nothing, not even itself


@given(events())
def test_every_event_survives_json(original: AnyEvent) -> None:
    assert repr(from_json(to_json(original))) == repr(original)  # as it is said: the sign of a NaN says nothing


@given(events())
def test_every_event_has_an_identity_and_a_key(original: AnyEvent) -> None:
    assert original.event_id
    assert partition_key(original)


@given(st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=4), st.none() | st.binary(max_size=200))
def test_arbitrary_bytes_are_malformed_or_an_event(headers: list[tuple[str, bytes]], body: bytes | None) -> None:
    assert isinstance(decode(headers, body), Malformed | AnyEvent)


@given(KIND_NAMES, st.dictionaries(st.text(max_size=5), JUNK, max_size=4) | JUNK)
def test_arbitrary_messages_under_our_headers_are_malformed(kind: bytes, message: object) -> None:
    received = decode([(KIND_HEADER, kind), (SCHEMA_HEADER, b"1")], msgspec.msgpack.encode(message))
    assert isinstance(received, Malformed)
    assert received.reason
    assert received.detail
    assert received.kind == kind.decode()


@given(events(), st.data())
def test_a_field_of_any_wrong_value_is_malformed_or_an_event_that_survives(
    original: AnyEvent, data: st.DataObject
) -> None:
    fields = msgspec.msgpack.decode(encode(original).body)
    name = data.draw(st.sampled_from(sorted(fields)))
    fields[name] = data.draw(JUNK)
    _survives_if_accepted(Encoded(msgspec.msgpack.encode(fields), encode(original).headers))


@given(events(), st.data())
def test_a_flipped_or_missing_byte_is_malformed_or_an_event_that_survives(
    original: AnyEvent, data: st.DataObject
) -> None:
    sent = encode(original)
    place = data.draw(st.integers(0, len(sent.body) - 1))
    body = bytearray(sent.body)
    if data.draw(st.booleans()):
        body[place] ^= data.draw(st.integers(1, 255))
    else:
        del body[place:]
    _survives_if_accepted(Encoded(bytes(body), sent.headers))


@given(event(RunStarted), st.integers(0, 2_000))
def test_a_config_of_any_depth_is_malformed_or_survives(original: RunStarted, depth: int) -> None:
    fields = msgspec.msgpack.decode(encode(original).body)
    fields["config"] = msgspec.Raw(b"\x81\xa1a" * (depth + 1) + b"\x01")
    _survives_if_accepted(Encoded(msgspec.msgpack.encode(fields), encode(original).headers))


def _survives_if_accepted(sent: Encoded) -> None:
    """What is accepted can be sent on, archived and read again: nothing is accepted that gets stuck later."""
    received = decode(sent.headers, sent.body)
    if isinstance(received, Malformed):
        return
    text = to_json(received)  # says of a NaN that it is one, and not which of their 2**52 patterns
    archived = from_json(text)
    assert to_json(archived) == text
    sent_on = encode(archived)
    read_again = decode(sent_on.headers, sent_on.body)
    assert not isinstance(read_again, Malformed), read_again.detail
    assert to_json(read_again) == text
