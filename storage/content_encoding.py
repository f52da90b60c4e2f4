"""Compressed HTTP bodies: what clickhouse-connect, curl and browsers send and accept.

`storage.query_handler` decodes requests and encodes answers with it (ClickHouse's own compression is
`storage.block_compression`). gzip and deflate are always there; lz4 (frames) and
zstd where their packages are, which clients learn by negotiation: an unknown request encoding is a clear refusal.
"""

import gzip
import importlib
import zlib
from typing import Any

from ..events.errors import QueryRefused

UNKNOWN_COMPRESSION_METHOD, CANNOT_DECOMPRESS, TOO_LARGE = 89, 271, 229

PIECE = 8_192
"""Bytes that are undone at once: what a frame leaves of them is handed on, and a body may be of many small frames."""

_PACKAGES = {"lz4": ("lz4.frame",), "zstd": ("compression.zstd", "backports.zstd")}


def decode_body(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo a request's Content-Encoding; at most `limit` bytes may come out.

    Raises:
        QueryRefused: the encoding is not known here, the bytes are not in it, or they hold more than `limit`.
    """
    if encoding in ("", "identity"):
        return body
    if decompressor(encoding) is None:
        message = f"Content-Encoding '{encoding}' is not known here: send gzip, deflate, or nothing compressed."
        raise QueryRefused(f"{message} (UNKNOWN_COMPRESSION_METHOD)", UNKNOWN_COMPRESSION_METHOD)
    try:
        return _decoded(body, encoding, limit)
    except unreadable() as error:
        message = f"The body is not {encoding}, as its Content-Encoding says: {error}. (CANNOT_DECOMPRESS)"
        raise QueryRefused(message, CANNOT_DECOMPRESS) from error


def _decoded(body: bytes, encoding: str, limit: int) -> bytes:
    """All frames of it: clickhouse-connect sends each of an insert's blocks (2 MB) as one of its own."""
    plain, at, opened = bytearray(), 0, None
    while at < len(body):
        opened = opened or decompressor(encoding)
        piece = body[at : at + PIECE]
        plain += opened.decompress(piece, limit + 1 - len(plain))
        if len(plain) > limit:
            raise too_large(limit)
        at += len(piece)
        if opened.eof:
            at -= len(opened.unused_data or b"")
            opened = None
    if opened is not None or not body:
        raise QueryRefused(f"The {encoding} body ends too early. (CANNOT_DECOMPRESS)", CANNOT_DECOMPRESS)
    return bytes(plain)


def too_large(limit: int) -> QueryRefused:
    """The refusal of a body over `limit` bytes."""
    return QueryRefused(f"The request body is over {limit} bytes: send smaller ones. (QUERY_IS_TOO_LARGE)", TOO_LARGE)


def encode_body(body: bytes, accepted: str) -> tuple[bytes, str]:
    """Compress an answer, be it small or empty, by the first encoding of an Accept-Encoding header that is known here.

    Returns the bytes and their Content-Encoding ("" where they are as they were). ClickHouse's Java client takes every
    answer to be compressed when it asked for that.
    """
    for offer in accepted.split(","):
        name, _, weight = offer.strip().partition(";")
        packed = None if weight.replace(" ", "") in ("q=0", "q=0.0") else _compress(body, name.strip().lower())
        if packed is not None:
            return packed, name.strip().lower()
    return body, ""


def _compress(body: bytes, encoding: str) -> bytes | None:
    match encoding:
        case "gzip":
            return gzip.compress(body, 3, mtime=0)
        case "deflate":
            return zlib.compress(body, 3)
        case "lz4" | "zstd":
            package = _package(encoding)
            return bytes(package.compress(body)) if package else None
        case _:
            return None


def decompressor(encoding: str) -> Any:
    """What undoes an encoding, by `decompress(data, max_length)`; None where it is not known here."""
    match encoding:
        case "gzip" | "x-gzip":
            return zlib.decompressobj(wbits=31)
        case "deflate":
            return zlib.decompressobj()
        case "lz4":
            package = _package("lz4")
            return package.LZ4FrameDecompressor() if package else None
        case "zstd":
            package = _package("zstd")
            return package.ZstdDecompressor() if package else None
        case _:
            return None


def unreadable() -> tuple[type[Exception], ...]:
    """What decompressors raise at bytes that are not theirs."""
    zstd = _package("zstd")
    return (OSError, RuntimeError, ValueError, zlib.error, zstd.ZstdError if zstd else ValueError)


def _package(encoding: str) -> Any:
    for name in _PACKAGES[encoding]:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None
