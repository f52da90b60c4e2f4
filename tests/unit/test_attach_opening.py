"""A run that is opened beside the training: what is said meanwhile waits for it, and the training for nothing."""

import threading
from typing import Any

from pilothouse.producers.attach import opening
from pilothouse.producers.attach.opening import KEPT_ROWS, Opening

HANGS_SECONDS = 30.0


class Told:
    """A run that keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def log(self, step: int, /, **metrics: Any) -> None:
        self.calls.append((step, metrics))

    def stage(self, stage: str, step: int) -> None:
        self.calls.append((stage, step))


class Sent:
    """A number on its way from a device."""

    def __init__(self, comes: bool) -> None:
        self.comes = comes

    def ready(self) -> bool:
        return self.comes

    def value(self) -> float:
        assert self.comes
        return 7.0


def opened(run: Any) -> tuple[Opening, threading.Event]:
    """It is opened when the event is set."""
    goes = threading.Event()

    def start() -> Any:
        assert goes.wait(HANGS_SECONDS)
        return run

    return Opening(start, run.calls.append), goes


def test_what_is_said_before_the_run_is_open_is_told_in_its_order_and_what_is_too_much_is_counted() -> None:
    run = Told()
    begun, goes = opened(run)
    for step in range(KEPT_ROWS - 1):
        begun.log(step, {"loss": step, "text": "no number"})
    begun.stage("evaluate", KEPT_ROWS - 1)
    for step in range(3):
        begun.log(KEPT_ROWS + step, {"loss": 0.0})
    assert run.calls == []
    goes.set()
    begun.end(HANGS_SECONDS)
    begun.log(2_000, {"loss": 1.0})
    before = [(step, {"loss": float(step)}) for step in range(KEPT_ROWS - 1)]
    assert run.calls == [*before, ("evaluate", KEPT_ROWS - 1), (2_000, {"loss": 1.0})]
    assert begun.left_out == 3
    assert begun.may_steer.is_set()


def test_a_number_that_never_comes_from_its_device_holds_up_no_row(monkeypatch: Any) -> None:
    monkeypatch.setattr(opening, "DEVICE_SECONDS", 0.01)
    monkeypatch.setattr(opening, "read", lambda value, _: value)
    run = Told()
    begun, goes = opened(run)
    begun.log(0, {"loss": Sent(comes=False), "lr": 0.1, "grad_norm": Sent(comes=True)})
    goes.set()
    begun.end(HANGS_SECONDS)
    assert run.calls == [(0, {"lr": 0.1, "grad_norm": 7.0})]


def test_a_run_that_cannot_be_opened_is_said_and_costs_the_script_nothing() -> None:
    said: list[str] = []

    def start() -> Any:
        raise OSError("no")

    begun = Opening(start, said.append)
    begun.end(HANGS_SECONDS)
    for step in range(2):
        begun.log(step, {"loss": 1.0})
    begun.stage("train", 2)
    assert (said, begun.run) == (["OSError: no"], None)
