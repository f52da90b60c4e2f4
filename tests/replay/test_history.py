"""The core decides of a committed history what it decided when that was committed, bit for bit."""

import json

from pilothouse.events.codec import to_json
from pilothouse.tests.replay import history

CHANGED = """
The core decides otherwise than it did: the first difference is decision {index},
  was {was}
  is  {now}
If that is what you wanted, say so in CHANGELOG.md and commit what this writes:
  python -m pilothouse.tests.replay.history
"""


def test_a_committed_history_is_decided_as_it_was() -> None:
    was, now = history.committed_decisions(), list(map(to_json, history.decisions_now()))
    first = next((index for index, pair in enumerate(zip(was, now, strict=False)) if pair[0] != pair[1]), None)
    if first is None and len(was) != len(now):
        first = min(len(was), len(now))
    if first is not None:
        said = [lines[first] if first < len(lines) else "nothing" for lines in (was, now)]
        raise AssertionError(CHANGED.format(index=first, was=said[0], now=said[1]))


def test_the_history_has_what_it_is_committed_for() -> None:
    told = [json.loads(line) for line in history.committed_decisions()]
    reasons = {decision["reason"] for decision in told if decision["kind"] == "condition_changed"}
    assert {"NonFinite", "LossAboveBaseline"} <= reasons
    issued = [decision["action"]["action"] for decision in told if decision["kind"] == "intervention_issued"]
    assert "rollback" in issued
    assert "recovered" in [decision["outcome"] for decision in told if decision["kind"] == "intervention_verified"]
    assert told[-1]["phase"] == "Ended"
    ranks = {record.event.rank for record in history.records() if record.event.kind == "step_batch"}
    assert ranks == {0, 1, 2, 3}
