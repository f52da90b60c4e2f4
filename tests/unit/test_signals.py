"""SIGTERM while a run is open, told by a clock of our own: when it raises, when it waits, when it is the same again."""

import os
import signal
from collections.abc import Iterator

import pytest

from pilothouse.producers.signals import AGAIN_SECONDS, Preemption


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def handler_before() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def armed(clock: Clock) -> Preemption:
    preemption = Preemption(clock)
    preemption.arm()
    return preemption


def send() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_what_a_launcher_passes_on_beside_its_scheduler_unwinds_a_script_once() -> None:
    clock = Clock()
    preemption = armed(clock)
    with pytest.raises(SystemExit) as unwound:
        send()
    assert unwound.value.code == 143
    clock.now += AGAIN_SECONDS / 2
    send()
    clock.now += AGAIN_SECONDS
    with pytest.raises(SystemExit):
        send()
    preemption.disarm()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_run_that_is_being_closed_is_not_broken_off_by_the_same_signal_again() -> None:
    preemption = armed(Clock())
    with pytest.raises(SystemExit):
        send()
    preemption.hold()
    send()
    preemption.disarm()
    assert preemption.seen


def test_the_first_signal_that_comes_while_a_run_is_closed_is_heard_behind_it() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    preemption = armed(Clock())
    preemption.hold()
    send()
    assert heard == []
    preemption.disarm()
    assert heard == [signal.SIGTERM]
