"""What a scenario must leave behind, counted, and the row that it writes to `build/chaos.json`.

Four counts must be nought: events that were told and are not in the log, or stand in the log and not in the archive
(`lost`); what stands there more often or other than it was told, decisions included (`duplicated`); interventions that
a rank applied twice, or that nobody issued (`applied_twice`); values that were left outside the bounds of their command
(`out_of_bounds`).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fcntl import LOCK_EX, flock
from pathlib import Path

from pilothouse.events.bounds import beyond
from pilothouse.events.decisions import InterventionIssued
from pilothouse.events.telemetry import InterventionReceipt
from pilothouse.events.union import AnyEvent

CHAOS_JSON = Path(__file__).parents[2] / "build" / "chaos.json"


@dataclass(frozen=True, slots=True)
class Row:
    """`injected` counts faults, `events` what was told and decided and was looked for."""

    scenario: str
    broker: str
    injected: int
    events: int
    lost: int = 0
    duplicated: int = 0
    applied_twice: int = 0
    out_of_bounds: int = 0
    passed: bool = False

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.duplicated or self.applied_twice or self.out_of_bounds)

    def concluded(self) -> "Row":
        return replace(self, passed=self.is_clean and self.events > 0 and self.injected > 0)


def record(row: Row) -> None:
    """Put the row into the file, in the place of an older one of the same scenario and broker."""
    CHAOS_JSON.parent.mkdir(parents=True, exist_ok=True)
    with CHAOS_JSON.with_suffix(".lock").open("w") as lock:
        flock(lock, LOCK_EX)
        try:
            rows = json.loads(CHAOS_JSON.read_text())
        except (OSError, ValueError):
            rows = []
        rows = [one for one in rows if (one["scenario"], one["broker"]) != (row.scenario, row.broker)]
        rows = sorted([*rows, asdict(row)], key=lambda one: (one["scenario"], one["broker"]))
        draft = CHAOS_JSON.with_suffix(".new")
        draft.write_text("[\n" + ",\n".join(json.dumps(one) for one in rows) + "\n]\n")
        draft.replace(CHAOS_JSON)


def recorded(scenario: str, broker: str, played: Callable[[], Row]) -> Row:
    """Its row, in the file whatever becomes of it."""
    row = Row(scenario, broker, injected=0, events=0)
    try:
        row = played()
    finally:
        record(row)
    return row


def differences(expected: Mapping[str, Sequence[str]], found: Mapping[str, Sequence[str]]) -> tuple[int, int]:
    """By name, lines that should be there: how many are missing, and how many are there that should not be."""
    missing = extra = 0
    for name in expected.keys() | found.keys():
        due, there = Counter(expected.get(name, ())), Counter(found.get(name, ()))
        missing += (due - there).total()
        extra += (there - due).total()
    return missing, extra


def applied_twice(events: Iterable[AnyEvent]) -> int:
    """Receipts that say `applied` of what was applied before, or was never issued. Each event once."""
    known = list(events)
    issued = {event.intervention_id for event in known if isinstance(event, InterventionIssued)}
    receipts = Counter((receipt.run_id, receipt.intervention_id, receipt.rank) for receipt in _applied(known))
    return sum(count - 1 if intervention in issued else count for (_, intervention, _), count in receipts.items())


def out_of_bounds(events: Iterable[AnyEvent]) -> int:
    """Receipts of values that the command's own bounds forbid."""
    known = list(events)
    bounds = {event.intervention_id: event.bounds for event in known if isinstance(event, InterventionIssued)}
    return sum(
        beyond(bounds.get(receipt.intervention_id, {}), receipt.before, receipt.after) is not None
        for receipt in _applied(known)
    )


def _applied(events: Iterable[AnyEvent]) -> Iterator[InterventionReceipt]:
    for event in events:
        if isinstance(event, InterventionReceipt) and event.outcome == "applied":
            yield event
