"""The archiver, killed with SIGKILL at named events while both topics stream: each record once in the archive."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import count, cycle, islice
from pathlib import Path
from signal import SIGKILL

import pytest

from pilothouse.cli.brokers import LocalBroker
from pilothouse.events.codec import Malformed
from pilothouse.events.commands import Tick
from pilothouse.events.decisions import PhaseChanged
from pilothouse.events.envelope import LogPlace, derived_id
from pilothouse.events.topics import CONTROL, TELEMETRY, partition_of
from pilothouse.events.union import AnyEvent
from pilothouse.storage.history import read_decisions, read_log
from pilothouse.storage.migrate import migrate
from pilothouse.tests.broker_fixture import NewBroker
from pilothouse.tests.dying_worker import PARTITIONS, RUNS, DyingWorker, Feed, Read, fact, feeding, read_all
from pilothouse.tests.endpoint_fixture import EndpointProcess, NewEndpoint

POINTS = ("after_insert:3", "before_insert:4", "before_acknowledgement:4", "after_acknowledgement:3")


def decision(run_id: str, seq: int) -> PhaseChanged:
    return PhaseChanged(
        at=seq,
        run_id=run_id,
        attempt_id="a",
        attempt=1,
        decision_id=derived_id(run_id, "a", "phase", str(seq), 1),
        basis=LogPlace(0, partition_of(run_id, PARTITIONS), seq),
        step=seq,
        policy_hash="",
        phase="Normal",
        was="Warmup",
        reason="Fed",
        evidence={"loss": float("nan"), "seq": float(seq)},
    )


def sends(feed: Feed) -> Iterator[Callable[[], None]]:
    """Facts and decisions of all runs in turn, without end; some twice, as after a restart of their sender."""
    for seq in count(1):
        for run_id in RUNS:
            place = partition_of(run_id, PARTITIONS)
            yield partial(feed.send, fact(run_id, seq), TELEMETRY.name, place)
            if seq % 5 == 0:
                yield partial(feed.send, decision(run_id, seq), CONTROL.name, place)
            if seq % 20 == 0:
                yield partial(feed.send, decision(run_id, seq), CONTROL.name, place)
                yield partial(feed.send, fact(run_id, seq), TELEMETRY.name, place)
        if seq % 20 == 0:
            yield partial(feed.send_bytes, TELEMETRY.name, seq % PARTITIONS, b"junk")


def worker_on(broker: LocalBroker, archive: EndpointProcess, data_dir: Path) -> DyingWorker:
    environ = {
        "PILOTHOUSE_KAFKA": broker.address,
        "PILOTHOUSE_EMBEDDED_BROKER": str(not broker.keeps_log).lower(),
        "PILOTHOUSE_CLICKHOUSE_URL": archive.clickhouse_url,
        "PILOTHOUSE_ARCHIVE_LINGER_SECONDS": "0.3",
    }
    return DyingWorker("archiver", data_dir, environ)


def kill_again_and_again(broker: LocalBroker, archive: EndpointProcess, folder: Path, kills: int) -> None:
    client = archive.client()
    migrate(client)
    client.database = "pilothouse"
    worker = worker_on(broker, archive, folder / "archiver")
    with closing(Feed(broker.address)) as feed:
        try:
            die_and_come_back(worker, feed, kills)
            for topic in (TELEMETRY.name, CONTROL.name):
                feed.end(topic)
            told, decided = read_all(broker.address, TELEMETRY.name), read_all(broker.address, CONTROL.name)
            ends = {f"{topic}/{place.partition}": place.offset for topic, place in _last(told, decided)}
            worker.until(lambda: reached(worker, ends), f"the archiver reaches {ends}")
            assert worker.stop() == 0
        finally:
            worker.kill()
    for run_id in RUNS:
        facts = [record.event for record in read_log(client, run_id) if not isinstance(record.event, Tick)]
        assert _lines(facts) == _lines(_once(told, run_id)), f"facts of {run_id}"
        assert _lines(read_decisions(client, run_id)) == _lines(_once(decided, run_id)), f"decisions of {run_id}"


def die_and_come_back(worker: DyingWorker, feed: Feed, kills: int) -> None:
    with feeding(sends(feed), per_second=100) as sent:
        for point in islice(cycle(POINTS), kills):
            worker.start(kill=point)
            assert worker.ended() == -SIGKILL, f"meant to die at {point}:\n{worker.said()}"
        worker.start()
        worker.until_running()
        fed = sent()
        worker.until(lambda: sent() > fed + 100, "records after the last kill")


def reached(worker: DyingWorker, ends: dict[str, int]) -> bool:
    at = worker.health().get("last_offset", {})
    return all(at.get(place, -1) >= offset for place, offset in ends.items())


def _last(told: list[Read], decided: list[Read]) -> list[tuple[str, LogPlace]]:
    return [(TELEMETRY.name, read.place) for read in told] + [(CONTROL.name, read.place) for read in decided]


def _once(reads: list[Read], run_id: str) -> list[AnyEvent]:
    """A run's events in log order, each at its first place."""
    events: dict[str, AnyEvent] = {}
    for read in reads:
        if not isinstance(read.event, Malformed) and getattr(read.event, "run_id", "") == run_id:
            events.setdefault(read.event.event_id, read.event)
    return list(events.values())


def _lines(events: Sequence[AnyEvent]) -> list[str]:
    return [event.model_dump_json() for event in events]  # NaN is equal to itself on paper


def test_two_kills_archive_everything_once(new_broker: NewBroker, new_endpoint: NewEndpoint, tmp_path: Path) -> None:
    kill_again_and_again(new_broker(), new_endpoint(), tmp_path, kills=2)


@pytest.mark.chaos_long
def test_ten_kills_archive_everything_once(new_broker: NewBroker, new_endpoint: NewEndpoint, tmp_path: Path) -> None:
    kill_again_and_again(new_broker(), new_endpoint(), tmp_path, kills=10)
