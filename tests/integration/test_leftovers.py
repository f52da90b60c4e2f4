"""What a dead process left on disk: sent once by whoever comes, in order, and never while its process lives."""

import fcntl
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from pilothouse.cli.brokers import LocalBroker, free_port
from pilothouse.events.envelope import TrainerFact
from pilothouse.events.errors import BrokerUnavailable, SpoolInUse, UserMistake
from pilothouse.events.telemetry import TelemetryGap
from pilothouse.producers.delivery import spool as spool_module
from pilothouse.producers.delivery.leftovers import Leftover, drop, find_leftovers, push
from pilothouse.producers.delivery.spool import segment_files
from pilothouse.producers.delivery.spool_lock import SpoolLock, owner_of
from pilothouse.settings import Settings
from pilothouse.tests.broker_fixture import PARTITIONS
from pilothouse.tests.log_reader import read_run
from pilothouse.tests.training_script import Script, steps_of

KILLED = """
import os, signal, time
import pilothouse
from pilothouse.producers.delivery import spool
spool.SEGMENT_BYTES = 20_000
run = pilothouse.start_run("left")
for step in range(2_000):
    run.log(step, loss=1.0)
    if step % 20 == 0:
        time.sleep(0.01)
while run.counts().spooled < run.counts().accepted:
    time.sleep(0.02)
print("spooled", flush=True)
time.sleep(60)
"""


class Spooled(Script):
    """A script that was killed with its broker away: all 2,000 steps are on disk."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"127.0.0.1:{free_port()}", folder)
        self.folder = folder

    def begun(self) -> "subprocess.Popen[str]":
        process = self.start(KILLED)
        assert process.stdout is not None
        assert process.stdout.readline() == "spooled\n", process.communicate()[1]
        return process

    def killed(self) -> Leftover:
        with self.begun() as process:
            process.kill()
        return self.only()

    def only(self) -> Leftover:
        (leftover,) = find_leftovers(self.folder / "spool")
        return leftover


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template")
    Spooled(folder).killed()
    return folder / "spool"


@pytest.fixture
def left(template: Path, tmp_path: Path) -> Leftover:
    """A copy of what a process left, for tests that send nothing of it."""
    shutil.copytree(template, tmp_path / "spool")
    (leftover,) = find_leftovers(tmp_path / "spool")
    return leftover


@pytest.fixture
def own(tmp_path: Path) -> Leftover:
    """Of a run of its own, for tests that look at what the broker got of it."""
    return Spooled(tmp_path).killed()


def settings_for(broker: LocalBroker) -> Settings:
    return Settings(kafka=broker.address)


def read(broker: LocalBroker, run_id: str, last_step: int = 1_999) -> list[TrainerFact]:
    return read_run(broker.address, run_id, PARTITIONS, until=lambda fact: last_step in steps_of([fact]))


def test_what_was_left_is_described(left: Leftover) -> None:
    assert (left.rank, left.attempt, left.owner) == (0, 1, "")
    assert left.steps == (0, 1_999)
    assert left.calls == 2_002  # the beginning, the stage, and each step
    assert left.bytes == sum(path.stat().st_size for path in segment_files(left.folder))
    assert left.run_id.startswith("run-")
    assert left.writer_id == left.folder.name
    assert left.first_at is not None
    assert left.last_at is not None
    assert left.first_at < left.last_at


def test_what_was_left_is_sent_in_order_under_its_own_numbers_and_forgotten(
    own: Leftover, embedded_broker: LocalBroker
) -> None:
    assert push(settings_for(embedded_broker), own) == (own.calls, 0)
    assert not own.folder.parent.exists()
    assert_all_is_there(own, embedded_broker)


def test_what_is_sent_twice_is_seen_once(own: Leftover, tmp_path: Path, embedded_broker: LocalBroker) -> None:
    """As after a push that was killed between a confirmation and the end of its file."""
    shutil.copytree(tmp_path / "spool", tmp_path / "again")
    (again,) = find_leftovers(tmp_path / "again")
    for leftover in (own, again):
        push(settings_for(embedded_broker), leftover)
    assert_all_is_there(own, embedded_broker)


def assert_all_is_there(leftover: Leftover, broker: LocalBroker) -> None:
    """Each record once, for a reader who goes by numbers as all of ours do."""
    facts = read(broker, leftover.run_id)
    assert steps_of(facts) == list(range(2_000))
    assert {fact.writer_id for fact in facts} == {leftover.writer_id}
    assert [fact.seq for fact in facts] == list(range(1, leftover.records + 1))


def test_without_a_broker_nothing_is_forgotten(left: Leftover) -> None:
    with pytest.raises(BrokerUnavailable, match=r"no Kafka broker listens at .*; what waits in .* is kept"):
        push(Settings(kafka=f"127.0.0.1:{free_port()}"), left)
    (still,) = find_leftovers(left.folder.parent.parent)
    assert still == left


def test_a_living_process_keeps_its_spool_and_a_dead_one_does_not(tmp_path: Path, embedded_broker: LocalBroker) -> None:
    spooled = Spooled(tmp_path)
    with spooled.begun() as process:
        lives = spooled.only()
        assert lives.owner.startswith(f"{process.pid} on ")
        with pytest.raises(SpoolInUse, match="is in use"):
            push(settings_for(embedded_broker), lives)
        with pytest.raises(SpoolInUse, match="is in use"):
            drop(lives)
        process.send_signal(signal.SIGKILL)
    assert spooled.only().owner == ""
    drop(spooled.only())
    assert find_leftovers(tmp_path / "spool") == []


def test_a_forked_child_that_outlives_its_parent_holds_nothing(tmp_path: Path) -> None:
    spooled = Spooled(tmp_path)
    orphan = KILLED.replace(
        'print("spooled", flush=True)',
        'child = os.fork()\nif child == 0:\n    time.sleep(60)\nprint("spooled", child, flush=True)',
    )
    process = spooled.start(orphan)
    assert process.stdout is not None
    child = int(process.stdout.readline().split()[1])
    try:
        assert spooled.only().owner
        process.kill()
        process.wait(30)
        os.kill(child, 0)
        assert spooled.only().owner == ""
    finally:
        os.kill(child, signal.SIGKILL)
        process.communicate()


def test_damage_is_told_under_the_numbers_that_are_lost(own: Leftover, embedded_broker: LocalBroker) -> None:
    damaged, *_ = segment_files(own.folder)[1:]
    content = bytearray(damaged.read_bytes())
    content[-5] ^= 1
    damaged.write_bytes(content)
    sent = push(settings_for(embedded_broker), own)
    assert sent.lost > 0
    facts = read(embedded_broker, own.run_id)
    (gap,) = [fact for fact in facts if isinstance(fact, TelemetryGap)]
    assert gap.dropped == {"spool_damaged": sent.lost}
    missing = {seq for first, last in gap.missing for seq in range(first, last + 1)}
    assert {fact.seq for fact in facts} | missing == set(range(1, own.records + 1))


def test_what_nobody_can_read_is_said(left: Leftover, embedded_broker: LocalBroker) -> None:
    for path in segment_files(left.folder):
        path.write_bytes(b"\xff" * 100)
    with pytest.raises(UserMistake, match="can be read: its telemetry is lost; `pilothouse spool drop"):
        push(settings_for(embedded_broker), left)


def test_a_lock_whose_file_its_owner_removed_is_taken_anew(tmp_path: Path) -> None:
    first = SpoolLock.take(tmp_path)
    with pytest.raises(BlockingIOError):
        SpoolLock.take(tmp_path)
    assert owner_of(tmp_path) == f"{os.getpid()} on {os.uname().nodename}"
    first.remove()
    assert owner_of(tmp_path) is None
    SpoolLock.take(tmp_path).remove()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_that_is_removed_while_it_is_taken_guards_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners = [SpoolLock.take(tmp_path)]
    flock = fcntl.flock

    def flock_later(descriptor: int, operation: int) -> None:
        """The owner is done in the moment between opening and locking."""
        while owners:
            owners.pop().remove()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_later)
    next_owner = SpoolLock.take(tmp_path)
    assert owner_of(tmp_path) is not None
    next_owner.remove()


def test_a_process_that_died_before_its_first_record_left_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "writer"
    folder.mkdir(parents=True)
    (folder / f"{1:020d}{spool_module.SUFFIX}").touch()
    assert not spool_module.Spool.left_in(folder)
