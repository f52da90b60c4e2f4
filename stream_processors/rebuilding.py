"""A new epoch of the log: the runs of a partition come back from the archive, and lost decisions are made good.

The log died with its broker, the archive did not. Every run that goes on is folded anew from what was recorded; a
decision that the archive does not have was on its way when the log died, and is sent now. `governor.assign` calls this
before the partition's first record of the new epoch is judged.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from ..events.codec import Encoded
from ..events.errors import StackNotRunning, Unavailable
from ..events.telemetry import RunStarted
from ..events.topics import partition_of
from ..events.union import AnyDecision, Record
from .history import History
from .live_runs import LivePartition

T = TypeVar("T")

RETRY_SECONDS = 2.0

log = logging.getLogger(__name__)


class Rebuilt(NamedTuple):
    """`decisions` the archive does not have, as they travel; `ungoverned`: the start of each run without a policy."""

    decisions: list[tuple[AnyDecision, Encoded]]
    ungoverned: list[RunStarted]


async def rebuild(partition: LivePartition, history: History, partitions: int) -> Rebuilt:
    """Fold the unfinished runs of this partition anew. Waits for the archive: any judgement without it is false."""
    rebuilt = Rebuilt([], [])
    for run_id in await _asked(history.unfinished):
        if partition_of(run_id, partitions) != partition.partition or run_id in partition:
            continue
        records = await _asked(history.rebuild, run_id)
        known = {decision.decision_id for decision in await _asked(history.decisions, run_id)}
        for decision in partition.rebuild(run_id, records):
            encoded = partition.chained(decision)
            if decision.decision_id not in known:
                rebuilt.decisions.append((decision, encoded))
        state = partition.state(run_id)
        if state is not None and not state.ended and not state.policy_hash:
            rebuilt.ungoverned.extend(_first_start(records))
    return rebuilt


def _first_start(records: list[Record]) -> list[RunStarted]:
    return [record.event for record in records if isinstance(record.event, RunStarted)][:1]


async def _asked(question: Callable[..., T], *arguments: str) -> T:
    while True:
        try:
            return await asyncio.to_thread(question, *arguments)
        except (Unavailable, StackNotRunning) as error:
            log.error("the archive is needed to rebuild the runs and does not answer; trying again: %s", error)
            await asyncio.sleep(RETRY_SECONDS)
