"""What a run is opened with: what it says of itself, and the way out for what it tells.

Called by `producers.start`, once.
"""

import logging
import os
import uuid
from collections.abc import Mapping
from typing import Any

from ..events.errors import SettingsInvalid
from ..keyring import sealing_key
from ..settings import Settings
from .delivery.heartbeat import interval_at_scale
from .delivery.kafka import KafkaSender
from .delivery.outbox import Outbox, Pace
from .delivery.spool import Spool, spool_folder
from .delivery.spool_budget import Budget
from .delivery.spool_sealing import use
from .metrics.thinning import Thinning
from .metrics.values import Admission
from .ranks.context import Identity, git_commit, host, script_folder
from .surroundings.description import Description, described, name_label
from .surroundings.environment import cluster

logger = logging.getLogger("pilothouse")


def told_of(name: str, description: Description, rule: Mapping[str, str]) -> dict[str, Any]:
    """The fields of `RunStarted` that describe the run; `rule` are tags that tell how it is thinned."""
    fields = described(description)
    fields["tags"] = {"name": name_label(name), "host": host(), **rule} | fields.get("tags", {})
    fields.setdefault("code_version", git_commit(script_folder()))
    fields.setdefault("cluster", cluster(os.environ))
    return fields


def outbox_of(identity: Identity, settings: Settings, thinning: Thinning) -> Outbox:
    """The outbox of a new writer, on its way to Kafka."""
    writer_id = uuid.uuid4().hex
    rank, world_size = identity.rank, identity.world_size
    pace = Pace(
        flush=interval_at_scale(settings.producer_flush_seconds, rank, world_size),
        heartbeat=interval_at_scale(settings.heartbeat_seconds, rank, world_size),
    )
    sender = KafkaSender(settings.log_access, identity.run_id)
    budget = Budget(settings.spool, settings.spool_total_bytes)
    limit = settings.spool_bytes if _sealed(settings) else 0
    spool = Spool(spool_folder(settings.spool, identity.run_id, writer_id), limit, budget.allows)
    outbox = Outbox(identity, writer_id, sender, spool, pace)
    outbox.admission = Admission(outbox.bad_calls, thinning)
    sender.on_news(outbox.wake.set)
    return outbox


def _sealed(settings: Settings) -> bool:
    """Whether what waits may go to the disk: encrypted where that was asked for, or not at all."""
    try:
        use(sealing_key(settings))
    except SettingsInvalid as error:
        logger.error("nothing is kept on disk while the broker is away: %s", error)
        return False
    return True
