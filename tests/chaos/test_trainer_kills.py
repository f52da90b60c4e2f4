"""Trainers that die without a word, at random moments: what they logged up to their last flush is in the log or on
disk.
"""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from pilothouse.cli.brokers import free_port
from pilothouse.events.codec import decode
from pilothouse.events.telemetry import StepBatch
from pilothouse.events.topics import TELEMETRY
from pilothouse.producers.delivery.spool import read_folder
from pilothouse.tests.broker_fixture import PARTITIONS, started
from pilothouse.tests.dying_trainers import Death, Trainers, Way, trainers
from pilothouse.tests.dying_worker import Feed
from pilothouse.tests.log_reader import read_all
from pilothouse.tests.slow_network import FarBroker

FLUSH_SECONDS = 0.25
SLACK_SECONDS = 0.3
"""For a machine that other tests use at the same time; what is looked for is a second and more."""

EACH = 3
"""So many die of each way in each state of the broker."""

LATE = 0.2
"""Seconds that a slow broker's network adds, each way."""


@dataclass(frozen=True)
class Loss:
    """What is missing of a run: steps, the time (seconds) from the last that was kept to the last that was logged."""

    death: Death
    steps: int
    seconds: float


def deaths(state: str, kafka: str, folder: Path, first: float, last: float) -> list[Death]:
    """The trainers of one phase, dead between `first` and `last` seconds from its beginning."""
    chance = random.Random(f"{state} 7")
    return [
        Death(f"{state}-{way}-{number}", kafka, str(folder), FLUSH_SECONDS, way, chance.uniform(first, last))
        for way in get_args(Way)
        for number in range(EACH)
    ]


def lived(trainers: Trainers, far: FarBroker, folder: Path) -> list[Death]:
    """All of them, in every state that a broker can be in; when this returns, they are dead."""
    up = deaths("up", far.far_address, folder, 0.1, 1.5) + deaths("away", f"127.0.0.1:{free_port()}", folder, 0.1, 1.5)
    trainers.running(up)
    trainers.over()
    far.network.delay = LATE
    slow = deaths("slow", far.far_address, folder, 0.5, 2.0)
    trainers.running(slow)
    trainers.over()
    far.network.delay = 0.0
    silent = deaths("silent", far.far_address, folder, 0.9, 2.0)
    trainers.running(silent)
    time.sleep(0.7)  # they are heard by now, and two of three die before anybody calls the silence a failure
    far.network.hold()
    trainers.over()
    far.network.let_pass()
    return [*up, *slow, *silent]


@pytest.fixture(scope="module")
def losses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Loss]]:
    folder = tmp_path_factory.mktemp("trainers")
    far = FarBroker(folder / "broker")
    started(far)
    try:
        with trainers() as program:
            dead = lived(program, far, folder)
        feed = Feed(far.address)
        feed.end(TELEMETRY.name)
        feed.close()
        yield losses_of(dead, [read.event for read in read_all(far.address, TELEMETRY.name, PARTITIONS)], folder)
    finally:
        far.network.close()
        far.kill()


def losses_of(dead: Sequence[Death], events: Sequence[object], folder: Path) -> list[Loss]:
    """Compares what each logged with what is in the log and on disk."""
    batches = [event for event in events if isinstance(event, StepBatch)]
    for spool in (folder / "spool").glob("*/*"):
        told = (decode(record.headers, record.body) for record in read_folder(spool))
        batches += [event for event in told if isinstance(event, StepBatch)]
    return [_loss(death, [batch for batch in batches if batch.run_id == death.run_id]) for death in dead]


def _loss(death: Death, batches: Sequence[StepBatch]) -> Loss:
    logged, first_at, last_at = death.spoken()
    kept = {step: at for batch in batches for step, at in zip(batch.steps, batch.times, strict=True)}
    assert sorted(kept) == list(range(len(kept))), f"{death.run_id}: what is missing is not only its end"
    missing = max(0, logged - len(kept))
    kept_at = kept[len(kept) - 1] if kept else first_at
    return Loss(death, missing, (last_at - kept_at) / 1e6 if missing else 0.0)


@pytest.mark.parametrize("state", ["up", "slow", "silent", "away"])
def test_who_dies_without_a_word_loses_no_more_than_the_last_flush_interval(state: str, losses: list[Loss]) -> None:
    of_state = [loss for loss in losses if loss.death.run_id.startswith(f"{state}-")]
    assert len(of_state) == 2 * EACH
    assert max(loss.seconds for loss in of_state) <= FLUSH_SECONDS + SLACK_SECONDS, of_state
    assert any(loss.steps for loss in of_state), "somebody died between two flushes, or nothing was measured"
