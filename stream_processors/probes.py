"""Whether a worker lives and is ready, over HTTP, for whoever starts it again and sends it work.

`GET /livez` and `/readyz`: 200, or 503 with the reason. `process` runs it beside the worker, in its event loop: a loop
that hangs does not answer either. There is nothing to steer here, and nothing secret is said.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..events.errors import SettingsInvalid
from .health import fitness

Told = Callable[[], Mapping[str, Any]]


async def answer_probes(address: str, told: Told) -> None:
    """Until cancelled. `told` gives the worker's last words.

    Raises:
        SettingsInvalid: it cannot listen at `address`, HOST:PORT.
    """
    from aiohttp import web

    async def livez(_: web.Request) -> web.Response:
        found = fitness(told(), time.time_ns() // 1_000)
        return web.Response(status=200 if found.live else 503, text=f"{found.why}\n")

    async def readyz(_: web.Request) -> web.Response:
        found = fitness(told(), time.time_ns() // 1_000)
        return web.Response(status=200 if found.ready else 503, text=f"{found.why}\n")

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    host, _, port = address.rpartition(":")
    try:
        try:
            await web.TCPSite(runner, host.strip("[]"), int(port)).start()
        except (OSError, OverflowError) as error:
            raise SettingsInvalid(f"probe_address is {address}, and nothing can listen there: {error}") from error
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
