"""How long a run may stand still is learned from the run: from its steps, its pauses, its announced stages."""

import pytest

from pilothouse.stream_processors.detectors import hang
from pilothouse.stream_processors.detectors.hang import HangState, Wait


class Clock:
    """A run as it is heard, Tick by Tick."""

    def __init__(self) -> None:
        self.state = HangState()
        self.tick = 0
        self.stage = "train"

    def pass_time(self, seconds: int, *, heard: bool = True) -> Wait | None:
        """The last word after so many Ticks."""
        wait = None
        for _ in range(seconds):
            self.tick += 1
            wait = hang.passed(self.state, self.stage, self.tick, heard=heard)
        return wait

    def steps(self, count: int, seconds: int) -> "Clock":
        for _ in range(count):
            hang.stepped(self.state, self.tick)
            self.pass_time(seconds)
        return self

    def move(self, stage: str) -> "Clock":
        hang.moved(self.state, self.stage, self.tick)
        self.stage = stage
        return self

    def evaluate(self, seconds: int) -> "Clock":
        self.move("evaluate").pass_time(seconds)
        return self.move("train")

    def hangs_after(self, limit: int = 20_000) -> int | None:
        """The seconds without anything after which it is a hang."""
        hang.stepped(self.state, self.tick)
        for second in range(1, limit):
            wait = self.pass_time(1)
            if wait is not None and wait.share >= 1.0:
                return second
        return None


@pytest.mark.parametrize("step_s, found", [(1, 30), (2, 30), (5, 30), (20, 100), (200, 1_000)])
def test_a_hang_is_five_times_what_a_step_takes_and_never_under_half_a_minute(step_s: int, found: int) -> None:
    clock = Clock().steps(20, step_s)
    assert clock.hangs_after() == found


def test_a_run_that_logs_every_two_hundred_seconds_is_quiet_from_its_first_row_on() -> None:
    clock = Clock()
    for _ in range(30):
        hang.stepped(clock.state, clock.tick)
        for _ in range(200):
            wait = clock.pass_time(1)
            assert wait is not None
            assert wait.share < 1.0


def test_before_anything_is_known_there_is_time() -> None:
    assert Clock().hangs_after() == 1_800
    early = Clock()
    hang.stepped(early.state, 0)
    assert early.hangs_after() == 300, "two steps in one second"
    assert Clock().steps(4, 2).hangs_after() == 300


def test_one_pause_makes_nothing_blind_and_one_that_comes_back_is_known() -> None:
    clock = Clock().steps(100, 1).steps(1, 120)
    assert clock.steps(50, 1).hangs_after() == 30
    again = Clock().steps(100, 1).steps(1, 120).steps(100, 1).steps(1, 120)
    assert again.steps(50, 1).hangs_after() == 240


def test_a_rare_pause_is_learned_beside_slow_steps() -> None:
    clock = Clock()
    for _ in range(2):
        clock.steps(40, 100).steps(1, 2_000)
    assert clock.steps(40, 100).hangs_after() == 4_000


def test_an_announced_evaluation_teaches_nothing_about_steps() -> None:
    clock = Clock()
    for _ in range(5):
        clock.steps(30, 2).evaluate(240)
    assert clock.steps(30, 2).hangs_after() == 30
    assert clock.state.waits.pauses == []


@pytest.mark.parametrize("stage", ["evaluate", "checkpoint"])
def test_an_announced_stage_that_takes_twenty_times_as_long_as_usual_is_a_hang(stage: str) -> None:
    clock = Clock()
    for _ in range(4):
        clock.steps(30, 2).move(stage).pass_time(120)
        clock.move("train")
    clock.steps(30, 2).move(stage)
    assert clock.pass_time(599).share < 1.0  # type: ignore[union-attr]
    assert clock.pass_time(1) == Wait(600.0, 600.0, 120.0)


def test_an_evaluation_of_unknown_length_has_two_hours() -> None:
    clock = Clock().steps(30, 2).move("evaluate")
    assert clock.pass_time(7_199).share < 1.0  # type: ignore[union-attr]
    assert clock.pass_time(1).share == 1.0  # type: ignore[union-attr]


def test_a_script_that_never_says_that_it_trains_again_is_followed_by_its_steps() -> None:
    clock = Clock().steps(30, 2).evaluate(10).steps(30, 2).move("evaluate").steps(4_000, 2)
    wait = clock.pass_time(1)
    assert wait is not None
    assert wait.share < 0.1


@pytest.mark.parametrize("stage", ["prepare", "compile", "paused", "stop"])
def test_nobody_knows_how_long_other_stages_take(stage: str) -> None:
    clock = Clock().steps(30, 2).move(stage)
    assert clock.pass_time(100_000) is None
    assert clock.move("train").hangs_after() == 30


def test_what_was_not_heard_is_no_waiting_of_the_run() -> None:
    clock = Clock().steps(30, 2)
    clock.pass_time(500, heard=False)
    assert clock.pass_time(1).waited == 0.0  # type: ignore[union-attr]
    assert clock.steps(1, 1).steps(30, 2).hangs_after() == 30
    assert clock.state.waits.pauses == []


def test_another_attempt_learns_its_pace_anew_and_keeps_what_it_does_between_steps() -> None:
    clock = Clock().steps(60, 1).evaluate(200).steps(60, 1)
    hang.begin(clock.state)
    assert clock.hangs_after() == 1_800
    assert clock.state.away["evaluate"].last == [200]


def test_within_one_second_no_order_matters() -> None:
    """A step may be judged before or after rank 0 says that it evaluates: other ranks may be late with it."""
    states = []
    for first_the_step in (True, False):
        clock = Clock().steps(20, 2)
        if first_the_step:
            hang.stepped(clock.state, clock.tick)
        clock.move("evaluate")
        if not first_the_step:
            hang.stepped(clock.state, clock.tick)
        clock.pass_time(60)
        clock.move("train").steps(3, 2)
        states.append(clock.state)
    assert states[0] == states[1]


def test_what_is_remembered_is_bounded() -> None:
    clock = Clock()
    for seconds in range(1, 400):
        clock.steps(1, 1 + seconds % 7 * 40).evaluate(seconds % 30)
    lengths = [clock.state.waits, *clock.state.away.values()]
    assert all(len(known.last) <= hang.WAITS and len(known.pauses) <= hang.PAUSES for known in lengths)
