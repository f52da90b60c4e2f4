"""A run that is slower than it was is found, with the reason if the ranks tell where their time goes; jitter is not."""

import math
import random
from collections.abc import Callable

import pytest

from pilothouse.governance.conditions import Condition
from pilothouse.stream_processors import verdicts
from pilothouse.stream_processors.detectors import pace
from pilothouse.stream_processors.detectors.pace import PaceState
from pilothouse.stream_processors.detectors.sample import StepSample

Told = dict[str, float]
SECOND = 1_000_000


class Training:
    """Steps of so many seconds, with what rank 0 tells of each; judged as a run is."""

    def __init__(self, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self.state = PaceState()
        self.condition = Condition("Efficient")
        self.seen: dict[str, float] = {}
        self.found: list[tuple[int, str]] = []
        self.step, self.at = 0, 0

    @property
    def is_slow(self) -> bool:
        return self.condition.status == "False"

    def noise(self, sigma: float = 0.03) -> float:
        return math.exp(self.random.gauss(0.0, sigma))

    def train(self, steps: int, seconds: Callable[[], float], told: Callable[[], Told] = dict, stride: int = 1) -> None:
        for _ in range(steps):
            self.step += stride
            self.at += int(seconds() * SECOND)
            self.seen = pace.observe(self.state, StepSample(self.step, self.at, 1, 2.0, 1.0, 0, told()))
            was = self.condition.status, self.condition.reason
            verdict = verdicts.efficient(self.condition, self.seen, -1)
            self.condition.status, self.condition.reason = verdict.status, verdict.reason
            self.condition.message, self.condition.evidence = verdict.message, verdict.evidence
            if verdict.status == "False" and was != (verdict.status, verdict.reason):
                self.found.append((self.step, verdict.reason))


def paced(seed: int, seconds: float, share: float, told: Callable[[Training, float], Told]) -> Training:
    """300 steps as usual, then 100 at this share of the speed."""
    run = Training(seed)
    for pace_of, steps in ((1.0, 300), (share, 100)):
        run.train(steps, lambda by=pace_of: seconds / by * run.noise(), lambda by=pace_of: told(run, by))  # type: ignore[misc]
    return run


SOURCES: dict[str, Callable[[Training, float], Told]] = {
    "clock": lambda *_: {},
    "duration": lambda run, by: {"step_s": run.noise() / by},
    "throughput": lambda run, by: {"throughput": 1e5 * by * run.noise()},
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("seed", range(4))
def test_a_sag_is_found_within_fifty_rows_and_says_when_it_began(source: str, seed: int) -> None:
    run = paced(seed, 2.0, 0.7, SOURCES[source])
    [(step, reason)] = run.found
    assert reason == "ThroughputSag"
    assert 300 < step <= 350
    assert abs(run.condition.evidence["inefficient_since"] - 300) <= pace.ROWS
    assert run.condition.evidence["throughput_share"] == pytest.approx(0.7, abs=0.05)


@pytest.mark.parametrize("share", [0.85, 0.95, 1.3])
@pytest.mark.parametrize("source", SOURCES)
def test_a_run_a_little_slower_or_faster_is_as_usual(source: str, share: float) -> None:
    assert paced(1, 2.0, share, SOURCES[source]).found == []


def test_a_run_as_fast_again_is_efficient_again() -> None:
    run = paced(1, 2.0, 0.6, SOURCES["throughput"])
    assert run.is_slow
    run.train(60, lambda: 2.0, lambda: {"throughput": 1e5 * run.noise()})
    assert not run.is_slow


def test_no_sag_however_long_is_learned_unless_it_is_announced() -> None:
    run = paced(1, 2.0, 0.6, SOURCES["throughput"])
    run.train(3_000, lambda: 2.0, lambda: {"throughput": 0.6e5 * run.noise()})
    assert run.is_slow
    pace.restart(run.state)
    run.found.clear()
    run.condition = Condition("Efficient")
    run.train(500, lambda: 2.0, lambda: {"throughput": 0.6e5 * run.noise()})
    assert run.found == []


@pytest.mark.parametrize("every, pause", [(20, 30.0), (50, 300.0), (7, 10.0)])
def test_pauses_between_rows_are_no_sag(every: int, pause: float) -> None:
    run = Training()
    run.train(2_000, lambda: run.noise(0.1) + (pause if run.step % every == 0 else 0.0))
    assert run.found == []


def test_the_first_steps_and_a_drift_of_a_few_percent_are_no_sag() -> None:
    run = Training()
    run.train(5, lambda: 60.0)
    run.train(3_000, lambda: (1.0 + 0.05 * math.sin(run.step / 300)) * run.noise())
    assert run.found == []


def test_a_throughput_that_is_told_now_and_then_is_not_mixed_with_the_clock() -> None:
    run = Training()
    run.train(3_000, run.noise, lambda: {"throughput": 1e5 * run.noise()} if run.step % 40 == 0 else {})
    assert run.found == []
    assert run.seen["throughput_share"] == pytest.approx(1.0, abs=0.1)
    run.train(200, run.noise, lambda: {"throughput": 0.6e5 * run.noise()} if run.step % 40 == 0 else {})
    assert [reason for _, reason in run.found] == ["ThroughputSag"]


def test_a_clock_that_was_set_back_is_gone_on_with() -> None:
    run = Training()
    run.train(300, lambda: 2.0 * run.noise())
    run.at -= 3_600 * SECOND
    run.train(20, lambda: 2.0 * run.noise())
    assert run.found == []
    run.train(100, lambda: 4.0 * run.noise())
    assert [reason for _, reason in run.found] == ["ThroughputSag"]


@pytest.mark.parametrize("first, last", [(0.1, 1.0), (3.0, 1.0)])
def test_a_throughput_that_is_a_mean_since_the_start_is_quiet(first: float, last: float) -> None:
    run = Training()
    total = 0.0

    def mean() -> Told:
        nonlocal total
        total += first if run.step < 20 else last * run.noise()
        return {"throughput": total / run.step}

    run.train(3_000, lambda: 1.0, mean)
    assert run.found == []


def test_a_run_that_is_uneven_by_itself_needs_more() -> None:
    run = Training(3)
    run.train(4_000, lambda: 1.0, lambda: {"throughput": 100.0 * run.noise(1.0)})
    assert run.found == []


def test_rows_of_another_spacing_are_not_compared() -> None:
    run = Training()
    run.train(200, lambda: 0.7 * run.noise(), stride=1)
    run.train(200, lambda: 50.0 * run.noise(), stride=50)
    run.train(200, lambda: 2.0 * run.noise(), stride=2)
    assert run.found == []


def test_a_fast_run_is_judged_by_seconds_not_by_rows() -> None:
    """A tenth of a second of steps at half the speed is nothing; ten seconds twice over are."""
    run = Training()
    run.train(20_000, lambda: 0.005 * run.noise())
    run.train(100, lambda: 0.05)
    run.train(5_000, lambda: 0.005 * run.noise())
    assert run.found == []
    run.train(5_000, lambda: 0.008 * run.noise())
    assert [reason for _, reason in run.found] == ["ThroughputSag"]
    assert len(run.state.rows) <= 2 * pace.ROWS + 1


# ------------------------------------------------------------------------------------------------- where the time goes


def waiting(run: Training, wait: float, compute: float = 1.0) -> Callable[[], Told]:
    return lambda: {"data_wait_s": wait * run.noise(), "compute_s": compute * run.noise()}


@pytest.mark.parametrize("seed", range(4))
def test_a_run_that_comes_to_wait_for_its_data_is_starved(seed: int) -> None:
    run = Training(seed)
    run.train(300, lambda: 1.05, waiting(run, 0.05))
    run.train(60, lambda: 1.7, waiting(run, 0.7))
    assert run.found[-1][1] == "DataStarved"
    assert {reason for _, reason in run.found} <= {"DataStarved", "ThroughputSag"}
    assert 300 < run.found[0][0] <= 350
    assert run.condition.evidence["data_wait_share"] == pytest.approx(0.41, abs=0.05)
    assert run.condition.evidence["data_wait_usual"] == pytest.approx(0.05, abs=0.02)


def test_a_loader_whose_every_fourth_batch_is_late_starves_the_run() -> None:
    run = Training()
    run.train(300, lambda: 1.0, waiting(run, 0.01))
    run.train(60, lambda: 2.0, lambda: {"data_wait_s": 4.0 if run.step % 4 == 0 else 0.0, "compute_s": 1.0})
    assert "DataStarved" in [reason for _, reason in run.found]


def test_a_run_that_waits_from_its_start_is_starved_from_its_start() -> None:
    run = Training()
    run.train(80, lambda: 3.0, waiting(run, 2.0))
    assert [reason for _, reason in run.found] == ["DataStarved"]
    assert run.found[0][0] < 60


def test_a_loader_that_has_to_warm_up_does_not_starve_the_run() -> None:
    run = Training()
    run.train(30, lambda: 3.0, waiting(run, 2.0))
    run.train(300, lambda: 1.0, waiting(run, 0.02))
    assert run.found == []


@pytest.mark.parametrize("wait", [0.0, 0.1, 0.6])
def test_a_run_that_always_waits_a_little_is_as_usual(wait: float) -> None:
    run = Training()
    run.train(1_000, lambda: 1.0 + wait, waiting(run, wait))
    assert run.found == []


def test_one_long_wait_at_each_epoch_is_no_starving() -> None:
    run = Training()
    run.train(2_000, lambda: 1.0, lambda: {"data_wait_s": 60.0 if run.step % 400 == 0 else 0.01, "compute_s": 1.0})
    assert run.found == []


def test_collectives_that_come_to_take_half_of_the_step_bind_the_run() -> None:
    run = Training()
    run.train(300, lambda: 1.0, lambda: {"comm_s": 0.1 * run.noise(), "compute_s": 0.9 * run.noise()})
    run.train(60, lambda: 1.8, lambda: {"comm_s": 0.9 * run.noise(), "compute_s": 0.9 * run.noise()})
    assert run.found[-1][1] == "CommBound"
    assert 300 < run.found[0][0] <= 350


def test_collectives_that_are_measured_at_every_twentieth_step_are_enough() -> None:
    def comm(run: Training, seconds: float) -> Callable[[], Told]:
        return lambda: {"compute_s": 0.9} | ({"comm_s": seconds * run.noise()} if run.step % 20 == 0 else {})

    run = Training()
    run.train(600, lambda: 1.0, comm(run, 0.1))
    run.train(100, lambda: 1.0, comm(run, 0.9))
    assert [reason for _, reason in run.found] == ["CommBound"]


@pytest.mark.parametrize("cause, reason", verdicts.CAUSES)
def test_the_cause_goes_before_what_it_causes(cause: str, reason: str) -> None:
    names = [name for name, _ in verdicts.CAUSES]
    seen = {name: float(names.index(name) >= names.index(cause)) for name in names}
    assert verdicts.efficient(Condition("Efficient"), seen, -1).reason == reason


@pytest.mark.parametrize("wild", [math.nan, math.inf, -math.inf, -1.0, 0.0, 1e308, 5e-324])
def test_features_are_finite_whatever_is_told(wild: float) -> None:
    names = ("throughput", "step_s", "data_wait_s", "compute_s", "comm_s")
    run = Training()
    run.train(200, lambda: 1.0, lambda: dict.fromkeys(names, 1.0))
    run.train(200, lambda: 1.0, lambda: dict.fromkeys(names, wild if run.step % 3 else 1.0))
    run.train(200, lambda: 1.0, lambda: dict.fromkeys(names, wild))
    assert all(math.isfinite(value) for value in run.seen.values()), run.seen


@pytest.mark.parametrize("at", [0, 2**62])
def test_clocks_that_stand_still_or_go_back_say_nothing(at: int) -> None:
    state = PaceState()
    for step in range(300):
        pace.observe(state, StepSample(step, at - step % 2, 1, 2.0, 1.0, 0, {}))
    for step in range(300, 600):
        pace.observe(state, StepSample(step, 1_000 * SECOND - step * SECOND, 1, 2.0, 1.0, 0, {}))
    assert state.seen.get("throughput_sag", 0.0) < 1.0
    assert len(state.rows) <= 2 * pace.ROWS + 1
