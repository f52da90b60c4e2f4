"""Answers the endpoint's requests: who asks, what they ask, on which thread it runs, and when it is cancelled.

One event loop reads and writes; the engine's work is on two sets of threads, one for inserts and one for the rest, so
that a long SELECT never delays an insert. What a request means is `storage.http_protocol`'s, how it runs
`storage.session`'s; `storage.endpoint` makes and closes this.
"""

import asyncio
import hmac
import logging
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from aiohttp import BodyPartReader, web

from ..events.errors import QueryRefused
from . import http_protocol as http
from .content_encoding import decode_body, encode_body, too_large
from .endpoint_config import FULL_USER, READER_USER, EndpointConfig
from .engine import Engine
from .session import Rights
from .session import run as run_session
from .statement import carries_rows

ABORTED, SAME_ID_RUNNING, TOO_MANY_QUERIES = 236, 216, 202

_KILL_AGAIN_SECONDS = 0.1

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Work:
    """A statement on its thread (or waiting for one), and its end as the event loop sees it."""

    query_id: str
    inserts: bool
    job: "Future[http.Answer]"
    done: "asyncio.Future[http.Answer]"


class QueryHandler:
    """Belongs to one event loop. `drain`, then `close`, end it."""

    def __init__(self, config: EndpointConfig, engine: Engine) -> None:
        self._config = config
        self._engine = engine
        self._queries = ThreadPoolExecutor(config.query_handles, "query")
        self._inserts = ThreadPoolExecutor(config.insert_handles, "insert")
        self._control = ThreadPoolExecutor(1, "kill")
        self._running: dict[str, _Work] = {}
        self._kills: set[asyncio.Task[None]] = set()
        self._requests = 0
        self._stopping = False

    async def handle(self, request: web.Request) -> web.Response:
        """One request: its answer, or its error in ClickHouse's words."""
        plain = _plain_answer(request)
        if plain is not None:
            return plain
        query_id = request.query.get("query_id") or str(uuid.uuid4())
        self._requests += 1
        try:
            return await self._answer(request, query_id)
        except QueryRefused as refused:
            body = http.error_body(refused, self._engine.version)
            status = http.error_status(refused.code)
            return web.Response(body=body, status=status, headers=http.error_headers(refused, query_id))
        finally:
            self._requests -= 1

    async def drain(self) -> None:
        """Take no new request, cancel running queries, and wait for running inserts."""
        self._stopping = True
        running = list(self._running.values())
        for work in running:
            if not work.inserts:
                self._kill(work)
        if running:
            _, late = await asyncio.wait([work.done for work in running], timeout=self._config.stop_seconds)
            if late:
                logger.warning("%d statements still run %g s after the stop", len(late), self._config.stop_seconds)

    async def close(self) -> None:
        """Wait until no thread is in the engine any more."""
        for executor in (self._queries, self._inserts, self._control):
            await asyncio.to_thread(executor.shutdown)

    async def _answer(self, request: web.Request, query_id: str) -> web.Response:
        rights = self._authenticate(request)
        self._admit(query_id)
        fields, body = await _read_body(request, self._config.max_body_bytes)
        query = {**request.query, **fields, "query_id": query_id}
        asked = http.read_request(request.method == "GET", query, request.headers, body)
        answer = await self._run(asked, rights)
        accepted = request.headers.get("Accept-Encoding", "") if asked.compress_answer else ""
        payload, encoding = await asyncio.to_thread(encode_body, answer.body, accepted)
        headers = http.answer_headers(answer, query_id)
        return web.Response(body=payload, headers=headers | ({"Content-Encoding": encoding} if encoding else {}))

    def _authenticate(self, request: web.Request) -> Rights:
        given = http.read_credentials(request.headers, request.query)
        users = {
            FULL_USER: (self._config.full_token, None),
            READER_USER: (self._config.reader_token, self._config.reader_limits),
        }
        for user, (token, limits) in users.items():
            fits = hmac.compare_digest(given.secret.encode(errors="replace"), token.encode())
            if fits and given.user in ("", user):
                return Rights(limits, self._config.max_result_bytes)
        raise http.authentication_failed(given.user)

    def _admit(self, query_id: str) -> None:
        if self._stopping:
            raise QueryRefused("The archive is being stopped: try again when it is up. (ABORTED)", ABORTED)
        if self._requests > self._config.max_requests:
            message = f"Too many simultaneous queries: {self._config.max_requests} requests are being answered."
            raise QueryRefused(f"{message} (TOO_MANY_SIMULTANEOUS_QUERIES)", TOO_MANY_QUERIES)
        if query_id in self._running:
            message = f"Query with id = {query_id} is already running."
            raise QueryRefused(f"{message} (QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING)", SAME_ID_RUNNING)

    async def _run(self, asked: http.Asked, rights: Rights) -> http.Answer:
        """Run on a thread. A client that goes away ends its query, but not its insert: that one is complete."""
        self._admit(asked.query_id)
        inserts = carries_rows(asked.sql)
        executor = self._inserts if inserts else self._queries
        job = executor.submit(run_session, self._engine, asked, rights)
        work = _Work(asked.query_id, inserts, job, asyncio.wrap_future(job))
        self._running[work.query_id] = work
        work.done.add_done_callback(lambda _: self._forget(work))
        try:
            return await asyncio.shield(work.done)
        except asyncio.CancelledError:
            if not work.inserts:
                self._kill(work)
            raise

    def _forget(self, work: _Work) -> None:
        del self._running[work.query_id]
        if not work.done.cancelled():
            work.done.exception()  # its client may have gone: nobody else will ask for it

    def _kill(self, work: _Work) -> None:
        task = asyncio.ensure_future(self._kill_until_done(work))
        self._kills.add(task)
        task.add_done_callback(self._kills.discard)

    async def _kill_until_done(self, work: _Work) -> None:
        """A statement that waits for its thread is dropped; one about to start is missed by KILL, so ask again."""
        work.job.cancel()
        while not work.job.done():
            kill = asyncio.get_running_loop().run_in_executor(self._control, self._engine.kill, work.query_id)
            await asyncio.wait([kill])
            await asyncio.wait([work.done], timeout=_KILL_AGAIN_SECONDS)


def _plain_answer(request: web.Request) -> web.Response | None:
    """What needs neither a token nor the engine: the health checks, and what is not here."""
    if request.path == "/ping":
        return web.Response(text="Ok.\n")
    if request.path != "/":
        text = f"There is no {request.path} here: send queries to /, health checks to /ping.\n"
        return web.Response(status=404, text=text)
    if request.method in ("GET", "HEAD") and "query" not in request.query:
        return web.Response(text="Ok.\n")
    if request.method not in ("GET", "POST"):
        return web.Response(status=405, text="Queries come by GET or POST.\n", headers={"Allow": "GET, POST"})
    return None


async def _read_body(request: web.Request, limit: int) -> tuple[dict[str, str], bytes]:
    """A form's fields, or the body with its Content-Encoding undone."""
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
    return {}, await asyncio.to_thread(decode_body, bytes(body), encoding, limit)


async def _read_form(request: web.Request, limit: int) -> dict[str, str]:
    """clickhouse-connect sends long parameters as a form."""
    fields: dict[str, str] = {}
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader) or part.name is None or part.filename is not None:
            message = "External data is not supported: insert it into a table first. (NOT_IMPLEMENTED)"
            raise QueryRefused(message, http.NOT_IMPLEMENTED)
        value = bytearray()
        while chunk := await part.read_chunk():
            value += chunk
            limit -= len(chunk)
            if limit < 0:
                raise too_large(limit)
        fields[part.name] = value.decode(errors="surrogateescape")
    return fields
