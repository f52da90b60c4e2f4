"""Whether a worker lives and is ready, over HTTP, for whoever starts it again and sends it work; and for Prometheus.

`GET /livez` and `/readyz`: 200, or 503 with the reason. `GET /metrics`: what `pilothouse health` knows, by the names
under which the control room tells it of the workers whose data directory it sees. `process` runs it beside the worker,
in its event loop: a loop that hangs does not answer either. There is nothing to steer here, and nothing secret is said.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
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

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text="".join(figures(told(), time.time_ns() // 1_000)))

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)])
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


def figures(told: Mapping[str, Any], now: int) -> Iterator[str]:
    """A worker's last words at `now` (microseconds UTC) in Prometheus' text format; nothing before it has said any."""
    if not told:
        return
    found = fitness(told, now)
    labels = f'{{slot="{told["slot"]}",worker="{told["role"]}"}}'  # a slot is letters, digits, _ and -
    for name, kind, words, value in (
        ("live", "gauge", "1: it says that it lives", float(found.live)),
        ("ready", "gauge", "1: it does its work", float(found.ready)),
        ("told_seconds", "gauge", "Seconds since its last word", max(0.0, (now - told["at"]) / 1e6)),
        ("records_total", "counter", "Records it has read", float(told["records"])),
        ("behind_records", "gauge", "Records it has not read yet", float(sum(told["lag"].values()))),
    ):
        yield f"# HELP pilothouse_worker_{name} {words}\n# TYPE pilothouse_worker_{name} {kind}\n"
        yield f"pilothouse_worker_{name}{labels} {value}\n"
