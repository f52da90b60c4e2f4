"""What a step is made of in time: by a clock that the test moves, and rows that add up."""

from collections.abc import Iterator

import pytest

from pilothouse.producers.metrics.timings import DdpCommunication, StepTimings, TimedLoader
from pilothouse.producers.steering.data import BatchStream


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Loader:
    """Takes `wait` seconds for a batch."""

    def __init__(self, clock: Clock, wait: float, batches: int = 3) -> None:
        self.clock, self.wait, self.batches = clock, wait, batches
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __iter__(self) -> Iterator[int]:
        for batch in range(self.batches):
            self.clock.now += self.wait
            yield batch

    def __len__(self) -> int:
        return self.batches


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timings(clock: Clock) -> StepTimings:
    return StepTimings(clock)


def taken(timings: StepTimings, step: int) -> dict[str, float]:
    row: dict[str, float] = {}
    timings.put(step, row)
    return row


def test_waiting_for_data_and_the_rest_are_told_apart(clock: Clock, timings: StepTimings) -> None:
    rows = []
    for step, _batch in enumerate(TimedLoader(Loader(clock, 2.0), timings)):
        clock.now += 3.0
        rows.append(taken(timings, step))
    assert rows == [{"data_wait_s": 2.0, "compute_s": 3.0}] * 3


def test_the_rows_add_up_to_the_time_that_passed_whatever_is_logged(clock: Clock, timings: StepTimings) -> None:
    began, total = clock.now, 0.0
    for step, _batch in enumerate(TimedLoader(Loader(clock, 0.5, batches=10), timings)):
        clock.now += 0.25 * step
        if step % 3 == 0:
            total += sum(taken(timings, step).values())
        clock.now += 0.125
    assert total == clock.now - began - 0.125


def test_other_stages_are_not_computing(clock: Clock, timings: StepTimings) -> None:
    for step, _batch in enumerate(TimedLoader(Loader(clock, 1.0, batches=2), timings)):
        clock.now += 1.0
        timings.stage("evaluate")
        clock.now += 50.0
        timings.stage("checkpoint")
        clock.now += 5.0
        timings.stage("train")
        assert taken(timings, step) == {"data_wait_s": 1.0, "compute_s": 1.0}


def test_a_stage_that_is_told_in_the_midst_of_another_raises_nothing_and_is_counted_once(
    clock: Clock, timings: StepTimings
) -> None:
    """As a signal handler tells it, or another thread: while the first one looks at the clock."""
    for step, _batch in enumerate(TimedLoader(Loader(clock, 1.0), timings)):
        for stage, other, seconds in (("evaluate", "checkpoint", 10.0), ("train", "train", 1.0)):

            def look(now: float = clock.now, told: str = other) -> float:
                timings.clock = clock
                timings.stage(told)
                return now

            timings.clock = look
            timings.stage(stage)
            clock.now += seconds
        assert taken(timings, step) == {"data_wait_s": 1.0, "compute_s": 1.0}


def test_a_row_within_another_stage_leaves_the_rest_of_it_to_the_next(clock: Clock, timings: StepTimings) -> None:
    loader = iter(TimedLoader(Loader(clock, 1.0), timings))
    next(loader)
    timings.stage("evaluate")
    clock.now += 10.0
    assert taken(timings, 0) == {"data_wait_s": 1.0, "compute_s": 0.0}
    clock.now += 10.0
    timings.stage("train")
    clock.now += 2.0
    assert taken(timings, 1) == {"data_wait_s": 0.0, "compute_s": 2.0}


def test_nothing_is_told_before_the_first_batch_nor_twice_of_a_step(clock: Clock, timings: StepTimings) -> None:
    assert taken(timings, 0) == {}
    next(iter(TimedLoader(Loader(clock, 1.0), timings)))
    assert taken(timings, 0) == {"data_wait_s": 1.0, "compute_s": 0.0}
    assert taken(timings, 0) == {}


def test_a_timed_loader_is_the_loader_in_everything_else(clock: Clock, timings: StepTimings) -> None:
    loader = Loader(clock, 1.0)
    timed = TimedLoader(loader, timings)
    assert len(timed) == 3
    assert timed.batches == 3
    stream = BatchStream(timed)
    drawn = [stream.draw() for _ in range(4)]
    assert [one and one.batch for one in drawn] == [0, 1, 2, None]
    stream.next_epoch()
    stream.draw()
    assert loader.epochs == [0, 1]
    with pytest.raises(AttributeError, match="nothing"):
        timed.nothing  # noqa: B018  # the asking is the test


def test_a_loader_without_a_length_still_has_none(timings: StepTimings) -> None:
    with pytest.raises(TypeError):
        len(TimedLoader(iter([1]), timings))


def test_an_error_of_the_loader_reaches_the_loop(timings: StepTimings) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("corrupt record")

    with pytest.raises(ValueError, match="corrupt record"):
        list(TimedLoader(broken(), timings))


class Measured:
    """As DistributedDataParallel tells: the same measurement until there is another."""

    def __init__(self) -> None:
        self.told: dict[str, int] = {}
        self.asked = 0

    def _get_ddp_logging_data(self) -> dict[str, int]:
        self.asked += 1
        return self.told


def test_each_measurement_of_ddp_is_told_once_and_seldom_asked_for() -> None:
    model = Measured()
    ask = DdpCommunication(model)
    model.told = {"iteration": 1, "backward_comm_time": 2_000_000}
    assert [ask() for _ in range(10)] == [0.002, *[None] * 9]
    model.told = {"iteration": 100, "backward_comm_time": 3_000_000}
    assert [said for said in (ask() for _ in range(90)) if said] == [0.003]
    assert model.asked == 12


def test_a_model_that_cannot_tell_is_no_harm(clock: Clock, timings: StepTimings) -> None:
    model = Measured()
    model.told = None  # type: ignore[assignment]  # as if another version answered
    timings.watch(model)
    timings.watch(object())
    next(iter(TimedLoader(Loader(clock, 1.0), timings)))
    assert taken(timings, 0) == {"data_wait_s": 1.0, "compute_s": 0.0}


def test_ddp_itself_measures_what_its_all_reduce_takes() -> None:
    """The real one, alone in its group: nothing is hooked into it."""
    import torch
    import torch.distributed as dist

    store = dist.HashStore()  # type: ignore[attr-defined]  # public, but not in __all__
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 4))
        ask = DdpCommunication(model)
        told = []
        for _ in range(4):
            model(torch.ones(2, 4)).sum().backward()
            told.append(ask())
        assert [comm for comm in told if comm is not None and 0 < comm < 60]
        assert ask() is None
    finally:
        dist.destroy_process_group()
