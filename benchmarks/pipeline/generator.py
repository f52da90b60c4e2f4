"""`python -m pilothouse.benchmarks.pipeline.generator ADDRESS …`: simulated ranks, in a process of their own.

Sends what `simulated` says is due, by the clock for `--seconds`, or with `--flat-out` that many seconds of it as fast
as the broker takes them. Prints a line of JSON a second, `{"at", "records", "rank_steps", "late"}`, the last when the
broker has confirmed all; `late` is how far it is behind the clock, in seconds.
"""

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass
from functools import cache

from aiokafka import AIOKafkaProducer

from pilothouse.events.topics import TELEMETRY, partition_of

from .simulated import Load, Trainings

SLICE_SECONDS = 0.01
"""What is due within it goes out at once."""


@dataclass(slots=True)
class Account:
    """What was sent so far."""

    records: int = 0
    rank_steps: int = 0
    late: float = 0.0

    def say(self) -> None:
        told = {"at": time.time(), "records": self.records, "rank_steps": self.rank_steps, "late": self.late}
        print(json.dumps(told), flush=True)


async def send(address: str, load: Load, seconds: float, *, flat_out: bool) -> None:
    """All that is due within these seconds."""
    producer = AIOKafkaProducer(
        bootstrap_servers=address, acks="all", linger_ms=5, max_batch_size=256 * 1024, key_serializer=None
    )
    await producer.start()
    try:
        partitions = len(await producer.partitions_for(TELEMETRY.name))
        await _send(producer, partitions, load, seconds, flat_out=flat_out)
    finally:
        await producer.stop()


async def _send(producer: AIOKafkaProducer, partitions: int, load: Load, seconds: float, *, flat_out: bool) -> None:
    account, began, said = Account(), time.monotonic(), time.monotonic()
    partition = cache(lambda run_id: partition_of(run_id, partitions))
    last = None
    for record in Trainings(load, time.time_ns() // 1_000).records():
        if record.due >= seconds:
            break
        now = time.monotonic()
        if not flat_out and record.due > now - began:
            await asyncio.sleep(max(record.due - (now - began), SLICE_SECONDS))
        account.late = 0.0 if flat_out else max(0.0, now - began - record.due)
        last = await producer.send(
            TELEMETRY.name,
            record.wire.body,
            key=record.run_id.encode(),
            headers=record.wire.headers,
            partition=partition(record.run_id),
        )
        account.records += 1
        account.rank_steps += record.rank_steps
        if now - said >= 1.0:
            said = now
            account.say()
    if last is not None:
        await producer.flush()
    account.say()


def main(arguments: list[str]) -> int:
    """Send, and say how much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--name", default="load")
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--ranks", type=int, default=64)
    parser.add_argument("--steps-per-second", type=float, default=10.0)
    parser.add_argument("--life-seconds", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--flat-out", action="store_true")
    options = parser.parse_args(arguments)
    load = Load(options.name, options.runs, options.ranks, options.steps_per_second, options.life_seconds)
    asyncio.run(send(options.address, load, options.seconds, flat_out=options.flat_out))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
