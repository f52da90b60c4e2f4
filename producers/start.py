"""How a script begins: `pilothouse.start_run`, which finds out who and where this process is, and opens its run."""

import os
from pathlib import Path
from typing import Unpack

from ..settings import Settings
from .beginning import begin, settings_of
from .beside import Finding
from .metrics.thinning import Every, Thinning, said
from .metrics.thinning import refuse_mistakes as refuse_wrong_thinning
from .opening import outbox_of, told_of
from .ranks.context import known_run_id, place_of, read_lineage
from .run import Run
from .steering.departure import Departure, Followed
from .steering.departure import refuse_mistakes as refuse_wrong_tolerance
from .steering.following import Following
from .steering.plan import Plan, read_plan
from .surroundings.description import Description, refuse_mistakes

MAX_TAGS = 100


def start_run(  # noqa: PLR0913  # the face of a run: all but the name are keywords that most scripts leave out
    name: str,
    *,
    run_id: str | None = None,
    settings: Settings | None = None,
    sidecar: str | Path | None = None,
    every: Every = 1,
    follow: str | Path | Plan | None = None,
    follow_tolerance: float = 0.0,
    **description: Unpack[Description],
) -> Run:
    """Begin to publish a run. Use it as a context manager, or call `close` at the end.

    The run's id is `run_id`, or PILOTHOUSE_RUN_ID, or the scheduler's job, or that of the checkpoint whose `sidecar` is
    given, or the name with a random ending from rank 0. Needs no broker: what cannot be sent yet is kept.

    Loss, gradient norm and learning rate are told by every rank at every step, so that judging never changes. Of
    everything else rank 0 tells all, other ranks times, throughput and norms; `every=10` makes that every tenth step,
    `every={"layer/*": 100}` gives names a number of their own on all ranks. What is left out is counted
    (`metrics.thinning`).

    `follow` names a run, or the file that `pilothouse plan RUN --out FILE` wrote of it: what was done to that run is
    done to this one, at the same steps on all ranks, and nothing else. The end says whether this run is that one again,
    and where their losses first differed by more than `follow_tolerance` (relative; 0: by a bit).

    Raises:
        UserMistake: an argument is wrong, or the ranks cannot agree on a run id. Wrong settings of the environment are
            said, and the run goes on without them.
    """
    refuse_mistakes({"name": name, "run_id": run_id, "settings": settings, "sidecar": sidecar, **description})
    refuse_wrong_thinning(every)
    settings = settings if settings is not None else settings_of(os.environ)
    plan = read_plan(follow, settings) if follow is not None else None
    refuse_wrong_tolerance(plan, follow_tolerance)
    lineage = read_lineage(Path(sidecar)) if sidecar is not None else None
    place = place_of(os.environ)
    finding = Finding(description.get("config")) if place.rank == 0 else None
    known = known_run_id(name, run_id, os.environ, lineage)
    resumed = lineage if lineage is not None and known == lineage.run_id else None
    beginning = begin(name, known, place, os.environ, resumed)
    told = told_of(name, description, said(every, place.world_size))
    outbox = outbox_of(beginning.identity, settings, Thinning(every, place.rank))
    if plan is not None and len(told["tags"]) < MAX_TAGS:
        told["tags"] = {**told["tags"], "follows": plan.run_id}
    run = Run(beginning.identity, settings, told, outbox)
    if plan is not None:
        following = Following(run, plan)
        run.follow(Followed(following, Departure(following, float(follow_tolerance))))
    return run.start(beginning, finding)
