"""Protocol Buffers as they are on the wire: field by field, without a schema. Pure.

TensorBoard and W&B keep their logs in it. What is needed of their schemas is a dozen field numbers (named beside their
readers), so that neither package has to be installed to read what it wrote. Source: the encoding as documented at
protobuf.dev.
"""

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Field = tuple[int, int | bytes]
"""Number and value: an int for a varint, the raw bytes of all else."""


class Damaged(ValueError):
    """Bytes that are no message."""


def fields(body: bytes) -> Iterator[Field]:
    """The fields of a message, in their order.

    Raises:
        Damaged: it is none.
    """
    at, end = 0, len(body)
    while at < end:
        key, at = _varint(body, at)
        kind = key & 7
        if kind == VARINT:
            value, at = _varint(body, at)
            yield key >> 3, value
            continue
        if kind == BYTES:
            size, at = _varint(body, at)
        else:
            size = {FIXED64: 8, FIXED32: 4}.get(kind, end + 1)
        if at + size > end:
            raise Damaged(f"a field of wire type {kind} goes past the end of its message")
        yield key >> 3, body[at : at + size]
        at += size


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(body) and shift < 70:
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise Damaged("a number does not end")


def signed(value: int | bytes) -> int:
    """An int64 field: negative numbers are ten bytes of two's complement."""
    number = _int(value)
    return number - 2**64 if number >= 2**63 else number


def _int(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise Damaged("bytes where a number should be")
    return value


def raw(value: int | bytes) -> bytes:
    """A field of bytes, or a message within a message."""
    if isinstance(value, int):
        raise Damaged("a number where bytes should be")
    return value


def text(value: int | bytes) -> str:
    return raw(value).decode("utf-8", errors="replace")


def double(value: int | bytes) -> float:
    return _unpacked("<d", value)


def single(value: int | bytes) -> float:
    return _unpacked("<f", value)


def _unpacked(form: str, value: int | bytes) -> float:
    try:
        (number,) = struct.unpack(form, raw(value))
    except struct.error as error:
        raise Damaged(str(error)) from error
    return float(number)
