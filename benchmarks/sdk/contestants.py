"""Who is measured: Pilothouse, the trackers, two bare Kafka clients, and two floors. Each is opened in a process of its
own (`benchmarks.sdk.worker`), with its own defaults, as its documentation shows it.

A contestant is a call `(step, metrics)`, a way to wait until nothing is left to do, and an end.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from .step import in_keywords

Call = Callable[[int, dict[str, float]], object]
TOPIC = "pilothouse.bench"
SETTLE_SECONDS = 20.0


def _nothing() -> None:
    """There is nothing to wait for."""


@dataclass(frozen=True)
class Contestant:
    """What the worker drives."""

    call: Call
    settle: Callable[[], object] = _nothing
    close: Callable[[], object] = _nothing


@dataclass(frozen=True)
class Entry:
    """One row of the table: how it is opened (in a folder, with the address of a broker), its kind, its package."""

    open: Callable[[Path, str], Contestant]
    kind: str
    package: str = ""

    def version(self) -> str:
        return version(self.package) if self.package else ""


def no_op(_folder: Path, _address: str) -> Contestant:
    def call(step: int, metrics: dict[str, float]) -> None:
        pass

    return Contestant(call)


def deque_append(_folder: Path, _address: str) -> Contestant:
    rows: deque[tuple[int, dict[str, float]]] = deque()
    append = rows.append

    def call(step: int, metrics: dict[str, float]) -> None:
        append((step, metrics))

    return Contestant(call, rows.clear)


def deque_append_keywords(_folder: Path, _address: str) -> Contestant:
    rows: deque[tuple[int, dict[str, float]]] = deque()
    append = rows.append

    def log(step: int, /, **metrics: float) -> None:
        append((step, metrics))

    return Contestant(in_keywords(log), rows.clear)


def pilothouse(folder: Path, address: str) -> Contestant:
    from pilothouse import start_run
    from pilothouse.settings import Settings

    settings = Settings(kafka=address, data_dir=folder, close_seconds=5.0)
    run = start_run("bench", run_id=f"bench-{uuid4().hex[:8]}", settings=settings)

    def settle() -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while (counts := run.counts()).sent < counts.accepted and time.monotonic() < deadline:
            time.sleep(0.01)
        if counts.dropped:
            raise RuntimeError(f"{counts.dropped} calls were dropped: what was measured is not what was sent")

    return Contestant(in_keywords(run.log), settle, run.close)


def wandb_offline(folder: Path, _address: str) -> Contestant:
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(folder), "WANDB_CONSOLE": "off"}
    import wandb

    run = wandb.init(project="bench", dir=str(folder), mode="offline")
    return Contestant(lambda step, metrics: run.log(metrics, step=step), close=run.finish)


def mlflow_at(uri: Callable[[Path], str]) -> Callable[[Path, str], Contestant]:
    def opened(folder: Path, _address: str) -> Contestant:
        # MLflow 3 calls its file store deprecated; people have it, so it is measured.
        os.environ |= {
            "MLFLOW_ALLOW_FILE_STORE": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GIT_PYTHON_REFRESH": "quiet",
        }
        import mlflow

        mlflow.set_tracking_uri(uri(folder))
        mlflow.set_experiment("bench")
        mlflow.start_run()
        return Contestant(lambda step, metrics: mlflow.log_metrics(metrics, step=step), close=mlflow.end_run)

    return opened


def tensorboard(folder: Path, _address: str) -> Contestant:
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(folder))

    def call(step: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)

    return Contestant(call, writer.flush, writer.close)


def trackio(folder: Path, _address: str) -> Contestant:
    os.environ |= {"TRACKIO_DIR": str(folder), "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    import trackio as tracker

    run: Any = tracker.init(project="bench", name="bench", embed=False)
    return Contestant(lambda step, metrics: run.log(metrics, step=step), close=tracker.finish)


def confluent_kafka(_folder: Path, address: str) -> Contestant:
    from confluent_kafka import Producer
    from msgspec.json import encode

    producer: Any = Producer({"bootstrap.servers": address, "queue.buffering.max.messages": 1_000_000})

    def call(step: int, metrics: dict[str, float]) -> None:
        producer.produce(TOPIC, encode({"step": step, **metrics}))

    return Contestant(call, lambda: producer.flush(SETTLE_SECONDS), lambda: producer.flush(5.0))


def kafka_python(_folder: Path, address: str) -> Contestant:
    from kafka import KafkaProducer
    from msgspec.json import encode

    producer: Any = KafkaProducer(bootstrap_servers=address)

    def call(step: int, metrics: dict[str, float]) -> None:
        producer.send(TOPIC, encode({"step": step, **metrics}))

    return Contestant(call, lambda: producer.flush(SETTLE_SECONDS), lambda: producer.close(timeout=5.0))


FLOOR, OURS, TRACKER, CLIENT = "floor", "ours", "tracker", "client"
CONTESTANTS: Mapping[str, Entry] = {
    "no-op": Entry(no_op, FLOOR),
    "deque.append": Entry(deque_append, FLOOR),
    "deque.append of keywords": Entry(deque_append_keywords, FLOOR),
    "pilothouse": Entry(pilothouse, OURS, "pilothouse"),
    "confluent-kafka": Entry(confluent_kafka, CLIENT, "confluent-kafka"),
    "kafka-python": Entry(kafka_python, CLIENT, "kafka-python"),
    "trackio": Entry(trackio, TRACKER, "trackio"),
    "tensorboard": Entry(tensorboard, TRACKER, "tensorboard"),
    "wandb offline": Entry(wandb_offline, TRACKER, "wandb"),
    "mlflow file": Entry(mlflow_at(lambda folder: (folder / "mlruns").as_uri()), TRACKER, "mlflow"),
    "mlflow sqlite": Entry(mlflow_at(lambda folder: f"sqlite:///{folder}/mlflow.db"), TRACKER, "mlflow"),
}
