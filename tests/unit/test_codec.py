import math
from typing import Any

import msgspec
import pytest

from pilothouse.events.codec import (
    KEY_ID_HEADER,
    KIND_HEADER,
    SCHEMA_HEADER,
    SIGNATURE_HEADER,
    Encoded,
    Malformed,
    decode,
    encode,
    from_json,
    to_json,
)
from pilothouse.events.commands import Tick
from pilothouse.events.telemetry import MAX_CONFIG_DEPTH, RunStarted, StepBatch
from pilothouse.events.topics import MAX_RECORD_BYTES

TICK = Tick(at=1, partition=0, writer_id="ticker", seq=1)


def batch(*losses: float | None) -> StepBatch:
    rows = range(len(losses))
    return StepBatch(
        at=1,
        run_id="run",
        writer_id="writer",
        seq=1,
        attempt_id="attempt",
        attempt=1,
        rank=0,
        steps=tuple(rows),
        times=tuple(rows),
        metrics={"loss": losses},
    )


def started(**fields: Any) -> RunStarted:
    return RunStarted(
        at=1,
        run_id="run",
        writer_id="writer",
        seq=1,
        attempt_id="attempt",
        attempt=1,
        rank=0,
        reason="start",
        first_step=0,
        world_size=1,
        **fields,
    )


def received(sent: Encoded, **changed: Any) -> Malformed | StepBatch:
    """What a reader gets when single fields of the body were changed on the way."""
    body = msgspec.msgpack.encode(msgspec.msgpack.decode(sent.body) | changed)
    return decode(sent.headers, body)  # type: ignore[return-value]  # the tests send batches


def test_non_finite_numbers_are_values_on_the_wire_and_in_json() -> None:
    original = batch(math.nan, math.inf, -math.inf, None, -0.0)
    for copy in (received(encode(original)), from_json(to_json(original))):
        assert isinstance(copy, StepBatch)
        losses = copy.metrics["loss"]
        assert str(losses) == "(nan, inf, -inf, None, -0.0)"
    assert '"loss":["NaN","Infinity","-Infinity",null,-0.0]' in to_json(original)


def test_a_newer_schema_says_what_to_do() -> None:
    sent = encode(TICK)
    answer = decode([(KIND_HEADER, b"tick"), (SCHEMA_HEADER, b"2")], sent.body)
    assert answer == Malformed(
        "NewerSchema", "tick has schema 2, this reader knows up to 1: upgrade the reader", sent.body, "tick"
    )


@pytest.mark.parametrize(
    "headers, reason",
    [
        ([], "NotOurs"),
        ([(KIND_HEADER, b"tick")], "NotOurs"),
        ([(SCHEMA_HEADER, b"1")], "NotOurs"),
        ([(KIND_HEADER, None), (SCHEMA_HEADER, None)], "NotOurs"),
        ([(KIND_HEADER, b"\xff"), (SCHEMA_HEADER, b"1")], "BadHeader"),
        ([(KIND_HEADER, b"tick"), (SCHEMA_HEADER, b"one")], "BadHeader"),
        ([(KIND_HEADER, b"tick"), (SCHEMA_HEADER, b"\xff")], "BadHeader"),
        ([(KIND_HEADER, b"tick"), (SCHEMA_HEADER, b"9" * 5_000)], "BadHeader"),
        ([(KIND_HEADER, b"tock"), (SCHEMA_HEADER, b"1")], "UnknownKind"),
        ([(KIND_HEADER, b"heartbeat"), (SCHEMA_HEADER, b"1")], "BadHeader"),
        ([(KIND_HEADER, b"tick"), (SCHEMA_HEADER, b"0")], "Undecodable"),
        ([(KIND_HEADER, b"tick"), (SCHEMA_HEADER, b"-7")], "Undecodable"),
    ],
)
def test_headers_that_do_not_fit_are_named(headers: list[tuple[str, bytes]], reason: str) -> None:
    answer = decode(headers, encode(TICK).body)
    assert isinstance(answer, Malformed)
    assert answer.reason == reason
    assert answer.body == encode(TICK).body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\xc0",
        b"\x91\x01",
        b"\x81\xa1a" * 300_000,
        b"\x91" * 900_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\x81\x01\x01\x01",
        b"\x81\xa2at\xc7\x0c\xff" + b"\xff" * 12,
        b"\x81\xa4kind\xa4\xff\xff\xff\xff",
    ],
    ids=[
        "empty",
        "reserved",
        "nil",
        "array",
        "deep map",
        "deep array",
        "4 G items",
        "4 G keys",
        "map key",
        "time",
        "text",
    ],
)
def test_bodies_that_are_no_message_are_undecodable(body: bytes) -> None:
    answer = decode(encode(TICK).headers, body)
    assert isinstance(answer, Malformed)
    assert answer.reason == "Undecodable"
    assert len(answer.detail) <= 300


def test_a_record_without_a_body_or_over_the_limit_is_malformed_and_nothing_of_it_is_cut() -> None:
    assert decode(encode(TICK).headers, None) == Malformed("NoBody", "0 bytes", b"")
    body = b"x" * (MAX_RECORD_BYTES + 1)
    assert decode(encode(TICK).headers, body) == Malformed("TooLarge", "1000001 bytes", body)


def test_a_signed_record_is_the_same_event_whoever_can_verify_it() -> None:
    sent = encode(batch(1.0))
    signature = [(SIGNATURE_HEADER, b"\x00\xff" * 32), (KEY_ID_HEADER, b"key-1")]
    for headers in ([*sent.headers, *signature], [*signature, *sent.headers], [*signature[:1], *sent.headers]):
        assert decode(headers, sent.body) == batch(1.0)
    assert {KIND_HEADER, SCHEMA_HEADER, SIGNATURE_HEADER, KEY_ID_HEADER} == {
        "ph-kind",
        "ph-schema",
        "ph-signature",
        "ph-key-id",
    }  # what is in a log is read for years


@pytest.mark.parametrize(
    "changed, place",
    [
        ({"seq": 0}, "seq: "),
        ({"seq": 2**63}, "seq: "),
        ({"rank": -1}, "rank: "),
        ({"at": None}, "at: "),
        ({"run_id": ""}, "run_id: "),
        ({"metrics": {"loss": [1.0]}}, "every column must have 2 values"),
        ({"times": [1]}, "every column must have 2 values"),
        ({"steps": [-1, 0]}, "steps.0: "),
        ({"surprise": 1}, "surprise: "),
    ],
)
def test_an_invalid_field_is_named_with_its_place(changed: dict[str, object], place: str) -> None:
    answer = received(encode(batch(1.0, 2.0)), **changed)
    assert isinstance(answer, Malformed)
    assert answer.reason == "Invalid"
    assert place in answer.detail
    assert answer.kind == "step_batch"


def test_older_schemas_are_read_through_their_upcasts_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tick, "schema_version", 3)
    upcasts = {
        ("tick", 1): lambda fields: {"partition" if name == "shard" else name: value for name, value in fields.items()},
        ("tick", 2): lambda fields: fields | {"partition": fields["partition"] + 100},
    }
    old = msgspec.msgpack.encode({"kind": "tick", "at": 1, "shard": 4, "writer_id": "ticker", "seq": 1})
    assert decode([(KIND_HEADER, b"tick"), (SCHEMA_HEADER, b"1")], old, upcasts) == TICK.model_copy(
        update={"partition": 104}
    )
    newer = encode(TICK)
    assert newer.headers[1] == (SCHEMA_HEADER, b"3")
    assert decode(newer.headers, newer.body, upcasts) == TICK


@pytest.mark.parametrize("error", [KeyError, IndexError, TypeError, ValueError, AttributeError, ZeroDivisionError])
def test_an_upcast_that_stumbles_over_a_body_makes_it_malformed(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def stumbling(fields: dict[str, Any]) -> dict[str, Any]:
        raise error("here")

    monkeypatch.setattr(Tick, "schema_version", 2)
    answer = decode([(KIND_HEADER, b"tick"), (SCHEMA_HEADER, b"1")], encode(TICK).body, {("tick", 1): stumbling})
    assert isinstance(answer, Malformed)
    assert answer.reason == "Undecodable"


def test_a_config_says_in_text_what_json_cannot_say() -> None:
    deep: Any = "bottom"
    for _ in range(MAX_CONFIG_DEPTH + 10):
        deep = [deep]
    config = {"lr": math.nan, "seed": 2**70, "path": "data\udcff", 1: "one", "layers": (1, 2), "deep": deep}
    copy = started(config=config)
    assert {name: value for name, value in copy.config.items() if name != "deep"} == {
        "lr": "nan",
        "seed": str(2**70),
        "path": "data?",
        "1": "one",
        "layers": [1, 2],
    }
    assert "nested deeper than is kept" in to_json(copy)
    assert from_json(to_json(copy)) == copy == decode(encode(copy).headers, encode(copy).body)


def test_a_config_of_ten_megabytes_is_an_event_that_no_topic_takes() -> None:
    sent = encode(started(config={"text": "x" * 10_000_000}))
    answer = decode(sent.headers, sent.body)
    assert isinstance(answer, Malformed)
    assert answer.reason == "TooLarge"
