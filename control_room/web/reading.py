"""What the control room's pages ask: the fleet, one run, its curves, its events. Nothing here changes anything."""

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from starlette.responses import StreamingResponse

from ...events.event_words import STORY, summary
from ...events.plain_json import body_of
from ...storage import queries
from ...storage.named import ask
from ...storage.people import waiting
from ..activation import InForce, in_force
from .access import Needs
from .answers import ABOUT_A_RUN, Answer
from .archive import ArchivePool
from .fleet import as_they_need_attention
from .policies_told import in_words, proposal_in_words

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

MOST_RUNS, MOST_EVENTS, MOST_POINTS = 2_000, 2_000, 4_000
RANK_STEPS, RANK_WIDTH = 240, 8
"""How many of the last steps a heat map of ranks shows, and how many of them are a cell."""

RunId = Annotated[str, Query(alias="run", min_length=1, max_length=200, description="The run's id")]
router = APIRouter(prefix="/api", dependencies=[Depends(Needs("viewer"))], responses=ABOUT_A_RUN, tags=["look"])


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
        effort, failing = ask(client, "fleet_effort", limit=limit), ask(client, "failing_conditions")
    return Answer({"runs": as_they_need_attention(rows, asked, effort, failing), "waiting": asked})


@router.get("/waiting")
def waits(archive: Archive, run_id: Annotated[str, Query(alias="run", max_length=200)] = "") -> Answer:
    """What waits for a person, of one run or of all: what it would do, why, within which bounds, and what happens if
    nobody answers."""
    with archive.client() as client:
        return Answer(_asked(client, run_id))


@router.get("/run")
def run(archive: Archive, run_id: RunId) -> Answer:
    """One run: how it stands and why, what was done, what waits, what governs it."""
    with archive.client() as client:
        whole = queries.show_run(client, run_id)
        whole |= {
            "interventions": queries.interventions_of(client, run_id),
            "phases": queries.phases_of(client, run_id),
            "checkpoints": queries.checkpoints_of(client, run_id),
            "waiting": _asked(client, run_id),
            "metric_names": [row["metric"] for row in queries.metrics_of(client, run_id)],
            "policy": _governing(in_force(client, run_id)),
        }
    return Answer(whole)


@router.get("/run/ranks")
def ranks(archive: Archive, run_id: RunId) -> Answer:
    """The times that ranks tell of their last steps (`step_s`, `compute_s`, `data_wait_s`, `comm_s`): the mean of each
    rank in each `column`, the oldest first."""
    with archive.client() as client:
        queries.known_run(client, run_id)
        return Answer(ask(client, "rank_times", run=run_id, steps=RANK_STEPS, width=RANK_WIDTH))


@router.get("/run/logs")
def logs(
    archive: Archive,
    run_id: RunId,
    severity: Annotated[int, Query(ge=0, le=100, description="At least so grave, as Python's logging counts")] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_EVENTS)] = 100,
) -> Answer:
    """The latest lines of the job's own log, oldest first."""
    with archive.client() as client:
        return Answer(queries.log_lines_of(client, run_id, least_severity=severity, limit=limit))


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
    story: Annotated[bool, Query(description="Only the kinds that tell what happened, where no kind is named")] = False,
    limit: Annotated[int, Query(ge=1, le=MOST_EVENTS)] = 200,
) -> Answer:
    """The run's latest events, oldest first, each as it was `told` and in words."""
    kinds = kind or (STORY if story else ())
    with archive.client() as client:
        rows = queries.events_of(client, run_id, kinds=kinds, limit=limit)
    return Answer([row | {"told": summary(row["kind"], body_of(row))} for row in rows])


@router.get("/live", responses={200: {"content": {"text/event-stream": {}}}}, response_class=Response)
async def live(request: Request) -> Response:
    """Server-sent events: `stirred` names the runs of which something new is archived, `lost` says why nothing is."""
    heart = request.app.state.heart
    if heart.is_full:
        raise HTTPException(503, "as many pages listen as may")
    return StreamingResponse(heart.listen(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def _asked(client: "Client", run_id: str) -> list[dict[str, Any]]:
    rows = waiting(client, run_id)
    governing = {name: in_force(client, name).policy for name in {row["run_id"] for row in rows}}
    return [row | proposal_in_words(row, governing[row["run_id"]]) for row in rows]


def _governing(known: InForce) -> dict[str, Any] | None:
    if known.at is None:
        return None
    told = {"name": known.policy.name, "policy_hash": known.policy_hash, "who": known.who, "at": known.at}
    return told | {"text": known.text} | in_words(known.policy)
