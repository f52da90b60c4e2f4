"""Many old runs under another policy, in processes beside each other: what came of each, and of all together.

Called by `backtest_command`. Each process opens the archive once and folds one run after the other. What goes wrong
with one run is that run's result. Results stand in the order in which the runs were asked for, whichever was faster.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..events.errors import PilothouseError
from ..stream_processors.backtest import Backtest, Catch, Side, backtest
from ..stream_processors.policy_text import PolicySet, PolicyText

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


class Task(NamedTuple):
    """One run to be tested, in whichever process."""

    run_id: str
    policies: tuple[PolicyText, ...]
    data_dir: Path | None


class Tested(NamedTuple):
    """What came of it: a result, or why there is none."""

    run_id: str
    result: Backtest | None
    error: str = ""


@dataclass
class OnHealthy:
    """What a policy did on runs without an incident that ended well, where nothing needed doing: on `runs` of them,
    before the policies part.
    """

    runs: int = 0
    alarms: int = 0
    interventions: int = 0
    proposed_interventions: int = 0

    def add(self, side: Side) -> None:
        """One more healthy run."""
        alarms = sum(side.sound.alarms.values())
        self.runs += alarms > 0
        self.alarms += alarms
        self.interventions += side.sound.touching
        self.proposed_interventions += side.sound.would_touch


@dataclass
class Total:
    """All runs together. `parted` of them have a stretch on which the policies cannot be compared."""

    runs: int = 0
    broken: int = 0
    healthy: int = 0
    parted: int = 0
    steps: int = 0
    catches: Counter[Catch] = field(default_factory=Counter)
    steps_earlier: int = 0
    steps_later: int = 0
    in_force: Side = field(default_factory=Side)
    candidate: Side = field(default_factory=Side)
    false_in_force: OnHealthy = field(default_factory=OnHealthy)
    false_candidate: OnHealthy = field(default_factory=OnHealthy)

    def add(self, found: Backtest) -> None:
        """One more run."""
        self.steps += found.steps
        self.healthy += found.healthy
        self.parted += found.open_loop_from is not None
        self.in_force.add(found.in_force)
        self.candidate.add(found.candidate)
        for caught in found.incidents:
            self.catches[caught.catch] += 1
            self.steps_earlier += max(0, -(caught.change or 0))
            self.steps_later += max(0, caught.change or 0)
        if found.healthy:
            self.false_in_force.add(found.in_force)
            self.false_candidate.add(found.candidate)


def total_of(tested: Iterable[Tested]) -> Total:
    """All of them together; those that broke are only counted."""
    total = Total()
    for one in tested:
        total.runs += 1
        if one.result is None:
            total.broken += 1
        else:
            total.add(one.result)
    return total


def test_all(tasks: Sequence[Task], jobs: int, done: Callable[[int], None]) -> list[Tested]:
    """Test every run, `jobs` at a time; `done` hears how many are finished."""
    if jobs <= 1 or len(tasks) <= 1:
        found = []
        for number, task in enumerate(tasks, start=1):
            found.append(test_one(task))
            done(number)
        return found
    results: dict[int, Tested] = {}
    # Spawned: this process has threads and connections, which a fork would copy.
    with ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(test_one, task): number for number, task in enumerate(tasks)}
        for number, future in enumerate(as_completed(waiting), start=1):
            results[waiting[future]] = future.result()
            done(number)
    return [results[number] for number in range(len(tasks))]


def test_one(task: Task) -> Tested:
    """Test one run. Whatever is wrong with it is its result: it must not stop the others."""
    from ..storage.history import read_decisions, stream_log

    try:
        client = _client(task.data_dir)
        told = read_decisions(client, task.run_id)
        found = backtest(task.run_id, stream_log(client, task.run_id), _policies(task.policies), told)
    except PilothouseError as error:
        return Tested(task.run_id, None, str(error))
    except Exception as error:  # noqa: BLE001  # a history of another version, say; the other runs are not to blame
        return Tested(task.run_id, None, f"{type(error).__name__}: {' '.join(str(error).split())}"[:500])
    if not found.steps and not found.policies:
        return Tested(task.run_id, None, "the archive holds nothing of it that could be judged")
    return Tested(task.run_id, found)


@cache
def _policies(texts: tuple[PolicyText, ...]) -> PolicySet:
    return PolicySet(texts)


@cache
def _client(data_dir: Path | None) -> "Client":
    """This process's way to the archive."""
    from .reading import open_archive

    return open_archive(data_dir).client
