"""What a run is opened with: what it says of itself, and the way out for what it tells.

Called by `producers.start`, once.
"""

import os
import uuid
from collections.abc import Mapping
from typing import Any

from ..settings import Settings
from .context import Identity, git_commit, host, script_folder
from .description import Description, described, name_label
from .environment import cluster
from .heartbeat import interval_at_scale
from .kafka import KafkaSender
from .outbox import Outbox, Pace
from .spool import Spool, spool_folder
from .spool_budget import Budget
from .thinning import Thinning
from .values import Admission


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
    spool = Spool(spool_folder(settings.spool, identity.run_id, writer_id), settings.spool_bytes, budget.allows)
    outbox = Outbox(identity, writer_id, sender, spool, pace)
    outbox.admission = Admission(outbox.bad_calls, thinning)
    sender.on_news(outbox.wake.set)
    return outbox
