"""Profiled inputs that are distributed otherwise than they were: a ticket, with its measures, and nothing else."""

import math
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from pilothouse.events.decisions import (
    ConditionChanged,
    IncidentOpened,
    InterventionProposed,
    PhaseChanged,
    RunAssessed,
)
from pilothouse.events.errors import PolicyInvalid
from pilothouse.events.telemetry import DataProfiled
from pilothouse.governance.policy import load_policy
from pilothouse.producers.metrics.profiles import edges_of
from pilothouse.stream_processors.detectors import inputs
from pilothouse.stream_processors.detectors.inputs import Drift, InputState
from pilothouse.tests.governed_run import GovernedRun

CHANCE = random.Random(0)
EDGES = edges_of([CHANCE.gauss(0.0, 1.0) for _ in range(4_000)])
Draw = Callable[[random.Random], float]


def window(draw: Draw, seed: int, values: int = 2_000) -> tuple[int, ...]:
    chance, counts = random.Random(seed), [0] * (len(EDGES) + 1)
    for _ in range(values):
        counts[bisect_left(EDGES, draw(chance))] += 1
    return tuple(counts)


def profile(counts: tuple[int, ...], step: int = 0, feature: str = "length", **fields: Any) -> DataProfiled:
    told: dict[str, Any] = {
        "edges": EDGES,
        "batches": 100,
        "values_seen": sum(counts),
        "values_sampled": sum(counts),
    } | fields
    return DataProfiled(
        run_id="run", writer_id="writer-0", seq=step + 1, at=0, attempt_id="attempt-1", attempt=1, rank=0,
        step=step, feature=feature, counts=counts, **told,
    )  # fmt: skip


def drifts(draws: Sequence[Draw], values: int = 2_000) -> list[Drift]:
    """What is said after each window, from the first that is compared on."""
    state, said = InputState(), []
    for number, draw in enumerate(draws):
        inputs.profiled(state, profile(window(draw, number, values), 100 * number))
        if (drift := inputs.drift(state)) is not None:
            said.append(drift)
    return said


def usual(chance: random.Random) -> float:
    return chance.gauss(0.0, 1.0)


def shifted(chance: random.Random) -> float:
    return chance.gauss(0.7, 1.0)


def test_the_index_and_the_distance_are_those_of_the_books() -> None:
    """Ten bins of a scorecard: shares and their index as Siddiqi's formula gives them by hand."""
    was, now = [20, 30, 50], [30, 30, 40]
    by_hand = 0.1 * math.log(0.3 / 0.2) + 0.0 - 0.1 * math.log(0.4 / 0.5)
    assert inputs.psi([1000 * n for n in now], [1000 * n for n in was]) == pytest.approx(by_hand, rel=1e-3)
    assert inputs.ks(now, was) == pytest.approx(0.1)
    assert inputs.ks_critical(100, 100, 0.05) == pytest.approx(1.358 * math.sqrt(2 / 100), rel=1e-3)


@pytest.mark.parametrize("values", [60, 200, 2_000])
def test_data_as_before_is_no_drift_whatever_the_size_of_the_sample(values: int) -> None:
    assert max(drift.x for drift in drifts([usual] * 60, values)) < 1.0


def test_a_shift_is_found_at_its_second_window_and_says_where_it_began() -> None:
    said = drifts([usual] * 10 + [shifted] * 6)
    assert [drift.x >= 1.0 for drift in said] == [False] * 5 + [False] + [True] * 5
    worst = said[-1]
    assert (worst.name, worst.since) == ("length", 1_000)
    assert worst.evidence["psi"] > worst.evidence["psi_bound"] == 0.25
    assert worst.evidence["ks"] > worst.evidence["ks_critical"]
    assert worst.evidence["psi_to_window_before"] < 0.1, "it goes on as it is now"


def test_one_window_that_stands_out_is_no_drift() -> None:
    assert max(drift.x for drift in drifts([usual] * 10 + [shifted] + [usual] * 10)) < 1.0


def test_values_that_are_not_finite_are_a_bin_of_their_own() -> None:
    state = InputState()
    for number in range(10):
        lost = 900 if number > 5 else 0
        inputs.profiled(state, profile(window(usual, number), number, non_finite=lost))
        drift = inputs.drift(state)
    assert drift is not None
    assert drift.x >= 1.0


@pytest.mark.parametrize("seed", range(4))
def test_windows_that_always_differ_need_more(seed: int) -> None:
    """Each window is of a document of its own: the index between neighbours is what is usual here."""
    chance = random.Random(seed)
    documents = [chance.gauss(0.0, 0.8) for _ in range(40)]
    draws = [lambda its, about=about: its.gauss(about, 1.0) for about in documents]
    assert max(drift.x for drift in drifts(draws)) < 1.0


@pytest.mark.parametrize("changed", [{"data_schema": "v2"}, {"edges": tuple(edge * 2.0 for edge in EDGES)}])
def test_another_schema_begins_anew(changed: dict[str, Any]) -> None:
    state, said = InputState(), []
    for number in range(20):
        is_new = number >= 10
        fields = changed if is_new else {}
        inputs.profiled(state, profile(window(shifted if is_new else usual, number), number, **fields))
        said.append(inputs.drift(state))
    assert [drift is None for drift in said] == ([True] * 5 + [False] * 5) * 2
    assert max(drift.x for drift in said if drift) < 1.0


def test_the_input_that_drifted_most_is_named_and_others_do_not_hide_it() -> None:
    state = InputState()
    for number in range(10):
        for feature in ("a", "b", "c"):
            draw = shifted if feature == "b" and number > 5 else usual
            inputs.profiled(state, profile(window(draw, number), number, feature=feature))
        drift = inputs.drift(state)
    assert drift is not None
    assert (drift.name, drift.evidence["inputs"]) == ("b", 3.0)


def test_what_is_remembered_is_bounded() -> None:
    state = InputState()
    for number in range(40):
        for window_ in range(12):
            counts = tuple(2**62 - 1 for _ in range(5_000))
            fields: dict[str, Any] = {"edges": tuple(map(float, range(4_999))), "non_finite": 2**62 - 1}
            told = profile(counts, window_, f"{number}{'🚢' * 190}", values_seen=1, values_sampled=1, **fields)
            inputs.profiled(state, told)
    inputs.drift(state)
    assert len(state.inputs) == inputs.INPUTS
    assert len(msgspec.msgpack.encode(state)) < 20_000


@pytest.mark.parametrize("counts", [(), (0,), (0, 0, 0), (5,)])
def test_a_profile_that_says_nothing_is_passed_over(counts: tuple[int, ...]) -> None:
    state = InputState()
    for number in range(10):
        inputs.profiled(state, profile(counts, number, edges=()))
    drift = inputs.drift(state)
    assert drift is None or drift.x == 0.0


# ------------------------------------------------------------------------------------------------- in a run, a ticket

TICKET = """
name: tickets
mode: enforce
rules:
  - name: drifted
    when: {when}
    severity: ticket
    actions: [{{action: {action}}}]
"""


def drifted(policy: str | None = None) -> GovernedRun:
    run = GovernedRun(world=2, checkpoint_every=10).begin(policy)
    for number in range(12):
        run.train(10)
        draw = shifted if number > 6 else usual
        told = profile(window(draw, number), run.step)
        fields = {"step": run.step, "feature": told.feature, "edges": told.edges, "counts": told.counts}
        run.tell(run.ranks[0], run.ranks[0].tell, DataProfiled, **fields)
        run.tick()
    return run.train(10)


def test_a_drift_is_a_ticket_with_its_evidence_and_neither_phase_margin_nor_incident() -> None:
    run = drifted()
    [fine, bad] = [found for found in run.of(ConditionChanged) if found.condition == "InDistribution"]
    assert (fine.status, bad.status, bad.reason) == ("True", "False", "InputDrifted")
    assert "'length'" in bad.message
    assert {"psi", "psi_bound", "ks", "ks_critical", "since_step"} <= bad.evidence.keys()
    assert {decision.phase for decision in run.of(PhaseChanged)} == {"Warmup", "Normal"}
    assert run.of(IncidentOpened) == []
    told = {(said.rule, said.severity, said.action.action) for said in run.of(InterventionProposed)}
    assert told == {("inputs-drifted", "ticket", "notify")}
    assert run.state.margin is not None
    assert run.state.margin > 0.5
    assert run.of(RunAssessed)[-1].features["input_drift"] >= 1.0


@pytest.mark.parametrize(
    "when",
    ["conditions.InDistribution == 'False'", "has(features.input_drift) && features.input_drift >= 1.0"],
)
def test_a_rule_may_tell_people_of_a_drift(when: str) -> None:
    run = drifted(TICKET.format(when=when, action="notify, message: look"))
    assert {decision.action.action for decision in run.of(InterventionProposed)} == {"notify"}


@pytest.mark.parametrize("action", ["stop", "rollback", "scale_lr, factor: 0.5", "checkpoint_now"])
@pytest.mark.parametrize(
    "when",
    [
        "conditions.InDistribution == 'False'",
        "features.input_drift >= 1.0",
        "has(features.input_psi) && features.input_psi > 0.2",
        "features['input_ks'] > 0.2",
        "conditions['InDistribution'] == 'False' || phase == 'Unstable'",
    ],
)
def test_no_rule_touches_a_run_for_a_drift(when: str, action: str) -> None:
    with pytest.raises(PolicyInvalid, match="only notify"):
        load_policy(TICKET.format(when=f'"{when}"', action=action))


def test_a_rule_that_verifies_by_a_drift_is_refused_too() -> None:
    text = TICKET.format(when="phase == 'Unstable'", action="rollback")
    with pytest.raises(PolicyInvalid, match="only notify"):
        load_policy(text + "    verify: {failure: \"conditions.InDistribution == 'False'\"}\n")


@pytest.mark.parametrize(
    "when",
    ["conditions.exists(name, conditions[name] == 'False')", "features.exists(name, name == 'input_' + 'drift')"],
)
def test_no_rule_sees_a_drift_without_naming_it(when: str) -> None:
    run = drifted(TICKET.format(when=f'"{when}"', action="scale_lr, factor: 0.5"))
    assert run.of(InterventionProposed) == []
