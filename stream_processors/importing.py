"""A log of others through the same core as a live one: what the governor would have decided, record by record.

Pure but for what it is given. `cli.importing` takes the events of `storage.imports.telling` through here on their way
to `storage.imports.keeping`.
"""

from collections.abc import Iterable, Iterator

from ..events.envelope import LogPlace
from ..events.topics import CONTROL, TELEMETRY
from ..events.union import AnyInput, Record
from ..storage.imports.telling import PARTITION
from ..storage.rows import Archived
from .fold import fold
from .run_state import new_state


class CoreFault(Exception):
    """The core failed at a record; a live run would have lost its state there, and a dead letter would say so."""


def judged(run_id: str, told: Iterable[AnyInput]) -> Iterator[Archived]:
    """Each record at its place, and behind it what was decided on it.

    Raises:
        CoreFault: the core could not judge a record.
    """
    state = new_state(run_id)
    decided = 0
    for offset, event in enumerate(told):
        place = LogPlace(0, PARTITION, offset)
        yield Archived(TELEMETRY.name, place, event)
        folded = fold(state, Record(place, event))
        if folded.fault:
            raise CoreFault(f"record {offset} ({event.kind}): {folded.fault}")
        state = folded.state
        for decision in folded.decisions:
            yield Archived(CONTROL.name, LogPlace(0, PARTITION, decided), decision)
            decided += 1
