"""Committed histories: the records of runs as they were judged, and the decisions they led to.

`demo` is a run of `pilothouse demo`, real from end to end: the records are what `storage.history.read_log` gave, the
decisions what stood on the control topic. It is renewed from a demo that keeps its stack up:

    pilothouse demo --ranks 2 --steps 160 --keep-stack --json --data-dir DIR
    python -m pilothouse.tests.replay.history --from-stack DIR RUN    RUN is the governed one

`four_ranks` is simulated (tests/governed_run.py), and has what a demo does not: four ranks, a spike, a NaN on one of
them.

    python -m pilothouse.tests.replay.history              decide its records anew, on purpose
    python -m pilothouse.tests.replay.history --records    tell its records anew too

Renewed, they answer the questions of docs/sql.md otherwise: python -m pilothouse.tests.cookbook writes them anew.

All files are JSON lines, gzipped: a record is {"place": [epoch, partition, offset], "event": ...}, a decision is an
event.
"""

import gzip
import json
import math
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from pilothouse.events.codec import from_json, to_json
from pilothouse.events.envelope import Decision, LogPlace
from pilothouse.events.topics import CONTROL
from pilothouse.events.union import AnyDecision, AnyInput, Record
from pilothouse.settings import Settings, load_settings
from pilothouse.stream_processors.replay import replay
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.log_reader import Reader
from pilothouse.tests.run_builder import quiet_loss

DEMO, FOUR_RANKS = "demo", "four_ranks"
HISTORIES = (DEMO, FOUR_RANKS)
SETTLED_SECONDS, DEADLINE_SECONDS = 2.0, 60.0


def records(history: str) -> Iterator[Record]:
    """The committed records, in the order in which they were judged."""
    for line in _lines(_records_file(history)):
        told = json.loads(line)
        event = from_json(json.dumps(told["event"]))
        assert isinstance(event, AnyInput), event.kind
        yield Record(LogPlace(*told["place"]), event)


def committed_decisions(history: str) -> list[str]:
    """As JSON, one line each."""
    return _lines(_decisions_file(history))


def decisions_now(history: str) -> list[AnyDecision]:
    """What the core decides of the committed records today."""
    return decided(list(records(history)))


def decided(log: list[Record]) -> list[AnyDecision]:
    run_id = next(record.event.run_id for record in log if record.event.kind != "tick")
    return list(replay(run_id, log))


def _tell() -> list[Record]:
    def loss(position: int, step: int, rank: int) -> float:
        if 210 <= position < 214 and rank == 2:
            return math.nan
        return quiet_loss(step, rank) + (1.5 if 120 <= position < 150 else 0.0)

    return GovernedRun(loss=loss).begin().train(260, steps_per_tick=3).end().records


def renew_from_stack(data_dir: str, run_id: str) -> None:
    """Write the history of a run that ended on a stack which is still up."""
    from pilothouse.storage.connect import connect
    from pilothouse.storage.history import read_log

    settings = load_settings({"PILOTHOUSE_DATA_DIR": data_dir})
    log, told = read_log(connect(settings), run_id), list(map(to_json, on_control_topic(settings, run_id)))
    now = list(map(to_json, decided(log)))
    if now != told:
        sys.exit(f"{len(told)} decisions stand on {CONTROL.name}, and the archived log leads to {len(now)} others")
    _write(_records_file(DEMO), map(_record_line, log))
    _write(_decisions_file(DEMO), told)


def on_control_topic(settings: Settings, run_id: str) -> list[AnyDecision]:
    """What was decided of a run until it ended, in the order of the topic; what stands there twice counts once."""
    decisions: dict[str, AnyDecision] = {}
    settled = deadline = time.monotonic() + DEADLINE_SECONDS
    with closing(Reader(settings.kafka, CONTROL.name, settings.partitions)) as reader:
        # The embedded broker does not say where its log ends: it ends when nothing comes for a while.
        while time.monotonic() < settled:
            for read in reader.more():
                settled = min(deadline, time.monotonic() + SETTLED_SECONDS)
                if isinstance(read.event, Decision) and read.event.run_id == run_id:
                    decisions.setdefault(read.event.decision_id, read.event)
    return list(decisions.values())


def _record_line(record: Record) -> str:
    return f'{{"place":{json.dumps(record.place)},"event":{to_json(record.event)}}}'


def _records_file(history: str) -> Path:
    return Path(__file__).with_name(f"{history}.records.jsonl.gz")


def _decisions_file(history: str) -> Path:
    return Path(__file__).with_name(f"{history}.decisions.jsonl.gz")


def _lines(file: Path) -> list[str]:
    return gzip.decompress(file.read_bytes()).decode().splitlines()


def _write(file: Path, lines: Iterable[str]) -> None:
    body = "".join(line + "\n" for line in lines).encode()
    file.write_bytes(gzip.compress(body, mtime=0))  # the same content is the same file
    sys.stdout.write(f"wrote {file}\n")


def main(arguments: list[str]) -> None:
    match arguments:
        case ["--from-stack", data_dir, run_id]:
            renew_from_stack(data_dir, run_id)
        case ["--records"] | []:
            if arguments:
                _write(_records_file(FOUR_RANKS), map(_record_line, _tell()))
            _write(_decisions_file(FOUR_RANKS), map(to_json, decisions_now(FOUR_RANKS)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
