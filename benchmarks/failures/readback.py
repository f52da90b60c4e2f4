"""What each logger has stored when all is over: the steps that can be read back, wherever they lie.

Asked by `runner` after the script's process is gone. Files are read as their owner's own tools read them; what waits in
a local store and could still be sent (our spool, a W&B offline run) counts as kept.
"""

import json
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from .loggers import NAME, TOPIC

READ_SECONDS = 20.0
QUIET_SECONDS = 2.0
LOG_HEAD = 7
LOG_BLOCK = 32_768

Steps = set[int]


def _pilothouse(folder: Path, address: str) -> Steps:
    """As its owner would: push what lies in the spool, then read the log."""
    from pilothouse.events.telemetry import StepBatch
    from pilothouse.producers.delivery.leftovers import find_leftovers, push
    from pilothouse.settings import Settings

    for leftover in find_leftovers(folder / "spool"):
        push(Settings(kafka=address, data_dir=folder), leftover)
    from pilothouse.events.codec import decode
    from pilothouse.events.topics import TELEMETRY

    events = (decode(record.headers, record.value) for record in _records(address, TELEMETRY.name))
    return {step for event in events if isinstance(event, StepBatch) and event.run_id == NAME for step in event.steps}


def _kafka(_: Path, address: str) -> Steps:
    return {int(json.loads(record.value)["step"]) for record in _records(address, TOPIC)}


def _records(address: str, topic: str) -> Iterator[Any]:
    """Everything in a topic: until nothing has come for a while."""
    from kafka import KafkaConsumer, TopicPartition

    with closing(KafkaConsumer(bootstrap_servers=address, enable_auto_commit=False)) as consumer:
        places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(places)
        for place in places:
            consumer.seek(place, 0)
        deadline = time.monotonic() + READ_SECONDS
        last = time.monotonic()
        while places and time.monotonic() < min(deadline, last + QUIET_SECONDS):
            for records in consumer.poll(200).values():
                last = time.monotonic()
                yield from records


def _wandb(folder: Path, _: str) -> Steps:
    """What `wandb sync` would find in the run's own file: a step counts where its history record is whole."""
    from wandb.proto.wandb_internal_pb2 import Record

    steps: Steps = set()
    for path in folder.rglob("*.wandb"):
        for data in _log_records(path.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            if record.HasField("history"):
                steps.add(int(record.history.step.num))
    return steps


def _log_records(content: bytes) -> Iterator[bytes]:
    """The whole records of a W&B file: LevelDB's log format (blocks of 32 KiB; checksum, length, type) behind a header
    of seven bytes.
    """
    at, parts = LOG_HEAD, b""
    while at + LOG_HEAD <= len(content):
        left = LOG_BLOCK - at % LOG_BLOCK
        if left < LOG_HEAD:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        part = content[at + LOG_HEAD : at + LOG_HEAD + length]
        if len(part) < length or kind not in (1, 2, 3, 4):
            return  # torn
        at += LOG_HEAD + length
        parts = part if kind in (1, 2) else parts + part
        if kind in (1, 4):
            yield parts


def _mlflow(folder: Path, _: str) -> Steps:
    return _query(folder / "mlflow.db", "SELECT step FROM metrics WHERE key = 'metric_0'")


def _trackio(folder: Path, _: str) -> Steps:
    return {step for path in folder.glob("*.db") for step in _query(path, "SELECT step FROM metrics")}


def _query(path: Path, sql: str) -> Steps:
    if not path.exists():
        return set()
    with closing(sqlite3.connect(path)) as database, suppress(sqlite3.DatabaseError):
        return {int(step) for (step,) in database.execute(sql)}
    return set()


def _tensorboard(folder: Path, _: str) -> Steps:
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    steps: Steps = set()
    for path in folder.rglob("events.out.tfevents.*"):
        with suppress(Exception):  # a torn record ends its file
            for event in LegacyEventFileLoader(str(path)).Load():
                steps |= {event.step for value in event.summary.value if value.tag == "metric_0"}
    return steps


READBACK: Mapping[str, Callable[[Path, str], Steps]] = {
    "pilothouse": _pilothouse,
    "kafka-python": _kafka,
    "confluent-kafka": _kafka,
    "wandb-offline": _wandb,
    "wandb-online": _wandb,
    "mlflow-server": _mlflow,
    "mlflow-sqlite": _mlflow,
    "tensorboard": _tensorboard,
    "trackio": _trackio,
}
