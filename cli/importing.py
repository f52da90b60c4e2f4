"""One run of others into the archive: surveyed, told, judged, kept. What the command of that name repeats for each.

Composes `storage.imports` (reading, telling, keeping) with `stream_processors.importing` (judging). Nothing of a run is
written before all of its log has been read once.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..events.commands import PolicyActivated
from ..events.decisions import IncidentOpened, PhaseChanged
from ..events.errors import FileRefused
from ..events.redaction import redacted, redacted_text
from ..events.telemetry import RunStarted, StepBatch
from ..governance.policy import default_policy_text
from ..storage.imports.arranging import arranged
from ..storage.imports.finding import Exported
from ..storage.imports.keeping import Begun, Keeper
from ..storage.imports.source import Item, Source
from ..storage.imports.survey import Survey, survey
from ..storage.imports.telling import SECOND, UNTIMED_ROW, Story, tell, tick_length
from ..storage.rows import Archived
from ..stream_processors.importing import CoreFault, judged
from .progress_bar import Seen

if TYPE_CHECKING:
    from ..stream_processors.policy_text import PolicySet

VALUE_CHARS = 4_000
MAX_CONFIG = 500
MAX_TAGS = 90
NAME_CHARS = 200
HISTORY = "as it was"
"""The recipe of an exported run."""


class Result(NamedTuple):
    """What became of one file. `result` is imported, resumed, present or refused; `why` is for the last."""

    path: str
    format: str
    run_id: str
    result: str
    why: str = ""
    rows: int = 0
    records: int = 0
    incidents: int = 0
    phases: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Wishes:
    """What the person said: names (`theirs` by ours), the run's id, how it ended where the log does not tell."""

    wanted: Mapping[str, str] = field(default_factory=dict)
    run_name: str = ""
    outcome: str = ""


@dataclass
class Counts:
    """What goes by on its way into the archive."""

    rows: int = 0
    records: int = 0
    incidents: int = 0
    phases: int = 0

    def over(self, records: Iterator[Archived]) -> Iterator[Archived]:
        for record in records:
            self.records += 1
            event = record.event
            self.rows += len(event.steps) if isinstance(event, StepBatch) else 0
            self.incidents += isinstance(event, IncidentOpened)
            self.phases += isinstance(event, PhaseChanged)
            yield record


class Importer:
    """Brings runs into one archive, each under the policy that is for it."""

    def __init__(self, client: Any, policies: "PolicySet", wishes: Wishes, seen: Seen = lambda *_: None) -> None:
        self._keeper = Keeper(client)
        self._policies = policies
        self._wishes = wishes
        self._seen = seen

    def bring(self, source: Source | Exported) -> Result:
        """
        Raises:
            FileRefused: nothing of it was taken over.
            ArchiveUnavailable: some of it may have been; the same again goes on from there.
        """
        return self._bring_export(source) if isinstance(source, Exported) else self._bring_log(source)

    def _bring_export(self, exported: Exported) -> Result:
        """A history is taken over as it was: nothing of it is judged again."""
        from ..storage.portable_reading import Portable

        portable = Portable(exported.path)
        manifest = portable.manifest
        run_id = manifest.run_id
        total = manifest.records + manifest.decisions
        portable.check(lambda done: self._seen(f"checking {run_id}", done, total))
        before = self._keeper.known(run_id)
        if before is not None and (before.digest, before.finished) == (manifest.content, True):
            return Result(str(exported.path), exported.format, run_id, "present")
        if before is None or before.digest != manifest.content:
            if self._keeper.is_taken(run_id):
                return self._compared(exported, manifest.content, run_id)
            before = None
        begun = before or Begun(run_id, exported.format, manifest.content, HISTORY, str(exported.path), 0)
        return self._kept(begun, portable.records(), resumed=before is not None)

    def _compared(self, exported: Exported, content: str, run_id: str) -> Result:
        """The archive has a run of this name, from elsewhere."""
        if self._keeper.content_of(run_id) != content:
            raise FileRefused(f"{exported.path}: the archive has a run {run_id} with another history")
        return Result(str(exported.path), exported.format, run_id, "present")

    def _kept(self, begun: Begun, records: Iterator[Archived], *, resumed: bool) -> Result:
        if not resumed:
            self._keeper.note(begun)
        counts = Counts()
        self._keeper.keep(begun.run_id, counts.over(records))
        self._keeper.note(begun._replace(finished=True))
        result = "resumed" if resumed else "imported"
        return Result(begun.path, begun.format, begun.run_id, result, "", **vars(counts))

    def _bring_log(self, source: Source) -> Result:
        run_id = (self._wishes.run_name or source.name)[:NAME_CHARS]
        found = survey(source, self._wishes.wanted, lambda items: self._seen(f"reading {run_id}", items, None))
        before = self._known(run_id, source.path, found.digest, self._recipe)
        if before is None and self._keeper.is_taken(run_id):
            raise FileRefused(
                f"{source.path}: the archive has a run {run_id} already, which is not an import: "
                "name this one with --run-name"
            )
        if before is not None and before.finished:
            return Result(str(source.path), source.format, run_id, "present")
        path, began_at = str(source.path), _began_at(source, found)
        begun = before or Begun(run_id, source.format, found.digest, self._recipe, path, began_at)
        story = story_of(found, begun, self._govern, self._wishes.outcome)
        told = tell(story, arranged(self._counted(run_id, source, found.items), found.naming))
        try:
            return self._kept(begun, judged(run_id, told), resumed=before is not None)
        except CoreFault as fault:
            raise FileRefused(f"{source.path}: the core failed on it, which is a bug to report: {fault}") from fault

    @property
    def _recipe(self) -> str:
        """All that its records depend on besides the log: a half import must not be finished by another."""
        texts = (policy.text for policy in self._policies.policies)
        parts = (version("pilothouse"), default_policy_text(), *texts, self._wishes.outcome)
        return sha256("\x1f".join(parts).encode()).hexdigest()[:16]

    def _govern(self, started: RunStarted) -> PolicyActivated:
        return self._policies.for_run(started).activated(started.run_id, started.at)

    def _known(self, run_id: str, path: Path, digest: str, recipe: str) -> Begun | None:
        known = self._keeper.known(run_id)
        if known is not None and known.digest != digest:
            raise FileRefused(
                f"{path}: run {run_id} was imported from {known.path}, which said something else (another log, one "
                "that has grown, another --map): name this one with --run-name"
            )
        if known is not None and not known.finished and known.recipe != recipe:
            raise FileRefused(
                f"{path}: run {run_id} was begun under another policy, outcome or version, and was cut off: go on with "
                "that one, or name this one with --run-name"
            )
        return known

    def _counted(self, run_id: str, source: Source, items: int) -> Iterator[Item]:
        for number, item in enumerate(source.items()):
            if number % 1_000 == 0:
                self._seen(f"importing {run_id}", number, items)
            yield item


def _began_at(source: Source, found: Survey) -> int:
    """Microseconds of day. Without a time of day in the log, it ended when its file was written last."""
    said = found.said
    if said.clock == "wall" and found.first_at is not None:
        return min(found.first_at, said.started_at or found.first_at)
    ended = int(source.path.stat().st_mtime * SECOND)
    lasted = found.last_at or 0 if said.clock == "elapsed" else found.items * _row_micros(found)
    return max(0, ended - lasted)


def _row_micros(found: Survey) -> int:
    runtime = found.said.runtime_s
    if runtime is None or not 0 < runtime < 1e9:
        return UNTIMED_ROW
    return max(1, round(runtime * SECOND / found.items))


def story_of(found: Survey, begun: Begun, govern: Callable[[RunStarted], PolicyActivated], outcome: str) -> Story:
    """What is told of the run besides its rows; `outcome` is what the person says of its end."""
    said = found.said
    row_micros = _row_micros(found)
    untimed = said.clock == "none"
    pace = (row_micros if said.runtime_s else 0) if untimed else found.pace or 0
    lasted = (found.last_at or 0) - (found.first_at or 0)
    tick_micros = tick_length(pace, lasted)
    ended = outcome or said.outcome or "completed"
    imported = {
        "format": begun.format,
        "clock": said.clock,
        "tick_seconds": tick_micros / SECOND,
        "renamed": dict(found.naming.renamed),
        "other_axis": sorted(found.naming.aside),
        "outcome": "said" if outcome else "told" if said.outcome else "assumed",
    }
    return Story(
        run_id=begun.run_id,
        digest=begun.digest,
        began_at=begun.began_at,
        tick_micros=tick_micros,
        started=_started(found, imported),
        row_micros=row_micros,
        shift=begun.began_at if said.clock == "elapsed" else 0,
        ended_at=said.ended_at,
        outcome=ended,
        error=redacted_text(said.error),
        govern=govern,
    )


def _started(found: Survey, imported: Mapping[str, Any]) -> dict[str, Any]:
    said = found.said
    tags = {"imported_from": imported["format"]} | {
        name[:NAME_CHARS]: str(value)[:2_000] for name, value in list(said.tags.items())[:MAX_TAGS] if name
    }
    return {
        "config": redacted(_bounded(said.config)),
        "environment": redacted(_bounded(said.environment)) | {"imported": imported},
        "tags": redacted(tags),
        "links": redacted(dict(said.links)),
        "code_version": redacted_text(said.code_version[:NAME_CHARS]),
        "model": redacted_text(said.model[:NAME_CHARS]),
    }


def _bounded(config: Mapping[str, Any]) -> dict[str, Any]:
    """Trackers keep whole files in their configurations; what is longer than a page is named and left out."""
    kept: dict[str, Any] = {}
    for name, value in list(config.items())[:MAX_CONFIG]:
        size = len(json.dumps(value, default=str))
        kept[str(name)[:NAME_CHARS]] = value if size <= VALUE_CHARS else f"({size} characters, not taken over)"
    return kept
