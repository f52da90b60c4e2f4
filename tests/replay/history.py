"""A committed history: the records of a run as they were judged, and the decisions they led to.

    python -m pilothouse.tests.replay.history            decide the committed records anew, on purpose
    python -m pilothouse.tests.replay.history --records  tell the records anew too (tests/governed_run.py)

Both files are JSON lines, gzipped: a record is {"place": [epoch, partition, offset], "event": ...}, a decision is an
event. The history is that of four ranks with a spike, a NaN on one rank, the rollbacks that followed, and an end.
"""

import gzip
import json
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from pilothouse.events.codec import from_json, to_json
from pilothouse.events.envelope import LogPlace
from pilothouse.events.union import AnyDecision, AnyInput, Record
from pilothouse.stream_processors.replay import replay
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.run_builder import quiet_loss

RECORDS = Path(__file__).with_name("four_ranks.records.jsonl.gz")
DECISIONS = Path(__file__).with_name("four_ranks.decisions.jsonl.gz")


def records() -> Iterator[Record]:
    """The committed records, in the order in which they were judged."""
    for line in _lines(RECORDS):
        told = json.loads(line)
        event = from_json(json.dumps(told["event"]))
        assert isinstance(event, AnyInput), event.kind
        yield Record(LogPlace(*told["place"]), event)


def run_id() -> str:
    return next(record.event.run_id for record in records() if record.event.kind != "tick")


def committed_decisions() -> list[str]:
    """As JSON, one line each."""
    return list(_lines(DECISIONS))


def decisions_now() -> list[AnyDecision]:
    """What the core decides of the committed records today."""
    return list(replay(run_id(), records()))


def _tell() -> list[Record]:
    def loss(position: int, step: int, rank: int) -> float:
        if 210 <= position < 214 and rank == 2:
            return math.nan
        return quiet_loss(step, rank) + (1.5 if 120 <= position < 150 else 0.0)

    return GovernedRun(loss=loss).begin().train(260, steps_per_tick=3).end().records


def _lines(file: Path) -> list[str]:
    return gzip.decompress(file.read_bytes()).decode().splitlines()


def _write(file: Path, lines: Iterable[str]) -> None:
    body = "".join(line + "\n" for line in lines).encode()
    file.write_bytes(gzip.compress(body, mtime=0))  # the same content is the same file
    sys.stdout.write(f"wrote {file}\n")


def main(arguments: list[str]) -> None:
    if "--records" in arguments:
        _write(RECORDS, (f'{{"place":{json.dumps(place)},"event":{to_json(event)}}}' for place, event in _tell()))
    _write(DECISIONS, map(to_json, decisions_now()))


if __name__ == "__main__":
    main(sys.argv[1:])
