"""Answers the endpoint's requests: who asks, what they ask, on which thread it runs, and when it is cancelled.

One event loop reads and writes; the engine's work is on two sets of threads, one for inserts and one for the rest, so
that a long SELECT never delays an insert. What a request means is `storage.http_protocol`'s, how it runs
`storage.session`'s; `storage.endpoint` makes and closes this.
"""

import asyncio
import hmac
import logging
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from aiohttp import web

from ..events.errors import QueryRefused
from . import http_protocol as http
from . import kill_query
from .block_compression import compress_blocks
from .content_encoding import encode_body
from .endpoint_config import FULL_USER, READER_USER, EndpointConfig
from .engine import Engine
from .request_body import read_body
from .session import Rights
from .session import run as run_session
from .statement import carries_rows, kills_queries

ABORTED, CANCELLED, SAME_ID_RUNNING, TOO_MANY_QUERIES = 236, 394, 216, 202

_KILL_AGAIN_SECONDS = 0.1
_SHOWN_SQL = 10_000  # bytes of a running statement that a KILL's condition sees

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Work:
    """A statement on its thread (or waiting for one), and its end as the event loop sees it."""

    query_id: str
    user: str
    sql: bytes
    since: float
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
        self._finding = ThreadPoolExecutor(1, "find")  # a KILL's condition may be slow; killing must not wait for it
        self._running: dict[str, _Work] = {}
        self._kills: set[asyncio.Task[None]] = set()
        self._requests = 0
        self._stopping = False

    async def handle(self, request: web.Request) -> web.Response:
        """One request: its answer, or its error in ClickHouse's words."""
        plain = _plain_answer(request)
        if plain is not None:
            return plain
        query_id = request.query.get("query_id") or request.headers.get("X-ClickHouse-Query-Id") or str(uuid.uuid4())
        packing = http.read_packing(request.query, request.headers)
        self._requests += 1
        try:
            answer = await self._answer(request, query_id)
            return await _response(answer.body, packing, http.answer_headers(answer, query_id))
        except QueryRefused as refused:
            body, status = http.error_body(refused, self._engine.version), http.error_status(refused.code)
            # As a server does: whoever is not let in is told so before it is known how the answer is wanted.
            packing = http.Packing() if status == 401 else packing
            return await _response(body, packing, http.error_headers(refused, query_id), status)
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
        for executor in (self._queries, self._inserts, self._finding, self._control):
            await asyncio.to_thread(executor.shutdown)

    async def _answer(self, request: web.Request, query_id: str) -> http.Answer:
        rights = self._authenticate(request)
        self._admit()
        fields, body = await read_body(request, self._config.max_body_bytes)
        query = {**request.query, **fields, "query_id": query_id}
        asked = http.read_request(request.method == "GET", query, request.headers, body)
        return await (self._kill_queries if kills_queries(asked.sql) else self._run)(asked, rights)

    def _authenticate(self, request: web.Request) -> Rights:
        given = http.read_credentials(request.headers, request.query)
        users = {
            FULL_USER: (self._config.full_token, None),
            READER_USER: (self._config.reader_token, self._config.reader_limits),
        }
        for user, (token, limits) in users.items():
            fits = hmac.compare_digest(given.secret.encode(errors="replace"), token.encode())
            if fits and given.user in ("", user):
                return Rights(user, limits, self._config.max_result_bytes)
        raise http.authentication_failed(given.user)

    def _admit(self) -> None:
        if self._stopping:
            raise QueryRefused("The archive is being stopped: try again when it is up. (ABORTED)", ABORTED)
        if self._requests > self._config.max_requests:
            message = f"Too many simultaneous queries: {self._config.max_requests} requests are being answered."
            raise QueryRefused(f"{message} (TOO_MANY_SIMULTANEOUS_QUERIES)", TOO_MANY_QUERIES)

    async def _run(self, asked: http.Asked, rights: Rights) -> http.Answer:
        """Run on a thread. A client that goes away ends its query, but not its insert: that one is complete."""
        await self._replace_running(asked, rights)
        self._admit()
        work = self._start(asked, rights)
        try:
            return await asyncio.shield(work.done)
        except asyncio.CancelledError as cancelled:
            if work.job.cancelled() and not _client_went_away():
                raise QueryRefused(
                    "Query was cancelled before it began. (QUERY_WAS_CANCELLED)", CANCELLED
                ) from cancelled
            if not work.inserts:
                self._kill(work)
            raise

    def _start(self, asked: http.Asked, rights: Rights) -> _Work:
        inserts = carries_rows(asked.sql)
        job = (self._inserts if inserts else self._queries).submit(run_session, self._engine, asked, rights)
        work = _Work(
            query_id=asked.query_id,
            user=rights.user,
            sql=asked.sql[:_SHOWN_SQL],
            since=time.monotonic(),
            inserts=inserts,
            job=job,
            done=asyncio.wrap_future(job),
        )
        self._running[work.query_id] = work
        work.done.add_done_callback(lambda _: self._forget(work))
        return work

    async def _replace_running(self, asked: http.Asked, rights: Rights) -> None:
        """An id runs once at a time. `replace_running_query` ends the one before, if it is the same user's."""
        running = self._running.get(asked.query_id)
        if running is not None and asked.replaces_for is not None and running.user == rights.user:
            self._kill(running)
            await asyncio.wait([running.done], timeout=asked.replaces_for)
        if asked.query_id in self._running:
            message = f"Query with id = {asked.query_id} is already running."
            raise QueryRefused(f"{message} (QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING)", SAME_ID_RUNNING)

    async def _kill_queries(self, asked: http.Asked, rights: Rights) -> http.Answer:
        """KILL QUERY: never on the threads of queries, for those may be what is to be killed."""
        on_thread, now = asyncio.get_running_loop().run_in_executor, time.monotonic()
        running = [
            kill_query.Running(work.query_id, work.user, work.sql.decode(errors="replace"), now - work.since)
            for work in self._running.values()
        ]
        asker = kill_query.Asker(self._engine, asked, rights)
        kill = await on_thread(self._finding, asker.find, running)
        hit = [self._running[each.query_id] for each in kill.chosen if each.query_id in self._running]
        if kill.mode != kill_query.TEST:
            for work in hit:
                self._kill(work)
        if hit and kill.mode == kill_query.SYNC:
            await asyncio.wait([work.done for work in hit])
        return await on_thread(self._finding, asker.report, kill)

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


def _client_went_away() -> bool:
    """Of two reasons for a cancelled wait: our own task was cancelled, and not what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _response(body: bytes, packing: http.Packing, headers: dict[str, str], status: int = 200) -> web.Response:
    payload, encoding = await asyncio.to_thread(_packed, body, packing)
    headers |= {"Content-Encoding": encoding} if encoding else {}
    return web.Response(body=payload, status=status, headers=headers)


def _packed(body: bytes, packing: http.Packing) -> tuple[bytes, str]:
    """An answer's bytes as they were asked for, and their Content-Encoding."""
    return encode_body(compress_blocks(body) if packing.in_blocks else body, packing.accepts)
