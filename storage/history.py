"""A run's log out of the archive, in the order in which it was judged.

`pilothouse replay` and `backtest` fold it again; the governor rebuilds its states from it when the log itself was lost.
Facts come back equal to the last bit; of an event that stands at several places, the first, because the governor
skipped the others.

Ticks belong to no run, but a run is judged by those of its partition: from its first record to its end. The end is the
record on which governance declared the phase `Ended`, or the run's last record where that is later. A run that has not
ended may have been judged by any later tick (it may yet be declared lost by one), so those follow as well, up to
`ticks_after`.

A run that was imported has a log of its own, its ticks included; what a stack was told of it later stands behind that.
"""

import heapq
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from ..events.codec import from_json
from ..events.commands import Tick
from ..events.envelope import Decision, LogPlace
from ..events.union import KINDS, AnyDecision, AnyInput, Record
from .connect import refusals
from .imports.telling import PARTITION as IMPORTED
from .named import Row, ask, statements
from .step_columns import StepColumn, batch_of

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

DECISION_KINDS = sorted(kind for kind, leaf in KINDS.items() if issubclass(leaf, Decision))
TICKS_AFTER = 10_000
"""How many ticks after its last record a run without an end is given: at one a second, nearly three hours."""
ALL_TICKS = ANY_OFFSET = 2**62
ANY_EPOCH = 2**32

Moment = tuple[int, int]
"""(epoch, offset): what orders the places of one partition."""


class Span(NamedTuple):
    """Where a run's records stand: its partition in each epoch, its first and last moment."""

    partitions: dict[int, int]
    first: Moment
    last: Moment


def read_log(
    client: "Client", run_id: str, *, before_epoch: int = ANY_EPOCH, ticks_after: int = TICKS_AFTER
) -> list[Record]:
    """The run's facts and its partition's ticks, in log order; empty where the archive holds none.

    `before_epoch` leaves out what stands in that epoch of the log or a later one: a governor that begins an epoch reads
    that one itself.
    """
    return list(stream_log(client, run_id, before_epoch=before_epoch, ticks_after=ticks_after))


def stream_log(
    client: "Client", run_id: str, *, before_epoch: int = ANY_EPOCH, ticks_after: int = TICKS_AFTER
) -> Iterator[Record]:
    """As `read_log`, without holding the run's steps in memory at once."""
    asked = {"run": run_id, "before_epoch": before_epoch, "imported": IMPORTED}
    stands = ask(client, "span", decisions=DECISION_KINDS, **asked)
    if not stands:
        return iter(())
    facts = [
        Record(_place(row), _input(row["body"])) for row in ask(client, "facts", decisions=DECISION_KINDS, **asked)
    ]
    ticks = list(_own_ticks(client, run_id)) if any(row["log_partition"] == IMPORTED for row in stands) else []
    span = _span([row for row in stands if row["log_partition"] != IMPORTED])
    if span is not None:
        ended = [LogPlace(*row["basis"]) for row in ask(client, "ended_on", **asked)]
        end = max([span.last, *(_moment(place) for place in ended if place.partition != IMPORTED)])
        ticks += _ticks(client, span, (span.first, end), ALL_TICKS)
        if not ended:
            ticks += _ticks(client, span, (end, (before_epoch - 1, ANY_OFFSET)), ticks_after)
    return heapq.merge(facts, _batches(client, asked), ticks, key=lambda record: order_of(record.place))


def order_of(place: LogPlace) -> tuple[bool, int, int]:
    """What the records of one run are ordered by: what was imported first, then as places are."""
    return place.partition != IMPORTED, place.epoch, place.offset


def read_decisions(client: "Client", run_id: str) -> list[AnyDecision]:
    """What was decided about the run, in the order in which it was told."""
    rows = ask(client, "decisions", run=run_id, decisions=DECISION_KINDS, imported=IMPORTED)
    return [event for event in (from_json(row["body"]) for row in rows) if isinstance(event, Decision)]


def decisions_in_order(client: "Client", run_id: str) -> list[AnyDecision]:
    """What was decided about the run, by the records that it was decided on: what a governor that began anew had to say
    again stands behind them on the control topic.
    """
    return sorted(read_decisions(client, run_id), key=lambda decision: order_of(decision.basis))


def open_runs(client: "Client") -> list[str]:
    """The runs that are not known to have ended: those whose states a governor with an empty log must rebuild."""
    return [row["run_id"] for row in ask(client, "open_runs")]


def _span(rows: list[Row]) -> Span | None:
    if not rows:
        return None
    return Span(
        partitions={row["log_epoch"]: row["log_partition"] for row in rows},
        first=min((row["log_epoch"], row["first_offset"]) for row in rows),
        last=max((row["log_epoch"], row["last_offset"]) for row in rows),
    )


def _ticks(client: "Client", span: Span, moments: tuple[Moment, Moment], limit: int) -> Iterator[Record]:
    """The ticks of the run's partition behind the first moment, up to and with the second."""
    (after_epoch, after_offset), (until_epoch, until_offset) = moments
    after = {"after_epoch": after_epoch, "after_offset": after_offset}
    until = {"until_epoch": until_epoch, "until_offset": until_offset}
    partitions = sorted(set(span.partitions.values()))
    for row in ask(client, "ticks_between", partitions=partitions, limit=limit, **after, **until):
        if row["log_partition"] == _partition_in(span, row["log_epoch"]):
            yield Record(_place(row), _tick(row))


def _own_ticks(client: "Client", run_id: str) -> Iterator[Record]:
    for row in ask(client, "imported_ticks", run=run_id):
        yield Record(LogPlace(0, IMPORTED, row["log_offset"]), _tick(row))


def _partition_in(span: Span, epoch: int) -> int:
    """The run's partition in an epoch; where it told nothing in that one, the partition it had before."""
    return span.partitions[max(known for known in span.partitions if known <= epoch)]


def _batches(client: "Client", asked: dict[str, Any]) -> Iterator[Record]:
    judged: set[tuple[str, int]] = set()
    for place, group in groupby(_columns(client, asked), key=lambda column: column.place):
        columns = list(group)
        identity = columns[0].writer_id, columns[0].seq
        # Rows that differ do not replace each other: of a second record that claims this identity some may be left.
        # It was never judged.
        if identity not in judged:
            judged.add(identity)
            yield Record(place, batch_of(asked["run"], columns))


def _columns(client: "Client", asked: dict[str, Any]) -> Iterator[StepColumn]:
    with refusals(), client.query_rows_stream(statements()["batch_columns"], parameters=asked) as rows:
        for row in rows:
            yield StepColumn._make(row)


def _input(body: str) -> AnyInput:
    event = from_json(body)
    assert not isinstance(event, Decision), "the query leaves decisions out"
    return event


def _tick(row: Row) -> Tick:
    return Tick(at=row["at"], partition=row["partition"], writer_id=row["writer_id"], seq=row["seq"])


def _place(row: Row) -> LogPlace:
    return LogPlace(row["log_epoch"], row["log_partition"], row["log_offset"])


def _moment(place: LogPlace) -> Moment:
    return place.epoch, place.offset
