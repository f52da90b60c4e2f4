"""What the ranks of an unchanged script tell each other before there is a run: who has stepped, whose run is open.

Used by `attach.opening`, on threads beside the training. Words stand in the store through which the ranks found each
other, reached by a connection of its own, and are looked for now and then: nothing waits inside of the store, where a
process that ends could not be left in order.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ..ranks.context import Place, place_of, restarts

LOOK_SECONDS = 0.1
IDLE_SECONDS = 0.5
"""Between two looks for a process group, which a data worker of rank 0 never has."""


class Ranks:
    """This rank among the others."""

    def __init__(self, place: Place, store: Any) -> None:
        self.place = place
        self._store = store
        self._prefix = f"pilothouse/attached/{restarts(os.environ)}/"

    def say(self, word: str) -> None:
        self._store.add(self._prefix + word, 1)

    def heard(self, word: str) -> int:
        """How many ranks have said it."""
        return int(self._store.add(self._prefix + word, 0))

    def wait_for(self, word: str, times: int, over: threading.Event, seconds: float = float("inf")) -> bool:
        """Whether it was said so often, within so many seconds and before it is `over`."""
        deadline = time.monotonic() + seconds
        while not over.is_set() and time.monotonic() < deadline:
            if self.heard(word) >= times:
                return True
            over.wait(LOOK_SECONDS)
        return False


def find_ranks() -> Ranks | None:
    """None while this process is alone: torch.distributed is not initialised, or has one rank."""
    dist = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    store = sys.modules["torch.distributed.distributed_c10d"]._get_default_store()
    clone: Callable[[], Any] = getattr(store, "clone", lambda: store)
    return Ranks(Place(dist.get_rank(), dist.get_world_size()), clone())


def hear_of(word: str, then: Callable[[], object], over: threading.Event) -> None:
    """On rank 0 of several, as the launcher says: call `then`, on a thread, when another rank has said this word."""

    def listen() -> None:
        ranks = None
        while ranks is None and not over.wait(IDLE_SECONDS):
            ranks = find_ranks()
        if ranks is not None and ranks.wait_for(word, 1, over):
            then()

    place = place_of(os.environ)
    if place.rank == 0 and place.world_size > 1:
        threading.Thread(target=listen, name="pilothouse-hears", daemon=True).start()
