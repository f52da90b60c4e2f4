"""A way to the log on which records come twice, late, in another order, cut off and spoilt. The same one for each seed.

A spoilt record comes beside the good one, or, rarely, in its place: then it is lost, and the dead letter explains it.
"""

import random
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any

from pilothouse.events.union import AnyEvent
from pilothouse.tests.dying_worker import Feed

NEVER_MSGPACK = b"\xc1"
HELD = 12
"""So many records of others overtake one that is delayed."""
CHANCES = {"twice": 0.05, "again_later": 0.03, "overtaken": 0.02, "cut": 0.02, "spoilt": 0.02, "cut_for_good": 0.004}


class DisorderlyFeed(Feed):
    """`done` counts what was done to how many records."""

    def __init__(self, address: str, seed: int = 7) -> None:
        super().__init__(address)
        self.done: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._held: deque[tuple[int, Callable[[], None]]] = deque()
        self._count = 0
        self.orderly = False

    def send(self, event: AnyEvent, topic: str, partition: int) -> None:
        lost = self.done["cut_for_good"]
        super().send(event, topic, partition)
        if self.done["cut_for_good"] > lost:
            self.sent.discard(event.event_id)

    def send_bytes(self, topic: str, partition: int, body: bytes, **more: Any) -> None:
        send = partial(super().send_bytes, topic, partition, body, **more)
        self._count += 1
        while self._held and (self.orderly or self._held[0][0] <= self._count):
            self._held.popleft()[1]()
        what = "" if self.orderly else self._drawn()
        if what:
            self.done[what] += 1
        match what:
            case "twice":
                send()
            case "again_later" | "overtaken":
                self._held.append((self._count + HELD, send))
            case "cut" | "cut_for_good":
                super().send_bytes(topic, partition, body[: len(body) // 2], **more)
            case "spoilt":
                super().send_bytes(topic, partition, NEVER_MSGPACK + body[1:], **more)
            case _:
                pass
        if what not in ("overtaken", "cut_for_good"):
            send()

    def settle(self) -> None:
        """Deliver what is still on its way; from now on the way is a good one."""
        self.orderly = True
        while self._held:
            self._held.popleft()[1]()

    def _drawn(self) -> str:
        left = self._chance.random()
        for what, share in CHANCES.items():
            left -= share
            if left < 0:
                return what
        return ""
