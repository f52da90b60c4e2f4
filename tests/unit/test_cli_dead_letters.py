from base64 import b64decode
from typing import NamedTuple

from pilothouse.cli.dead_letters import COLUMNS, SHOWN_BYTES, beginning, letter_of
from pilothouse.events.codec import encode
from pilothouse.events.telemetry import Heartbeat
from pilothouse.events.topics import CONTROL, TELEMETRY
from pilothouse.stream_processors.deadletter import LETTER_BYTES, REASON_HEADER, SOURCE_OFFSET_HEADER, dead_letter
from pilothouse.stream_processors.log import Delivered, Outgoing


class Read(NamedTuple):
    """A record as kafka-python hands it out."""

    timestamp: int
    key: bytes | None
    headers: list[tuple[str, bytes | None]]
    value: bytes | None


def read(letter: Outgoing) -> Read:
    return Read(1_790_000_000_000, letter.key, list(letter.headers), letter.body)


def junk(body: bytes | None, *headers: tuple[str, bytes]) -> Delivered:
    return Delivered(TELEMETRY.name, 3, 17, b"some-run", headers, body)


def cells(record: Read) -> dict[str, str]:
    row = letter_of(record).as_row()
    return {heading: cell(row) for heading, cell in COLUMNS}


def test_a_letter_tells_what_the_workers_wrote_and_gives_the_original_back() -> None:
    body = bytes(range(256))
    letter = letter_of(read(dead_letter(junk(body, ("sender", b"x")), "NotOurs", "no header", 4)))
    assert (letter.reason, letter.detail) == ("NotOurs", "no header")
    assert (letter.topic, letter.partition, letter.offset) == (TELEMETRY.name, 3, 17)
    assert (letter.at, letter.key, letter.body, letter.size) == (1_790_000_000_000_000, b"some-run", body, 256)
    assert letter.headers == [("sender", b"x")]


def test_a_header_that_stands_behind_ours_does_not_pass_for_it() -> None:
    forged = [(REASON_HEADER, b"Invalid"), (REASON_HEADER, b"Harmless"), (SOURCE_OFFSET_HEADER, b"-1")]
    letter = letter_of(Read(0, None, list(forged), b""))
    assert letter.reason == "Invalid"
    assert letter.headers == [(REASON_HEADER, b"Harmless")]
    assert letter.offset is None, "no offset is negative"


def test_what_somebody_else_wrote_to_the_topic_is_shown_too() -> None:
    shown = cells(Read(0, None, [("other", None)], None))
    assert [shown[name] for name in ("record", "reason", "bytes", "begins")] == ["–", "–", "0", ""]


def test_of_a_record_that_was_cut_the_whole_length_is_told() -> None:
    long = b"x" * (LETTER_BYTES + 1)
    record = read(dead_letter(junk(long), "TooLarge", "", 4))
    row = letter_of(record).as_row()
    assert (row["size"], row["cut"]) == (len(long), True)
    assert long.startswith(b64decode(row["body_base64"]))
    assert cells(record)["bytes"] == f"{len(long)} (cut)"


def test_nothing_in_a_letter_reaches_the_terminal_as_an_order() -> None:
    shown = cells(read(dead_letter(junk(b"\x1b[2J\r\nok\x7f\xff"), "Bad\x1b[0m", "a\x07b\nc", 4)))
    assert all(text.isprintable() for text in shown.values())
    assert shown["begins"] == "\\x1b[2J\\x0d\\x0aok\\x7f\\xff"
    assert shown["detail"] == "a\\x07b\\nc"


def test_of_a_long_record_the_beginning_is_shown() -> None:
    assert beginning(b"x" * SHOWN_BYTES) == "x" * SHOWN_BYTES
    assert beginning(b"x" * (SHOWN_BYTES + 1)) == "x" * SHOWN_BYTES + "…"


def test_what_would_come_back_as_a_letter_is_told_why() -> None:
    beat = Heartbeat(at=1, run_id="r", writer_id="w", seq=1, attempt_id="a", attempt=1, rank=0, stage="train", step=1)
    wire = encode(beat)
    good = junk(wire.body, *wire.headers)

    def wrong(record: Delivered, reason: str = "Invalid") -> str:
        return letter_of(read(dead_letter(record, reason, "", 4))).still_wrong()

    assert wrong(good) == ""
    assert wrong(junk(b"tea")) == "NotOurs: no header 'ph-kind'"
    assert wrong(good._replace(topic=CONTROL.name)) == f"heartbeat does not belong to {CONTROL.name}"
    assert wrong(good._replace(topic="theirs")) == "it does not say where it came from"
    assert wrong(junk(b"x" * (LETTER_BYTES + 1))).startswith("only its beginning is kept")
