"""The core decides of committed histories what was decided of them, bit for bit."""

import json

import pytest

from pilothouse.events.codec import from_json, to_json
from pilothouse.tests.replay import history
from pilothouse.tests.replay.history import DEMO, FOUR_RANKS

CHANGED = """
The core decides otherwise than it did: the first difference is decision {index} of {name},
  was {was}
  is  {now}
If that is what you wanted, say so in CHANGELOG.md, and renew both histories as tests/replay/history.py says.
"""


@pytest.mark.parametrize("name", history.HISTORIES)
def test_a_committed_history_is_decided_as_it_was(name: str) -> None:
    # Read as the archive is: what a decision has to say since then has its default.
    was = [to_json(from_json(line)) for line in history.committed_decisions(name)]
    now = list(map(to_json, history.decisions_now(name)))
    first = next((index for index, pair in enumerate(zip(was, now, strict=False)) if pair[0] != pair[1]), None)
    if first is None and len(was) != len(now):
        first = min(len(was), len(now))
    if first is not None:
        said = [lines[first] if first < len(lines) else "nothing" for lines in (was, now)]
        raise AssertionError(CHANGED.format(index=first, name=name, was=said[0], now=said[1]))


@pytest.mark.parametrize("name, ranks", [(DEMO, 2), (FOUR_RANKS, 4)])
def test_a_history_has_what_it_is_committed_for(name: str, ranks: int) -> None:
    told = [json.loads(line) for line in history.committed_decisions(name)]
    reasons = {decision["reason"] for decision in told if decision["kind"] == "condition_changed"}
    assert {"NonFinite", "LossAboveBaseline"} <= reasons
    issued = [decision["action"]["action"] for decision in told if decision["kind"] == "intervention_issued"]
    assert "rollback" in issued
    assert "recovered" in [decision["outcome"] for decision in told if decision["kind"] == "intervention_verified"]
    assert told[-1]["phase"] == "Ended"
    heard = {record.event.rank for record in history.records(name) if record.event.kind == "step_batch"}
    assert heard == set(range(ranks))


def test_the_history_of_the_demo_is_a_log_that_was_judged_live() -> None:
    """Its decisions name places of the log they came from, and time is told by a ticker."""
    places = {record.place for record in history.records(DEMO)}
    told = history.committed_decisions(DEMO)
    assert {tuple(json.loads(line)["basis"]) for line in told} <= places
    kinds = {record.event.kind for record in history.records(DEMO)}
    assert kinds >= {
        "tick",
        "heartbeat",
        "policy_activated",
        "intervention_receipt",
        "checkpoint_restored",
        "run_ended",
    }
