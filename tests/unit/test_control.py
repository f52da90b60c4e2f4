"""Which commands rank 0 hears, and which it may obey."""

import logging
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.events.actions import Action, Pause, Resume, ScaleLr, SkipBatches, Stop
from pilothouse.events.codec import encode
from pilothouse.events.decisions import (
    OPERATOR,
    SINCE_GOOD,
    VAL_BEST_STEP,
    IncidentOpened,
    IncidentResolved,
    InterventionIssued,
    PhaseChanged,
    RunAssessed,
)
from pilothouse.events.envelope import LogPlace
from pilothouse.events.union import AnyDecision
from pilothouse.producers.ranks.context import Identity
from pilothouse.producers.steering.control import HEARD, Inbox, Orders
from pilothouse.tests.pilot_world import issued

IDENTITY = Identity("run-1", "attempt-1", 1, 0, 1)


class Wire(NamedTuple):
    offset: int
    key: bytes | None
    headers: Sequence[tuple[str, bytes]]
    value: bytes | None


def wire(offset: int, command: AnyDecision) -> Wire:
    encoded = encode(command)
    return Wire(offset, command.run_id.encode(), encoded.headers, encoded.body)


def taken(inbox: Inbox) -> list[InterventionIssued]:
    received = []
    while (one := inbox.take()) is not None:
        assert isinstance(one, InterventionIssued)
        received.append(one)
    return received


def test_only_commands_for_this_run_are_heard_in_the_order_of_the_log() -> None:
    inbox = Inbox("run-1")
    commands = [issued(SkipBatches(count=n), number=n) for n in (1, 2)]
    common = commands[0].model_dump(include={"at", "run_id", "attempt_id", "attempt", "basis", "step", "policy_hash"})
    phase = PhaseChanged(decision_id="p", phase="Normal", was="Warmup", reason="x", **common)
    inbox.offer("log", wire(0, commands[0]))
    inbox.offer("log", wire(1, phase))
    inbox.offer("log", wire(2, issued(SkipBatches(count=9), number=9, run_id="run-2")))
    inbox.offer("log", wire(3, commands[1]))
    assert taken(inbox) == commands


def test_from_when_on_a_run_is_suspect_is_heard() -> None:
    inbox = Inbox("run-1")
    common: dict[str, Any] = {
        "at": 0,
        "attempt_id": "a",
        "attempt": 1,
        "basis": LogPlace(0, 0, 1),
        "step": 80,
        "policy_hash": "h",
    }
    for run_id, onset in (("run-1", 71), ("run-2", 12)):
        opened = IncidentOpened(
            **common, run_id=run_id, decision_id="d", incident_id="i", onset_step=onset, condition="Stable", reason="r"
        )
        inbox.offer("log", wire(1, opened))
    heard = [inbox.judged.suspect_since]
    inbox.offer("log", wire(2, IncidentResolved(
        **common, run_id="run-1", decision_id="e", incident_id="i", outcome="recovered", onset_step=71, steps_lost=0
    )))  # fmt: skip
    assert [*heard, inbox.judged.suspect_since] == [71, None]
    assert inbox.take() is None


def test_which_checkpoints_are_good_is_heard_and_what_a_rollback_gave_up_is_good_no_more() -> None:
    inbox, heard = Inbox("run-1"), []
    for step, ago in ((15, 5.0), (18, 8.0), (24, 4.0), (33, 3.0), (34, math.nan), (25, 5.0), (26, None), (16, 6.0)):
        assessed = RunAssessed(
            at=0, run_id="run-1", attempt_id="a", attempt=1, basis=LogPlace(0, 0, 1), step=step, policy_hash="h",
            decision_id="d", phase="Normal", features={} if ago is None else {SINCE_GOOD: ago},
        )  # fmt: skip
        inbox.offer("log", wire(step, assessed))
        heard.append(inbox.judged.good)
    assert heard == [(10,), (10,), (10, 20), (20, 30), (20, 30), (20,), (20,), (10,)]
    assert inbox.take() is None


def test_where_the_validation_loss_was_lowest_is_heard() -> None:
    inbox, heard = Inbox("run-1"), []
    for step, best in ((15, None), (18, 8.0), (24, 16.0), (33, math.nan), (34, None)):
        assessed = RunAssessed(
            at=0, run_id="run-1", attempt_id="a", attempt=1, basis=LogPlace(0, 0, 1), step=step, policy_hash="h",
            decision_id="d", phase="Normal", features={} if best is None else {VAL_BEST_STEP: best},
        )  # fmt: skip
        inbox.offer("log", wire(step, assessed))
        heard.append(inbox.judged.best)
    assert heard == [None, 8, 16, 16, 16]


def test_reading_the_log_again_gives_nothing_again_but_a_second_copy_is_heard() -> None:
    inbox, command = Inbox("run-1"), issued(SkipBatches(count=1))
    for _ in range(2):
        inbox.offer("log", wire(5, command))
    inbox.offer("log", wire(6, command))
    assert taken(inbox) == [command, command]


@given(st.binary(max_size=200), st.none() | st.binary(max_size=200), st.booleans())
def test_whatever_stands_in_the_log_the_follower_goes_on(header: bytes, body: bytes | None, ours: bool) -> None:
    inbox = Inbox("run-1")
    kind = b"intervention_issued" if ours else header
    inbox.offer("log", Wire(0, b"run-1", [("ph-kind", kind), ("ph-schema", header)], body))
    inbox.offer("log", wire(1, issued(SkipBatches(count=1))))
    assert len(taken(inbox)) == 1
    assert inbox.malformed == (kind in HEARD)


def test_malformed_commands_are_counted_and_complained_of_once(caplog: pytest.LogCaptureFixture) -> None:
    inbox, headers = Inbox("run-1"), [("ph-kind", b"intervention_issued"), ("ph-schema", b"1")]
    with caplog.at_level(logging.ERROR):
        for offset in range(3):
            inbox.offer("log", Wire(offset, b"run-1", headers, b"\xc1"))
    assert inbox.malformed == 3
    assert [record.message.count("cannot be read") for record in caplog.records] == [1]


def word(orders: Orders, command: InterventionIssued, step: int = 10) -> str:
    refusal = orders.refusal(command, IDENTITY, step)
    return "" if refusal is None else f"{refusal.outcome} {refusal.reason.partition(':')[0]}"


def test_a_fresh_command_may_be_obeyed() -> None:
    assert word(Orders(), issued(ScaleLr(factor=0.5))) == ""


def test_what_is_late_stale_out_of_order_or_known_is_refused_by_its_name() -> None:
    orders = Orders()
    orders.remember(issued(ScaleLr(factor=0.5), number=5), "applied", 9)
    assert word(orders, issued(ScaleLr(factor=0.5), number=6, expires_step=9)) == "expired Expired"
    assert word(orders, issued(ScaleLr(factor=0.5), number=6, attempt_id="attempt-0")) == "rejected Stale"
    assert word(orders, issued(ScaleLr(factor=0.5), number=4)) == "rejected OutOfOrder"
    assert word(orders, issued(ScaleLr(factor=0.5), number=5)) == "rejected Duplicate"
    assert word(orders, issued(ScaleLr(factor=0.5), number=6, basis=LogPlace(0, 0, 5))) == ""


@pytest.mark.parametrize("action", [Stop(), Pause(), Resume()])
def test_what_a_person_orders_for_the_run_outlives_the_attempt_it_was_ordered_in(action: Action) -> None:
    orders = Orders()
    orders.remember(issued(ScaleLr(factor=0.5), number=5), "applied", 9)
    old: dict[str, Any] = {"number": 4, "attempt_id": "attempt-0"}
    assert word(orders, issued(action, rule=OPERATOR, **old)) == ""
    assert word(orders, issued(action, **old)) == "rejected Stale"
    assert word(orders, issued(ScaleLr(factor=0.5), rule=OPERATOR, **old)) == "rejected Stale"
    assert word(orders, issued(action, rule=OPERATOR, expires_step=9, **old)) == "expired Expired"


def test_a_log_that_was_lost_begins_a_new_epoch_which_is_later_than_all_before() -> None:
    orders = Orders()
    orders.remember(issued(ScaleLr(factor=0.5), number=500), "applied", 9)
    assert word(orders, issued(ScaleLr(factor=0.5), number=3, basis=LogPlace(1, 0, 3))) == ""


def test_the_history_of_earlier_processes_is_neither_obeyed_nor_answered() -> None:
    orders = Orders()
    assert orders.is_foreign(issued(ScaleLr(factor=0.5), attempt_id="of-a-process-long-gone"), IDENTITY)
    assert not orders.is_foreign(issued(ScaleLr(factor=0.5)), IDENTITY)
    later = IDENTITY._replace(attempt_id="attempt-2")
    assert not orders.is_foreign(issued(ScaleLr(factor=0.5)), later)
    assert orders.foreign == 1
