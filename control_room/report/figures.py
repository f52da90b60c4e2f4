"""Figures for readers: numbers, spans, sizes, moments, shares. Pure.

Absent is a dash, NaN and the infinities are called by name. Moments are UTC, with the date: a report is read later, and
elsewhere.
"""

import math
from datetime import UTC, datetime
from typing import Any

NONE = "–"
MICROS = 1_000_000


def number(value: float | None, digits: int = 4) -> str:
    """A figure with so many significant digits; whole numbers whole, with thousands apart."""
    if value is None:
        return NONE
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.{digits}g}"


def share(value: float | None) -> str:
    """A part of one in percent."""
    if value is None or not math.isfinite(value):
        return number(value)
    return f"{100 * value:.1f}%" if 0 < abs(value) < 0.1 else f"{100 * value:.0f}%"


def span(seconds: float | None) -> str:
    """A duration: `850 ms`, `12.4 s`, `3 min 20 s`, `5 h 12 min`, `2 d 3 h`."""
    if seconds is None or not math.isfinite(seconds):
        return number(seconds)
    if seconds < 0:
        return f"-{span(-seconds)}"
    if seconds < 1:
        return f"{1_000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    for unit, size, below, small in (("min", 60, "s", 1), ("h", 3_600, "min", 60)):
        if seconds < size * (60 if unit == "min" else 24):
            rest = int(seconds % size // small)
            return f"{int(seconds // size)} {unit}" + (f" {rest} {below}" if rest else "")
    rest = int(seconds % 86_400 // 3_600)
    return f"{int(seconds // 86_400)} d" + (f" {rest} h" if rest else "")


def detection(seconds: float | None) -> str:
    """How long something took to be seen: onsets are known to about a second."""
    return "under 1 s" if seconds is not None and seconds < 1 else span(seconds)


def size(count: float | None) -> str:
    """Bytes, in units of 1024."""
    if count is None or not math.isfinite(count):
        return number(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1_024 or unit == "TiB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1_024
    raise AssertionError("the last unit takes all")


def moment(micros: int | None) -> str:
    """A point in time, UTC, to the second."""
    return NONE if micros is None else _utc(micros).strftime("%Y-%m-%d %H:%M:%S")


def time_of_day(micros: int | None) -> str:
    """The same without the date."""
    return NONE if micros is None else _utc(micros).strftime("%H:%M:%S")


def _utc(micros: int) -> datetime:
    try:
        return datetime.fromtimestamp(micros / MICROS, UTC)
    except (OverflowError, ValueError, OSError):  # event time is data: a clock may have been far off
        return datetime.fromtimestamp(0, UTC)


def value_of(value: Any) -> str:
    """Any value of a configuration."""
    match value:
        case None:
            return NONE
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return number(value, 6)
        case list() | tuple():
            return ", ".join(map(value_of, value)) if value else "none"
        case dict():
            return ", ".join(f"{name}={value_of(item)}" for name, item in value.items()) if value else "none"
        case _:
            return str(value)


def numbers(values: dict[str, Any]) -> str:
    """Named figures on one line."""
    return ", ".join(f"{name} {value_of(value)}" for name, value in values.items())


def flat(value: Any, above: str = "") -> dict[str, Any]:
    """A nested configuration by dotted names. What is a list stays one."""
    if not isinstance(value, dict) or not value:
        return {above: value} if above else {}
    found: dict[str, Any] = {}
    for name, item in value.items():
        found |= flat(item, f"{above}.{name}" if above else str(name))
    return found
