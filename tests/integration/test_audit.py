"""An archive that somebody has changed through SQL, with full rights, says so."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from pilothouse.events.actions import Stop
from pilothouse.events.codec import Encoded, encode
from pilothouse.events.commands import OperatorCommand, PolicyActivated
from pilothouse.events.decisions import OrderAnswered, PhaseChanged
from pilothouse.events.envelope import LogPlace
from pilothouse.events.signing import GENESIS, PrivateKey, link_of, linked, signed
from pilothouse.events.topics import CONTROL, TELEMETRY
from pilothouse.events.union import AnyDecision
from pilothouse.settings import Settings
from pilothouse.storage.archive import Archive, Archived
from pilothouse.storage.audit import Audit, audit_trail, audited
from pilothouse.storage.upgrade import bring_up_to_date
from pilothouse.tests.endpoint_fixture import EndpointProcess
from pilothouse.tests.unit.test_signing import GOVERNOR, OPERATOR, TRUST, key_of

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

DECISIONS = 6


@pytest.fixture(scope="module")
def client(endpoint: EndpointProcess) -> Iterator["Client"]:
    one = endpoint.client()
    one.database = "pilothouse"
    bring_up_to_date(one, Settings())
    yield one
    one.close()


@dataclass
class Written:
    """One run as a governor and an archiver leave it: a policy, an order, and decisions of which one answers it."""

    client: "Client"
    run_id: str
    signs: PrivateKey = GOVERNOR

    def __post_init__(self) -> None:
        self.link = GENESIS
        policy = PolicyActivated(
            at=1, run_id=self.run_id, writer_id=f"p-{self.run_id}", seq=1, name="n", text="t", policy_hash="h", who="w"
        )
        self.order = OperatorCommand(
            at=2, run_id=self.run_id, writer_id=f"o-{self.run_id}", seq=1, verb="stop", who="ada", why="w",
            action=Stop(), origin="command line on deck",
        )  # fmt: skip
        rows = [
            Archived(TELEMETRY.name, LogPlace(1, 0, 0), policy, signed(encode(policy), [GOVERNOR])),
            Archived(TELEMETRY.name, LogPlace(1, 0, 1), self.order, signed(encode(self.order), [OPERATOR])),
            *(self.decided(number) for number in range(DECISIONS)),
        ]
        assert not Archive(self.client).insert(rows)

    def decided(self, number: int, epoch: int = 1) -> Archived:
        fields: dict[str, Any] = {
            "at": 10 + number, "run_id": self.run_id, "attempt_id": "a", "attempt": 1, "step": number,
            "basis": (epoch, 0, number), "policy_hash": "h", "decision_id": f"{self.run_id}-{number}",
        }  # fmt: skip
        event: AnyDecision = PhaseChanged(phase="Normal", was="Warmup", reason="R", **fields)
        if number == 2:
            event = OrderAnswered(
                order_id=self.order.event_id, verb="stop", who="ada", accepted=True, reason="issued", **fields
            )
        wire = self.chained(event)
        return Archived(CONTROL.name, LogPlace(epoch, 0, 100 + number), event, wire)

    def chained(self, event: AnyDecision) -> Encoded:
        wire = signed(linked(encode(event), self.link), [self.signs])
        self.link = link_of(wire)
        return wire

    def sql(self, statement: str) -> None:
        """As somebody with full rights on the archive would."""
        where = f"run_id = '{self.run_id}'"
        self.client.command(statement.format(where=where), settings={"mutations_sync": 1})

    def audit(self, **more: object) -> Audit:
        return audited(self.client, TRUST, self.run_id, **more)  # type: ignore[arg-type]  # one argument of its own

    def found(self) -> set[str]:
        return {finding.what for finding in self.audit().faults}


def decision(number: int) -> str:
    return f"{{where}} AND event_id LIKE '%-{number}' AND kind != 'operator_command'"


def test_what_nobody_touched_is_as_it_was_said_and_by_whom(client: "Client") -> None:
    run = Written(client, "untouched")
    audit = run.audit()
    assert audit.findings == []
    assert audit.signers == {
        f"governor-1 ({GOVERNOR.public.id})": DECISIONS + 1,
        f"operator-1 ({OPERATOR.public.id})": 1,
    }
    assert audit.heads["untouched"].decisions == DECISIONS
    again = Archive(client).insert([])  # an archiver that inserts twice changes nothing
    assert not again


def test_the_trail_says_who_did_what_why_and_from_where_with_whose_key(client: "Client") -> None:
    Written(client, "trail")
    rows = list(audit_trail(client, TRUST, "trail"))
    order = next(row for row in rows if row["kind"] == "operator_command")
    assert (order["what"], order["who"], order["why"]) == ("stop", "ada", "w")
    assert order["origin"] == "command line on deck"
    assert order["signed_by"] == f"operator-1 ({OPERATOR.public.id})"
    assert json.loads(order["action"])["action"] == "stop"
    assert {row["kind"] for row in rows} == {"policy_activated", "operator_command", "order_answered"}


TAMPERED: list[tuple[str, str, set[str]]] = [
    ("body", "ALTER TABLE event_log UPDATE body = replace(body, 'Warmup', 'Ended') WHERE " + decision(3), {"Altered"}),
    ("step", "ALTER TABLE event_log UPDATE step = 99 WHERE " + decision(3), {"Altered"}),
    ("time", "ALTER TABLE event_log UPDATE attempt = 7 WHERE " + decision(4), {"Altered"}),
    ("seal", "ALTER TABLE event_log UPDATE seal = '' WHERE " + decision(5), {"NoSeal"}),
    ("rubbish", "ALTER TABLE event_log UPDATE seal = 'x' WHERE " + decision(5), {"Unreadable"}),
    ("middle", "ALTER TABLE event_log DELETE WHERE " + decision(3), {"DecisionMissing"}),
    ("first", "ALTER TABLE event_log DELETE WHERE " + decision(0), {"DecisionMissing"}),
    ("order", "ALTER TABLE event_log DELETE WHERE {where} AND kind = 'operator_command'", {"OrderMissing"}),
    ("policy", "ALTER TABLE event_log DELETE WHERE {where} AND kind = 'policy_activated'", {"PolicyMissing"}),
    ("who", "ALTER TABLE event_log UPDATE body = replace(body, 'ada', 'eve') WHERE {where} AND seq > 0", {"Altered"}),
]  # fmt: skip


@pytest.mark.parametrize("name, statement, faults", TAMPERED, ids=[name for name, _, _ in TAMPERED])
def test_what_was_changed_through_sql_shows(client: "Client", name: str, statement: str, faults: set[str]) -> None:
    run = Written(client, f"changed-{name}")
    assert run.found() == set()
    run.sql(statement)
    assert run.found() == faults


def test_what_somebody_puts_in_with_a_key_of_his_own_or_of_another_role_shows(client: "Client") -> None:
    def put(run: Written, change: Callable[[Written], None]) -> set[str]:
        change(run)
        assert not Archive(client).insert([run.decided(DECISIONS)])
        return run.found()

    def signs(key: PrivateKey) -> Callable[[Written], None]:
        return lambda run: setattr(run, "signs", key)

    assert put(Written(client, "stranger"), signs(key_of("governor"))) == {"UnknownKey"}
    assert put(Written(client, "operator"), signs(OPERATOR)) == {"NotItsToSay"}
    assert put(Written(client, "elsewhere"), lambda run: setattr(run, "link", bytes(31) + b"x")) == {"DecisionMissing"}


def test_what_was_cut_off_the_end_shows_against_a_head_that_was_kept(client: "Client") -> None:
    run = Written(client, "cut")
    kept = dict(run.audit().heads)
    run.sql("ALTER TABLE event_log DELETE WHERE " + decision(DECISIONS - 1))
    assert run.found() == set()
    assert {finding.what for finding in run.audit(kept=kept).faults} == {"HeadMissing"}
    gone = audited(client, TRUST, kept={"never-was": kept["cut"]})
    assert [finding.run_id for finding in gone.faults if finding.what == "RunMissing"] == ["never-was"]


def test_decisions_that_were_lost_with_their_log_are_told_from_a_fork(client: "Client") -> None:
    run = Written(client, "new-epoch")
    rows = [run.decided(DECISIONS)]
    fork = run.link
    rows.append(run.decided(DECISIONS + 1))
    run.link = fork
    rows.append(run.decided(DECISIONS + 2, epoch=2))
    assert not Archive(client).insert(rows)
    assert [finding.what for finding in run.audit().findings] == ["LostWithItsLog"]
    run.link = fork
    assert not Archive(client).insert([run.decided(DECISIONS + 3, epoch=2)])
    assert run.found() == {"Forked"}
