"""ClickHouse's Native format, as far as the archive's own columns need it: a block of columns as bytes. Pure.

`step_block` sends steps this way. (Format: https://clickhouse.com/docs/interfaces/formats/Native; LowCardinality is
sent as what it holds, and the server takes it in.)
"""

import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

CODES = {"Int32": "i", "Int64": "q", "UInt16": "H", "UInt32": "I", "UInt64": "Q"}
WORD, TIME = "LowCardinality(", "DateTime64("


class Arrays:
    """A column of arrays: where each ends, and all their elements as bytes."""

    def __init__(self) -> None:
        self.ends = array("Q")
        self.data = bytearray()
        self._end = 0

    def __len__(self) -> int:
        return len(self.ends)

    def extend(self, length: int, count: int, elements: bytes) -> None:
        """So many arrays more, each of so many elements; `elements` are all of theirs, `packed`."""
        end, self._end = self._end, self._end + length * count
        self.ends.extend(range(end + length, self._end + 1, length) if length else [end] * count)
        self.data += elements


def native_block(kinds: Mapping[str, str], columns: Mapping[str, Sequence[Any] | Arrays]) -> bytes:
    """The columns as one block; `kinds` are their types, in the order in which they are sent.

    Raises:
        OverflowError, TypeError, UnicodeEncodeError: a value does not fit its column.
    """
    parts: list[bytes | bytearray] = [_length(len(kinds)), _length(len(next(iter(columns.values()))))]
    for name, kind in kinds.items():
        sent = kind.removeprefix(WORD).removesuffix(")") if kind.startswith(WORD) else kind
        parts += [_text(name), _text(sent), *_data(sent, columns[name])]
    return b"".join(parts)


def packed(values: "array[Any]") -> bytes:
    """The elements as they are sent: least byte first."""
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


def _data(kind: str, column: Sequence[Any] | Arrays) -> Iterable[bytes | bytearray]:
    if isinstance(column, Arrays):
        return packed(column.ends), column.data
    if kind == "String":
        return (_texts(column),)
    return (packed(array("q" if kind.startswith(TIME) else CODES[kind], column)),)


def _texts(values: Iterable[str]) -> bytes:
    told: dict[str, bytes] = {}
    return b"".join([told.get(value) or told.setdefault(value, _text(value)) for value in values])


def _text(value: str) -> bytes:
    written = value.encode()
    return _length(len(written)) + written


def _length(number: int) -> bytes:
    """As LEB128."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)
