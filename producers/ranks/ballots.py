"""Words that stand: first-writer-wins registers that all ranks of a run can read, and that never make training wait.

`ranks.agreement` builds the ranks' agreement on them, `ranks.transaction` the all-or-nothing of a rollback. A
register is a key that has no value, or one that never changes again: whoever writes first decides, everybody reads the
same. On one process it is a dictionary; under torch.distributed it is the key-value store through which the ranks found
each other (rank 0's TCPStore, or the launcher's), reached by a thread of its own over a connection of its own: the
training thread only reads a dictionary and fills a queue.

Why no collective: an outstanding gloo all_reduce cannot be aborted, so a rank whose peer died hangs at exit for the
group's whole time-out (seen: 42 s of 40 s); two different collectives that meet end the process; and the last message
of an all_reduce can be lost to one rank alone, so that ranks disagree on whether it happened. A register has none of
the three.
"""

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from ..voice import logger

COMMIT = "commit"
_FAREWELL = "farewell"
_SAID = "farewell/said"


class BallotsLost(Exception):
    """The registers cannot be reached (any more), or did not answer within the deadline."""


class Ballots(Protocol):
    """The registers as one rank sees them. Only `settle` and `wait` block, and never longer than `within` seconds."""

    rank: int
    voters: int
    word_seconds: float
    """How long a word usually takes, at most, to be heard by every rank and answered by all."""

    @property
    def lost(self) -> str:
        """Why the registers are out of reach; empty while they are not."""

    def value(self, key: str) -> str | None:
        """What stands, as far as this rank has heard; asking begins to listen."""

    def post(self, key: str, value: str) -> None:
        """Write, unless something stands already."""

    def agree(self, key: str) -> None:
        """This rank says yes, once. Whoever is the last of all voters to say it writes `COMMIT`."""

    def settle(self, key: str, value: str, within: float) -> str:
        """Write unless something stands, and give what stands. Raises BallotsLost."""

    def wait(self, key: str, within: float) -> str | None:
        """What stands, waiting for it; None when nothing does after `within` seconds. Raises BallotsLost."""

    def send(self, key: str, text: str) -> None:
        """Leave a letter for the one rank that will `receive` it: not a register, and gone when it was read."""

    def receive(self, key: str, within: float) -> str | None:
        """Fetch a letter, waiting for it; None when none came within `within` seconds. Raises BallotsLost."""

    def close(self, within: float) -> None:
        """Leave. Afterwards nothing is heard and nothing written."""


class LocalBallots:
    """The registers of a run of one process: a dictionary, and every answer at once."""

    def __init__(self) -> None:
        self.rank = 0
        self.voters = 1
        self.word_seconds = 0.0
        self._stands: dict[str, str] = {}

    @property
    def lost(self) -> str:
        return ""

    def value(self, key: str) -> str | None:
        return self._stands.get(key)

    def post(self, key: str, value: str) -> None:
        self._stands.setdefault(key, value)

    def agree(self, key: str) -> None:
        self.post(key, COMMIT)

    def settle(self, key: str, value: str, within: float) -> str:  # noqa: ARG002  # the Protocol's shape; nothing waits here
        return self._stands.setdefault(key, value)

    def wait(self, key: str, within: float) -> str | None:  # noqa: ARG002  # nobody else could write while we wait
        return self._stands.get(key)

    def send(self, key: str, text: str) -> None:
        self.post(key, text)

    def receive(self, key: str, within: float) -> str | None:  # noqa: ARG002  # as above
        return self._stands.pop(key, None)

    def close(self, within: float) -> None:
        pass


class StoreBallots:
    """The registers in a torch.distributed store, served by one thread that polls the few keys somebody asked for.

    `connect` gives that thread a store of its own (a clone, with its own connection: a wait elsewhere must not hold us
    up). It may block: connecting to the store of a rank that has died tries for the whole time-out of the group, half
    an hour by default. The poll interval grows with the number of ranks, so that 10,000 of them ask rank 0's store some
    10,000 times a second.
    """

    def __init__(self, connect: Callable[[], Any], run_key: str, rank: int, voters: int) -> None:
        self.rank = rank
        self.voters = voters
        self.poll_seconds = 0.02 + voters * 1e-4
        self.word_seconds = 5 * self.poll_seconds
        self._connect = connect
        self._store: Any = None
        self._prefix = f"pilothouse/{run_key}/"
        self._heard: dict[str, str] = {}
        self._watched: set[str] = set()
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._changed = threading.Condition()
        self._lost = ""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="pilothouse-ballots", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> str:
        return self._lost

    def value(self, key: str) -> str | None:
        heard = self._heard.get(key)
        if heard is None:
            self._watched.add(key)
        return heard

    def post(self, key: str, value: str) -> None:
        self._work.put(lambda: self._write(key, value))

    def agree(self, key: str) -> None:
        self._work.put(lambda: self._say_yes(key))

    def settle(self, key: str, value: str, within: float) -> str:
        self.post(key, value)
        standing = self.wait(key, within)
        if standing is None:
            raise BallotsLost(f"no answer about {key} within {within:g} s")
        return standing

    def wait(self, key: str, within: float) -> str | None:
        deadline = time.monotonic() + within
        with self._changed:
            while (standing := self.value(key)) is None:
                if self._lost:
                    raise BallotsLost(self._lost)
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(min(left, 1.0))
        return standing

    def send(self, key: str, text: str) -> None:
        self._work.put(lambda: self._store.set(self._prefix + key, text))

    def receive(self, key: str, within: float) -> str | None:
        text = self.wait(key, within)
        self._watched.discard(key)
        if self._heard.pop(key, None) is not None:
            self._work.put(lambda: self._store.delete_key(self._prefix + key))
        return text

    def close(self, within: float) -> None:
        """Leave in order: rank 0, whose store may end with it, tells the others to stop asking, and waits a moment."""
        deadline = time.monotonic() + within
        if self.rank == 0 and not self._lost and not self._closed.is_set():
            self._work.put(self._bid_farewell)
            self._poll_until(lambda: _SAID in self._heard, within)
        self._closed.set()
        self._work.put(lambda: None)
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _poll_until(self, done: Callable[[], bool], within: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: done() or bool(self._lost), within)

    # -------------------------------------------------------------------------------- below: on the thread

    def _serve(self) -> None:
        try:
            self._store = self._connect()
            while not self._closed.is_set():
                self._work_off()
                self._listen()
            self._work_off()
        except Exception as error:  # noqa: BLE001  # whatever the store raises (its errors differ by version) means the same
            self._lose(f"{type(error).__name__}: {(str(error).splitlines() or ['no reason given'])[0]}")

    def _work_off(self) -> None:
        try:
            task = self._work.get(timeout=self.poll_seconds)
            while True:
                task()
                task = self._work.get_nowait()
        except Empty:
            pass

    def _listen(self) -> None:
        self._ask((*tuple(self._watched), _FAREWELL))
        if _FAREWELL in self._heard and self.rank != 0:
            # What rank 0 wrote before its farewell may have come between our two questions.
            self._ask(tuple(self._watched))
            self._count("farewells", 1)
            self._closed.set()
            self._lose("rank 0 has left the run")

    def _ask(self, keys: tuple[str, ...]) -> None:
        for key in keys:
            if self._store.check([self._prefix + key]):
                self._hear(key, self._store.get(self._prefix + key).decode())

    def _hear(self, key: str, value: str) -> None:
        with self._changed:
            self._heard[key] = value
            self._watched.discard(key)
            self._changed.notify_all()

    def _write(self, key: str, value: str) -> None:
        self._hear(key, self._store.compare_set(self._prefix + key, "", value).decode())

    def _say_yes(self, key: str) -> None:
        if self._count(f"{key}/yes", 1) == self.voters:
            self._write(key, COMMIT)

    def _bid_farewell(self) -> None:
        self._store.set(self._prefix + _FAREWELL, "now")
        deadline = time.monotonic() + 2.0
        while self._count("farewells", 0) < self.voters - 1 and time.monotonic() < deadline:
            time.sleep(self.poll_seconds)
        self._hear(_SAID, "all heard it, or had their time")

    def _count(self, key: str, by: int) -> int:
        return int(self._store.add(self._prefix + key + "/count", by))

    def _lose(self, reason: str) -> None:
        with self._changed:
            self._lost = reason
            self._changed.notify_all()
        if not self._closed.is_set():
            logger.warning("pilothouse: the ranks can no longer agree (%s); steering is over, training goes on", reason)


def find_ballots(run_key: str, rank: int, world_size: int) -> Ballots:
    """The registers of this run: torch.distributed's store where there are several ranks, else a dictionary of our own.

    `run_key` keeps runs and attempts apart that share one store; every rank must give the same.

    Raises:
        BallotsLost: there are several ranks, and no store that they share.
    """
    if world_size == 1:
        return LocalBallots()
    try:
        from torch.distributed.distributed_c10d import _get_default_store

        store = _get_default_store()
    except (ImportError, AttributeError, ValueError, RuntimeError) as error:
        raise BallotsLost(
            f"{world_size} ranks, but torch.distributed offers no store to agree through: {error}"
        ) from error
    return StoreBallots(getattr(store, "clone", lambda: store), run_key, rank, world_size)
