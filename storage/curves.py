"""Metrics over steps, at the resolution of a screen, for the command line, the control room and reports.

Where an interval is at least a whole stretch, a plot is read from the summaries that `stretches` keeps, and only what
they do not cover yet from the steps; else from the steps. Rows are as those of `queries`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .named import Row, ask
from .stretches import STEPS

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


EVERY_RANK = -1


def curves(client: "Client", run_id: str, metrics: Sequence[str], points: int, rank: int | None = None) -> list[Row]:
    """In about `points` intervals for each metric and attempt: mean, least and greatest of the finite values, the last
    value, how many there were and how many were not finite. All ranks together (`rank` -1 in the rows), or one, or
    `EVERY_RANK` for itself.
    """
    wanted = {"run": run_id, "metrics": list(metrics), "rank": EVERY_RANK if rank is None else rank}
    wanted["by_rank"] = rank is not None
    [plan] = ask(client, "curve_plan", run=run_id, size=STEPS)
    origin = plan["first"] * STEPS
    width = (plan["last_step"] - origin) // max(1, points) + 1
    if width < STEPS or not plan["until"]:
        return ask(client, "curves", points=max(1, points), **wanted)
    return ask(
        client,
        "curves_of_stretches",
        width=-(-width // STEPS) * STEPS,
        origin=origin,
        size=STEPS,
        attempts=plan["attempts"],
        open_from=plan["open_from"],
        least_open=min(plan["open_from"], default=0),
        **wanted,
    )
