"""Which stretches of steps are to be summed up, by what was written and what is known."""

from pilothouse.events.telemetry import RunEnded
from pilothouse.storage.stretches import STEPS, Line, Touched, due_of, touched_by
from pilothouse.tests.archive_events import Writer

LINE = Line("r", "r-1")


def due(place: Touched, until: int) -> tuple[int, int] | None:
    return due_of({LINE: place}, {LINE: until}).get(LINE)


def test_what_is_written_touches_its_stretches_whatever_the_order_of_steps_and_ranks() -> None:
    zero, one = Writer("r"), Writer("r", rank=1)
    told = [zero.steps([3 * STEPS, 2 * STEPS - 1], loss=[1.0, 1.0]), one.steps([4 * STEPS], loss=[1.0])]
    assert touched_by(told) == {LINE: Touched(1, 4)}


def test_the_end_of_a_run_touches_its_last_step() -> None:
    ended = Writer("r").tell(RunEnded, outcome="completed", step=STEPS)
    assert touched_by([ended]) == {LINE: Touched(last=1, ended=True)}
    assert touched_by([ended])[LINE].closed == 2


def test_the_stretch_that_goes_on_waits() -> None:
    assert due(Touched(0, 0), until=0) is None
    assert due(Touched(5, 5), until=5) is None


def test_what_was_passed_is_due_once() -> None:
    assert due(Touched(5, 7), until=5) == (5, 7)
    assert due(Touched(7, 7), until=5) == (5, 7)
    assert due(Touched(7, 7), until=7) is None


def test_an_end_closes_the_last_stretch_too() -> None:
    assert due(Touched(7, 7, ended=True), until=7) == (7, 8)
    assert due(Touched(last=7, ended=True), until=7) == (7, 8)
    assert due(Touched(last=7, ended=True), until=8) is None


def test_what_comes_late_is_summed_up_again() -> None:
    assert due(Touched(2, 3), until=9) == (2, 4)
    assert due(Touched(2, 12), until=9) == (2, 12)
