"""What a worker is made of beside Faust: the fold, the archive, the advisors; real in production, others in tests.

`app` puts them together; `production_parts` connects nothing yet: the archive may come up after its workers.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..events.union import AnyDecision, Record
from ..keyring import refuse_unbelieved, signer_of, trust_of
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
from .log import NO_GUARD, Guard, Log

Role = Literal["governor", "archiver", "advisor"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a worker is made of beside Faust. `around` lets a test stand between a shell and the log."""

    core: Core | None = None
    insert: Insert | None = None
    history: History | None = None
    advisors: Mapping[str, Advise] = field(default_factory=dict)
    around: Callable[[Log], Log] = lambda log: log
    guard: Guard = NO_GUARD


def production_parts(settings: Settings, role: Role) -> Parts:
    """The real fold, the real archive, the advisors that there are, and the keys.

    Raises:
        SettingsInvalid: it has no keys and needs some, or those it has do not fit together.
    """
    guard = guard_of(settings, role)
    if role == "archiver":
        return Parts(insert=_archive_insert(settings), guard=guard)
    if role == "advisor":
        return Parts(advisors=advisors_of(settings), guard=guard)
    core = Core(run_state.new_state, run_state.dump_state, run_state.load_state, fold.fold)
    return Parts(core=core, history=_Archive(settings), guard=guard)


def guard_of(settings: Settings, role: Role) -> Guard:
    """Whom this worker believes and how it signs.

    Raises:
        SettingsInvalid: who is believed here does not believe this worker, or there are no keys and the log is open to
            others.
    """
    trust, signer = trust_of(settings), signer_of(settings)
    if not trust().required:
        log.warning(
            "NOTHING IS SIGNED: whoever can write to Kafka at %s can steer every run; `pilothouse keys new` makes keys",
            settings.kafka,
        )
    elif role != "archiver":
        refuse_unbelieved(signer.held(), trust(), role)
    return Guard(trust, signer, past=role == "archiver")


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
