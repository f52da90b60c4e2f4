"""The end of a run comes by its deadline, whatever hangs: the disk, a driver, the other ranks, all at once."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilothouse.producers.beside import Chore
from pilothouse.producers.delivery.outbox import Outbox, Pace
from pilothouse.producers.delivery.spool import Spool
from pilothouse.producers.run import Run
from pilothouse.settings import Settings
from pilothouse.tests.outbox_bench import WHO, MemoryLog, wait_until

CLOSE_SECONDS = 1.0
MACHINE_SECONDS = 0.3
"""For a machine that other tests use at the same time."""


class Hung:
    """Whatever waits for it waits until the test is over. `reached` says that somebody does."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._over = threading.Event()

    def wait(self, *_: object) -> Any:
        self.reached.set()
        self._over.wait(30)

    def end(self) -> None:
        self._over.set()


class LeavingPilot:
    """Takes all the time that it is given, as one does whose ranks are dead."""

    def __init__(self) -> None:
        self.within = -1.0

    def close(self, within: float) -> None:
        self.within = within
        time.sleep(within)


@pytest.fixture
def hung() -> Iterator[tuple[Hung, Hung]]:
    disk, driver = Hung(), Hung()
    yield disk, driver
    disk.end()
    driver.end()


def test_a_run_ends_in_time_though_disk_driver_and_ranks_hang(
    hung: tuple[Hung, Hung], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, driver = hung
    monkeypatch.setattr(Spool, "append", disk.wait)
    settings = Settings(data_dir=tmp_path, close_seconds=CLOSE_SECONDS, producer_flush_seconds=0.02)
    outbox = Outbox(WHO, "writer", MemoryLog(up=False), Spool(tmp_path / "run" / "writer", 10**9), Pace(0.02, 2.0))
    run = Run(WHO, settings, {}, outbox)
    run._publisher.start()
    run._beside._add(Chore(60.0, driver.wait))
    pilots = [LeavingPilot(), LeavingPilot()]
    run._pilots.extend(pilots)  # type: ignore[arg-type]  # all that is asked of them is to leave
    run.log(0, loss=1.0)
    assert disk.reached.wait(10)
    assert driver.reached.wait(10)
    before = time.monotonic()
    run.close()
    assert time.monotonic() - before < CLOSE_SECONDS + 1.0 + MACHINE_SECONDS
    assert 0.0 <= pilots[1].within < pilots[0].within <= CLOSE_SECONDS / 4
    disk.end()
    wait_until(lambda: not run._publisher._thread.is_alive())
