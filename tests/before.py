"""A governed demo as it went over the wire before any schema was raised: the bytes of the version before.

`replay/before.wire.jsonl.gz` was encoded by the code of that time, every kind at schema 1, facts and decisions. Renew
it, at a release, by that release's own codec.
"""

import gzip
import json
from base64 import b64decode
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from pilothouse.events.codec import Headers, Malformed, decode, encode
from pilothouse.events.envelope import LogPlace
from pilothouse.events.telemetry import InterventionReceipt
from pilothouse.events.union import AnyEvent, AnyTelemetry

FILE = Path(__file__).parent / "replay" / "before.wire.jsonl.gz"


class Wire(NamedTuple):
    """A record as it travelled."""

    topic: str
    place: LogPlace
    headers: Headers
    body: bytes

    @property
    def event(self) -> AnyEvent:
        event = decode(self.headers, self.body)
        assert not isinstance(event, Malformed), event
        return event


def before() -> list[Wire]:
    told = [json.loads(line) for line in gzip.decompress(FILE.read_bytes()).splitlines()]
    return [
        Wire(
            one["topic"],
            LogPlace(*(one["place"] or (0, 0, 0))),
            [(name, value.encode()) for name, value in one["headers"]],
            b64decode(one["body"]),
        )
        for one in told
    ]


def as_now(wire: Wire) -> Wire:
    """The same event as this version tells it."""
    now = encode(wire.event)
    return wire._replace(headers=now.headers, body=now.body)


def facts() -> Iterator[tuple[Wire, AnyTelemetry]]:
    """What its ranks told before they obeyed anything: whoever hears it now may decide otherwise than was decided."""
    told = ((wire, event) for wire in before() if isinstance(event := wire.event, AnyTelemetry))
    return takewhile(lambda one: not isinstance(one[1], InterventionReceipt), told)
