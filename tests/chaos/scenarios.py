"""What is done to a stage, and at which event. Each scenario says how many faults it injected; `Stage.judge` says what
must hold after it, the same for all.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pilothouse.cli.brokers import LocalBroker
from pilothouse.events.topics import TELEMETRY, partition_key, partition_of
from pilothouse.events.union import AnyTelemetry
from pilothouse.tests.before import Wire, as_now, facts
from pilothouse.tests.broker_fixture import BROKERS, PARTITIONS, START_SECONDS
from pilothouse.tests.dying_worker import Feed
from pilothouse.tests.slow_network import SlowNetwork

from . import clock
from .disorder import DisorderlyFeed
from .small_disk import SmallDisk
from .stage import Stage
from .strange_records import send_impossible, send_strange

AN_HOUR = 3_600.0
PACE = 100.0
"""Steps a second, of all simulated runs together."""


@dataclass(frozen=True)
class Scenario:
    """`strike` acts on a stage on which trainers train and both workers run, and returns the count of what it broke.
    `faults` are the first governor's own, at its named points.
    """

    name: str
    strike: Callable[[Stage], int]
    brokers: tuple[str, ...] = BROKERS
    faults: str = ""
    disorderly: bool = False
    small_disk: bool = False


def endpoint_killed(stage: Stage) -> int:
    """The archive dies in the middle of inserts, again and again, and its archiver waits."""
    for _ in range(3):
        stage.until_archived_more()
        stage.endpoint.kill()
        stage.until(lambda: stage.archiver.health().get("last_error"), "the archiver says that nothing answers")
        stage.restart_endpoint()
        stage.until(lambda: not stage.archiver.health().get("last_error", "?"), "the archiver goes on")
    return 3


def archive_read_only(stage: Stage) -> int:
    """Its tables take nothing, as after a lost Keeper, and then do again."""
    tables = [row[0] for row in stage.client.query(LOGS).result_rows]
    for table in tables:
        stage.client.command(f"ALTER TABLE {table} MODIFY SETTING table_readonly = 1")
    stage.until(lambda: "readonly" in stage.archiver.health().get("last_error", ""), "the archiver says why it waits")
    stage.until_runs_end(2)
    for table in tables:
        stage.client.command(f"ALTER TABLE {table} RESET SETTING table_readonly")
    stage.until(lambda: not stage.archiver.health().get("last_error", "?"), "the archiver goes on")
    return len(tables)


LOGS = "SELECT name FROM system.tables WHERE database = 'pilothouse' AND engine LIKE '%MergeTree' AND name LIKE '%log'"


def disk_full(stage: Stage) -> int:
    """The archive's disk is filled to the last byte by somebody else, and then emptied."""
    disk = SmallDisk(stage.endpoint)
    disk.fill()
    stage.until(lambda: stage.archiver.health().get("last_error"), "the archiver says why it waits")
    stage.until_runs_end(2)
    disk.empty()
    stage.until(lambda: not stage.archiver.health().get("last_error", "?"), "the archiver goes on")
    return 1


def zombie(stage: Stage) -> int:
    """A governor stands still, just behind a command, for longer than its session; another takes over; it wakes up.

    Not on the embedded broker: there the other waits for the one that stands still, until somebody kills that one, as
    a supervisor does (`test_stack`).
    """
    other = stage.another_governor("1")
    stage.until(lambda: stopped(stage), "the governor stands still")
    stage.until(lambda: len(other.health().get("last_offset", ())) == 4, "the other has all partitions")
    stage.until_runs_end(2)
    stage.wake(stage.governor)
    stage.until_runs_end(3)
    return 1


def late_zombie(stage: Stage) -> int:
    """A governor stands still, about to write its states, for longer than its session; the one that took over dies; it
    wakes up and writes what it was about to write, behind what the dead one wrote.
    """
    other = stage.another_governor("1")
    stage.until(lambda: stopped(stage), "the governor stands still")
    stage.until(lambda: len(other.health().get("last_offset", ())) == 4, "the other has all partitions")
    stage.until_runs_end(2)
    stage.dismiss(other)
    stage.wake(stage.governor)
    stage.until_runs_end(3)
    return 2


def stopped(stage: Stage) -> bool:
    assert stage.governor.process is not None
    with open(f"/proc/{stage.governor.process.pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "T"


def rebalance_in_flight(stage: Stage) -> int:
    """A second governor joins when a command is out and not answered, and is killed when the next one is."""
    for _ in range(2):
        stage.until_command()
        other = stage.another_governor("1")
        stage.until(partial(stage.runs, other), "the second governor runs")
        stage.until_command()
        stage.dismiss(other)
    stage.until_runs_end(2)
    return 4


def two_by_mistake(stage: Stage) -> int:
    """Somebody starts a second governor of the same slot, on a data directory of its own."""
    other = stage.another_governor("0", folder="other")
    stage.until_runs_end(3)
    stage.dismiss(other)
    stage.until_runs_end(2)
    return 1


def clock_jumps(stage: Stage) -> int:
    for seconds in (AN_HOUR, -AN_HOUR, 0.0):
        clock.jump(stage.clock, seconds)
        stage.until_runs_end(1)
    return 3


def disorder(stage: Stage) -> int:
    """Records come twice, late, in another order, cut off and spoilt."""
    feed = stage.trainers.feed
    assert isinstance(feed, DisorderlyFeed)
    stage.until_runs_end(5)
    assert len(feed.done) == 6, feed.done
    return feed.done.total()


def poison(stage: Stage) -> int:
    """What no worker can read, and a decision that the archive can never take, in the middle of everything."""
    for number in range(3):
        stage.until_runs_end(1)
        for topic in ("pilothouse.telemetry", "pilothouse.control"):
            send_strange(stage.trainers.feed, topic, number)
        send_impossible(stage.trainers.feed, number)
    stage.until_runs_end(2)
    return 9


def two_versions(stage: Stage) -> int:
    """In the middle of an upgrade: beside the trainers of this version one of the version before, of whose two ranks
    one is of this version already.
    """
    told = list(facts())
    for number, (wire, fact) in enumerate(told):
        if number % 40 == 0:
            stage.until_runs_end(1)
        send_wire(stage.trainers.feed, fact, wire if fact.rank == 0 else as_now(wire))
    stage.until_runs_end(2)
    return sum(fact.rank == 0 for _, fact in told)


def send_wire(feed: Feed, fact: AnyTelemetry, wire: Wire) -> None:
    feed.sent.add(fact.event_id)
    place = partition_of(fact.run_id, PARTITIONS)
    feed.send_bytes(TELEMETRY.name, place, wire.body, key=partition_key(fact), headers=wire.headers)


def broker_killed(stage: Stage) -> int:
    """A broker that keeps its log dies and comes back; its workers with it."""
    broker = stage.broker
    assert isinstance(broker, LocalBroker)
    for end in (broker.stop, broker.kill):
        stage.until_archived_more()
        end()
        broker.start(START_SECONDS)
        stage.until_runs_end(2)
    return 2


def all_workers_killed(stage: Stage) -> int:
    for _ in range(2):
        stage.until_command()
        for worker in (stage.governor, stage.archiver):
            assert worker.process is not None
            os.kill(worker.process.pid, signal.SIGKILL)
            worker.until_killed()
            worker.start()
        stage.until_runs_end(2)
    return 4


def rank_killed(faults: str) -> Callable[[Stage], int]:
    """A real job of two ranks loses some, is launched again, and goes on from its last checkpoint."""

    def strike(stage: Stage) -> int:
        job = stage.job("job", faults=faults, needs=2)
        stage.until(job.ended, "the job has come to its end")
        assert len(job.statuses) == 2, job.said()
        died = [status for status in job.statuses[0] if status == -signal.SIGKILL]
        assert len(died) == (2 if faults.count("/") == 1 else 1), job.statuses
        return len(died)

    return strike


def preempted(stage: Stage) -> int:
    """Spot preemption: SIGTERM between the files of a checkpoint. It unwinds, says so, and goes on elsewhere."""
    job = stage.job("job", faults="sigterm@checkpoint/60/0", needs=2)
    stage.until(job.ended, "the job has come to its end")
    assert len(job.statuses) == 2, job.said()
    halves = list((job.folder / "checkpoints").glob("step-*.tmp-*"))
    assert not halves, "what was half written is gone, or was never whole"
    return 1


def broken_inside(faults: str, damage: int = -1) -> Callable[[Stage], int]:
    """A real job goes wrong and is rolled back by the governor."""

    def strike(stage: Stage) -> int:
        job = stage.job("job", faults=faults, damage=damage, needs=2)
        stage.until(job.ended, "the job was rolled back and has come to its end")
        assert len(job.statuses) == 1, job.said()
        assert job.attempts > 1, "it was never rolled back"
        return 1 + (damage >= 0)

    return strike


def cut_off(stage: Stage) -> int:
    """The network between a real job and its broker passes nothing for longer than any time-out, then is cut."""
    port = int(stage.broker.address.rpartition(":")[2])
    network = SlowNetwork(port)
    try:
        job = stage.job("job", redirect=f"{port}:{network.port}", least=900)
        stage.until(lambda: job.step() > 100 or job.ended(), "the job trains")
        network.hold()
        before = job.step()
        stage.until(lambda: job.step() > before + 400 or job.ended(), "the job trains on while nothing passes")
        network.let_pass()
        stage.until(lambda: job.step() > before + 550 or job.ended(), "the job trains on when it passes again")
        network.cut()
        stage.until(lambda: job.step() > before + 700 or job.ended(), "the job trains on while it is cut")
        network.restore()
        stage.until(job.ended, "the job has come to its end")
        assert len(job.statuses) == 1, job.said()
    finally:
        network.close()
    return 2


SCENARIOS = (
    Scenario("endpoint SIGKILL", endpoint_killed),
    Scenario("archive read-only", archive_read_only),
    Scenario("archive's disk full", disk_full, small_disk=True),
    Scenario("governor SIGSTOP longer than its session", zombie, ("kafka",), faults="sigstop@after_command/2"),
    Scenario("governor SIGSTOP about to write its states", late_zombie, ("kafka",), faults="sigstop@before_state/40"),
    Scenario("rebalance with an intervention in flight", rebalance_in_flight),
    Scenario("two governors by mistake", two_by_mistake),
    Scenario("clock jumps forwards and back", clock_jumps),
    Scenario("records twice, late, cut and spoilt", disorder, disorderly=True),
    Scenario("poison in a busy run", poison),
    Scenario("broker restarted and SIGKILL", broker_killed, ("kafka",)),
    Scenario("governor and archiver SIGKILL at once", all_workers_killed),
    Scenario("a rank SIGKILL", rank_killed("sigkill@safe_point/70/1")),
    Scenario("rank 0 SIGKILL", rank_killed("sigkill@safe_point/70/0")),
    Scenario("all ranks SIGKILL", rank_killed("sigkill@safe_point/70")),
    Scenario("SIGTERM in the middle of a checkpoint", preempted),
    Scenario("corrupted checkpoint", broken_inside("nan_grad@grad/110", damage=80)),
    Scenario("corrupted data", broken_inside("corrupt_data@batch/0?first=90&last=99")),
    Scenario("upgrade with both versions on the topic", two_versions),
    Scenario("network held and cut between trainer and broker", cut_off),
)
