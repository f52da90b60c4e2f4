"""Plots on the real engine: from the summaries they are what they are from the steps, however those came."""

from collections.abc import Iterator, Sequence
from math import isfinite
from random import Random

import pytest
from clickhouse_connect.driver.client import Client

from pilothouse.events.telemetry import RunEnded, StepBatch
from pilothouse.events.union import AnyEvent
from pilothouse.settings import Settings
from pilothouse.storage import curves as plots
from pilothouse.storage import stretches
from pilothouse.storage.archive import Archive
from pilothouse.storage.connect import connect
from pilothouse.storage.curves import EVERY_RANK, curves
from pilothouse.storage.migrate import migrate
from pilothouse.tests.archive_events import INF, NAN, Writer, logged
from pilothouse.tests.endpoint_fixture import EndpointProcess

SIZE, WIDTH = 4, 8
Told = tuple[int, int, int, int, float, float, float, int]


@pytest.fixture(scope="module")
def client(endpoint: EndpointProcess) -> Iterator[Client]:
    connected = connect(Settings(clickhouse_url=endpoint.clickhouse_url))
    migrate(connected)
    yield connected
    connected.close()


@pytest.fixture(autouse=True)
def short_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretches, "STEPS", SIZE)
    monkeypatch.setattr(plots, "STEPS", SIZE)


def trained(run_id: str) -> list[AnyEvent]:
    """Two ranks, batches across every edge, one attempt that ends in the air, another that goes back and ends."""
    random, told = Random(7), list[AnyEvent]()
    ranks = [Writer(run_id), Writer(run_id, rank=1)]
    for attempt, (first, last) in enumerate(((0, 37), (20, 64)), start=1):
        for rank in ranks:
            rank.attempt = attempt
        for start in range(first, last, 3):
            steps = list(range(start, min(start + 3, last)))
            for rank in ranks:
                values = [random.choice((random.random(), random.random(), NAN, INF, None)) for _ in steps]
                told.append(rank.steps(steps, loss=values, lr=[0.1] * len(steps)))
    told += [rank.tell(RunEnded, outcome="completed", step=63) for rank in ranks]
    return told


def expected(told: Sequence[AnyEvent]) -> list[Told]:
    """Of each attempt, rank and interval: the values, those not finite, and what the finite ones come to."""
    found: dict[tuple[int, int, int], list[float]] = {}
    for batch in told:
        if isinstance(batch, StepBatch):
            for step, value in zip(batch.steps, batch.metrics["loss"], strict=True):
                if value is not None:
                    found.setdefault((batch.attempt, batch.rank, step // WIDTH * WIDTH), []).append(value)
    return [_told(key, values) for key, values in sorted(found.items())]


def _told(key: tuple[int, int, int], values: list[float]) -> Told:
    fine = [value for value in values if isfinite(value)]
    least, greatest = (min(fine), max(fine)) if fine else (NAN, NAN)
    return (*key, len(values), least, greatest, sum(fine), len(values) - len(fine))


def plotted(client: Client, run_id: str) -> list[Told]:
    rows = curves(client, run_id, ["loss"], points=8, rank=EVERY_RANK)
    some = [row for row in rows if row["mean"] is not None]
    sums = {id(row): row["mean"] * (row["values"] - row["non_finite"]) for row in some}
    return sorted(
        (
            row["attempt"],
            row["rank"],
            row["from_step"],
            row["values"],
            NAN if row["least"] is None else row["least"],
            NAN if row["greatest"] is None else row["greatest"],
            sums.get(id(row), 0.0),
            row["non_finite"],
        )
        for row in rows
    )


def the_same(found: list[Told], wanted: list[Told]) -> bool:
    return found == [pytest.approx(row, nan_ok=True) for row in wanted]


def test_whatever_the_order_and_the_repeats_the_summaries_are_those_of_the_steps(client: Client) -> None:
    told = trained("shuffled")
    records = logged(told)
    random, archive = Random(3), Archive(client)
    deliveries = [*records, *random.sample(records, 20)]
    random.shuffle(deliveries)
    for start in range(0, len(deliveries), 9):
        archive = Archive(client) if start % 2 else archive  # a writer that knows nothing of what the last one did
        archive.insert(deliveries[start : start + 9])
    assert the_same(plotted(client, "shuffled"), expected(told))


def test_a_run_that_is_over_is_plotted_without_its_steps(client: Client) -> None:
    told = trained("over")
    archive = Archive(client)
    for start in range(0, len(told), 10):
        archive.insert(logged(told)[start : start + 10])
    client.command("ALTER TABLE step_log DELETE WHERE run_id = 'over' SETTINGS mutations_sync = 1")
    assert the_same(plotted(client, "over"), expected(told))


def test_what_is_not_summed_up_yet_is_in_the_plot(client: Client) -> None:
    told = trained("going")[:-5]
    Archive(client).insert(logged(told))
    client.command("ALTER TABLE step_log DELETE WHERE run_id = 'going' AND last_step < 56 SETTINGS mutations_sync = 1")
    assert the_same(plotted(client, "going"), expected(told))


def test_a_plot_of_all_ranks_has_one_interval_where_each_rank_has_one(client: Client) -> None:
    told = trained("together")
    Archive(client).insert(logged(told))
    apart = curves(client, "together", ["loss"], points=8, rank=EVERY_RANK)
    together = curves(client, "together", ["loss", "lr"], points=8)
    losses = [row for row in together if row["metric"] == "loss"]
    assert {row["rank"] for row in together} == {-1}
    assert len(losses) * 2 == len(apart)
    assert sum(row["values"] for row in losses) == sum(row["values"] for row in apart)
    assert {row["metric"] for row in together} == {"loss", "lr"}


def test_steps_far_apart_and_far_out_are_no_trouble(client: Client) -> None:
    writer = Writer("far")
    told = [writer.steps([0, 10**6, 2**50], loss=[1.0, 2.0, 3.0]), writer.steps([2**50 + 1], loss=[4.0])]
    Archive(client).insert(logged(told))
    rows = curves(client, "far", ["loss"], points=100)
    assert [(row["values"], row["mean"]) for row in rows] == [(2, 1.5), (2, 3.5)]
