"""The loggers as a training script uses them, each with its defaults: opened, called once a step, closed.

Imported by `child` alone, which is a process of its own for each: a logger that hangs or crashes takes nobody with it.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

NAME = "bench-failures"
TOPIC = "bench-failures"
Metrics = Mapping[str, float]


class Logger(NamedTuple):
    """What a script calls: `log(step, metrics)`, and `close()` at its end."""

    log: Callable[[int, Metrics], object]
    close: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a logger may write: a folder of its own, and its server's host:port, which may be dead."""

    folder: Path
    address: str


def pilothouse(place: Place) -> Logger:
    from pilothouse import start_run
    from pilothouse.settings import Settings

    run = start_run(NAME, run_id=NAME, settings=Settings(kafka=place.address, data_dir=place.folder))
    return Logger(lambda step, metrics: run.log(step, **metrics), run.close)


def kafka_python(place: Place) -> Logger:
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=place.address)
    return Logger(lambda step, metrics: producer.send(TOPIC, _json(step, metrics)), producer.close)


def confluent_kafka(place: Place) -> Logger:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": place.address, "log_level": 0})

    def log(step: int, metrics: Metrics) -> None:
        producer.produce(TOPIC, _json(step, metrics))
        producer.poll(0)

    return Logger(log, producer.flush)


def wandb_offline(place: Place) -> Logger:
    import wandb

    run = wandb.init(project=NAME, dir=place.folder, mode="offline")
    return Logger(lambda step, metrics: run.log(dict(metrics), step=step), run.finish)


def wandb_online(place: Place) -> Logger:
    os.environ |= {"WANDB_BASE_URL": f"http://{place.address}", "WANDB_API_KEY": "0" * 40}
    import wandb

    run = wandb.init(project=NAME, dir=place.folder)
    return Logger(lambda step, metrics: run.log(dict(metrics), step=step), run.finish)


def mlflow_server(place: Place) -> Logger:
    return _mlflow(f"http://{place.address}")


def mlflow_sqlite(place: Place) -> Logger:
    return _mlflow(f"sqlite:///{place.folder}/mlflow.db")


def _mlflow(uri: str) -> Logger:
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.start_run(run_name=NAME)
    return Logger(lambda step, metrics: mlflow.log_metrics(dict(metrics), step=step), mlflow.end_run)


def tensorboard(place: Place) -> Logger:
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(place.folder))

    def log(step: int, metrics: Metrics) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)

    return Logger(log, writer.close)


def trackio(place: Place) -> Logger:
    os.environ["TRACKIO_DIR"] = str(place.folder)
    import trackio as tracker

    tracker.init(project=NAME, name=NAME)
    return Logger(lambda step, metrics: tracker.log(dict(metrics), step=step), tracker.finish)


LOGGERS: Mapping[str, Callable[[Place], Logger]] = {
    "pilothouse": pilothouse,
    "kafka-python": kafka_python,
    "confluent-kafka": confluent_kafka,
    "wandb-offline": wandb_offline,
    "wandb-online": wandb_online,
    "mlflow-server": mlflow_server,
    "mlflow-sqlite": mlflow_sqlite,
    "tensorboard": tensorboard,
    "trackio": trackio,
}


def _json(step: int, metrics: Metrics) -> bytes:
    return json.dumps({"step": step, **metrics}).encode()
