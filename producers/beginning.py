"""Which attempt this process begins with: its ids, its ordinal, and what it continues; and with which settings.

Called by `producers.start`, once. Rank 0 decides and the other ranks hear it (`ranks.meeting`); where
several ranks have no store to meet in yet, each derives the same from what the launcher told all of them.
"""

import uuid
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from ..events.envelope import DECISION_NAMESPACE
from ..events.errors import UserMistake
from ..events.telemetry import AttemptReason
from ..settings import Settings, usable_settings
from .plain import why
from .ranks.context import JOB_KEYS, LAUNCH_KEY, RUN_ID_KEY, Identity, Lineage, Place, checked_run_id, restarts
from .ranks.meeting import Meeting, shared_store
from .voice import logger

_calls: Counter[str] = Counter()
"""How often this process began a run of a name: the n-th of one rank belongs to the n-th of every other."""


_lineages: dict[str, Lineage] = {}
"""The last attempt that this process began by itself of each run whose id it was told."""

_said: set[str] = set()
"""Faults of settings that this process has said."""


class Keeper(Protocol):
    """Who knows the run's last attempt when the next one begins: the ranks' store (`Host`), or this process."""

    def note(self, lineage: Lineage) -> None: ...
    def close(self) -> None: ...


class Beginning(NamedTuple):
    """What rank 0 announces of it; on other ranks only `identity` says something. `host` answers the other ranks."""

    identity: Identity
    reason: AttemptReason
    parent: str | None
    host: Keeper | None = None


def begin(
    name: str, known: str | None, place: Place, environ: Mapping[str, str], resumed: Lineage | None = None
) -> Beginning:
    """This rank's first attempt. `known` is the run id that all ranks know, if they do; `resumed` the attempt that
    wrote the checkpoint which is continued.

    Raises:
        UserMistake: several ranks, no run id that all can know, and no way to tell each other; or the run id is none.
    """
    shared = shared_store(environ) if place.world_size > 1 or _may_have_a_past(environ) else None
    if shared is None:
        return _alone(name, known, place, environ, resumed)
    _calls[name] += 1
    meeting = Meeting(name, _calls[name], shared, place.world_size)
    try:
        if place.rank != 0:
            return _of(place, meeting.ask(place.rank), None)
        before = _continued(known, meeting)
        run_id = known or (before.run_id if before is not None else _minted(name))
        lineage = _next(checked_run_id(run_id), uuid.uuid4().hex, environ, (resumed, before))
        return _of(place, lineage, resumed or before)._replace(host=meeting.host(lineage))
    except UserMistake as mistake:
        if known is None or place.rank == 0:
            raise
        trouble = str(mistake)
    except (RuntimeError, OSError, ValueError, LookupError, TypeError) as error:
        trouble = f"the ranks' store cannot be used ({why(error)})"
    logger.warning("%s; this rank goes by what its launcher told it", trouble)
    return _alone(name, known, place, environ, resumed)


def settings_of(environ: Mapping[str, str]) -> Settings:
    """Those that are right: no training dies of a variable. Each that is wrong is said once."""
    settings, faults = usable_settings(environ)
    if news := [fault for fault in faults if fault not in _said]:
        _said.update(news)
        logger.warning("settings are wrong, and the run goes on without them: %s", "; ".join(news))
    return settings


def _alone(
    name: str, known: str | None, place: Place, environ: Mapping[str, str], resumed: Lineage | None
) -> Beginning:
    """Nobody is asked: the only rank mints what is not known, several derive the attempt's id."""
    if known is None and place.world_size > 1:
        raise UserMistake(
            f"start_run({name!r}) runs on {place.world_size} ranks that cannot agree on a run id yet: call it after "
            f"torch.distributed.init_process_group(), pass run_id=..., or set {RUN_ID_KEY}"
        )
    run_id = checked_run_id(known or _minted(name))
    if place.world_size > 1:
        attempt_id = _attempt_id_of_the_launch(run_id, place, environ)
        return _of(place, _next(run_id, attempt_id, environ, (resumed,)), resumed)
    before = _lineages.get(run_id)
    lineage = _next(run_id, uuid.uuid4().hex, environ, (resumed, before))
    if known is None:
        return _of(place, lineage, resumed)
    _Here().note(lineage)
    return _of(place, lineage, resumed or before)._replace(host=_Here())


class _Here:
    """A process alone: a cell of a notebook that is run again, or a script that trains twice, goes on counting."""

    def note(self, lineage: Lineage) -> None:
        _lineages[lineage.run_id] = lineage

    def close(self) -> None:
        """Nobody asks it."""


def _continued(known: str | None, meeting: Meeting) -> Lineage | None:
    """The attempt of an earlier launch that this one continues. Where nobody named the run, only the launcher's own
    store tells a restart from another start: any other may hold what somebody left in it.
    """
    before = meeting.before()
    if before is None or before.run_id == known or (known is None and meeting.of_launcher):
        return before
    return None


def _next(run_id: str, attempt_id: str, environ: Mapping[str, str], before: tuple[Lineage | None, ...]) -> Lineage:
    ordinal = max(restarts(environ), *(lineage.attempt for lineage in before if lineage is not None), 0) + 1
    return Lineage(run_id, attempt_id, ordinal)


def _of(place: Place, lineage: Lineage, parent: Lineage | None) -> Beginning:
    identity = Identity(lineage.run_id, lineage.attempt_id, lineage.attempt, *place)
    reason: AttemptReason = "restart" if parent is not None or lineage.attempt > 1 else "start"
    return Beginning(identity, reason, parent.attempt_id if parent is not None else None)


def _may_have_a_past(environ: Mapping[str, str]) -> bool:
    """Whether a single rank may be what torchrun left of more, or the beginning of more."""
    return LAUNCH_KEY in environ


def _minted(name: str) -> str:
    return f"{name}-{uuid.uuid4().hex[:8]}"


def _attempt_id_of_the_launch(run_id: str, place: Place, environ: Mapping[str, str]) -> str:
    """The same on every rank of one launch, another at the next: from what the launcher told all of them.

    Not how often torchrun restarted: each of its agents counts for itself, and not where ranks only came or went.
    """
    keys = ("MASTER_ADDR", "MASTER_PORT", LAUNCH_KEY, *JOB_KEYS, "SLURM_RESTART_COUNT")
    told = "\x1f".join((run_id, str(place.world_size), *(environ.get(key, "") for key in keys)))
    return uuid.uuid5(DECISION_NAMESPACE, told).hex
