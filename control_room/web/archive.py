"""The archive as many requests at a time ask it: one client each, for a client's session answers one question at a
time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, LifoQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

IDLE = 8
"""Clients that are kept for the next request; more are made where more ask at once, and closed after."""


class ArchivePool:
    """Lends clients; `make` opens one."""

    def __init__(self, make: "Callable[[], Client]") -> None:
        self._make = make
        self._idle: LifoQueue[Client] = LifoQueue(IDLE)

    @contextmanager
    def client(self) -> "Iterator[Client]":
        """A client for this request alone. One with which anything went wrong is not used again."""
        try:
            client = self._idle.get_nowait()
        except Empty:
            client = self._make()
        try:
            yield client
        except BaseException:
            client.close()
            raise
        if self._idle.full():
            client.close()
        else:
            self._idle.put_nowait(client)
