"""Whether a log and its policy give the decisions that were told; and, if not, which is the first that differs."""

import json
import math
from functools import cache

import pytest

from pilothouse.cli.rendering import json_line
from pilothouse.cli.replay_command import account_of, shortfalls, told_of
from pilothouse.events.codec import from_json, to_json
from pilothouse.events.decisions import InterventionIssued, RunAssessed
from pilothouse.events.union import AnyDecision, Record
from pilothouse.stream_processors.replay import ABSENT, Proof, alike, prove
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.run_builder import quiet_loss

BACK = """
name: careful
mode: enforce
rules:
- name: heal
  when: conditions.Finite == 'False' || conditions.Stable == 'False'
  actions: [{action: rollback, skip_batches: 4, lr_factor: 0.5}]
"""


def spike(position: int, step: int, rank: int) -> float:
    if 90 <= position < 93:
        return math.nan
    return quiet_loss(step, rank) + (1.5 if 60 <= position < 80 else 0.0)


@cache
def governed(end: bool = True) -> GovernedRun:
    run = GovernedRun(world=2, loss=spike).begin(BACK).train(140, steps_per_tick=2)
    return run.end() if end else run


def archived(decisions: list[AnyDecision]) -> list[AnyDecision]:
    """As the archive gives them back."""
    return [
        event for event in (from_json(to_json(decision)) for decision in decisions) if isinstance(event, AnyDecision)
    ]


def proof_of(run: GovernedRun, told: list[AnyDecision] | None = None, records: list[Record] | None = None) -> Proof:
    return prove(run.run_id, records or run.records, archived(run.decisions) if told is None else told)


def without(run: GovernedRun, kind: str, number: int) -> list[Record]:
    """The log with a hole: the record of this kind and number is not there."""
    at = [index for index, record in enumerate(run.records) if record.event.kind == kind][number]
    return [*run.records[:at], *run.records[at + 1 :]]


def test_a_whole_log_gives_the_same_decisions() -> None:
    run = governed()
    proof = proof_of(run)
    assert run.of(InterventionIssued), "this run is to have something to prove"
    assert (proof.difference, proof.same, proof.told, proof.ended) == (
        None,
        len(run.decisions),
        len(run.decisions),
        True,
    )
    assert shortfalls(proof) == []
    assert proof.account.records == len(run.records)
    assert proof.account.ticks == run.ticks


def test_a_decision_that_was_changed_is_named_with_its_step_its_place_and_its_fields() -> None:
    run = governed()
    told = archived(run.decisions)
    index, issued = next((i, one) for i, one in enumerate(told) if isinstance(one, InterventionIssued))
    told[index] = issued.model_copy(update={"who": "mallory", "expires_step": issued.expires_step + 1})
    proof = proof_of(run, told)
    found = proof.difference
    assert found is not None
    assert (found.number, proof.same) == (index + 1, index)
    assert (found.decision.kind, found.decision.step, found.decision.basis) == (issued.kind, issued.step, issued.basis)
    assert [tuple(change) for change in found.changes] == [
        ("expires_step", issued.expires_step + 1, issued.expires_step),
        ("who", "mallory", "policy"),
    ]
    assert shortfalls(proof) == [
        "nothing is missing in this log: the core decides otherwise today, or the archive was changed"
    ]


def test_one_bit_of_one_number_is_a_difference_and_two_nans_are_none() -> None:
    run = governed()
    assessed = next(one for one in run.decisions if isinstance(one, RunAssessed) and "loss" in one.features)
    loss = assessed.features["loss"]
    nudged = assessed.model_copy(update={"features": assessed.features | {"loss": math.nextafter(loss, 9.0)}})
    assert not alike(assessed, nudged)
    undefined = assessed.model_copy(update={"features": {"loss": math.nan}})
    assert alike(undefined, assessed.model_copy(update={"features": {"loss": float("nan")}}))


def test_the_order_in_which_a_decision_names_its_numbers_is_no_difference() -> None:
    assessed = next(one for one in governed().decisions if isinstance(one, RunAssessed) and len(one.features) > 1)
    turned = assessed.model_copy(update={"features": dict(reversed(assessed.features.items()))})
    assert alike(assessed, turned)


@pytest.mark.parametrize("index", [0, 5, -3])
def test_a_decision_that_the_archive_does_not_have_is_named(index: int) -> None:
    run = governed()
    told = archived(run.decisions)
    gone = told.pop(index)
    found = proof_of(run, told).difference
    assert found is not None
    assert found.now is not None
    if found.was is None:
        assert to_json(found.now) == to_json(gone)
    else:  # the next of its kind stands in its place, and is another
        assert found.now.decision_id == gone.decision_id != found.was.decision_id


def test_a_decision_that_the_log_does_not_lead_to_is_named() -> None:
    run = governed()
    told = archived(run.decisions)
    forged = told[-1].model_copy(update={"decision_id": "forged"})
    found = proof_of(run, [*told, forged]).difference
    assert found is not None
    assert (found.number, found.was, found.now) == (len(told) + 1, forged, None)
    assert {change.now for change in found.changes} == {ABSENT}


@pytest.mark.parametrize(
    "kind, word", [("tick", "1 ticks are missing in the log"), ("step_batch", "1 records are missing in the log")]
)
def test_a_hole_in_the_log_is_said_where_it_changes_what_is_decided(kind: str, word: str) -> None:
    run = governed()
    proof = proof_of(run, records=without(run, kind, 30))
    assert proof.difference is not None
    assert any(line.startswith(word) for line in shortfalls(proof))


def test_a_log_without_ticks_proves_nothing_that_time_decided() -> None:
    run = governed()
    records = [record for record in run.records if record.event.kind != "tick"]
    said = shortfalls(proof_of(run, records=records))
    assert said[0].startswith("the archive has no ticks of this run")


def test_ticks_that_begin_late_are_said() -> None:
    run = governed()
    late = [one for one in run.records if one.event.kind != "tick" or one.event.seq > 20]
    assert "s of the run have no ticks" in shortfalls(proof_of(run, records=late))[0]


def test_of_a_run_that_goes_on_neither_half_of_the_archive_must_be_complete() -> None:
    run = governed(end=False)
    behind = proof_of(run, told=archived(run.decisions)[:-3])
    assert (behind.difference, behind.ended, behind.untold) == (None, False, 3)
    ahead = proof_of(run, records=run.records[:-20])
    assert ahead.difference is None
    assert ahead.ahead > 0
    assert all("not compared" in line for line in (*shortfalls(behind), *shortfalls(ahead)))


def test_of_a_run_that_ended_every_decision_of_the_log_must_be_archived() -> None:
    run = GovernedRun(world=1).begin(BACK).train(20).end()
    told = archived(run.decisions)
    run.begin_attempt("restart", "attempt-2", 20)
    found = proof_of(run.train(5), told).difference
    assert found is not None
    assert (found.number, found.was) == (len(told) + 1, None)


def test_a_decision_of_an_older_core_is_known_by_what_it_did_not_know() -> None:
    run = governed()
    index = next(i for i, one in enumerate(run.decisions) if isinstance(one, RunAssessed))
    told = archived(run.decisions)
    body = json.loads(to_json(told[index]))
    del body["features"]
    told[index] = from_json(json.dumps(body))  # type: ignore[assignment]  # a decision still
    proof = proof_of(run, told)
    assert "another version of the core took the decision: it did not know features" in shortfalls(proof)


def test_a_policy_of_the_log_that_cannot_be_used_today_is_said() -> None:
    run = GovernedRun(world=1).begin("name: [").train(5).end()
    assert any("cannot be used by this version" in line for line in shortfalls(proof_of(run)))


def test_what_is_said_to_a_person_and_to_a_program_names_the_same_first_difference() -> None:
    run = governed()
    told = archived(run.decisions)
    told[3] = told[3].model_copy(update={"policy_hash": "other"})
    proof = proof_of(run, told)
    [head, log, decision, field] = account_of(proof)[:4]
    assert head == "run run: decision 4 is the first that differs (3 before it are the same)"
    assert log.startswith(f"  the log: {proof.account.records} records to step")
    assert decision.startswith(
        f"  {told[3].kind} at step {told[3].step}, decided on the record at epoch 0, partition 0"
    )
    assert field.startswith("    policy_hash: archived 'other', now '")
    said = json.loads(json_line(told_of(proof)))
    assert (said["same"], said["same_decisions"]) == (False, 3)
    assert said["difference"]["place"] == list(told[3].basis)
    assert [change["field"] for change in said["difference"]["fields"]] == ["policy_hash"]
