"""Keeps a stack running: starts its parts, watches them, starts again what died, stops all of it.

`up` composes it and runs it in the main thread (children are tied to the thread that started them). What to do is
decided by `supervision.plan`; this shell looks, does, and tells a person. A signal ends it, by an exception.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..events.errors import Unavailable, UserMistake
from .children import Child
from .page_token import page_of
from .parts import BrokerPart, ForeignBroker, Running, start_failure
from .stack_file import Epoch, Stack, read_epoch, write_epoch
from .supervision import Deed, Part, Past, Sight, Step, ended, next_epoch, plan, started, workers_among
from .topic_admin import TopicState, cluster_id, create_topics

if TYPE_CHECKING:
    from ..access import Address
    from ..settings import Settings

LOOK_EVERY = 0.2
READY_SECONDS = 180.0
BOUND_LOGS_EVERY = 20.0
STOP_SECONDS = {Part.GOVERNOR: 6.0, Part.ARCHIVER: 6.0, Part.ADVISOR: 6.0}
STOP_SECONDS |= {Part.CONTROL_ROOM: 6.0, Part.ARCHIVE: 4.0, Part.BROKER: 4.0}
"""15 s in all; a part that takes longer is killed, and loses nothing by it."""

MISTAKE = 2
"""A worker's exit status where a person must correct something: to start it again would not help."""

Tell = Callable[[str], None]


class Supervisor:
    """One stack. `start`, then `watch` until an exception ends it, then `stop`."""

    def __init__(self, stack: Stack, parts: Mapping[Part, Running], tell: Tell, replication: int = 1) -> None:
        self.stack = stack
        self.topics: list[TopicState] = []
        self._parts = parts
        self._workers = workers_among(parts)
        self._tell = tell
        self._replication = replication
        self._past = {part: Past() for part in Part}
        self._up: set[Part] = set()
        self._coming_back: dict[Part, float] = {}
        self._logs_bound_at = 0.0

    @property
    def workers(self) -> tuple[Part, ...]:
        return self._workers

    @property
    def page(self) -> str:
        """The control room's address, with its token; empty where there is none."""
        return page_of(self.stack.data_dir, self.stack.page_port) if self.stack.page_port else ""

    @property
    def pids(self) -> dict[str, int]:
        return {str(part): running.pid for part, running in self._parts.items() if running.pid}

    def start(self) -> None:
        """Bring everything up, in order, and return when each part has answered.

        Raises:
            UserMistake, Unavailable: a part cannot be started; with the end of its log.
        """
        self._start(Part.ARCHIVE)  # opens its files while the broker starts
        self._start(Part.BROKER)
        if not read_epoch(self.stack.data_dir).number:
            self._until_ready(Part.ARCHIVE)  # which may be older than this directory's memory of its logs
        self._prepare_log()
        self._start_workers()  # they load and join their groups while the archive gets ready: longer than it needs
        self._until_ready(Part.ARCHIVE)
        self._migrate()
        self._start_workers()
        self._until_working()
        self.stack.announce(self.pids)
        if Part.CONTROL_ROOM in self._parts:  # which asks what was announced, and nobody waits for
            self._start(Part.CONTROL_ROOM)
            self.stack.announce(self.pids)

    def watch(self) -> None:
        """Look and do, for ever."""
        while True:
            self.look(time.monotonic())
            time.sleep(LOOK_EVERY)

    def look(self, now: float) -> None:
        """One look at everything that was begun, and what follows from it. (At the start not everything is, and what
        comes last would be started twice, the second time on the port of the first.)
        """
        begun = {part: running for part, running in self._parts.items() if self._past[part].started_at}
        seen = {part: running.sight(now) for part, running in begun.items()}
        self._note_deaths(now, seen)
        for step in plan(now, seen, self._past):
            if not self._done(step):
                break  # the steps behind it stand on it; they are planned again
        self._welcome()
        if now - self._logs_bound_at > BOUND_LOGS_EVERY:
            self._logs_bound_at = now
            for running in self._parts.values():
                running.bound_log()

    def stop(self) -> None:
        """Stop everything: the workers while they still have a log and an archive, the broker last."""
        page = (Part.CONTROL_ROOM,) if Part.CONTROL_ROOM in self._parts else ()
        for parts in ((*page, *self._workers), (Part.ARCHIVE,), (Part.BROKER,)):
            for part in parts:
                self._parts[part].ask_to_stop()
            deadline = time.monotonic() + max(STOP_SECONDS[part] for part in parts)
            for part in parts:
                self._parts[part].stop(deadline - time.monotonic())

    def _note_deaths(self, now: float, seen: Mapping[Part, Sight]) -> None:
        for part in [part for part in self._up if seen[part] is not Sight.RUNNING]:
            self._up.discard(part)
            self._coming_back[part] = now
            if part in self._workers and seen[Part.BROKER] is not Sight.RUNNING:
                continue  # it died of its broker's death
            self._past[part] = ended(self._past[part], now)
            self._complain(part, self._parts[part].how_it_ended())

    def _complain(self, part: Part, what: str) -> None:
        past, running = self._past[part], self._parts[part]
        pause = past.due_at - past.ended_at
        self._tell(f"{what}; starting it again" + (f" in {pause:.0f} s" if pause >= 1 else ""))
        child = _child_of(running)
        if past.keeps_dying and child is not None:
            lines = "\n    ".join(child.last_lines())
            self._tell(f"  {running.shown} has died {past.deaths} times in a row. {child.log} ends:\n    {lines}")

    def _done(self, step: Step) -> bool:
        """Whether the step was done; if not, its part counts as having died again."""
        deed, part = step
        try:
            if deed is Deed.STOP:
                self._up.discard(part)
                self._coming_back.setdefault(part, time.monotonic())
                self._parts[part].stop(0.0 if part in self._workers else STOP_SECONDS[part])
            elif deed is Deed.PREPARE:
                self._prepare_log()
            elif not self._parts[part].alive:
                self._start(part)
        except (Unavailable, UserMistake) as error:
            self._up.discard(part)
            if deed is Deed.PREPARE:
                self._parts[part].stop(0.0)  # a log without its topics is none: begin with it again
            self._past[part] = ended(self._past[part], time.monotonic())
            self._complain(part, str(error))
            return False
        self.stack.announce(self.pids)
        return True

    def _start(self, part: Part) -> None:
        now = time.monotonic()
        self._past[part] = started(self._past[part], now)
        self._parts[part].start(self.stack, now)
        self._up.add(part)

    def _start_workers(self) -> None:
        """Start those that do not run."""
        for part in self._workers:
            if not self._parts[part].alive:
                self._start(part)

    def _welcome(self) -> None:
        now = time.monotonic()  # starting a broker takes its time
        for part in [part for part in self._coming_back if part in self._up and self._parts[part].is_ready()]:
            self._tell(f"{self._parts[part].shown} is back after {now - self._coming_back.pop(part):.1f} s")

    def _until_ready(self, part: Part) -> None:
        running = self._parts[part]
        deadline = time.monotonic() + READY_SECONDS
        while not running.is_ready():
            if not running.alive or time.monotonic() > deadline:
                raise start_failure(running, _child_of(running))
            time.sleep(0.05)

    def _until_working(self) -> None:
        """A worker may ask to be started again, and gets it; one that cannot work ends the start."""
        deadline = time.monotonic() + READY_SECONDS
        while waiting := [part for part in self._workers if not self._parts[part].is_ready()]:
            for part in waiting:
                running, child = self._parts[part], _child_of(self._parts[part])
                mistaken = child is not None and child.exit_status == MISTAKE
                if mistaken or self._past[part].keeps_dying or time.monotonic() > deadline:
                    raise start_failure(running, child)
            self.look(time.monotonic())
            time.sleep(0.05)

    def _migrate(self) -> None:
        from ..storage.connect import connect
        from ..storage.upgrade import bring_up_to_date

        bring_up_to_date(connect(self._settings), self._settings)

    def _prepare_log(self) -> None:
        """Find out which log this is, make its topics, and tell the workers to come."""
        data_dir, known = self.stack.data_dir, read_epoch(self.stack.data_dir)
        cluster = cluster_id(self._log_access)
        number = next_epoch(known.number, known.cluster_id, cluster, self._archived_epoch())
        if number != known.number and self.stack.log_epoch:
            self._tell(
                f"the log was lost with its broker: epoch {number} begins, run states come back from the archive"
            )
        write_epoch(data_dir, Epoch(number, cluster))
        self.topics = create_topics(self._log_access, self.stack.partitions, self._replication)
        self.stack = self.stack.with_log(number, self.topics[0].partitions)

    def _archived_epoch(self) -> int:
        from ..storage.connect import connect
        from ..storage.queries import archive_progress

        with contextlib.suppress(Unavailable, UserMistake):
            return max((row["log_epoch"] for row in archive_progress(connect(self._settings))), default=0)
        return 0

    @property
    def _log_access(self) -> "Address":
        broker = self._parts[Part.BROKER]
        return broker.access if isinstance(broker, ForeignBroker) else self.stack.kafka

    @property
    def _settings(self) -> "Settings":
        from ..settings import Settings

        return Settings(clickhouse_url=self.stack.clickhouse_url)


def _child_of(running: Running) -> Child | None:
    if isinstance(running, BrokerPart):
        return running.broker.child
    return None if isinstance(running, ForeignBroker) else getattr(running, "child", None)
