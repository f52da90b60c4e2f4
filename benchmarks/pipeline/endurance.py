"""A stack under a steady load, under more than it can carry, and for long.

`steady` says what each process takes of a core, and how far the workers are behind. `saturated` offers more than is
decided: it must show, nothing may be decided otherwise, and it must pass. `soak` lets runs come and go for as long as
it is told to, and looks at the memory.
"""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .rig import Usage, quantile, resident_mib, until
from .stack import FullStack
from .throughput import arguments_of

WARM_SECONDS = 12.0
LOOK_SECONDS = 1.0
REPLAYED_RUNS = 3
PARTS = ("governor", "archiver", "archive", "broker")


@dataclass(frozen=True, slots=True)
class Steady:
    """A load for so long: what was sent and decided a second, shares of one core, and how far behind (records; the
    median and the worst).
    """

    broker: str
    runs: int
    ranks: int
    records_per_s: float
    rank_steps_per_s: float
    decided_records_per_s: float
    cores: dict[str, float]
    governor_lag: tuple[float, float]
    archiver_lag: tuple[float, float]


def steady(broker: str, kafka_home: Path | None, load: Mapping[str, float], seconds: float) -> Steady:
    """The load by the clock, on a whole stack."""
    with tempfile.TemporaryDirectory(prefix="bench-pipeline-") as folder, FullStack(Path(folder), kafka_home) as stack:
        generator = stack.generator("steady", *arguments_of({**load, "seconds": WARM_SECONDS + seconds + 30.0}))
        until(lambda: bool(generator.accounts()), "ranks send")
        time.sleep(WARM_SECONDS)
        first, decided = generator.accounts()[-1], stack.health("governor")
        usage = Usage({**stack.pids, "generator": generator.child.pid})
        lags: list[tuple[int, int]] = []
        ending = time.monotonic() + seconds
        while time.monotonic() < ending:
            time.sleep(LOOK_SECONDS)
            lags.append((stack.lag(), stack.lag("archiver")))
        cores = usage.shares()
        last, now = generator.accounts()[-1], stack.health("governor")
        took = last["at"] - first["at"]
        judging = (now["at"] - decided["at"]) / 1e6
        return Steady(
            broker,
            int(load["runs"]),
            int(load["ranks"]),
            (last["records"] - first["records"]) / took,
            (last["rank_steps"] - first["rank_steps"]) / took,
            (now["records"] - decided["records"]) / judging,
            cores,
            _spread([lag for lag, _ in lags]),
            _spread([lag for _, lag in lags]),
        )


@dataclass(frozen=True, slots=True)
class Saturated:
    """More than is decided, for so long. `lags` are records behind, second by second, as the health file says."""

    broker: str
    offered_rank_steps_per_s: float
    seconds: float
    decided_records_per_s: float
    worst_lag: int
    recovered_s: float
    lags: list[int]
    replayed: int
    differing: dict[str, str]


def saturated(broker: str, kafka_home: Path | None, load: Mapping[str, float], seconds: float) -> Saturated:
    """Offer as much as the broker takes of these trainings, `seconds` of their time, and wait until all is decided."""
    with tempfile.TemporaryDirectory(prefix="bench-pipeline-") as folder, FullStack(Path(folder), kafka_home) as stack:
        before, began = stack.health("governor").get("records", 0), time.monotonic()
        generator = stack.generator("flood", "--flat-out", *arguments_of({**load, "seconds": seconds}))
        lags: list[int] = []

        def is_sent() -> bool:
            time.sleep(LOOK_SECONDS)
            lags.append(stack.lag())
            return not generator.child.alive

        sending = until(is_sent, "all is sent", 600.0)
        sent = generator.finish(1.0)
        decided = stack.health("governor").get("records", 0) - before
        recovered = stack.until_quiet(900.0)
        took = time.monotonic() - began
        runs = [f"flood-{slot}-0" for slot in range(min(REPLAYED_RUNS, int(load["runs"])))]
        return Saturated(
            broker,
            sent["rank_steps"] / sending,
            took,
            decided / sending,
            max(lags),
            recovered,
            lags,
            len(runs),
            stack.replayed(runs),
        )


@dataclass(frozen=True, slots=True)
class Soaked:
    """`memory`: MiB of each process after a fifth of the time, at its end, and at most; `growth` in MiB an hour over
    the second half.
    """

    broker: str
    minutes: float
    rank_steps_per_s: float
    runs_lived: int
    memory: dict[str, tuple[float, float, float]]
    growth: dict[str, float]
    worst_lag: int


def soak(broker: str, kafka_home: Path | None, load: Mapping[str, float], minutes: float) -> Soaked:
    """Runs that come and go; `load["life_seconds"]` is how long one lives."""
    with tempfile.TemporaryDirectory(prefix="bench-pipeline-") as folder, FullStack(Path(folder), kafka_home) as stack:
        generator = stack.generator("soak", *arguments_of({**load, "seconds": 60.0 * minutes + 60.0}))
        until(lambda: bool(generator.accounts()), "ranks send")
        seen: list[tuple[float, dict[str, float]]] = []
        lags = []
        ending = time.monotonic() + 60.0 * minutes
        while time.monotonic() < ending:
            time.sleep(2.0)
            seen.append((time.monotonic(), {part: resident_mib(stack.pids[part]) for part in PARTS}))
            lags.append(stack.lag())
        sent = generator.accounts()[-1]
        first = generator.accounts()[0]
    rate = (sent["rank_steps"] - first["rank_steps"]) / max(1e-9, sent["at"] - first["at"])
    lived = int(load["runs"] * max(1.0, 60.0 * minutes / load["life_seconds"]))
    memory = {part: _grown([told[part] for _, told in seen]) for part in PARTS}
    growth = {part: _per_hour([(at, told[part]) for at, told in seen]) for part in PARTS}
    return Soaked(broker, minutes, rate, lived, memory, growth, max(lags))


def _grown(values: list[float]) -> tuple[float, float, float]:
    return values[len(values) // 5], values[-1], max(values)


def _per_hour(seen: list[tuple[float, float]]) -> float:
    """The slope of the second half, by least squares."""
    half = seen[len(seen) // 2 :]
    mean_at, mean = (sum(one[index] for one in half) / len(half) for index in (0, 1))
    spread = sum((at - mean_at) ** 2 for at, _ in half)
    return 3_600.0 * sum((at - mean_at) * (value - mean) for at, value in half) / spread if spread else 0.0


def _spread(lags: list[int]) -> tuple[float, float]:
    return quantile(lags, 0.5), float(max(lags, default=0))
