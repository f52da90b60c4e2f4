"""What a worker is made of beside Faust: the fold, the archive, the advisors; real in production, others in tests.

`app` puts them together; `production_parts` connects nothing yet: the archive may come up after its workers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..events.union import AnyDecision, Record
from ..settings import Settings
from ..storage.archive import Archive, Archived, Poison
from ..storage.connect import connect
from ..storage.history import open_runs, read_decisions, read_log
from . import fold, run_state
from .advisor_opinion import Advise
from .advisors import advisors_of
from .archiver import Insert
from .history import History
from .live_runs import Core
from .log import Log

Role = Literal["governor", "archiver", "advisor"]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker is made of beside Faust. `around` lets a test stand between a shell and the log."""

    core: Core | None = None
    insert: Insert | None = None
    history: History | None = None
    advisors: Mapping[str, Advise] = field(default_factory=dict)
    around: Callable[[Log], Log] = lambda log: log


def production_parts(settings: Settings, role: Role) -> Parts:
    """The real fold, the real archive, the advisors that there are."""
    if role == "archiver":
        return Parts(insert=_archive_insert(settings))
    if role == "advisor":
        return Parts(advisors=advisors_of(settings))
    core = Core(run_state.new_state, run_state.dump_state, run_state.load_state, fold.fold)
    return Parts(core=core, history=_Archive(settings))


def _archive_insert(settings: Settings) -> Insert:
    """Connects at the first insert: the archive may come up after its archiver, and may be another after a restart."""
    archives: list[Archive] = []

    def insert(records: Sequence[Archived]) -> Sequence[Poison]:
        if not archives:
            archives.append(Archive(connect(settings)))
        return archives[0].insert(records)

    return insert


class _Archive:
    """`History` over ClickHouse, for the moment when the log was lost."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def unfinished(self) -> list[str]:
        return open_runs(connect(self._settings))

    def rebuild(self, run_id: str) -> list[Record]:
        return read_log(connect(self._settings), run_id, before_epoch=self._settings.log_epoch)

    def decisions(self, run_id: str) -> list[AnyDecision]:
        return read_decisions(connect(self._settings), run_id)
