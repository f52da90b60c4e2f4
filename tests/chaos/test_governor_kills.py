"""The governor, killed with SIGKILL at named points while runs go wrong and are steered: the same decisions as without
kills.

What a governor that never died would have decided is what `replay` makes of the telemetry topic, ticks included. A
decision may stand on the control topic twice (delivery is at least once: killed between sending it and remembering
that, a governor sends it again), but then with the same bytes.
"""

from collections import Counter
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path

import pytest

from pilothouse.cli.brokers import LocalBroker
from pilothouse.events.topics import CONTROL, DEADLETTER, TELEMETRY
from pilothouse.tests.broker_fixture import PARTITIONS, NewBroker
from pilothouse.tests.dying_worker import DyingWorker, feeding
from pilothouse.tests.log_reader import read_all

from .governors import as_readers_see, governor_on, undisturbed
from .ledger import Row, applied_twice, out_of_bounds, recorded
from .live_trainers import STORIES, LiveTrainers
from .stage import distinct
from .strange_records import due_letters, letters

FAULTS = (
    "sigkill@before_command/1",
    "sigkill@after_state/6",
    "sigkill@after_command/1",
    "sigkill@before_acknowledgement/4",
    "sigkill@after_decisions/20",
    "sigkill@before_state/5",
    "sigkill@before_decisions/15",
    "sigkill@after_acknowledgement/5",
)
PACE = 100.0
"""Steps a second, of all runs together."""


def kill_again_and_again(broker: LocalBroker, folder: Path, kills: int) -> Row:
    worker = governor_on(broker, folder)
    with closing(LiveTrainers(broker.address)) as trainers:
        try:
            with feeding(trainers.sends(), per_second=PACE) as sent:
                for faults in islice(cycle(FAULTS), kills):
                    worker.start(faults)
                    worker.until_killed()
                worker.start()
                worker.until_running()
                ended = trainers.ended
                worker.until(lambda: sent() > 0 and trainers.ended >= ended + len(STORIES), "runs end")
            events = judge(broker, trainers, worker)
        finally:
            worker.kill()
    return Row(f"governor SIGKILL, {kills} times", broker.name, kills, events).concluded()


def judge(broker: LocalBroker, trainers: LiveTrainers, worker: DyingWorker) -> int:
    """Stop the last worker when it has read everything; what all of them decided is what one would have decided. How
    many events were looked at.
    """
    worker.until_done(trainers.feed.ends())
    assert worker.stop() == 0
    last_read = worker.health()["last_offset"]
    trainers.feed.end(TELEMETRY.name, CONTROL.name, DEADLETTER.name)
    told = [
        read
        for read in read_all(broker.address, TELEMETRY.name, PARTITIONS)
        if read.place.offset <= last_read[f"{TELEMETRY.name}/{read.place.partition}"]
    ]
    expected = undisturbed(told)
    decisions = read_all(broker.address, CONTROL.name, PARTITIONS)
    decided = as_readers_see(decisions)
    assert decided.keys() == expected.keys()
    for run_id in expected:
        assert decided[run_id] == expected[run_id], run_id
    kinds = Counter(line.partition(",")[0] for lines in expected.values() for line in lines)
    for kind in ("intervention_issued", "intervention_verified", "incident_resolved"):
        assert kinds[f'{{"kind":"{kind}"'] > 1, kinds
    assert letters(read_all(broker.address, DEADLETTER.name, PARTITIONS)) == due_letters(TELEMETRY.name, told)
    events = distinct([*decisions, *told])
    assert applied_twice(events) == out_of_bounds(events) == 0
    return len(events)


def killed(broker: LocalBroker, folder: Path, kills: int) -> None:
    scenario = f"governor SIGKILL, {kills} times"
    assert recorded(scenario, broker.name, lambda: kill_again_and_again(broker, folder, kills)).passed


def test_two_kills_change_no_decision(new_broker: NewBroker, tmp_path: Path) -> None:
    killed(new_broker(), tmp_path, kills=2)


@pytest.mark.chaos_long
def test_ten_kills_change_no_decision(new_broker: NewBroker, tmp_path: Path) -> None:
    killed(new_broker(), tmp_path, kills=10)


@pytest.mark.chaos_long
def test_partitions_that_move_between_two_governors_change_no_decision(new_broker: NewBroker, tmp_path: Path) -> None:
    broker = new_broker()
    one, other = governor_on(broker, tmp_path, slot="0"), governor_on(broker, tmp_path, slot="1")
    with closing(LiveTrainers(broker.address)) as trainers:
        try:
            one.start()
            one.until_running()
            with feeding(trainers.sends(), per_second=PACE) as sent:
                other.start()
                other.until_running()
                both = sent()
                other.until(lambda: sent() > both + 200, "both have judged")
                shares = [set(worker.health()["last_offset"]) for worker in (one, other)]
                assert all(shares), "each has partitions"
                assert not shares[0] & shares[1], "none is read by both"
                other.kill()
                one.until(lambda: len(one.health()["last_offset"]) == PARTITIONS, "all are back at the first")
                ended = trainers.ended
                one.until(lambda: sent() > 0 and trainers.ended >= ended + len(STORIES), "it has judged alone")
            judge(broker, trainers, one)
        finally:
            one.kill()
            other.kill()
