"""Governed runs in a real archive, and the command line that asks it: for tests of what is done with old runs."""

import math
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pilothouse.events.commands import Tick
from pilothouse.events.envelope import LogPlace
from pilothouse.events.topics import CONTROL, TELEMETRY
from pilothouse.events.union import AnyInput
from pilothouse.settings import Settings
from pilothouse.storage.archive import Archive, Archived
from pilothouse.storage.connect import connect
from pilothouse.storage.migrate import migrate
from pilothouse.tests.endpoint_fixture import EndpointProcess
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.run_builder import quiet_loss
from pilothouse.tests.stack_fixture import typed

HEAL = """
name: careful
mode: enforce
rules:
- name: heal
  when: conditions.Finite == 'False'
  actions: [{action: rollback, skip_batches: 4, lr_factor: 0.5}]
"""


def broken(position: int, step: int, rank: int) -> float:
    """A loss that is quiet but for three NaN, which `HEAL` goes back behind."""
    return math.nan if 60 <= position < 63 else quiet_loss(step, rank)


@dataclass
class RunArchive:
    """An archive, and a person's command line on it."""

    endpoint: EndpointProcess
    folder: Path

    def __post_init__(self) -> None:
        client = connect(Settings(clickhouse_url=self.endpoint.clickhouse_url))
        migrate(client)
        self._archive = Archive(client)
        self._partitions = 0

    def keep(self, run: GovernedRun, *, without_offset: int | None = None) -> GovernedRun:
        """The run's log and its decisions, in a partition of its own, whose ticks are its own; one record may be
        missing.
        """
        partition, self._partitions = self._partitions, self._partitions + 1
        told = [
            Archived(TELEMETRY.name, LogPlace(0, partition, place.offset), _ticking(event, partition))
            for place, event in run.records
            if place.offset != without_offset
        ]
        decided = [
            Archived(
                CONTROL.name,
                LogPlace(0, partition, number),
                decision.model_copy(update={"basis": decision.basis._replace(partition=partition)}),
            )
            for number, decision in enumerate(run.decisions)
        ]
        self._archive.insert([*told, *decided])
        return run

    def cli(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return typed(*words, data_dir=self.folder, more={"PILOTHOUSE_CLICKHOUSE_URL": self.endpoint.clickhouse_url})


def _ticking(event: AnyInput, partition: int) -> AnyInput:
    """A tick as that of this partition's own ticker."""
    if not isinstance(event, Tick):
        return event
    return event.model_copy(update={"partition": partition, "writer_id": f"ticker-{partition}"})
