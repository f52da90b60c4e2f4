"""The archiver, killed with SIGKILL at named points while both topics stream: the archive that a reader sees is the one
that was filled once, without kills.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import count, cycle, islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pilothouse.cli.brokers import LocalBroker
from pilothouse.events.codec import Malformed, to_json
from pilothouse.events.commands import PipelineReported, RunAnnotated, Tick
from pilothouse.events.envelope import LogPlace
from pilothouse.events.telemetry import (
    DataProfiled,
    EvalCompleted,
    LogLine,
    LogLines,
    RecipeChanged,
    ResourcesSampled,
    SampleRecorded,
    StageChanged,
)
from pilothouse.events.topics import CONTROL, DEADLETTER, TELEMETRY, partition_of
from pilothouse.events.union import AnyEvent
from pilothouse.storage.history import read_decisions, read_log
from pilothouse.tests.broker_fixture import PARTITIONS, NewBroker
from pilothouse.tests.dying_worker import DyingWorker, Feed, feeding
from pilothouse.tests.endpoint_fixture import EndpointProcess, NewEndpoint
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.log_reader import Read, read_all
from pilothouse.tests.run_builder import quiet_loss

from .archives import archiver_on, contents, filled_once, new_archive
from .ledger import Row, recorded
from .stage import distinct
from .strange_records import due_letters, letters, send_impossible, send_strange

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

FAULTS = (
    "sigkill@after_insert/3",
    "sigkill@before_acknowledgement/4",
    "sigkill@before_insert/4",
    "sigkill@after_acknowledgement/3",
)
PACE = 60.0
"""Records a second."""
IMPORTS = {"import_log", "imported_tick_log", "imports"}
"""No archiver writes there: what `pilothouse import` brought."""


def tells(run_id: str) -> Iterator[tuple[str, AnyEvent]]:
    """A run that goes wrong, is rolled back and ends: what is told and decided of it, each with its topic."""

    def loss(position: int, step: int, rank: int) -> float:
        return math.nan if rank == 1 and 45 <= position < 48 else quiet_loss(step, rank)

    run = GovernedRun(world=2, run_id=run_id, loss=loss).begin()
    place = partition_of(run_id, PARTITIONS)
    yield from ((TELEMETRY.name, event) for event in beside(run_id))
    for _ in range(90):
        run.train(1, steps_per_tick=5)
        for record in run.records:
            event = record.event
            if isinstance(event, Tick):  # a run's own clock, told apart from those of the others in its partition
                event = event.model_copy(update={"partition": place, "writer_id": f"ticker-{run_id}"})
            yield TELEMETRY.name, event
        for decision in run.decisions:
            yield CONTROL.name, decision.model_copy(update={"basis": LogPlace(0, place, decision.basis.offset)})
        run.records.clear()
        run.decisions.clear()
    run.end()
    yield from ((TELEMETRY.name, record.event) for record in run.records)
    yield from ((CONTROL.name, decision) for decision in run.decisions)


def beside(run_id: str) -> Iterator[AnyEvent]:
    """What is told of a run besides its steps."""
    common: dict[str, Any] = {
        "at": 1,
        "run_id": run_id,
        "writer_id": f"beside-{run_id}",
        "attempt_id": "a",
        "attempt": 1,
    }
    yield ResourcesSampled(**common, rank=0, seq=1, values={"gpu_util": 0.9, "energy_kwh": math.nan})
    yield DataProfiled(**common, rank=0, seq=2, step=1, feature="tokens", edges=(0.0, 1.0), counts=(1, 2, 3))
    line = LogLine(at=1, step=1, level="ERROR", logger="train", text="a bad batch")
    yield LogLines(**common, rank=0, seq=3, lines=(line, line), dropped={"rate": 4})
    yield EvalCompleted(**common, rank=0, seq=4, step=1, metrics={"loss": 2.5})
    yield PipelineReported(**common, rank=0, seq=5, fact="promotion", who="the pipeline", subject="model-7")
    yield StageChanged(**common, rank=0, seq=6, stage="evaluate", step=1)
    yield RecipeChanged(**common, rank=0, seq=7, step=1, what="batch_size", numbers={"batch_size": 512.0})
    yield SampleRecorded(**common, rank=0, seq=8, step=1, name="greeting", output="hello")
    yield RunAnnotated(at=1, run_id=run_id, writer_id=f"person-{run_id}", seq=1, who="ada", text="a good one")


def sends(feed: Feed) -> Iterator[Callable[[], None]]:
    """Four runs at a time, without end; some records twice, as after a restart of their sender; some not ours."""
    for generation in count():
        names = [f"run-{generation}-{number}" for number in range(4)]
        for number, told in enumerate(zip_longest(*map(tells, names))):
            for name, (topic, event) in ((name, one) for name, one in zip(names, told, strict=True) if one):
                for _ in range(2 if number % 10 == 0 else 1):
                    yield partial(feed.send, event, topic, partition_of(name, PARTITIONS))
            if number % 20 == 0:
                yield partial(send_strange, feed, TELEMETRY.name, number // 20)  # the governor's to report
                yield partial(send_strange, feed, CONTROL.name, number // 20)
            if number == 60:
                yield partial(send_impossible, feed, generation)


def kill_again_and_again(broker: LocalBroker, endpoint: EndpointProcess, folder: Path, kills: int) -> Row:
    archive = new_archive(endpoint, "pilothouse")
    worker = archiver_on(broker, endpoint, folder / "archiver")
    with closing(Feed(broker.address)) as feed:
        try:
            die_and_come_back(worker, feed, kills)
            worker.until_done(feed.ends())
            assert worker.stop() == 0
        finally:
            worker.kill()
        feed.end(TELEMETRY.name, CONTROL.name, DEADLETTER.name)
    events = judge(broker, endpoint, archive)
    return Row(f"archiver SIGKILL, {kills} times", broker.name, kills, events).concluded()


def judge(broker: LocalBroker, endpoint: EndpointProcess, archive: "Client") -> int:
    """Compare with an archive that was filled once, with the topics themselves, and with the dead letters due. How many
    events were looked at.
    """
    told, decided, dead = (
        read_all(broker.address, topic, PARTITIONS) for topic in (TELEMETRY.name, CONTROL.name, DEADLETTER.name)
    )
    due = due_letters(CONTROL.name, decided)
    assert letters(dead) == due
    once = new_archive(endpoint, "once")
    refused = {(poison.record.topic, *poison.record.place[1:]) for poison in filled_once(once, told, decided)}
    assert refused == {origin for origin, letter in due.items() if letter.reason == "ArchiveRefused"} != set()
    expected, archived = contents(once), contents(archive)
    assert {name for name, rows in expected.items() if not rows} == IMPORTS, "no rows would prove nothing"
    assert archived.keys() == expected.keys()
    for name in expected:
        assert archived[name] == expected[name], name
    facts, decisions = first_of_each(told), first_of_each(decided)
    for run_id in decisions.keys() - {"impossible"}:
        log = [record.event for record in read_log(archive, run_id) if not isinstance(record.event, Tick)]
        assert list(map(to_json, log)) == facts[run_id], run_id
        assert list(map(to_json, read_decisions(archive, run_id))) == decisions[run_id], run_id
    assert len(archived["ticks"]) == len(facts[""])
    return len(distinct([*told, *decided]))


def die_and_come_back(worker: DyingWorker, feed: Feed, kills: int) -> None:
    with feeding(sends(feed), per_second=PACE) as sent:
        for faults in islice(cycle(FAULTS), kills):
            worker.start(faults)
            worker.until_killed()
        worker.start()
        worker.until_running()
        fed = sent()
        worker.until(lambda: sent() > fed + 120, "records after the last kill")


def first_of_each(reads: list[Read]) -> dict[str, list[str]]:
    """By run, its events in log order, each at its first place; ticks under no name."""
    events: dict[str, dict[str, str]] = defaultdict(dict)
    for read in reads:
        if not isinstance(read.event, Malformed):
            run_id = "" if isinstance(read.event, Tick) else read.event.run_id
            events[run_id].setdefault(read.event.event_id, to_json(read.event))
    return {run_id: list(lines.values()) for run_id, lines in events.items()}


def killed(broker: LocalBroker, endpoint: EndpointProcess, folder: Path, kills: int) -> None:
    scenario = f"archiver SIGKILL, {kills} times"
    assert recorded(scenario, broker.name, lambda: kill_again_and_again(broker, endpoint, folder, kills)).passed


def test_two_kills_archive_everything_once(new_broker: NewBroker, new_endpoint: NewEndpoint, tmp_path: Path) -> None:
    killed(new_broker(), new_endpoint(), tmp_path, kills=2)


@pytest.mark.chaos_long
def test_ten_kills_archive_everything_once(new_broker: NewBroker, new_endpoint: NewEndpoint, tmp_path: Path) -> None:
    killed(new_broker(), new_endpoint(), tmp_path, kills=10)
