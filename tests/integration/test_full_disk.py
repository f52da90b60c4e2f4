"""A disk that takes nothing more, or nothing at all, while the broker is away: training goes on, losses are counted."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilothouse.cli.brokers import LocalBroker
from pilothouse.events.telemetry import TelemetryGap
from pilothouse.producers.delivery.batching import Outgoing
from pilothouse.producers.delivery.spool import Spool, read_folder
from pilothouse.tests.broker_fixture import broker_of_kind, started
from pilothouse.tests.training_script import Script, steps_of

ROOM = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({}, resource.RLIM_INFINITY))\n"
"""The kernel takes so many bytes of each file, the beginning of a frame as well, and then none: as on a full disk."""

FULL = ROOM.format(100)
"""Less than any record."""

READ_ONLY = "/sys/kernel/pilothouse-spool"
"""On a file system that refuses to make it, to root as well."""

TRAIN = """
import json, sys, time
import pilothouse

def until(holds):
    deadline = time.monotonic() + 50
    while not holds():
        assert time.monotonic() < deadline, run.counts()
        time.sleep(0.02)

run = pilothouse.start_run("disk")
longest = 0.0
for step in range(3_000):
    before = time.perf_counter()
    run.log(step, loss=1.0, grad_norm=2.0)
    longest = max(longest, time.perf_counter() - before)
    if step % 10 == 0:
        time.sleep(0.01)
until(lambda: run._outbox.sender.failures > 0)
time.sleep(0.3)  # longer than anything waits in memory alone where the disk takes it
"""

AND_LATER = """
print(json.dumps({"longest": longest, **run.counts()._asdict()}), flush=True)
sys.stdin.readline()
run.close()
print(json.dumps(run.counts()._asdict()), flush=True)
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LocalBroker]:
    """Not started yet."""
    one = broker_of_kind("embedded", tmp_path / "broker")
    yield one
    one.kill()


def trained(process: "subprocess.Popen[str]") -> dict[str, float]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    told: dict[str, float] = json.loads(line)
    return told


def ended(process: "subprocess.Popen[str]") -> tuple[dict[str, int], str]:
    out, err = process.communicate("\n", timeout=60)
    assert process.returncode == 0, err
    return json.loads(out), err


@pytest.mark.parametrize("disk", ["full", "read-only"])
def test_without_a_disk_what_fits_memory_waits_there_and_arrives(
    disk: str, broker: LocalBroker, tmp_path: Path
) -> None:
    script = Script(broker.address, tmp_path)
    if disk == "read-only":
        script.environ["PILOTHOUSE_SPOOL_DIR"] = READ_ONLY
    with script.start((FULL if disk == "full" else "") + TRAIN + AND_LATER) as process:
        told = trained(process)
        started(broker)
        counts, err = ended(process)
    assert told["longest"] < 0.25
    assert told["queued"] > 0
    assert told["spooled"] == 0
    assert counts["sent"] == counts["accepted"]
    assert counts["dropped"] == 0
    assert "Traceback" not in err
    facts = script.facts()
    assert steps_of(facts) == list(range(3_000))
    assert [fact.seq for fact in facts] == list(range(1, len(facts) + 1))


SMALL_MEMORY = """
from pilothouse.producers.delivery import backlog, outbox
backlog.MEMORY_BYTES, outbox.CAPACITY = 20_000, 500
"""


def test_what_fits_neither_disk_nor_memory_is_dropped_counted_and_told(broker: LocalBroker, tmp_path: Path) -> None:
    script = Script(broker.address, tmp_path)
    with script.start(FULL + SMALL_MEMORY + TRAIN + AND_LATER) as process:
        told = trained(process)
        started(broker)
        counts, err = ended(process)
    assert told["longest"] < 0.25
    assert told["dropped"] > 1_000
    assert counts["accepted"] == counts["sent"] + counts["dropped"]
    facts = script.facts()
    gaps = [fact for fact in facts if isinstance(fact, TelemetryGap)]
    assert sum(gap.dropped.get("queue_full", 0) for gap in gaps) == counts["dropped"]
    steps = steps_of(facts)
    assert len(steps) == 3_000 - counts["dropped"]
    assert steps == sorted(steps)
    assert err.count("new telemetry is dropped") == 1


def test_a_run_that_ends_without_broker_and_disk_says_what_is_lost(broker: LocalBroker, tmp_path: Path) -> None:
    script = Script(broker.address, tmp_path)
    done = script.run(TRAIN, PILOTHOUSE_SPOOL_DIR=READ_ONLY, PILOTHOUSE_CLOSE_SECONDS="2")
    assert done.returncode == 0, done.stderr
    assert "3003 calls of telemetry are lost: neither the broker nor" in done.stderr


def test_a_disk_that_takes_the_beginning_of_a_record_loses_none(tmp_path: Path) -> None:
    """What the kernel reports as a success of fewer bytes is no success."""
    child = f"""
{ROOM.format(10_000)}
from pathlib import Path
from pilothouse.producers.delivery.spool import Spool
from pilothouse.producers.delivery.batching import Outgoing
spool = Spool(Path({str(tmp_path)!r}) / "run" / "writer", 10**9)
record = lambda seq, size=3_000: Outgoing(seq, 1, b"x" * size, [])
print(*(spool.append(one) for one in (record(1), record(2), record(3), record(4), record(4), record(5, 11_000))))
other = Spool(Path({str(tmp_path)!r}) / "other" / "writer", 10**9)
print(other.append(record(1, 11_000)), other.folder.parent.exists())
"""
    done = Script("127.0.0.1:9", tmp_path).run(child)
    assert done.stdout == "True True True False True False\nFalse False\n", done.stderr
    found = list(read_folder(tmp_path / "run" / "writer"))
    assert found == [Outgoing(seq, 1, b"x" * 3_000, []) for seq in range(1, 5)]
    assert Spool.left_in(tmp_path / "run" / "writer").entries == 4
