"""Anything that a script gives as plain data: what msgpack and JSON can say, bounded, and never an exception.

Called by `surroundings.description` for what a run says of itself. Reading a stranger's object runs a stranger's code
(`__str__`, `__iter__`, `model_dump`, a property): where that raises, a mark stands in the place of the one value, and
`Reading.notes` says which.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from types import SimpleNamespace
from typing import Any, NamedTuple

STRING_CHARS = 4_096
NAME_CHARS = 200
ITEMS = 1_000
DEPTH = 12
VALUES = 20_000
"""More than fit into what is kept of a configuration; without it, what refers to itself twice would never be read."""

SHOWN_CHARS = 60


def why(error: BaseException) -> str:
    """An error on one line: its type and what it says, if it can say it."""
    said = on_one_line(safe_text(error))[:300]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def shown(value: object) -> str:
    """A value for a message: its type, and the beginning of its text, if it has one."""
    try:
        return f"{type(value).__name__} {on_one_line(repr(value))[:SHOWN_CHARS]}"
    except Exception:  # noqa: BLE001  # a `__repr__` of anybody's
        return type(value).__name__


def on_one_line(text: str) -> str:
    return " ".join(text.split())


def safe_text(value: object) -> str:
    """`str(value)` as UTF-8 can say it; empty where it raises."""
    try:
        return str(value).encode("utf-8", "replace").decode()
    except Exception:  # noqa: BLE001  # a `__str__` of anybody's
        return ""


class Reading:
    """One pass over what a script gave. `notes` says what is not as it was given, one phrase each."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._left = VALUES

    def text(self, value: object, place: str, chars: int = STRING_CHARS) -> str:
        """The text of `value`; where it was cut or could not be read, it says so."""
        try:
            text = str(value)
            if len(text) > chars:
                self.notes.append(f"{place} was cut from {len(text)} to {chars} characters")
                text = f"{text[:chars]}… [cut by pilothouse: {len(text)} characters]"
            return text.encode("utf-8", "replace").decode()
        except Exception as error:  # noqa: BLE001  # a stranger's code: one bad value must not cost the others
            return self._unreadable(place, error)

    def plain(self, value: object, place: str, depth: int = DEPTH) -> Any:
        """`value` as plain data. Numbers that JSON cannot say are left to the event's own rule."""
        self._left -= 1
        try:
            return self._plain(value, place, depth)
        except Exception as error:  # noqa: BLE001  # as above
            return self._unreadable(place, error)

    def labels(self, given: Mapping[Any, object], place: str, chars: int) -> dict[str, str]:
        """The names and values of a mapping, as texts."""
        try:
            return self._mapping(_Parts(given, given.__getitem__), place, lambda item, at: self.text(item, at, chars))
        except Exception as error:  # noqa: BLE001  # as above
            self._unreadable(place, error)
            return {}

    def _plain(self, value: object, place: str, depth: int) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, float):
            return float(value)  # NumPy's float64 is one, and no encoder knows it
        if isinstance(value, int) and -(2**63) <= value < 2**64:
            return int(value)
        return self.text(value, place) if isinstance(value, str) else self._composed(value, place, depth)

    def _composed(self, value: object, place: str, depth: int) -> Any:
        if depth == 0:
            return f"{type(value).__name__} nested deeper than {DEPTH}"
        if (parts := _parts(value)) is not None:
            return self._mapping(parts, place, lambda item, at: self.plain(item, at, depth - 1))
        if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray | memoryview):
            items = self._some(value, place)
            return [self.plain(item, f"{place}[{index}]", depth - 1) for index, item in enumerate(items)]
        return self.text(value, place)

    def _mapping(self, parts: "_Parts", place: str, tell: Callable[[object, str], Any]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name in self._some(parts.names, place):
            key = self.text(name, f"a key of {place}")[:NAME_CHARS]
            try:
                item = parts.read(name)
            except Exception as error:  # noqa: BLE001  # as above: OmegaConf's missing values and properties raise here
                fields[key] = self._unreadable(f"{place}.{key}", error)
            else:
                fields[key] = tell(item, f"{place}.{key}")
        return fields

    def _some(self, items: Iterable[Any], place: str) -> Iterable[Any]:
        """The first of them; as many as are kept."""
        for index, item in enumerate(islice(items, ITEMS + 1)):
            if index == ITEMS or self._left <= 0:
                self.notes.append(f"of {place} only the first {index} items are kept")
                return
            yield item

    def _unreadable(self, place: str, error: Exception) -> str:
        self.notes.append(f"{place} cannot be read ({why(error)})")
        return f"[unreadable by pilothouse: {why(error)}]"


class _Parts(NamedTuple):
    """The named parts of something, and how to read one."""

    names: Iterable[Any]
    read: Callable[[Any], object]


def _parts(value: object) -> _Parts | None:
    """The parts of whatever has named parts."""
    if isinstance(value, Mapping):
        return _Parts(value, value.__getitem__)
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return _Parts([field.name for field in dataclasses.fields(value)], lambda name: getattr(value, name, None))
    if callable(dump := getattr(value, "model_dump", None)):
        dumped = dump()
        return _Parts(dumped, dumped.__getitem__) if isinstance(dumped, Mapping) else None
    if type(value).__module__ == "argparse" or isinstance(value, SimpleNamespace):
        return _Parts(vars(value), vars(value).__getitem__)
    return None
