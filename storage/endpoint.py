"""The embedded archive's address: ClickHouse's HTTP interface on loopback, over the engine in this process.

`pilothouse up` runs it as a child (`run`), spawned, never forked: the engine does not survive a fork. The CLI, curl and
clickhouse-connect talk to it as to a ClickHouse server; the archiver inserts through it. This module is its life from
opening the engine to closing it; requests are answered by `storage.query_handler`.
"""

import asyncio
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from ..events.errors import SettingsInvalid
from .endpoint_config import FULL_USER, READER_USER, EndpointConfig
from .engine import DATABASE, Engine
from .query_handler import QueryHandler

__all__ = ["DATABASE", "FULL_USER", "READER_USER", "EndpointConfig", "run", "serve"]

_LONGEST_LINE = 1024**2  # of a request's head: SQL and parameters may travel in the URL


def run(config: EndpointConfig, ready: Callable[[int], None]) -> None:
    """The whole life of an endpoint process: until SIGTERM or SIGINT, and then until running inserts are done.

    `ready` is called with the bound port once requests are answered.

    Raises:
        DirectoryInUse: another process owns the data directory.
        SettingsInvalid: the directory or the address cannot be used.
    """
    # The archive's times are UTC; the engine takes its zone from here when it is loaded.
    os.environ["TZ"] = "UTC"
    time.tzset()
    asyncio.run(_run_until_signalled(config, ready))


async def _run_until_signalled(config: EndpointConfig, ready: Callable[[int], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(config, ready, stop)


async def serve(config: EndpointConfig, ready: Callable[[int], None], stop: asyncio.Event) -> None:
    """Open the engine, answer requests until `stop`, let running inserts end, close the engine. Raises as `run`."""
    engine = await asyncio.to_thread(Engine.open, config.data_dir, config.key)
    try:
        handler = QueryHandler(config, engine)
        try:
            async with _listening(config, handler) as port:
                ready(port)
                await stop.wait()
        finally:
            await handler.close()
    finally:
        await asyncio.to_thread(engine.close)


@asynccontextmanager
async def _listening(config: EndpointConfig, handler: QueryHandler) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler.handle)
    runner = web.AppRunner(
        app,
        access_log=None,  # SQL and tokens may stand in the URL
        auto_decompress=False,
        handler_cancellation=True,
        max_line_size=_LONGEST_LINE,
        max_field_size=_LONGEST_LINE,
        shutdown_timeout=config.stop_seconds,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, config.host, config.port, ssl_context=_tls(config))
        try:
            await site.start()
        except OSError as error:
            raise SettingsInvalid(f"the archive cannot listen on {config.host}:{config.port}: {error}") from error
        yield int(runner.addresses[0][1])
        await site.stop()
        await handler.drain()
    finally:
        await runner.cleanup()


def _tls(config: EndpointConfig) -> ssl.SSLContext | None:
    """
    Raises:
        SettingsInvalid: the certificate or its key cannot be used.
    """
    if config.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(config.certificate, config.certificate_key)
    except OSError as error:
        raise SettingsInvalid(f"the archive's certificate {config.certificate} cannot be used: {error}") from error
    return context
