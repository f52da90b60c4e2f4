"""How a script begins: `pilothouse.start_run`, which finds out who and where this process is, and opens its run."""

import os
from pathlib import Path
from typing import Unpack

from ..settings import Settings
from .beginning import begin, settings_of
from .beside import Finding
from .context import known_run_id, place_of, read_lineage
from .description import Description, refuse_mistakes
from .opening import outbox_of, told_of
from .run import Run
from .thinning import Every, Thinning, said
from .thinning import refuse_mistakes as refuse_wrong_thinning


def start_run(
    name: str,
    *,
    run_id: str | None = None,
    settings: Settings | None = None,
    sidecar: str | Path | None = None,
    every: Every = 1,
    **description: Unpack[Description],
) -> Run:
    """Begin to publish a run. Use it as a context manager, or call `close` at the end.

    The run's id is `run_id`, or PILOTHOUSE_RUN_ID, or the scheduler's job, or that of the checkpoint whose `sidecar` is
    given, or the name with a random ending from rank 0. Needs no broker: what cannot be sent yet is kept.

    Loss, gradient norm and learning rate are told by every rank at every step, so that judging never changes. Of
    everything else rank 0 tells all, other ranks times, throughput and norms; `every=10` makes that every tenth step,
    `every={"layer/*": 100}` gives names a number of their own on all ranks. What is left out is counted
    (`producers.thinning`).

    Raises:
        UserMistake: an argument is wrong, or the ranks cannot agree on a run id. Wrong settings of the environment are
            said, and the run goes on without them.
    """
    refuse_mistakes({"name": name, "run_id": run_id, "settings": settings, "sidecar": sidecar, **description})
    refuse_wrong_thinning(every)
    settings = settings if settings is not None else settings_of(os.environ)
    lineage = read_lineage(Path(sidecar)) if sidecar is not None else None
    place = place_of(os.environ)
    finding = Finding(description.get("config")) if place.rank == 0 else None
    known = known_run_id(name, run_id, os.environ, lineage)
    resumed = lineage if lineage is not None and known == lineage.run_id else None
    beginning = begin(name, known, place, os.environ, resumed)
    told = told_of(name, description, said(every, place.world_size))
    outbox = outbox_of(beginning.identity, settings, Thinning(every, place.rank))
    return Run(beginning.identity, settings, told, outbox).start(beginning, finding)
