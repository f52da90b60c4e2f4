"""A governor that dies behind its command issues it again; the trainer obeys once."""

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

import pytest
import torch

import pilothouse
from pilothouse.cli.brokers import LocalBroker
from pilothouse.events.decisions import InterventionIssued, InterventionVerified
from pilothouse.events.telemetry import InterventionReceipt
from pilothouse.events.topics import CONTROL, DEADLETTER, TELEMETRY
from pilothouse.settings import Settings
from pilothouse.tests.broker_fixture import PARTITIONS, NewBroker
from pilothouse.tests.dying_worker import DEADLINE, DyingWorker, Feed
from pilothouse.tests.log_reader import Reader, read_all

from .governors import as_readers_see, governor_on, undisturbed

NAN_AT = 30
POLICY = """
name: halve
mode: enforce
rules:
  - name: nonfinite
    when: conditions.Finite == 'False'
    severity: page
    runbook: a test
    actions: [{action: scale_lr, factor: 0.5}]
    limit: {count: 1, window_steps: 100000}
    ttl_steps: 100000
    verify: {window_steps: 10}
"""


def train(broker: LocalBroker, folder: Path, worker: DyingWorker) -> tuple[str, float]:
    """Train for real, with the rest of the loop, until the command was heard twice; the run, and its multiplier."""
    settings = Settings(kafka=broker.address, data_dir=folder, embedded_broker=True, producer_flush_seconds=0.05)
    weight = torch.nn.Parameter(torch.ones(1))
    model = torch.nn.ParameterList([weight])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pilothouse.start_run("halved", run_id="halved", settings=settings) as run:
        pilot = run.pilot(model, optimizer)
        for step in _until_both_are_answered(broker, worker):
            run.log(step, loss=math.nan if step == NAN_AT else 1.0)
            pilot.safe_point(step)
        return run.identity.run_id, pilot.lr_multiplier


def _until_both_are_answered(broker: LocalBroker, worker: DyingWorker) -> Iterator[int]:
    """Steps, at a pace, until both copies were answered and the first verified; a governor that died is replaced."""
    assert worker.process is not None
    awaited = [(TELEMETRY, InterventionReceipt), (TELEMETRY, InterventionReceipt), (CONTROL, InterventionVerified)]
    deadline = time.monotonic() + DEADLINE
    with ExitStack() as open_readers:
        readers = {
            topic: open_readers.enter_context(closing(Reader(broker.address, topic.name, PARTITIONS)))
            for topic in (TELEMETRY, CONTROL)
        }
        for step in count():
            yield step
            for topic, reader in readers.items():
                for came in [(topic, type(read.event)) for read in reader.more(timeout_ms=10)]:
                    if came in awaited:
                        awaited.remove(came)
            if not awaited:
                return
            assert time.monotonic() < deadline, f"still waiting for {awaited}:\n{worker.said()}"
            if worker.process.poll() is not None:
                worker.until_killed()
                worker.start()


@pytest.mark.parametrize("new_broker", ["embedded", pytest.param("kafka", marks=pytest.mark.chaos_long)], indirect=True)
def test_a_command_that_is_issued_twice_is_applied_once(new_broker: NewBroker, tmp_path: Path) -> None:
    broker = new_broker()
    worker = governor_on(broker, tmp_path / "governor", policy=POLICY)
    try:
        worker.start("sigkill@after_command/1")
        worker.until_running()
        run_id, multiplier = train(broker, tmp_path / "trainer", worker)
        assert worker.stop() == 0
    finally:
        worker.kill()
    with closing(Feed(broker.address)) as feed:
        feed.end(TELEMETRY.name, CONTROL.name, DEADLETTER.name)
    told, control = (read_all(broker.address, topic, PARTITIONS) for topic in (TELEMETRY.name, CONTROL.name))
    commands = [read for read in control if isinstance(read.event, InterventionIssued)]
    assert len(commands) == 2
    assert commands[0].body == commands[1].body
    receipts = [read.event for read in told if isinstance(read.event, InterventionReceipt)]
    assert [receipt.outcome for receipt in receipts] == ["applied", "rejected"]
    assert receipts[1].reason.startswith("Duplicate: this intervention was applied")
    assert multiplier == pytest.approx(0.5)
    judged_to = worker.health()["last_offset"]
    told = [read for read in told if read.place.offset <= judged_to[f"{TELEMETRY.name}/{read.place.partition}"]]
    assert as_readers_see(control)[run_id] == undisturbed(told)[run_id]
