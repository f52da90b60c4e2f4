"""`/metrics`: what Prometheus asks, with the token of somebody who may look."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from ...storage import queries, report_queries
from ...storage.named import ask
from ...storage.people import waiting
from ...stream_processors.health import fitness, read_health
from ..metrics import Told, families
from .access import Needs
from .answers import LET_IN
from .reading import Archive

DAY = 86_400_000_000
HEARD_MINUTES = 15
"""A host that was not heard of for so long has left its run: many ranks are sampled seldom."""
router = APIRouter(dependencies=[Depends(Needs("viewer"))], tags=["look"])


class _Once(Collector):
    """What was read for this one answer."""

    def __init__(self, told: Told) -> None:
        self._told = told

    def collect(self) -> Iterator[Metric]:
        return families(self._told)


@router.get("/metrics", responses={**LET_IN, 200: {"content": {"text/plain": {}}}}, response_class=Response)
def metrics(request: Request, archive: Archive) -> Response:
    """Every run of the last day, open incidents, what waits, service levels, and the workers of this host."""
    now = time.time_ns() // 1_000
    with archive.client() as client:
        told = Told(
            runs=report_queries.fleet_runs(client, now - DAY, now + DAY),
            incidents=ask(client, "open_incidents"),
            waiting=waiting(client),
            ingest=queries.ingest_lag(client),
            levels=report_queries.service_levels(client),
            workers=_workers(request.app.state.settings.data_dir, now),
            now=now,
            hosts=ask(client, "run_hosts", minutes=HEARD_MINUTES),
            budgets=ask(client, "run_budgets"),
        )
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once(told))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def _workers(data_dir: Path, now: int) -> list[dict[str, Any]]:
    """The last words of every worker that writes into this data directory."""
    found = []
    for file in sorted((data_dir / "health").glob("*-*.json")):
        told = read_health(file)
        if {"role", "slot", "at", "records", "lag"} <= told.keys():
            fit = fitness(told, now)
            found.append(told | {"live": fit.live, "ready": fit.ready})
    return found
