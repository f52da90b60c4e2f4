"""What is done beside the training, on one thread: looking around at the start, sampling the machine, telling log lines
and profiles.

Made by `producers.run`. Each chore has an interval of its own; one that fails is said once and tried again. Nothing
here is waited for by a step, and at the end of a run for a second at most.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from ..events.envelope import TrainerFact
from ..events.telemetry import DataProfiled, LogLines, ResourcesSampled
from ..settings import Settings
from .bad_calls import BadCalls
from .delivery.batching import Told
from .delivery.heartbeat import interval_at_scale
from .metrics.log_lines import LogCapture
from .metrics.profiles import FEATURES, NoNumbers, Profiles, Sampled, sample
from .plain import shown, why
from .ranks.context import Identity, Place, host, local_rank
from .surroundings.environment import at_once, by_looking
from .surroundings.resources import Sampler, describe_devices, sources_of
from .voice import logger
from .wake import Wake

FIND_SECONDS = 0.5
"""How long `start_run` waits for what is looked for; what comes later is announced later."""

CLOSE_SECONDS = 1.0
LINES_SECONDS = PROFILE_SECONDS = 1.0
LOOK_SECONDS = 0.2


class Speaker(Protocol):
    """The run, as far as its chores use it."""

    identity: Identity
    settings: Settings

    @property
    def inert(self) -> bool: ...
    @property
    def last_step(self) -> int: ...
    def pass_on(self, told: Told) -> None: ...
    def found(self, environment: Mapping[str, Any]) -> None: ...


class Finding:
    """Looks around on a thread of its own from the moment it is made."""

    def __init__(self, config: object) -> None:
        self.environment = at_once(os.environ, config)
        self._done = threading.Event()
        try:
            threading.Thread(target=self._look, name="pilothouse-find", daemon=True).start()
        except RuntimeError:  # this process may start no thread: what is known at once must do
            self._done.set()

    @property
    def complete(self) -> bool:
        return self._done.is_set()

    def within(self, seconds: float) -> dict[str, Any]:
        """What is found by then."""
        self._done.wait(seconds)
        return dict(self.environment)

    def _look(self) -> None:
        for look in by_looking(lambda: describe_devices(os.environ)):
            try:
                self.environment |= {name: found for name, found in look().items() if found}
            except Exception:  # noqa: BLE001  # what cannot be found is left out
                continue
        self._done.set()


@dataclass
class Chore:
    """Something to do every `seconds`; `last` is true at the end of the run."""

    seconds: float
    do: Callable[[bool], None]
    due: float = 0.0
    over: bool = False


class Beside:
    """One run's chores and their thread, which begins with the first of them."""

    def __init__(self, run: Speaker, bad_calls: BadCalls, clock: Callable[[], float] = time.monotonic) -> None:
        self._run = run
        self._bad_calls = bad_calls
        self._clock = clock
        self._chores: list[Chore] = []
        self._captures: list[tuple[logging.Logger, LogCapture]] = []
        self._news = Wake()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="pilothouse-beside", daemon=True)
        self._profiles: Profiles | None = None

    # ------------------------------------------------------------------------------------------------- what is begun

    def sample_resources(self) -> None:
        """`ResourcesSampled` every `settings.resources_seconds`; more seldom where many ranks do."""
        seconds, identity = self._run.settings.resources_seconds, self._run.identity
        if seconds <= 0:
            return
        place = Place(identity.rank, identity.world_size)
        sources = sources_of(local_rank(place, os.environ), os.environ)
        sampler: list[Sampler] = []

        def sample(last: bool) -> None:
            if last:
                for one in sampler:
                    one.close()
            elif sampler:
                if values := sampler[0].read():
                    self._tell(ResourcesSampled, self._run.identity, {"values": values, "host": host()})
            else:
                sampler.append(Sampler(sources))
                sampler[0].read()  # from here on there are rates

        self._add(Chore(interval_at_scale(seconds, *identity[3:]), sample))

    def await_finding(self, finding: Finding) -> None:
        """Announce the run again when everything is found."""

        def look(last: bool) -> None:
            if finding.complete and not last:
                chore.over = True
                self._run.found(finding.environment)

        chore = Chore(LOOK_SECONDS, look)
        self._add(chore)

    def capture(self, source: logging.Logger | str, level: int | str) -> LogCapture | None:
        """Tell what this logger and those below it say; None where it cannot be done."""
        *_, rank, world_size = self._run.identity
        share = 1.0 if rank == 0 else 1.0 / world_size
        if self._closing or self._run.inert:
            return None
        try:
            captured = source if isinstance(source, logging.Logger) else logging.getLogger(source)
            capture = LogCapture(level, self._who, lambda: self._run.last_step, share)
            captured.addHandler(capture)
        except (TypeError, ValueError) as error:
            self._bad_calls.add("capture_logs", f"capture_logs: {why(error)}")
            return None
        self._captures.append((captured, capture))

        def tell(_last: bool) -> None:
            for batch in capture.take():
                self._tell(LogLines, *batch)

        self._add(Chore(interval_at_scale(LINES_SECONDS, rank, world_size), tell))
        return capture

    def profile(self, feature: str, values: Any, step: int, schema: str, window: int) -> None:
        """Sample these values at once, for a later `DataProfiled`."""
        if self._closing or self._run.inert:
            return
        try:
            seen, some = sample(values)
            sampled = Sampled(self._run.identity, feature, str(schema), step, max(1, int(window)), seen, some)
            if self._began_profiles().room_for(feature):
                self._began_profiles().add(sampled)
            else:
                self._bad_calls.add(
                    "profile_limit", f"a run profiles at most {FEATURES} inputs; {feature!r:.60} is not"
                )
        except NoNumbers as error:
            self._bad_calls.add("profile", f"profile of {feature!r:.60}: {error}")
        except Exception as error:  # noqa: BLE001  # a stranger's array; nothing may reach the training loop
            self._bad_calls.add("profile", f"profile of {shown(feature)} cannot be read: {why(error)}")

    def _began_profiles(self) -> Profiles:
        if self._profiles is None:
            profiles = self._profiles = Profiles()

            def tell(last: bool) -> None:
                for profile in profiles.take(last=last):
                    self._tell(DataProfiled, *profile)

            self._add(Chore(PROFILE_SECONDS, tell))
        return self._profiles

    def close(self, within: float = CLOSE_SECONDS) -> None:
        """Do everything a last time, for `within` seconds at most. Never raises."""
        self._closing = True
        for source, capture in self._captures:
            source.removeHandler(capture)
        self._news.set()
        if self._thread.ident is not None:
            self._thread.join(min(within, CLOSE_SECONDS))

    # ------------------------------------------------------------------------------------------------------ the thread

    def _add(self, chore: Chore) -> None:
        self._chores.append(chore)
        if self._thread.ident is None and not self._run.inert and not self._closing:
            with suppress(RuntimeError):  # as above: nothing is done beside
                self._thread.start()
        self._news.set()

    def _who(self) -> Identity | None:
        return None if self._run.inert or self._closing else self._run.identity

    def _tell(self, fact: type[TrainerFact], identity: Identity, fields: Mapping[str, Any]) -> None:
        self._run.pass_on(Told(identity, time.time_ns() // 1_000, fact, fields))

    def _work(self) -> None:
        while not self._closing:
            now = self._clock()
            for chore in [chore for chore in self._chores if chore.due <= now and not chore.over]:
                self._do(chore, last=False)
                chore.due = self._clock() + chore.seconds
            waiting = [chore.due for chore in self._chores if not chore.over]
            self._news.wait(max(0.01, min(waiting) - self._clock()) if waiting else None)
        for chore in self._chores:
            if not chore.over:
                self._do(chore, last=True)

    def _do(self, chore: Chore, *, last: bool) -> None:
        try:
            chore.do(last)
        except Exception:  # noqa: BLE001  # one chore that fails must not end the others
            if self._bad_calls.first(f"chore {chore.do.__qualname__}"):
                logger.exception("what is done beside the training failed; it goes on, but this is a bug of Pilothouse")
