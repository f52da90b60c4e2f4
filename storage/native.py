"""ClickHouse's Native format, as far as the archive's own columns need it: a block of rows as bytes. Pure.

`archive` sends steps this way. The driver's own writer packs every element of every array by itself, which for steps is
nearly all the time an insert takes; here an array that is the neighbour's as well is copied, and one of doubles' bits
is bytes already. (Format: https://clickhouse.com/docs/interfaces/formats/Native; LowCardinality is sent as what it
holds, and the server takes it in.)
"""

import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

CODES = {"Int32": "i", "Int64": "q", "UInt16": "H", "UInt32": "I", "UInt64": "Q"}
ARRAY, WORD, TIME = "Array(", "LowCardinality(", "DateTime64("


def native_block(columns: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> bytes:
    """The rows as one block; `columns` are their names and types, in order.

    Raises:
        OverflowError, TypeError, UnicodeEncodeError: a value does not fit its column.
    """
    parts = [_length(len(columns)), _length(len(rows))]
    for index, (name, kind) in enumerate(columns.items()):
        sent = kind.removeprefix(WORD).removesuffix(")") if kind.startswith(WORD) else kind
        parts += [_text(name), _text(sent), _data(sent, [row[index] for row in rows])]
    return b"".join(parts)


def _data(kind: str, values: Sequence[Any]) -> bytes:
    if kind == "String":
        return _texts(values)
    if kind.startswith(ARRAY):
        return _arrays(kind.removeprefix(ARRAY).removesuffix(")"), values)
    return _bytes(array(_code(kind), values))


def _texts(values: Iterable[str]) -> bytes:
    told: dict[str, bytes] = {}
    return b"".join([told.get(value) or told.setdefault(value, _text(value)) for value in values])


def _arrays(element: str, values: Iterable[Sequence[Any]]) -> bytes:
    """The ends of all arrays, then all their elements."""
    code = _code(element)
    ends, data = array("Q"), bytearray()
    end = 0
    last: Sequence[Any] = ()
    written = b""
    for each in values:
        if each is not last:
            written = _bytes(each if isinstance(each, array) and each.typecode == code else array(code, each))
            last = each
        data += written
        end += len(each)
        ends.append(end)
    return _bytes(ends) + bytes(data)


def _code(kind: str) -> str:
    return "q" if kind.startswith(TIME) else CODES[kind]


def _bytes(values: "array[Any]") -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


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
