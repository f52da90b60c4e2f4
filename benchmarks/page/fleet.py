"""A fleet to look at: many runs, most of which go on, and one whose curves have a million points."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from benchmarks.storage.generate import LONG_RUN, Log, Run, records, runs
from pilothouse.events.decisions import PhaseChanged
from pilothouse.events.telemetry import RunEnded
from pilothouse.settings import Settings
from pilothouse.storage.archive import Archive, Archived
from pilothouse.storage.connect import connect
from pilothouse.storage.migrate import migrate

STEPS, METRICS, LONG_METRICS = 450, ("loss", "lr", "grad_norm", "compute_s"), ("loss", "lr", "grad_norm")
ENDED_OF = 10
"""Every so many-th run has ended."""
AT_ONCE = 10_000
ALL = 10**12


def keep(clickhouse_url: str, count: int) -> int:
    """Archive a million-step run and `count` others; how many values that are."""
    client = connect(Settings(clickhouse_url=clickhouse_url))
    migrate(client)
    archive, log, values = Archive(client), Log(), 0
    batch: list[Archived] = []
    for run in islice(map(_cut, runs(ALL)), count + 1):
        values += run.points
        for record in _going_on(run, records(run, log)):
            batch.append(record)
            if len(batch) >= AT_ONCE:
                archive.insert(batch)
                batch = []
    archive.insert(batch)
    client.close()
    return values


def _cut(run: Run) -> Run:
    metrics, steps = (LONG_METRICS, run.steps) if run.run_id == LONG_RUN else (METRICS, STEPS)
    kept = {name: run.values[name][:steps] for name in metrics}
    return replace(run, metrics=metrics, times=run.times[:steps], values=kept)


def _going_on(run: Run, told: Iterator[Archived]) -> Iterator[Archived]:
    """Without its end, but for some."""
    for record in told:
        event = record.event
        ends = isinstance(event, RunEnded) or (isinstance(event, PhaseChanged) and event.phase == "Ended")
        if not ends or (run.number % ENDED_OF == 0 and run.run_id != LONG_RUN):
            yield record


def folder_bytes(folder: Path) -> int:
    """What the archive takes on disk."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
