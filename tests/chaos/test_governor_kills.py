"""The governor, killed with SIGKILL at named events while telemetry streams: the same decisions as without kills."""

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count, cycle, islice
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest

from pilothouse.cli.brokers import LocalBroker
from pilothouse.events.codec import Malformed
from pilothouse.events.decisions import PhaseChanged
from pilothouse.events.topics import CONTROL, DEADLETTER, TELEMETRY, partition_of
from pilothouse.events.union import AnyInput, Record
from pilothouse.tests.broker_fixture import NewBroker
from pilothouse.tests.dying_worker import PARTITIONS, RUNS, DyingWorker, Feed, Read, Reader, fact, feeding, read_all
from pilothouse.tests.tiny_fold import TINY

POINTS = (
    "after_decisions:20",
    "before_state:5",
    "after_state:6",
    "before_acknowledgement:4",
    "before_decisions:15",
    "after_acknowledgement:5",
)


def sends(feed: Feed) -> Iterator[Callable[[], None]]:
    """All runs in turn, without end; now and then bytes that are no event."""
    for seq in count(1):
        for run_id in RUNS:
            yield lambda run_id=run_id, seq=seq: feed.send(  # type: ignore[misc]  # bound now, called later
                fact(run_id, seq), TELEMETRY.name, partition_of(run_id, PARTITIONS)
            )
        if seq % 20 == 0:
            yield lambda seq=seq: feed.send_bytes(TELEMETRY.name, seq % PARTITIONS, b"junk")  # type: ignore[misc]


def worker_on(broker: LocalBroker, data_dir: Path, slot: str = "0") -> DyingWorker:
    policy = data_dir / "policy.yaml"
    data_dir.mkdir(parents=True, exist_ok=True)
    policy.write_text("rules: []\n")
    environ = {
        "PILOTHOUSE_KAFKA": broker.address,
        "PILOTHOUSE_EMBEDDED_BROKER": str(not broker.keeps_log).lower(),
        "PILOTHOUSE_STATE_FLUSH_SECONDS": "0.3",
        "PILOTHOUSE_TICK_SECONDS": "0.2",
        "PILOTHOUSE_POLICY_FILE": str(policy),
    }
    return DyingWorker("governor", data_dir, environ, slot)


def undisturbed(log: list[Read]) -> dict[str, PhaseChanged]:
    """What a governor that never died decides on this log: the fold, record by record."""
    states: dict[str, Any] = {}
    decisions: dict[str, PhaseChanged] = {}
    for read in log:
        if (
            isinstance(read.event, Malformed)
            or not isinstance(read.event, AnyInput)
            or not hasattr(read.event, "run_id")
        ):
            continue
        run_id = read.event.run_id
        folded = TINY.fold(states.get(run_id) or TINY.new_state(run_id), Record(read.place, read.event))
        states[run_id] = folded.state
        decisions |= {decision.decision_id: decision for decision in folded.decisions}
    return decisions


def kill_again_and_again(broker: LocalBroker, folder: Path, kills: int) -> None:
    worker = worker_on(broker, folder)
    with closing(Feed(broker.address)) as feed:
        try:
            die_and_come_back(worker, feed, kills)
            judge(broker, feed, worker)
        finally:
            worker.kill()


def judge(broker: LocalBroker, feed: Feed, worker: DyingWorker) -> None:
    """Stop the last worker when it has judged everything; what all of them decided is what one would have decided."""
    feed.end(TELEMETRY.name)  # not an event either: it goes to the dead letters like the junk
    told = read_all(broker.address, TELEMETRY.name)
    expected = undisturbed(told)
    with closing(Reader(broker.address, CONTROL.name)) as control:
        worker.until(lambda: expected.keys() <= control.polled().ids, f"{len(expected)} decisions")
    assert worker.stop() == 0
    for topic in (CONTROL.name, DEADLETTER.name):
        feed.end(topic)
    assert len(expected) > 100
    decided = [read.event for read in read_all(broker.address, CONTROL.name)]
    differing = [event for event in decided if isinstance(event, Malformed) or expected.get(event.event_id) != event]
    assert not differing, f"{len(differing)} of {len(decided)} decisions differ, first {differing[0]}"
    assert len(decided) < 2 * len(expected), "duplicates are identical, and few"
    letters = {_origin(read) for read in read_all(broker.address, DEADLETTER.name)}
    junk = {(TELEMETRY.name, *read.place[1:]) for read in told if isinstance(read.event, Malformed)}
    assert junk <= letters


def die_and_come_back(worker: DyingWorker, feed: Feed, kills: int) -> None:
    """Telemetry streams all the time; at the end the worker lives, and has been given more than it died of."""
    with feeding(sends(feed), per_second=100) as sent:
        for point in islice(cycle(POINTS), kills):
            worker.start(kill=point)
            assert worker.ended() == -SIGKILL, f"meant to die at {point}:\n{worker.said()}"
        worker.start()
        worker.until_running()
        fed = sent()
        worker.until(lambda: sent() > fed + 100, "telemetry after the last kill")


def _origin(read: Read) -> tuple[str, int, int]:
    of = read.headers
    return of["ph-source-topic"].decode(), int(of["ph-source-partition"]), int(of["ph-source-offset"])


def test_two_kills_change_no_decision(new_broker: NewBroker, tmp_path: Path) -> None:
    kill_again_and_again(new_broker(), tmp_path, kills=2)


@pytest.mark.chaos_long
def test_ten_kills_change_no_decision(new_broker: NewBroker, tmp_path: Path) -> None:
    kill_again_and_again(new_broker(), tmp_path, kills=10)


def test_partitions_that_move_between_two_governors_change_no_decision(new_broker: NewBroker, tmp_path: Path) -> None:
    broker = new_broker()
    one, other = worker_on(broker, tmp_path, slot="0"), worker_on(broker, tmp_path, slot="1")
    with closing(Feed(broker.address)) as feed:
        try:
            one.start()
            one.until_running()
            with feeding(sends(feed), per_second=60) as sent:
                other.start()
                other.until_running()
                both = sent()
                other.until(lambda: sent() > both + 100, "both have judged")
                shares = [set(worker.health()["last_offset"]) for worker in (one, other)]
                assert all(shares), "each has partitions"
                assert not shares[0] & shares[1], "none is read by both"
                other.kill()
                one.until(lambda: len(one.health()["last_offset"]) == PARTITIONS, "all are back at the first")
                alone = sent()
                one.until(lambda: sent() > alone + 100, "it has judged alone")
            judge(broker, feed, one)
        finally:
            one.kill()
            other.kill()
