"""A run's log out of the archive: which ticks belong to it, and where it ends."""

from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client

from pilothouse.events.commands import Tick
from pilothouse.events.decisions import PhaseChanged
from pilothouse.events.envelope import Decision, LogPlace
from pilothouse.events.telemetry import Heartbeat, RunEnded
from pilothouse.events.topics import CONTROL, TELEMETRY
from pilothouse.settings import Settings
from pilothouse.storage.archive import Archive, Archived
from pilothouse.storage.connect import connect
from pilothouse.storage.history import open_runs, read_decisions, read_log
from pilothouse.storage.migrate import migrate
from pilothouse.stream_processors.parts import production_parts
from pilothouse.tests.archive_events import Writer, decided, logged, story
from pilothouse.tests.endpoint_fixture import EndpointProcess


@pytest.fixture(scope="module")
def client(endpoint: EndpointProcess) -> Iterator[Client]:
    connected = connect(Settings(clickhouse_url=endpoint.clickhouse_url))
    migrate(connected)
    yield connected
    connected.close()


def ticks(partition: int, places: list[tuple[int, int]]) -> list[Archived]:
    return [
        Archived(
            TELEMETRY.name,
            LogPlace(epoch, partition, offset),
            Tick(at=offset, partition=partition, writer_id=f"t{partition}-{epoch}", seq=offset + 1),
        )
        for epoch, offset in places
    ]


def facts(run_id: str, partition: int, places: list[tuple[int, int]]) -> list[Archived]:
    writer = Writer(run_id)
    return [
        Archived(TELEMETRY.name, LogPlace(epoch, partition, offset), writer.tell(Heartbeat, stage="train", step=offset))
        for epoch, offset in places
    ]


def ended(run_id: str, partition: int, basis: tuple[int, int], kind: type[Decision] = PhaseChanged) -> Archived:
    phase = decided(
        run_id, kind, 1, phase="Ended", was="Normal", reason="Lost", basis=LogPlace(basis[0], partition, basis[1])
    )
    return Archived(CONTROL.name, LogPlace(basis[0], partition, 0), phase)


def moments(client: Client, run_id: str, **arguments: int) -> list[tuple[str, int, int]]:
    log = read_log(client, run_id, **arguments)
    return [(record.event.kind, record.place.epoch, record.place.offset) for record in log]


def test_a_run_that_was_declared_lost_has_the_ticks_up_to_that_one(client: Client) -> None:
    others = ticks(11, [(0, 2), (0, 4)])
    mine = ticks(10, [(0, 0), (0, 2), (0, 4), (0, 5), (0, 6)])
    Archive(client).insert([*others, *mine, *facts("lost", 10, [(0, 1), (0, 3)]), ended("lost", 10, (0, 5))])
    assert moments(client, "lost") == [
        ("heartbeat", 0, 1),
        ("tick", 0, 2),
        ("heartbeat", 0, 3),
        ("tick", 0, 4),
        ("tick", 0, 5),
    ]


def test_an_open_run_has_later_ticks_up_to_a_bound(client: Client) -> None:
    Archive(client).insert([*ticks(12, [(0, 1), (0, 2), (0, 3), (1, 0)]), *facts("open", 12, [(0, 0)])])
    assert [at[1:] for at in moments(client, "open")] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]
    assert [at[1:] for at in moments(client, "open", ticks_after=2)] == [(0, 0), (0, 1), (0, 2)]
    assert "open" in open_runs(client)
    assert "lost" not in open_runs(client)


def test_a_new_epoch_follows_the_old_one_and_can_be_left_out(client: Client) -> None:
    records = [*facts("twice", 13, [(0, 5), (1, 1)]), *ticks(13, [(0, 4), (0, 6), (1, 0), (1, 2)])]
    Archive(client).insert(records)
    assert [at[1:] for at in moments(client, "twice")] == [(0, 5), (0, 6), (1, 0), (1, 1), (1, 2)]
    assert [at[1:] for at in moments(client, "twice", before_epoch=1)] == [(0, 5), (0, 6)]
    assert moments(client, "twice", before_epoch=0) == []


def test_a_governor_rebuilds_from_what_stands_before_its_epoch(client: Client, endpoint: EndpointProcess) -> None:
    """What is in the new log it judges when it reads it there."""
    Archive(client).insert([*facts("rebuilt", 16, [(0, 5), (1, 1), (2, 0)]), *ticks(16, [(0, 4), (1, 0), (2, 1)])])
    settings = Settings(clickhouse_url=endpoint.clickhouse_url, log_epoch=1)
    history = production_parts(settings, "governor").history
    assert history is not None
    assert [(one.place.epoch, one.place.offset) for one in history.rebuild("rebuilt")] == [(0, 5)]


def test_where_a_run_moved_to_another_partition_its_ticks_move_with_it(client: Client) -> None:
    first, later = facts("moved", 14, [(0, 1)]), facts("moved", 15, [(0, 0), (1, 1)])[1:]
    Archive(client).insert([*first, *later, *ticks(14, [(0, 2), (1, 0)]), *ticks(15, [(0, 2), (1, 0)])])
    log = read_log(client, "moved")
    assert [(one.place.epoch, one.place.partition, one.place.offset) for one in log] == [
        (0, 14, 1),
        (0, 14, 2),
        (1, 15, 0),
        (1, 15, 1),
    ]


def test_facts_told_after_the_end_are_there(client: Client) -> None:
    writer = Writer("late")
    told = [writer.tell(RunEnded, outcome="completed", step=1), writer.tell(Heartbeat, stage="stop", step=1)]
    records = [Archived(TELEMETRY.name, LogPlace(0, 16, 2 * index), event) for index, event in enumerate(told)]
    Archive(client).insert([*records, *ticks(16, [(0, 1), (0, 3)]), ended("late", 16, (0, 0))])
    assert [at[2] for at in moments(client, "late")] == [0, 1, 2]


def test_decisions_come_in_the_order_in_which_they_were_told(client: Client) -> None:
    Archive(client).insert(logged(story("told"))[::-1])
    decisions = [event for event in story("told") if isinstance(event, Decision)]
    assert [one.event_id for one in read_decisions(client, "told")] == [one.event_id for one in decisions]


def test_of_two_facts_that_claim_one_identity_the_first_was_judged(client: Client) -> None:
    real = Writer("forged").steps([1, 2], loss=[1.0, 2.0])
    other = Writer("forged").steps([1, 7, 8], loss=[1.0, 3.0, 4.0], lr=[None, None, 1.0])
    Archive(client).insert(logged([real, other], partition=17))
    assert [record.event for record in read_log(client, "forged")] == [real]


def test_of_a_run_nobody_knows_there_is_no_log(client: Client) -> None:
    assert read_log(client, "nobody") == []
    assert read_decisions(client, "nobody") == []
