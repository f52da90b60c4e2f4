"""What worked before, in incidents of the same signature: counted, never guessed."""

import json
from typing import Any

import pytest

from pilothouse.events.action_surface import ActionChoice
from pilothouse.events.actions import Rollback
from pilothouse.stream_processors.advisor_memory import best, opinion_of, records_of

CHOICES = tuple(
    ActionChoice.model_validate(fields)
    for fields in (
        {"action": "scale_lr", "factor": {"min": 0.25, "max": 0.9}},
        {"action": "skip_batches", "count": {"min": 10, "max": 200}},
        {"action": "rollback", "lr_factor": {"min": 0.3, "max": 1.0}},
    )
)
REF = {"checkpoint_id": "c", "step": 90, "path": "/c", "manifest_sha256": "0" * 64}


def row(action: dict[str, Any], outcome: str = "recovered", run: str = "a", **more: Any) -> dict[str, Any]:
    known = {"applied_steps": [100], "resolved_step": 112, "incident_outcome": "recovered"}
    return {"run_id": run, "action_body": json.dumps(action), "outcome": outcome} | known | more


HALVE = {"action": "scale_lr", "factor": 0.5}
SKIP = {"action": "skip_batches", "count": 40}
BACK = {"action": "rollback", "lr_factor": 0.7, "checkpoint": REF}


def test_actions_are_counted_with_their_values_over_runs_and_checkpoints() -> None:
    other = BACK | {"checkpoint": REF | {"checkpoint_id": "other", "step": 104}}
    rows = [row(BACK), row(other, run="b"), row(HALVE, "ineffective"), row(HALVE | {"factor": 0.25}, "reverted")]
    found = {str(record.action): record for record in records_of(rows)}
    assert len(found) == 3
    [back] = [record for record in found.values() if record.action.action == "rollback"]
    assert (back.tries, back.recovered, back.runs) == (2, 2, ("a", "b"))
    assert back.median_steps == 15.0, "from the checkpoints on: 22 and 8"
    assert back.action == Rollback(lr_factor=0.7), "which checkpoint is the governor's to say"


def test_the_surest_is_proposed_and_not_the_luckiest() -> None:
    rows = [*[row(SKIP)] * 8, *[row(SKIP, "ineffective")] * 2, row(HALVE)]
    opinion = opinion_of(records_of(rows), "Stable LossSpike", CHOICES)
    assert opinion.action is not None
    assert opinion.action.action == "skip_batches"
    assert opinion.why == (
        "Stable LossSpike: skip_batches count=40 helped in 8 of 10 incidents, in 12 steps (median); seen in a"
    )
    assert opinion.evidence == {
        "tries": 10.0, "recovered": 8.0, "runs": 1.0, "median_steps_to_recover": 12.0, "recovery_rate": 0.8,
    }  # fmt: skip
    assert opinion.runs == ("a",)
    assert [record["tries"] for record in json.loads(opinion.answer)] == [10, 1]


def test_of_two_that_are_as_sure_the_quicker_one_is_proposed() -> None:
    rows = [row(HALVE, resolved_step=150), row(SKIP, resolved_step=103)]
    found = best(records_of(rows), CHOICES)
    assert found is not None
    assert found.action.action == "skip_batches"


@pytest.mark.parametrize(
    "rows, said",
    [
        ([], "no intervention was ever verified in an incident of Stable LossSpike"),
        ([row({"action": "set_clip", "value": 1.0})], "nothing was tried that may be chosen here; set_clip value=1"),
        (
            [row(SKIP), *[row(SKIP, "ineffective")] * 2],
            "in half of them; skip_batches count=40 helped in 1 of 3",
        ),
        ([row(SKIP, "ineffective")], "helped in half of them"),
        ([row({"action": "from_another_age"})], "no intervention was ever verified"),
    ],
)
def test_without_evidence_nothing_is_proposed_and_the_reason_is_told(rows: list[dict[str, Any]], said: str) -> None:
    opinion = opinion_of(records_of(rows), "Stable LossSpike", CHOICES)
    assert opinion.action is None
    assert opinion.why.startswith("no evidence: ")
    assert said in opinion.why


def test_how_long_it_took_is_not_told_where_nobody_knows() -> None:
    unknown = [row(SKIP, resolved_step=None), row(SKIP, incident_outcome="ended"), row(SKIP, applied_steps=[])]
    [record] = records_of(unknown)
    assert (record.recovered, record.median_steps) == (3, None)
    assert "median" not in str(record)
