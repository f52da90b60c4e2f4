"""Orders as people type them: spans, actions, whose they are; and what is told of them as rows come in."""

import json
from typing import Any

import pytest

from pilothouse.cli.acting import action_of
from pilothouse.cli.ordering import account
from pilothouse.cli.spans import seconds_of, span_of
from pilothouse.control_room.orders import Sent, as_fields, order_of, seen_of
from pilothouse.events.actions import Resume
from pilothouse.events.commands import OperatorCommand
from pilothouse.events.errors import UserMistake

NO_ARCHIVE: Any = None


@pytest.mark.parametrize(
    "text, fields",
    [
        ("200steps", {"steps": 200}),
        ("1 step", {"steps": 1}),
        ("90s", {"seconds": 90}),
        ("2h", {"seconds": 7_200}),
        ("1d", {"seconds": 86_400}),
    ],
)
def test_a_span_is_steps_or_time(text: str, fields: dict[str, int]) -> None:
    assert span_of(text, end=False) == fields


@pytest.mark.parametrize("text", ["", "200", "0s", "-5m", "5 weeks", "1e3s", "steps"])
def test_a_span_that_is_none_says_how_one_is_written(text: str) -> None:
    with pytest.raises(UserMistake, match="--for 200steps, 90s, 10m or 2h"):
        span_of(text, end=False)


def test_a_pause_is_a_span_of_time() -> None:
    assert seconds_of("10m", "--for") == 600
    with pytest.raises(UserMistake, match="no span of time"):
        seconds_of("10steps", "--for")
    with pytest.raises(UserMistake, match="leave --for away"):
        span_of("10m", end=True)


@pytest.mark.parametrize(
    "words, said",
    [
        (("reboot",), "no action is called 'reboot'; there are: scale_lr, "),
        (("revert",), "no action is called 'revert'"),
        (("scale_lr",), "scale_lr factor: Field required; it takes: factor"),
        (("scale_lr", "factor"), "'factor' is no value with its name; write it as factor=0.5"),
        (("scale_lr", "factor=99"), "scale_lr factor: Input should be less than or equal to 2"),
        (("scale_lr", "factor=nan"), "finite number"),
        (("scale_lr", "factor=0.5", "factor=0.4"), "factor is given twice"),
        (("scale_lr", "factor=0.5", "why=no"), "scale_lr why: Extra inputs are not permitted; it takes: factor"),
        (("resume", "now=1"), "it takes: nothing"),
    ],
)
def test_an_action_that_is_none_says_what_to_write(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserMistake) as wrong:
        action_of(NO_ARCHIVE, "run", words[0], words[1:])
    assert said in str(wrong.value)


def test_an_action_is_typed_as_its_values() -> None:
    assert action_of(NO_ARCHIVE, "run", "scale_lr", ["factor=0.5"]) == {"action": "scale_lr", "factor": 0.5}
    assert action_of(NO_ARCHIVE, "run", "stop", ["checkpoint=false"]) == {"action": "stop", "checkpoint": False}


def test_an_order_says_who_and_why_and_keeps_no_secret() -> None:
    order = order_of("r", "decline", why="no, password=hunter2", who="ada", intervention_id="i")
    assert order.who == "ada"
    assert "hunter2" not in order.why
    with pytest.raises(UserMistake, match="say why"):
        order_of("r", "decline", why="  ", who="ada", intervention_id="i")
    assert order_of("r", "approve", why="", who="ada", needs_why=False, intervention_id="i").why == ""
    with pytest.raises(UserMistake, match="condition"):
        order_of("r", "silence", why="w", who="ada", steps=3, condition="Stabel")


IDENTITY: dict[str, Any] = {"at": 1, "run_id": "r", "writer_id": "operator-1", "seq": 1, "who": "ada", "why": "w"}
ORDER = OperatorCommand(verb="intervene", action=Resume(), **IDENTITY)


def row(kind: str, rank: int | None = None, **body: Any) -> dict[str, Any]:
    return {"kind": kind, "at": 0, "step": 7, "rank": rank, "body": json.dumps(body)}


def answered(accepted: bool, reason: str, order: str = "operator-1:1") -> dict[str, Any]:
    told: dict[str, Any] = {"order_id": order, "verb": "intervene", "accepted": accepted, "reason": reason}
    return row("order_answered", **told, intervention_id="i-1")


def receipt(rank: int, outcome: str = "applied", **more: Any) -> dict[str, Any]:
    told = {"intervention_id": "i-1", "outcome": outcome, "reason": "", "before": {"clip": 5.0}, "after": {"clip": 1.0}}
    return row("intervention_receipt", rank, **told | more)


ISSUED = row("intervention_issued", intervention_id="i-1", rule="operator", action={"action": "set_clip", "value": 1.0})
OTHERS = [
    answered(True, "issued", "operator-2:1"),
    row("intervention_receipt", 0, intervention_id="i-2", outcome="failed"),
]


@pytest.mark.parametrize(
    "rows, outcome, over, said",
    [
        ([], "sent", False, "nothing came of it yet"),
        ([answered(False, "it was declined by bob: no")], "refused", True, "refused by the governor of run r: it was"),
        ([answered(True, "issued"), ISSUED], "issued", False, "its ranks have not answered yet"),
        (
            [answered(True, "issued"), ISSUED, receipt(0)],
            "applied",
            False,
            "applied by 1 of 2 ranks of run r at step 7",
        ),
        ([answered(True, "issued"), ISSUED, receipt(0), receipt(1)], "applied", True, "; clip 5 → 1"),
        (
            [answered(True, "issued"), receipt(0, "rejected", reason="OutOfBounds: x")],
            "rejected",
            True,
            "OutOfBounds: x",
        ),
        ([answered(True, "issued"), row("intervention_expired", intervention_id="i-1")], "expired", True, "no receipt"),
        ([answered(True, "issued"), row("run_ended", 0, outcome="stopped")], "ended", True, "run r has ended"),
    ],
)
def test_what_becomes_of_an_order_is_told_and_what_is_others_is_not(
    rows: list[dict[str, Any]], outcome: str, over: bool, said: str
) -> None:
    sent: Sent = seen_of(ORDER, [*OTHERS, *rows], 2)
    assert (sent.outcome, sent.is_over) == (outcome, over)
    assert said in account(sent)
    assert as_fields(sent)["outcome"] == outcome
