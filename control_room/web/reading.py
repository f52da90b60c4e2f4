"""What the control room's pages ask: the fleet, one run, its curves, its events. Nothing here changes anything."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from starlette.responses import StreamingResponse

from ...governance.policy import load_policy
from ...storage import queries
from ...storage.named import ask
from ...storage.people import waiting
from .access import Needs
from .answers import Answer
from .archive import ArchivePool
from .fleet import as_they_need_attention
from .policies_told import in_words

MOST_RUNS, MOST_EVENTS, MOST_POINTS = 2_000, 2_000, 4_000

RunId = Annotated[str, Query(alias="run", min_length=1, max_length=200, description="The run's id")]
router = APIRouter(prefix="/api", dependencies=[Depends(Needs("viewer"))], tags=["look"])


def archive_of(request: Request) -> ArchivePool:
    """The archive that the control room reads."""
    archive: ArchivePool = request.app.state.archive
    return archive


Archive = Annotated[ArchivePool, Depends(archive_of)]


@router.get("/fleet")
def fleet(archive: Archive, limit: Annotated[int, Query(ge=1, le=MOST_RUNS)] = 200) -> Answer:
    """Every run, what needs a person first; with what waits for one."""
    with archive.client() as client:
        rows = queries.list_runs(client, limit)
        asked = waiting(client)
    return Answer({"runs": as_they_need_attention(rows, asked), "waiting": asked})


@router.get("/run")
def run(archive: Archive, run_id: RunId) -> Answer:
    """One run: how it stands and why, what was done, what waits, what governs it."""
    with archive.client() as client:
        whole = queries.show_run(client, run_id)
        whole |= {
            "interventions": queries.interventions_of(client, run_id),
            "phases": queries.phases_of(client, run_id),
            "checkpoints": queries.checkpoints_of(client, run_id),
            "waiting": waiting(client, run_id),
            "metric_names": [row["metric"] for row in queries.metrics_of(client, run_id)],
            "rank_times": ask(client, "rank_times", run=run_id),
            "policy": _in_force(ask(client, "policy_in_force", run=run_id)),
        }
    return Answer(whole)


@router.get("/run/series")
def series(
    archive: Archive,
    run_id: RunId,
    metric: Annotated[str, Query(min_length=1, max_length=500)],
    rank: Annotated[int, Query(ge=-1, lt=2**31, description="-1: every rank")] = 0,
    points: Annotated[int, Query(ge=1, le=MOST_POINTS)] = 1_000,
) -> Answer:
    """A metric over steps in about so many intervals of each attempt: mean, least and greatest, and how many values
    were not finite."""
    with archive.client() as client:
        return Answer(queries.series_of(client, run_id, metric, rank=None if rank < 0 else rank, points=points))


@router.get("/run/evaluations")
def evaluations(archive: Archive, run_id: RunId) -> Answer:
    """Every value of every evaluation."""
    with archive.client() as client:
        return Answer(queries.evals_of(client, run_id))


@router.get("/run/margin")
def margin(archive: Archive, run_id: RunId, limit: Annotated[int, Query(ge=1, le=MOST_POINTS)] = 1_000) -> Answer:
    """The stability margin, as it was assessed second by second: the latest."""
    with archive.client() as client:
        rows = queries.assessments_of(client, run_id, limit)
    return Answer([{name: row[name] for name in ("at", "step", "phase", "margin")} for row in rows])


@router.get("/run/events")
def events(
    archive: Archive,
    run_id: RunId,
    kind: Annotated[list[str] | None, Query(max_length=50)] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_EVENTS)] = 200,
) -> Answer:
    """The run's latest events, oldest first."""
    with archive.client() as client:
        return Answer(queries.events_of(client, run_id, kinds=kind or (), limit=limit))


@router.get("/live", responses={200: {"content": {"text/event-stream": {}}}}, response_class=Response)
async def live(request: Request) -> Response:
    """Server-sent events: `stirred` names the runs of which something new is archived, `lost` says why nothing is."""
    heart = request.app.state.heart
    if heart.is_full:
        raise HTTPException(503, "as many pages listen as may")
    return StreamingResponse(heart.listen(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def _in_force(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    return rows[0] | in_words(load_policy(rows[0]["text"])) if rows else None
