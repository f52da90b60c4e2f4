"""How the ranks of one launch learn which run and attempt they are: rank 0 says it, the others ask.

Called by `producers.beginning`, through the store over which the ranks find each other: the process group's, or before
there is one the store that torchrun serves to all ranks. Such a store may outlive a launch: torchrun keeps one for all
its restarts, with every key. So nothing is believed for the name that it stands under. Each rank asks with a nonce of
its own, and rank 0, on a thread, answers that. What outlives a launch on purpose is its lineage, by which the next one
knows what it continues.

A store and no collective: a script that calls `start_run` on rank 0 alone, as many do, must not wait for the rest.
"""

import atexit
import json
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import astuple
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

from ...events.errors import UserMistake
from ..plain import why
from ..voice import logger
from ..wake import Wake
from .context import LAUNCH_KEY, Lineage, initialised_distributed

AGREE_SECONDS = 120.0
CONNECT_SECONDS = 10.0
END_SECONDS = 0.5
AGENT_KEY = "TORCHELASTIC_USE_AGENT_STORE"
_SPACE = "pilothouse/space"


class Shared(NamedTuple):
    """A store that all ranks reach, without anybody's prefix, and what our keys in it begin with. `of_launcher`: it
    lives as long as the launcher, through all restarts. `stands` is asked before it is used on a thread.
    """

    store: Any
    space: str
    of_launcher: bool
    stands: Callable[[], bool] = lambda: True


def shared_store(environ: Mapping[str, str]) -> Shared | None:
    """The store through which the ranks can meet now; None where there is none."""
    of_launcher = environ.get(AGENT_KEY) == "True"
    try:
        if initialised_distributed() is not None:
            group = sys.modules["torch.distributed.distributed_c10d"]._get_default_store()
            # Groups may share a store under prefixes; each such place is given a name of its own, once.
            place = group.compare_set(_SPACE, "", uuid.uuid4().hex).decode()
            return Shared(_without_prefix(group), f"pilothouse/{place}", of_launcher, _same_group())
        if of_launcher:
            store = _connected(environ["MASTER_ADDR"], int(environ["MASTER_PORT"]))
            return Shared(store, f"pilothouse/launch/{environ.get(LAUNCH_KEY, '')}", of_launcher)
    except (ImportError, AttributeError, LookupError, ValueError, RuntimeError, TypeError) as error:
        logger.warning("the ranks' store cannot be used (%s); this rank goes by what its launcher told it", why(error))
    return None


class Meeting:
    """The `number`-th `start_run(name)` of all ranks. Each makes one; then rank 0 calls `before` and `host`, the others
    `ask`.
    """

    def __init__(self, name: str, number: int, shared: Shared, world_size: int) -> None:
        self.name = name
        self.of_launcher = shared.of_launcher
        self._store, self._stands = shared.store, shared.stands
        self._place = f"{shared.space}/{name}/{number}/"
        self._world_size = world_size

    def before(self) -> Lineage | None:
        """What an earlier launch was in this place, and the last attempt that it began."""
        if not self._store.check([self._place + "lineage"]):
            return None
        return Lineage(*json.loads(self._store.get(self._place + "lineage")))

    def host(self, lineage: Lineage) -> "Host":
        """On rank 0: this is what we are; tell whoever asks."""
        host = Host(self._place, self._world_size, lineage, self._stands)
        host.keep(self._store)
        host.start(self._store)
        return host

    def ask(self, rank: int) -> Lineage:
        """On any other rank: what rank 0 says that we are.

        Raises:
            UserMistake: rank 0 did not call start_run within `AGREE_SECONDS`.
        """
        store, nonce = self._store, uuid.uuid4().hex
        question, answer = f"{self._place}question/{rank}", f"{self._place}answer/{nonce}"
        store.set(question, nonce)
        store.add(self._place + "asked", 1)
        began = time.monotonic()
        while not store.check([answer]):
            if time.monotonic() - began > AGREE_SECONDS:
                raise UserMistake(
                    f"rank {rank} waited {AGREE_SECONDS:.0f} s for rank 0 to call start_run({self.name!r}); "
                    "call it on rank 0 too"
                )
            time.sleep(_pause(began, self._world_size))
        token, *lineage = json.loads(store.get(answer))
        store.add(f"{self._place}heard/{token}", 1)
        for key in (question, answer):
            with suppress(RuntimeError, NotImplementedError):  # some stores delete nothing
                store.delete_key(key)
        return Lineage(*lineage)


class Host:
    """Rank 0's answers, on a thread with a connection of its own: a wait of the script's must not keep them up, nor
    they the script. It rests when every rank has heard, and keeps the lineage as long as the run lasts.
    """

    def __init__(self, place: str, world_size: int, lineage: Lineage, stands: Callable[[], bool]) -> None:
        self._stands = stands
        self._place = place
        self._others = range(1, world_size)
        self._lineage = lineage
        self._kept: Lineage | None = None
        self._token = uuid.uuid4().hex
        # What first meets the other ranks is answered: that is the attempt which this process began with.
        self._told = json.dumps([self._token, *astuple(lineage)])
        self._answered: dict[int, bytes] = {}
        self._asked = -1
        self._news = Wake()
        self._closed = self._ended = False
        self._thread = threading.Thread()

    def start(self, store: Any) -> None:
        """Answer through a connection of our own to this store, which is held no longer: it must end with its group."""
        connect = _own_connection(store)
        self._thread = threading.Thread(target=self._serve, args=(connect,), name="pilothouse-meeting", daemon=True)
        self._thread.start()
        atexit.register(self.end)

    def note(self, lineage: Lineage) -> None:
        """The run has begun another attempt: the next launch continues that one. From any thread, and at once."""
        self._lineage = lineage
        self._news.set()

    def close(self) -> None:
        """The run has ended here; ranks that come late are answered all the same. Waits for nothing."""
        self._closed = True
        self._news.set()

    def end(self) -> None:
        """The process ends. The thread is waited for, shortly: an interpreter that ends while it stands in the store's
        own code may be aborted.
        """
        self._ended = True
        self._news.set()
        self._thread.join(END_SECONDS)

    def keep(self, store: Any) -> None:
        """Leave the lineage for the next launch."""
        if self._kept is not (lineage := self._lineage):
            store.set(self._place + "lineage", json.dumps(astuple(lineage)))
            self._kept = lineage

    def _serve(self, connect: Callable[[], Any]) -> None:
        began, everybody = time.monotonic(), False
        try:
            store = connect()
            while not self._ended and not (self._closed and everybody) and self._stands():
                self.keep(store)
                everybody = self._answer(store)
                rests = everybody and not self._closed
                self._news.wait(None if rests else _pause(began, len(self._others)))
        except Exception as error:  # noqa: BLE001  # the store has ended, and with it whoever could ask
            logger.debug("rank 0 answers no more: %s", why(error))

    def _answer(self, store: Any) -> bool:
        """Answer what was asked since the last time; whether all ranks have heard."""
        if (asked := store.add(self._place + "asked", 0)) != self._asked:
            self._asked = asked
            for rank in self._others:
                question = f"{self._place}question/{rank}"
                if store.check([question]) and (nonce := store.get(question)) != self._answered.get(rank):
                    store.set(f"{self._place}answer/{nonce.decode()}", self._told)
                    self._answered[rank] = nonce
        return bool(store.add(f"{self._place}heard/{self._token}", 0) >= len(self._others))


def _pause(began: float, ranks: int) -> float:
    """Seconds until one looks again: a tenth of the time that has passed, more seldom where many ranks do."""
    return max(0.005 + ranks * 1e-4, min(0.5, (time.monotonic() - began) / 10))


def _without_prefix(store: Any) -> Any:
    while (inner := getattr(store, "underlying_store", None)) is not None:
        store = inner
    return store


def _same_group() -> Callable[[], bool]:
    """Whether the process group is still the one of now. A store whose group has ended prints what it thinks of it."""
    member = sys.modules["torch.distributed.distributed_c10d"].GroupMember
    known = id(member.WORLD)
    return lambda: id(member.WORLD) == known


def _own_connection(store: Any) -> Callable[[], Any]:
    """How to reach the same store on a connection of one's own, where one waits for another on it."""
    kind = sys.modules["torch.distributed"].TCPStore
    return partial(_connected, store.host, store.port) if isinstance(store, kind) else lambda: store


def _connected(host: str, port: int) -> Any:
    import torch.distributed as dist

    kind = dist.TCPStore  # type: ignore[attr-defined]  # public, but not in __all__
    return kind(host, port, is_master=False, timeout=timedelta(seconds=CONNECT_SECONDS), wait_for_workers=False)
