"""Whose word counts: what a signature covers, which key may say what, and how keys are written."""

import os
from collections.abc import Callable

import pytest

from pilothouse.events.actions import CheckpointNow, Stop
from pilothouse.events.codec import KEY_ID_HEADER, KIND_HEADER, SCHEMA_HEADER, SIGNATURE_HEADER, Encoded, encode
from pilothouse.events.commands import AdviceGiven, OperatorCommand, PolicyActivated, RunAnnotated, Tick
from pilothouse.events.errors import SettingsInvalid
from pilothouse.events.signing import (
    GENESIS,
    OPEN,
    KeyRole,
    PrivateKey,
    Trust,
    Untrusted,
    linked,
    read_private,
    read_public,
    signed,
    who_may_say,
)
from pilothouse.events.union import AnyEvent
from pilothouse.tests.pilot_world import issued


def key_of(role: KeyRole, name: str = "") -> PrivateKey:
    return PrivateKey(role, os.urandom(32), name or f"{role}-1")


GOVERNOR, OPERATOR, ADVISOR = key_of("governor"), key_of("operator"), key_of("advisor")
TRUST = Trust((GOVERNOR.public, OPERATOR.public, ADVISOR.public))
COMMAND = issued(CheckpointNow())
ORDER = OperatorCommand(at=1, run_id="r", writer_id="w", seq=1, verb="stop", who="ada", why="w", action=Stop())
POLICY = PolicyActivated(at=1, run_id="r", writer_id="w", seq=1, name="p", text="rules: []", policy_hash="h", who="ada")
ADVICE = AdviceGiven(at=1, run_id="r", writer_id="w", seq=1, request_id="q", advisor="memory")
TICK = Tick(at=1, partition=0, writer_id="t", seq=1)
NOTE = RunAnnotated(at=1, run_id="r", writer_id="w", seq=1, who="ada", text="t")


def objection(event: AnyEvent, wire: Encoded, trust: Trust = TRUST) -> str:
    found = trust.objection(event, wire)
    return found.reason if found is not None else ""


@pytest.mark.parametrize(
    "event, by",
    [
        (COMMAND, {"governor"}),
        (TICK, {"governor"}),
        (ORDER, {"operator"}),
        (POLICY, {"operator", "governor"}),
        (ADVICE, {"advisor"}),
    ],
)
def test_each_role_says_what_is_its_to_say_and_nothing_else(event: AnyEvent, by: set[str]) -> None:
    assert set(who_may_say(event)) == by
    for key in (GOVERNOR, OPERATOR, ADVISOR):
        assert objection(event, signed(encode(event), [key])) == ("" if key.role in by else "NotItsToSay")
    assert objection(event, encode(event)) == "Unsigned"
    assert objection(event, encode(event), OPEN) == ""
    assert objection(event, signed(encode(event), [GOVERNOR]), Trust()) == "NoKeys"


def test_what_steers_nothing_anybody_may_say() -> None:
    assert objection(NOTE, encode(NOTE)) == ""


def _other_body(wire: Encoded) -> Encoded:
    return Encoded(encode(issued(CheckpointNow(), run_id="run-2")).body, wire.headers)


def _other_header(name: str) -> Callable[[Encoded], Encoded]:
    return lambda wire: Encoded(wire.body, [(each, b"1" if each == name else value) for each, value in wire.headers])


def _other_link(wire: Encoded) -> Encoded:
    return Encoded(wire.body, [*wire.headers, ("ph-previous", b"\x01" * 32)])


@pytest.mark.parametrize("forged", [_other_body, _other_header(KIND_HEADER), _other_header(SCHEMA_HEADER), _other_link])
def test_whatever_is_changed_of_a_signed_record_shows(forged: Callable[[Encoded], Encoded]) -> None:
    wire = signed(linked(encode(COMMAND), GENESIS), [GOVERNOR])
    assert objection(COMMAND, wire) == ""
    assert objection(COMMAND, forged(wire)) == "BadSignature"


@pytest.mark.parametrize("signature", [b"", b"x", bytes(64), bytes(65)])
def test_a_signature_that_is_none_is_a_bad_one(signature: bytes) -> None:
    headers = [*encode(COMMAND).headers, (KEY_ID_HEADER, GOVERNOR.public.id.encode()), (SIGNATURE_HEADER, signature)]
    assert objection(COMMAND, Encoded(encode(COMMAND).body, headers)) == "BadSignature"


def test_while_one_key_takes_over_from_another_who_knows_either_believes() -> None:
    new = key_of("governor", "governor-2")
    both = signed(encode(COMMAND), [GOVERNOR, new])
    assert [objection(COMMAND, both, Trust((key.public,))) for key in (GOVERNOR, new)] == ["", ""]
    assert objection(COMMAND, both, Trust((key_of("governor").public,))) == "UnknownKey"


def test_a_retired_key_orders_nothing_and_still_vouches_for_the_past() -> None:
    wire = signed(encode(COMMAND), [GOVERNOR])
    retired = Trust((GOVERNOR.public._replace(retired=True),))
    assert objection(COMMAND, wire, retired) == "UnknownKey"
    assert retired.objection(COMMAND, wire, past=True) is None


def test_many_signatures_keep_nobody_busy() -> None:
    flood = [(KEY_ID_HEADER, b"x"), (SIGNATURE_HEADER, bytes(64))] * 100
    wire = signed(Encoded(encode(COMMAND).body, [*encode(COMMAND).headers, *flood]), [GOVERNOR])
    assert objection(COMMAND, wire) == "UnknownKey"


def test_keys_are_read_as_they_are_written() -> None:
    retired = OPERATOR.public._replace(retired=True)
    text = f"# a comment\n\n{GOVERNOR.public.line()}  # ours\n{retired.line()}\n"
    assert read_public(text, "here") == (GOVERNOR.public, retired)
    assert read_public(f"{GOVERNOR.public.line()},{ADVISOR.public.line()}", "a variable") == (
        GOVERNOR.public,
        ADVISOR.public,
    )
    assert read_private(f"{GOVERNOR.line()}\n{OPERATOR.line()}", "here") == (GOVERNOR, OPERATOR)


@pytest.mark.parametrize(
    "text, says",
    [
        ("nonsense", "ROLE ed25519 BASE64 NAME"),
        ("captain ed25519 " + GOVERNOR.public.line().split()[2] + " x", "role is one of governor, operator, advisor"),
        ("governor ed25519 AAAA x", "not 32 bytes"),
        ("governor ed25519 %%%% x", "not 32 bytes"),
        (GOVERNOR.public.line() + " forever", "retired"),
        (GOVERNOR.line(), "ROLE ed25519 BASE64 NAME"),
    ],
    ids=["nonsense", "another role", "too short", "no base64", "a word more", "a private key"],
)
def test_what_is_no_key_is_said_with_its_place_and_shows_no_secret(text: str, says: str) -> None:
    with pytest.raises(SettingsInvalid, match="here") as refused:
        read_public(text, "here")
    assert says in str(refused.value)
    assert GOVERNOR.line().split()[2] not in str(refused.value) + repr(GOVERNOR)


def test_the_reason_is_for_a_person() -> None:
    found = TRUST.objection(ORDER, signed(encode(ORDER), [ADVISOR]))
    assert isinstance(found, Untrusted)
    assert "advisor-1" in found.detail
    assert "operator_command" in found.detail
