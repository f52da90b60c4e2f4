"""Reports on the page: the very ones of the command line, as data or laid out for the page to show."""

import time
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query

from ...storage.queries import known_run
from ..report import making
from ..report.comparison import Axis
from ..report.html import fragment
from .access import Needs
from .answers import ABOUT_A_RUN, Answer
from .reading import Archive, RunId

Form = Annotated[
    Literal["data", "page"], Query(description="data: what was worked out; page: its title, and HTML without a script")
]
LONGEST_DAYS = 366
DAY = 86_400_000_000
router = APIRouter(
    prefix="/api",
    dependencies=[Depends(Needs("viewer"))],
    tags=["reports"],
    responses=ABOUT_A_RUN,
)


@router.get("/run/report")
def report(archive: Archive, run_id: RunId, form: Form = "data") -> Answer:
    """The whole report of a run."""
    with archive.client() as client:
        return _told(making.of_run(client, run_id, _now(), _unseen), form)


@router.get("/run/incident")
def incident(
    archive: Archive,
    run_id: RunId,
    incident_id: Annotated[str, Query(alias="incident", min_length=1, max_length=200)],
    form: Form = "data",
) -> Answer:
    """One incident: its timeline, evidence and suspected causes, what was decided, what worked the last times."""
    with archive.client() as client:
        known_run(client, run_id)
        return _told(making.of_incident(client, run_id, incident_id, _now(), _unseen), form)


@router.get("/run/similar")
def similar(
    archive: Archive, run_id: RunId, limit: Annotated[int, Query(ge=1, le=50)] = 5, form: Form = "data"
) -> Answer:
    """The past runs and incidents that are most like this run's."""
    with archive.client() as client:
        known_run(client, run_id)
        return _told(making.of_likeness(client, run_id, limit, _now(), _unseen), form)


@router.get("/compare")
def compare(
    archive: Archive,
    runs: Annotated[list[str], Query(alias="run", min_length=2, max_length=making.MOST_COMPARED)],
    by: Axis = "step",
    form: Form = "data",
) -> Answer:
    """Runs beside each other: what differs, how they fared, where they part."""
    with archive.client() as client:
        for run_id in runs:
            known_run(client, run_id)
        return _told(making.of_comparison(client, runs, (), by, _now(), _unseen), form)


@router.get("/history")
def history(archive: Archive, days: Annotated[int, Query(ge=1, le=LONGEST_DAYS)] = 7, form: Form = "data") -> Answer:
    """The review of the last days beside the days before: service levels, incidents, what helped, what it cost."""
    with archive.client() as client:
        return _told(making.of_fleet(client, days * DAY, _now(), _unseen), form)


def _told(made: making.Made, form: str) -> Answer:
    if form == "data":
        return Answer(made.data)
    document = made.page()
    return Answer({"title": document.title, "html": fragment(document)})


def _now() -> int:
    return time.time_ns() // 1_000


def _unseen(*_: object) -> None:
    """Nobody watches how far the reading is."""
