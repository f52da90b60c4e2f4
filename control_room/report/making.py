"""Reports from the archive: read and worked out at once, laid out when somebody wants the page.

Called by the command line and by the control room in a browser, which so tell the same. Times are microseconds UTC.
"""

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ...events.errors import UserMistake
from ...storage import report_queries
from ...storage.history import decisions_in_order
from ..activation import in_force
from .compare_page import compare_page
from .comparison import Axis, comparison, side_of
from .document import Document
from .fleet import fleet_review
from .fleet_page import fleet_page
from .incident_page import incident_page
from .likeness import likeness
from .material import Material, Seen, read_material
from .overview import overview
from .run_page import run_page
from .similar_page import similar_page

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

MOST_COMPARED = 24


class Made(NamedTuple):
    """A report as data, how to lay it out, and what to call it."""

    data: Any
    page: Callable[[], Document]
    name: str


def of_run(client: "Client", run_id: str, now: int, seen: Seen) -> Made:
    """Everything about one run."""
    material = read_material(client, run_id, seen)
    whole = overview(material)
    return Made(whole, lambda: run_page(whole, material.resource_course, now), run_id)


def of_fleet(client: "Client", window: int, now: int, seen: Seen) -> Made:
    """All runs heard of within `window`, beside the window before."""
    since = max(0, now - window)
    seen("reading runs", 0, 3)
    runs = report_queries.fleet_runs(client, since, now + 1)
    seen("reading runs", 1, 3)
    before = report_queries.fleet_runs(client, max(0, since - window), since)
    seen("reading incidents", 2, 3)
    incidents = report_queries.incidents_of_runs(client, since=since)
    review = fleet_review(runs, before, incidents, (since, now), report_queries.service_levels(client))
    return Made(review, lambda: fleet_page(review, now), "fleet")


def of_likeness(client: "Client", run_id: str, most: int, now: int, seen: Seen) -> Made:
    """The runs and incidents that are most like one run's, at most so many."""
    found = _likeness(client, run_id, most, seen)
    return Made(found, lambda: similar_page(found, now), f"like-{run_id}")


def of_incident(client: "Client", run_id: str, incident_id: str, now: int, seen: Seen) -> Made:
    """One incident: what happened, what was done, and what worked before.

    Raises:
        UserMistake: the run has no such incident.
    """
    whole = overview(read_material(client, run_id, seen))
    incident = next((row for row in whole["incidents"] if row["incident_id"] == incident_id), None)
    if incident is None:
        raise UserMistake(f"{run_id} has no incident {incident_id}")
    answers = [one for one in whole["interventions"] if one["incident_id"] == incident_id]
    past = next(row for row in _likeness(client, run_id, 5, seen)["incidents"] if row["incident_id"] == incident_id)
    told = incident | {
        "run_id": run_id,
        "has_gpus": whole["effort"]["has_gpus"],
        "interventions": answers,
        "runbooks": _runbooks(client, run_id, {one["rule"] for one in answers}),
        "past": past,
    }
    return Made(told, lambda: incident_page(told, now), f"incident-{run_id}-{incident['number']}")


def of_comparison(client: "Client", ours: Sequence[str], theirs: Sequence[str], by: Axis, now: int, seen: Seen) -> Made:  # noqa: PLR0913, PLR0917  # both groups
    """Several runs beside each other; where `theirs` are given, as two groups.

    Raises:
        UserMistake: there are too few, too many, or one is on both sides.
    """
    names = _chosen(ours, theirs)
    sides = []
    for number, name in enumerate(names):
        seen(f"reading {name}", number, len(names))
        sides.append(side_of(_quietly(client, name), decisions_in_order(client, name)))
    found = comparison(sides, by, [ours, theirs] if theirs else ())
    return Made(found, lambda: compare_page(found, now), f"compare-{'-'.join(names)}")


def _runbooks(client: "Client", run_id: str, rules: Collection[str]) -> dict[str, str]:
    """What the policy in force tells a person to do, by rule."""
    governing = in_force(client, run_id).policy.rules
    return {rule.name: rule.runbook for rule in governing if rule.name in rules and rule.runbook}


def _chosen(ours: Sequence[str], theirs: Sequence[str]) -> list[str]:
    if both := [run for run in ours if run in theirs]:
        raise UserMistake(f"{both[0]} cannot be compared with itself: it stands on both sides")
    names = list(dict.fromkeys([*ours, *theirs]))
    if len(names) < 2:
        raise UserMistake("a comparison needs two different runs at least")
    if len(names) > MOST_COMPARED:
        raise UserMistake(f"{len(names)} runs are more than can be read beside each other: at most {MOST_COMPARED}")
    return names


def _quietly(client: "Client", run_id: str) -> Material:
    return read_material(client, run_id, lambda *_: None)


def _likeness(client: "Client", run_id: str, most: int, seen: Seen) -> dict[str, Any]:
    seen("reading runs", 0, 2)
    described = report_queries.run_descriptions(client)
    if all(row["run_id"] != run_id for row in described):
        described += report_queries.run_descriptions(client, run=run_id)
    seen("reading incidents", 1, 2)
    return likeness(run_id, described, report_queries.incidents_of_runs(client), most)
