"""What the death of a governor costs: of control while its supervisor starts it again, of progress where a second one
takes its partitions over; and of decisions, which must be none.
"""

import json
import os
import signal
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from .rig import quantile, until
from .stack import FullStack
from .throughput import arguments_of

SETTLED_SECONDS = 8.0
AFTER_SECONDS = 25.0
QUIET_SECONDS = 240.0
REPLAYED_RUNS = 4


@dataclass(frozen=True, slots=True)
class Killed:
    """`without_control_s`: the longest time without a command from the SIGKILL on. `unanswered`, `doubled`: probes
    without a command, or with two different ones. `differing`: runs of which a replay decides otherwise.
    """

    broker: str
    probes: int
    without_control_s: float
    slowest_answer_s: float
    unanswered: int
    doubled: int
    replayed: int
    differing: dict[str, str]


def killed(broker: str, kafka_home: Path | None) -> Killed:
    """SIGKILL to the governor of `pilothouse up` while runs ask to be steered."""
    with tempfile.TemporaryDirectory(prefix="bench-pipeline-") as folder, FullStack(Path(folder), kafka_home) as stack:
        probes = stack.probes(SETTLED_SECONDS + AFTER_SECONDS)
        time.sleep(SETTLED_SECONDS + 2.0)
        dead_at = time.time_ns()
        os.kill(stack.pids["governor"], signal.SIGKILL)
        until(lambda: not probes.alive, "the probes are through", 180.0)
        told = [json.loads(line) for line in (stack.folder / "probes.jsonl").read_text().splitlines()]
        if not any(one["heard"] for one in told):
            raise RuntimeError("no command was heard at all: is this machine too busy?")
        stack.until_quiet(QUIET_SECONDS)
        runs = sorted({one["run_id"] for one in told})
        answered = [one for one in told if one["heard"]]
        return Killed(
            broker,
            len(told),
            _silence([one["heard"] for one in answered], dead_at),
            max((one["heard"] - one["taken"]) / 1e9 for one in answered),
            len(told) - len(answered),
            sum(one["others"] > 0 for one in told),
            len(runs),
            stack.replayed(runs),
        )


def _silence(heard: list[int], dead_at: int) -> float:
    """Seconds; what was on its way when it died is heard at once, and is no control."""
    after = [dead_at, *sorted(at for at in heard if at > dead_at)]
    return max((later - at) / 1e9 for at, later in pairwise(after)) if len(after) > 1 else float("inf")


@dataclass(frozen=True, slots=True)
class Orphaned:
    """`taken_over_s`: from the SIGKILL of one of two governors until the other holds all partitions; `caught_up_s`:
    until it is behind with no more than before.
    """

    broker: str
    rank_steps_per_s: float
    lag_before: int
    worst_lag: int
    taken_over_s: float
    caught_up_s: float
    replayed: int
    differing: dict[str, str]


def orphaned(broker: str, kafka_home: Path | None, load: dict[str, float]) -> Orphaned:
    """Two governors share a load; one is killed."""
    with tempfile.TemporaryDirectory(prefix="bench-pipeline-") as folder, FullStack(Path(folder), kafka_home) as stack:
        generator = stack.generator("shared", *arguments_of({**load, "seconds": 600.0}))
        other = stack.another_governor("1")
        until(lambda: _partitions(stack, "0") == _partitions(stack, "1") == 2, "each has two partitions")
        time.sleep(SETTLED_SECONDS)
        lags = [stack.lag(slots=("0", "1"))]
        for _ in range(5):
            time.sleep(1.0)
            lags.append(stack.lag(slots=("0", "1")))
        before = max(1, int(quantile(lags, 0.5)))
        began = time.monotonic()
        other.kill()
        taken_over = until(lambda: _partitions(stack, "0") == 4, "the other holds all partitions")
        worst = [before]

        def is_level() -> bool:
            worst.append(stack.lag())
            return 0 <= worst[-1] <= 2 * before + 100

        until(is_level, "it has caught up", 300.0)
        caught_up = time.monotonic() - began
        generator.child.kill()
        stack.until_quiet(QUIET_SECONDS)
        runs = [f"shared-{slot}-0" for slot in range(min(REPLAYED_RUNS, int(load["runs"])))]
        offered = load["runs"] * load["ranks"] * load["steps_per_second"]
        differing = stack.replayed(runs)
        return Orphaned(broker, offered, before, max(worst), taken_over, caught_up, len(runs), differing)


def _partitions(stack: FullStack, slot: str) -> int:
    told = stack.health("governor", slot)
    return len(told.get("last_offset", ())) if told.get("state") == "running" else 0
