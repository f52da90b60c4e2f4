"""What simulated ranks send: the records of whole trainings, as the SDK encodes them and at its pace.

Every rank logs each step and is flushed at the interval that the SDK has for it (`producers.delivery.heartbeat`), so a
record carries as many steps as it would; every rank beats. Nothing in a training alarms, but what each second's Tick
says of it is decided. Time is virtual: `generator` sends what is due by the clock, or as fast as it can.
"""

import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pilothouse.events.codec import Encoded, encode_fields
from pilothouse.events.telemetry import Heartbeat, RunEnded, RunStarted, StepBatch
from pilothouse.producers.delivery.heartbeat import interval_at_scale

FLUSH_SECONDS, HEARTBEAT_SECONDS = 0.5, 2.0
"""The SDK's own."""
SECOND = 1_000_000
BESIDE = {"lr": 3e-4, "step_s": 0.1, "data_wait_s": 0.002, "compute_s": 0.08, "comm_s": 0.018, "tokens_per_s": 1e6}
"""What every rank logs beside loss and gradient norm: what the SDK leaves to ranks other than 0."""
NOISES = 1_009


@dataclass(frozen=True, slots=True)
class Load:
    """So many trainings at once, of so many ranks each. One that has lived for `life_seconds` ends, and another begins;
    0: none ends. Runs are named after `name`.
    """

    name: str
    runs: int
    ranks: int
    steps_per_second: float
    life_seconds: float = 0.0

    @property
    def rank_steps_per_second(self) -> float:
        return self.runs * self.ranks * self.steps_per_second


class Sent(NamedTuple):
    """One record, due so many seconds after the beginning."""

    due: float
    run_id: str
    wire: Encoded
    rank_steps: int


@dataclass(slots=True)
class _Rank:
    """One rank of one training: how often it flushes and beats, and how far it is."""

    slot: int
    rank: int
    flush: float
    beat: float
    began: float
    run_id: str
    seq: int = 0
    step: int = 0
    beats_at: float = 0.0


@dataclass
class Trainings:
    """All of them, as an endless stream of records in the order in which they are due. `epoch` is when it begins, in
    microseconds UTC.
    """

    load: Load
    epoch: int
    _noise: list[float] = field(init=False)

    def __post_init__(self) -> None:
        generator = random.Random(0)
        self._noise = [generator.gauss(0.0, 1.0) for _ in range(2 * NOISES)]

    def records(self) -> Iterator[Sent]:
        """Flush after flush of every rank. All ranks are spread over their interval, as real ones are."""
        queue: list[tuple[float, int, _Rank]] = []
        for slot in range(self.load.runs):
            yield from self._begin(queue, slot, 0, 0.0)
        while True:
            due, number, rank = heapq.heappop(queue)
            life = self.load.life_seconds
            if life and due - rank.began >= life:
                yield from self._flushed(rank, due)
                if rank.rank == 0:
                    yield self._told(rank, due, RunEnded, {"outcome": "completed", "step": rank.step, "error": ""})
                    yield from self._begin(queue, rank.slot, number + self.load.runs * self.load.ranks, due)
                continue
            yield from self._flushed(rank, due)
            heapq.heappush(queue, (due + rank.flush, number, rank))

    def _begin(self, queue: list[tuple[float, int, _Rank]], slot: int, generation: int, now: float) -> Iterator[Sent]:
        run_id = f"{self.load.name}-{slot}-{generation}"
        for number in range(self.load.ranks):
            flush = interval_at_scale(FLUSH_SECONDS, number, self.load.ranks)
            beat = interval_at_scale(HEARTBEAT_SECONDS, number, self.load.ranks)
            rank = _Rank(slot, number, flush, beat, now, run_id, beats_at=now + beat)
            if number == 0:
                started = {"reason": "start", "first_step": 0, "world_size": self.load.ranks}
                yield self._told(rank, now, RunStarted, _defaults(RunStarted) | started)
            share = (number + slot / self.load.runs) / self.load.ranks
            heapq.heappush(queue, (now + flush * (0.5 + share), generation + slot * self.load.ranks + number, rank))

    def _flushed(self, rank: _Rank, now: float) -> Iterator[Sent]:
        lived = min(now - rank.began, self.load.life_seconds or math.inf)  # all ranks end with the same step
        reached = int(lived * self.load.steps_per_second)
        if reached > rank.step:
            steps = range(rank.step, reached)
            rank.step = reached
            yield self._told(rank, now, StepBatch, self._columns(rank, steps), len(steps))
        if now >= rank.beats_at:
            rank.beats_at = now + rank.beat
            counts = {"queued": 0, "sent": rank.step, "spooled": 0, "dropped": 0}
            yield self._told(rank, now, Heartbeat, {"stage": "train", "step": rank.step, **counts})

    def _columns(self, rank: _Rank, steps: range) -> dict[str, Any]:
        rows, first = len(steps), steps[0]
        at = self.epoch + int(rank.began * SECOND)
        times = [at + int(step * SECOND / self.load.steps_per_second) for step in steps]
        noise = self._noise
        place = (first + 31 * rank.rank) % NOISES
        level = 2.0 + 2.0 * math.exp(-first / 2_000)
        losses = [level + 0.03 * noise[place + index % NOISES] for index in range(rows)]
        # That of the gradient after its reduction: every rank has the same.
        norms = [math.exp(0.2 * noise[first % NOISES + index % NOISES]) for index in range(rows)]
        beside = {name: [value] * rows for name, value in BESIDE.items()}
        return {"steps": steps, "times": times, "metrics": {"loss": losses, "grad_norm": norms, **beside}}

    def _told(self, rank: _Rank, now: float, fact: type[Any], fields: dict[str, Any], rank_steps: int = 0) -> Sent:
        rank.seq += 1
        signed = {
            "run_id": rank.run_id,
            "attempt_id": f"{rank.run_id}-1",
            "attempt": 1,
            "rank": rank.rank,
            "at": self.epoch + int(now * SECOND),
            "writer_id": f"{rank.run_id}/{rank.rank}",
            "seq": rank.seq,
        }
        if "steps" in fields:
            fields = {**fields, "steps": list(fields["steps"])}
        return Sent(now, rank.run_id, encode_fields(fact, signed | fields), rank_steps)


def _defaults(fact: type[Any]) -> dict[str, Any]:
    return {name: told.default for name, told in fact.model_fields.items() if not told.is_required()}
