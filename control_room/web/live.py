"""What is told live: which runs have stirred. One look at the archive a second, however many pages are open.

A page asks anew for what it shows when its run is named; so what it shows is always the archive's whole answer, and a
page that slept through a minute has missed nothing.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress

from ...events import plain_json

LOOK_SECONDS = 1.0
ALIVE_SECONDS = 15.0
"""A silent connection is cut by what lies between; a word keeps it, and tells the page that it stands."""
MOST_LISTENERS = 200

Pulse = Mapping[str, tuple[int, int]]
"""By run, when it was last heard of and its last step."""
log = logging.getLogger(__name__)


class Heart:
    """Looks while anybody listens. `look` is asked in a thread; what it raises is told as `lost`, and asked again."""

    def __init__(self, look: Callable[[], Pulse]) -> None:
        self._look = look
        self._listeners: set[asyncio.Queue[str | None]] = set()
        self._ended = False
        self._beating: asyncio.Task[None] | None = None

    @property
    def is_full(self) -> bool:
        return len(self._listeners) >= MOST_LISTENERS

    async def listen(self) -> AsyncIterator[str]:
        """Server-sent events, until the listener goes away or `end` is said."""
        told: asyncio.Queue[str | None] = asyncio.Queue(maxsize=16)
        self._listeners.add(told)
        if self._beating is None or self._beating.done():
            self._beating = asyncio.create_task(self._beat())
        try:
            yield "retry: 2000\n\n"
            while not self._ended:
                try:
                    line = await asyncio.wait_for(told.get(), ALIVE_SECONDS)
                except TimeoutError:
                    line = "event: alive\ndata: {}\n\n"
                if line is not None:
                    yield line
        finally:
            self._listeners.discard(told)

    def end(self) -> None:
        """Let every listener go: a server that stops need not wait for pages to be closed. They come again by
        themselves."""
        self._ended = True
        for listener in self._listeners:
            with suppress(asyncio.QueueFull):  # it has something to read, and sees the end behind it
                listener.put_nowait(None)

    async def _beat(self) -> None:
        before: Pulse | None = None
        while self._listeners and not self._ended:
            try:
                now = await asyncio.to_thread(self._look)
            except Exception as error:  # noqa: BLE001  # whatever it is, pages must hear of it, and the next look may do
                log.warning("the archive does not answer: %s", error)
                self._tell("lost", {"why": str(error)[:500]})
                before = None
            else:
                stirred = list(now) if before is None else stirred_between(before, now)
                if stirred or before is None:
                    self._tell("stirred", {"runs": stirred})
                before = now
            await asyncio.sleep(LOOK_SECONDS)

    def _tell(self, event: str, data: Mapping[str, object]) -> None:
        line = f"event: {event}\ndata: {plain_json.dumps(data)}\n\n"
        for listener in self._listeners:
            with suppress(asyncio.QueueFull):  # a page so slow hears of the next
                listener.put_nowait(line)


def stirred_between(before: Pulse, now: Pulse) -> list[str]:
    """The runs that are not as they were."""
    return [run_id for run_id, place in now.items() if before.get(run_id) != place]
