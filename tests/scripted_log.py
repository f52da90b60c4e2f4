"""A log that a test writes itself: what a reader of others' logs would give, without a file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pilothouse.cli.importing import story_of
from pilothouse.events.commands import PolicyActivated
from pilothouse.events.envelope import Decision
from pilothouse.events.telemetry import RunStarted
from pilothouse.events.union import AnyInput
from pilothouse.storage.imports.arranging import arranged
from pilothouse.storage.imports.keeping import Begun
from pilothouse.storage.imports.source import Item, Said
from pilothouse.storage.imports.survey import survey
from pilothouse.storage.imports.telling import tell
from pilothouse.storage.rows import Archived
from pilothouse.stream_processors.importing import judged
from pilothouse.stream_processors.policy_text import PolicySet

SECOND = 1_000_000
BEGAN = 1_700_000_000 * SECOND
POLICIES = PolicySet([])


@dataclass(frozen=True)
class ScriptedLog:
    """Its items are given; the rest may be."""

    listed: Sequence[Item]
    told: Said = field(default_factory=Said)
    name: str = "scripted"
    format: str = "csv"
    path: Path = Path("scripted.csv")

    def said(self) -> Said:
        return self.told

    def items(self) -> Iterator[Item]:
        return iter(self.listed)


def events_of(log: ScriptedLog, outcome: str = "") -> list[AnyInput]:
    """What is told of it."""
    found = survey(log, {})
    began = log.told.started_at or found.first_at or BEGAN
    begun = Begun(log.name, log.format, found.digest, "", str(log.path), began)
    story = story_of(found, begun, governed, outcome)
    return list(tell(story, arranged(log.items(), found.naming)))


def governed(started: RunStarted) -> PolicyActivated:
    return POLICIES.for_run(started).activated(started.run_id, started.at)


def history_of(log: ScriptedLog, outcome: str = "") -> list[Archived]:
    """What is told of it and what is decided."""
    return list(judged(log.name, iter(events_of(log, outcome))))


def decisions_of(log: ScriptedLog, outcome: str = "") -> list[Decision]:
    return [record.event for record in history_of(log, outcome) if isinstance(record.event, Decision)]


def rows(seconds: Sequence[float], first_step: int = 0) -> list[Item]:
    """A falling loss, a row at each of these seconds."""
    return [
        Item(BEGAN + round(second * SECOND), first_step + index, {"loss": 2.0 + 1.0 / (1 + first_step + index)})
        for index, second in enumerate(seconds)
    ]
