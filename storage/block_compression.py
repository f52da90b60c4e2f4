"""ClickHouse's own compression of a body (`compress=1`, `decompress=1`): blocks, each with a checksum.

Requests are unpacked by `storage.request_body`, answers packed by `storage.query_handler`, beside whatever HTTP's own
encodings do. A block is the CityHash128 (of version 1.0.2, which ClickHouse keeps) of what follows: one byte for the
method, the size of the data with these nine bytes and the size of what they hold (UInt32, little endian), the data. The
layout is that of ClickHouse's CompressedWriteBuffer; a body is any number of blocks, and none is an empty body.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import lz4.block
from clickhouse_cityhash.cityhash import CityHash128

from ..events.errors import QueryRefused
from .content_encoding import CANNOT_DECOMPRESS, UNKNOWN_COMPRESSION_METHOD, decompressor, too_large, unreadable

CANNOT_READ_ALL_DATA, CHECKSUM_DOESNT_MATCH, CORRUPTED_DATA = 33, 40, 246

BLOCK_BYTES = 1024**2
"""Of an answer's blocks, before compression: that of a server."""

_NONE, _LZ4, _ZSTD = 0x02, 0x82, 0x90
_CHECKSUM = struct.Struct("<QQ")
_HEADER = struct.Struct("<BII")
_HALF = (1 << 64) - 1


class _Block(NamedTuple):
    method: int
    data: bytes
    plain_size: int


def compress_blocks(body: bytes) -> bytes:
    """A body as LZ4 blocks."""
    return b"".join(_packed(body[start : start + BLOCK_BYTES]) for start in range(0, len(body), BLOCK_BYTES))


def _packed(part: bytes) -> bytes:
    data = bytes(lz4.block.compress(part, store_size=False))
    block = _HEADER.pack(_LZ4, _HEADER.size + len(data), len(part)) + data
    return _checksum(block) + block


def decompress_blocks(body: bytes, limit: int) -> bytes:
    """What blocks of LZ4, ZSTD or no compression hold: at most `limit` bytes, whatever the blocks claim.

    Raises:
        QueryRefused: a block is cut off, damaged, of an unknown method, or they hold more than `limit`.
    """
    plain: list[bytes] = []
    for block in _blocks(body):
        # Before anything is made room for: a size is only a claim.
        if block.plain_size > limit:
            raise too_large(limit)
        plain.append(_unpacked(block))
        limit -= block.plain_size
    return b"".join(plain)


def _blocks(body: bytes) -> Iterator[_Block]:
    start, smallest = 0, _CHECKSUM.size + _HEADER.size
    while start < len(body):
        head = start + _CHECKSUM.size
        if len(body) - start < smallest:
            raise _cut_off(start, smallest, len(body) - start)
        method, size, plain_size = _HEADER.unpack_from(body, head)
        if size < _HEADER.size:
            raise _damaged(start, f"it claims {size} bytes, and its head alone has {_HEADER.size}", CORRUPTED_DATA)
        if len(body) - head < size:
            raise _cut_off(start, size, len(body) - head)
        if _checksum(body[head : head + size]) != body[start:head]:
            raise _damaged(start, "its checksum does not match what follows it", CHECKSUM_DOESNT_MATCH)
        yield _Block(method, body[head + _HEADER.size : head + size], plain_size)
        start = head + size


def _checksum(block: bytes) -> bytes:
    # The library's number has the first of ClickHouse's two halves above the second.
    number = CityHash128(block)
    return _CHECKSUM.pack(number >> 64, number & _HALF)


def _unpacked(block: _Block) -> bytes:
    try:
        plain = _by_method(block)
    except (lz4.block.LZ4BlockError, *unreadable()) as error:
        raise _refusal(f"A compressed block cannot be read: {error}.", CANNOT_DECOMPRESS) from error
    if len(plain) != block.plain_size:
        message = f"A compressed block holds another number of bytes than the {block.plain_size} that it claims."
        raise _refusal(message, CANNOT_DECOMPRESS)
    return plain


def _by_method(block: _Block) -> bytes:
    if block.method == _NONE:
        return block.data
    if block.method == _LZ4:
        return bytes(lz4.block.decompress(block.data, uncompressed_size=block.plain_size))
    zstd = decompressor("zstd") if block.method == _ZSTD else None
    if zstd is None:
        message = f"A block is compressed by method 0x{block.method:02x}: send LZ4 (0x82)."
        raise _refusal(message, UNKNOWN_COMPRESSION_METHOD)
    return bytes(zstd.decompress(block.data, block.plain_size + 1))


def _cut_off(start: int, wanted: int, found: int) -> QueryRefused:
    message = f"The compressed body ends too early: of the block at byte {start}, {found} of {wanted} bytes came."
    return _refusal(message, CANNOT_READ_ALL_DATA)


def _damaged(start: int, why: str, code: int) -> QueryRefused:
    return _refusal(f"The compressed block at byte {start} is damaged: {why}.", code)


def _refusal(message: str, code: int) -> QueryRefused:
    return QueryRefused(f"{message} ({_NAMES[code]})", code)


_NAMES = {
    CANNOT_READ_ALL_DATA: "CANNOT_READ_ALL_DATA",
    CHECKSUM_DOESNT_MATCH: "CHECKSUM_DOESNT_MATCH",
    CORRUPTED_DATA: "CORRUPTED_DATA",
    CANNOT_DECOMPRESS: "CANNOT_DECOMPRESS",
    UNKNOWN_COMPRESSION_METHOD: "UNKNOWN_COMPRESSION_METHOD",
}
