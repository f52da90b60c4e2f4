"""A request's body as bytes or as a form's fields, with every compression of it undone and bounded.

Called by `storage.query_handler`; what the bytes mean is `storage.http_protocol`'s.
"""

import asyncio

from aiohttp import BodyPartReader, web

from ..events.errors import QueryRefused
from . import http_protocol as http
from .block_compression import decompress_blocks
from .content_encoding import decode_body, too_large


async def read_body(request: web.Request, limit: int) -> tuple[dict[str, str], bytes]:
    """A form's fields, or the body with its Content-Encoding and then its blocks (`decompress=1`) undone.

    Raises:
        QueryRefused: it is over `limit` bytes, packed or unpacked, or is not what its head says.
    """
    if request.content_length is not None and request.content_length > limit:
        raise too_large(limit)
    if request.content_type == "multipart/form-data":
        return await _read_form(request, limit), b""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise too_large(limit)
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    in_blocks = http.is_on(request.query, "decompress")
    return {}, await asyncio.to_thread(_unpack, bytes(body), encoding, in_blocks, limit)


def _unpack(body: bytes, encoding: str, in_blocks: bool, limit: int) -> bytes:
    plain = decode_body(body, encoding, limit)
    return decompress_blocks(plain, limit) if in_blocks else plain


async def _read_form(request: web.Request, limit: int) -> dict[str, str]:
    """clickhouse-connect and JDBC send long parameters as a form."""
    fields: dict[str, str] = {}
    left = limit
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader) or part.name is None or part.filename is not None:
            message = "External data is not supported: insert it into a table first. (NOT_IMPLEMENTED)"
            raise QueryRefused(message, http.NOT_IMPLEMENTED)
        value = bytearray()
        while chunk := await part.read_chunk():
            value += chunk
            left -= len(chunk)
            if left < 0:
                raise too_large(limit)
        fields[part.name] = value.decode(errors="surrogateescape")
    return fields
