"""Spans as people type them: `200steps`, `90s`, `10m`, `2h`, `1d`. Used by the commands of `operator`."""

import re
from typing import Any

from ..events.errors import UserMistake

SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_SPAN = re.compile(r"(\d{1,9})\s*(steps?|[smhd])")


def seconds_of(text: str, option: str) -> int:
    """
    Raises:
        UserMistake: it is no span of time.
    """
    found = _SPAN.fullmatch(text.strip())
    if found is None or found[2] not in SECONDS:
        raise UserMistake(f"{option} {text!r} is no span of time: write 90s, 10m or 2h")
    return int(found[1]) * SECONDS[found[2]]


def span_of(text: str, *, end: bool) -> dict[str, Any]:
    """The fields of an order that say until when: `steps` or `seconds`; 0 steps to end a silence.

    Raises:
        UserMistake: it is none, or there is none, or both.
    """
    if end and text:
        raise UserMistake("--end ends a silence now: leave --for away")
    if end:
        return {"steps": 0}
    found = _SPAN.fullmatch(text.strip())
    if found is None or not int(found[1]):
        raise UserMistake(f"a silence needs an end: --for 200steps, 90s, 10m or 2h; got {text!r}")
    if found[2] in SECONDS:
        return {"seconds": int(found[1]) * SECONDS[found[2]]}
    return {"steps": int(found[1])}
