"""What reports work out: effort, waste, candidates, phases over steps, partings, likeness, significance, the review."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from pilothouse.control_room.report.candidates import judged_by, lower_is_better, ranked
from pilothouse.control_room.report.causes import Around, suspected
from pilothouse.control_room.report.charts import shades_of, split_undone
from pilothouse.control_room.report.document import Shade
from pilothouse.control_room.report.effort import effort_of
from pilothouse.control_room.report.fleet import fleet_review
from pilothouse.control_room.report.likeness import distance, likeness
from pilothouse.control_room.report.material import Material, Told
from pilothouse.control_room.report.parting import partings, words
from pilothouse.control_room.report.regimes import contrasts, stays_of
from pilothouse.control_room.report.significance import permutation_test
from pilothouse.events.actions import Rollback, ScaleLr
from pilothouse.events.decisions import IncidentOpened, InterventionProposed, PhaseChanged, RunAssessed
from pilothouse.tests.archive_events import NAN, decided

HOUR = 3_600_000_000
Row = dict[str, Any]


# -------------------------------------------------------------------------------------------------- hours and money


def test_what_was_undone_and_what_stood_still_at_once_is_wasted_once() -> None:
    spans = [
        {"attempt_id": "a", "first_at": 0, "last_at": 4 * HOUR, "ranks": 2},
        {"attempt_id": "b", "first_at": 6 * HOUR, "last_at": 8 * HOUR, "ranks": 2},
    ]
    starts = {"a": {"world_size": 2, "cost_per_hour": 10.0}, "b": {"world_size": 4, "cost_per_hour": 20.0}}
    undone = [{"began_at": 2 * HOUR, "ended_at": 4 * HOUR, "steps": 70}]
    phases = [{"phase": "Stalled", "from_at": 3 * HOUR, "until_at": 5 * HOUR}]
    effort = effort_of(spans, starts, phases, undone)
    assert (effort.device_hours, effort.between_attempts_s) == (4 * 2 + 2 * 4, 2 * 3_600)
    assert effort.wasted_device_hours == 2 * 2  # nobody knows whether the machines were held from hour 4 to 6
    assert effort.wasted_by == {"steps undone": 2 * 3_600, "standing still or diverged": 3_600}
    assert (effort.cost, effort.wasted_cost) == (4 * 10.0 + 2 * 20.0, 2 * 10.0)
    assert effort.steps_undone == 70


def test_a_run_that_told_no_rate_has_no_cost_and_one_that_told_nothing_no_hours() -> None:
    effort = effort_of([{"attempt_id": "a", "first_at": 0, "last_at": HOUR, "ranks": 3}], {}, [], [])
    assert (effort.cost, effort.wasted_cost, effort.device_hours) == (None, None, 3.0)
    assert effort_of([], {}, [], []).wasted_share is None


# ------------------------------------------------------------------------------------------------------- checkpoints


def checkpoint(step: int, **fields: Any) -> Row:
    names = ("path", "size_bytes", "took_s", "times_restored", "rejected_reason", "lost", "lost_reason")
    row = dict.fromkeys(names, 0) | {"checkpoint_id": f"c{step}", "step": step, "attempt": 1, "attempt_id": "a"}
    return row | {"at": step, "rejected": False} | fields


def evaluation(step: int, value: float, split: str = "validation", metric: str = "loss") -> Row:
    return {"step": step, "value": value, "split": split, "metric": metric, "attempt": 1}


def assessed(at: int, margin: float) -> Row:
    return {"last_at": at, "phase": "Normal", "margin": margin}


INCIDENT = {"onset_step": 25, "opened_at": 28, "resolved_at": 35, "reason": "LossSpike", "attempt_id": "a"}


def test_candidates_are_those_not_suspect_by_evaluation_and_of_equals_the_steadier() -> None:
    material = Material(
        {"run_id": "r"},
        checkpoints=(checkpoint(10), checkpoint(20), checkpoint(30), checkpoint(40), checkpoint(50, rejected=True)),
        evals=(
            evaluation(10, 3.0),
            evaluation(20, 2.0),
            evaluation(30, 1.0),
            evaluation(40, 2.001),
            evaluation(50, 0.5),
        ),
        course=tuple(assessed(at, margin) for at, margin in ((10, 1.0), (20, 0.4), (30, 0.0), (40, 0.9), (50, 1.0))),
        incidents=(INCIDENT,),
    )
    found = ranked(material)
    assert [row["step"] for row in found] == [40, 20, 10, 50, 30]
    assert found[-1]["suspect"] == ["saved during an incident (LossSpike since step 25)"]
    assert [row["place"] for row in found] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "values, best",
    [
        ((NAN, 2.0, 1.0), 30),
        ((2.0, 1.0, NAN), 20),
        ((-3.0, -4.0, 0.0), 20),
        ((math.inf, 5.0, NAN), 20),
        ((0.0, 1.0, NAN), 10),
    ],
)
def test_an_evaluation_that_is_no_number_is_behind_all_others(values: Sequence[float], best: int) -> None:
    steps = (10, 20, 30)
    material = Material(
        {"run_id": "r"},
        checkpoints=tuple(map(checkpoint, steps)),
        evals=tuple(evaluation(step, value) for step, value in zip(steps, values, strict=True)),
    )
    assert ranked(material)[0]["step"] == best


def test_checkpoints_are_judged_by_the_loss_of_validation_before_other_things() -> None:
    told = [evaluation(1, 0.9, "test", "accuracy"), evaluation(1, 0.9, "validation", "accuracy"), evaluation(1, 2.0)]
    judged = judged_by(told)
    assert judged is not None
    assert (judged.name, judged.lower) == ("validation loss", True)
    accuracy = judged_by(told[:2])
    assert accuracy is not None
    assert (accuracy.name, accuracy.lower) == ("validation accuracy", False)
    assert judged_by([]) is None
    assert [lower_is_better(name) for name in ("wer", "answer_rate", "val/top1-error", "losses_avoided")] == [
        *(True, False, True, False)
    ]


# ---------------------------------------------------------------------------------------------------- over the steps


def phase(name: str, from_step: int) -> Row:
    return {"phase": name, "from_step": from_step}


def test_where_a_run_went_back_its_steps_show_the_phase_of_the_last_pass() -> None:
    phases = [
        phase("Warmup", -1),
        phase("Normal", 10),
        phase("Unstable", 30),
        phase("Recovering", 20),
        phase("Ended", 60),
    ]
    assert shades_of(phases, 60) == [
        *(Shade(0, 10, "Warmup"), Shade(10, 20, "Normal"), Shade(20, 60, "Recovering")),
    ]
    assert shades_of([], 10) == []


def test_what_a_later_attempt_did_again_does_not_count() -> None:
    attempts = [{"attempt": number, "first_step": first} for number, first in ((1, 0), (2, 50), (3, 20))]
    rows = [{"attempt": attempt, "from_step": step} for attempt, step in ((1, 0), (1, 30), (1, 60), (2, 50), (3, 20))]
    kept, undone = split_undone(rows, attempts)
    assert [(row["attempt"], row["from_step"]) for row in kept] == [(1, 0), (3, 20)]
    assert [[(row["attempt"], row["from_step"]) for row in part] for part in undone] == [[(1, 30), (1, 60)], [(2, 50)]]


# --------------------------------------------------------------------------------------------------- where they part


def history(run_id: str, *, later: int = 0, factor: float = 0.5) -> list[Any]:
    proposal = {"intervention_id": f"i-{run_id}", "rule": "spike", "severity": "page", "mode": "enforce"}
    return [
        decided(run_id, PhaseChanged, 1, phase="Normal", was="Warmup", reason="BaselineKnown", margin=0.1 + later),
        decided(run_id, RunAssessed, 2, phase="Normal", margin=0.2 + later),
        decided(run_id, IncidentOpened, 3, incident_id=run_id, onset_step=3, condition="Stable", reason="Spike"),
        decided(
            run_id, InterventionProposed, 4 + later, **proposal, action=ScaleLr(factor=factor), reason=f"by {later}"
        ),
    ]


def test_identities_clocks_words_and_assessments_make_no_two_histories_differ() -> None:
    found = partings(history("a"), history("b"))
    assert (found.decisions, found.first, found.in_substance) == ((3, 3), None, None)


def test_the_same_at_another_step_differs_only_in_its_step() -> None:
    found = partings(history("a"), history("b", later=1))
    assert found.first is not None
    assert (found.first.number, found.first.alike, found.in_substance) == (3, 2, None)


def test_another_action_differs_in_substance_and_is_named() -> None:
    found = partings(history("a"), history("b", factor=0.25))
    assert found.in_substance is not None
    ours, theirs = found.in_substance.ours, found.in_substance.theirs
    assert words(ours, theirs) == (
        "step 4: intervention proposed: rule spike, action.action scale_lr, action.factor 0.5"
    )
    assert "factor 0.25" in words(theirs, ours)
    shorter = partings(history("a")[:3], history("b"))
    assert shorter.first is not None
    assert (shorter.first.number, words(shorter.first.ours, shorter.first.theirs)) == (3, "nothing more")


def test_a_checkpoint_of_another_place_is_the_same_rollback() -> None:
    told = {"checkpoint_id": "x", "step": 1, "manifest_sha256": "0" * 64}
    actions = [Rollback.model_validate({"checkpoint": told | {"path": path}}) for path in ("/one", "/two")]
    fields = {"intervention_id": "i", "rule": "r", "severity": "page", "mode": "enforce", "reason": ""}
    left, right = ([decided("r", InterventionProposed, 1, action=action, **fields)] for action in actions)
    assert partings(left, right).first is None


# ------------------------------------------------------------------------------------------------------ significance


def test_the_permutation_test_counts_every_deal() -> None:
    found = permutation_test([1.0, 2.0, 3.0], [10.0, 11.0, 12.0])
    assert found is not None
    assert (found.p, found.least_p, found.verdict) == (2 / 20, 2 / 20, "too few runs to tell")
    more = permutation_test([1.0, 2.0, 3.0, 4.0, 5.0], [10.0, 11.0, 12.0, 13.0, 14.0])
    assert more is not None
    assert (more.p, more.verdict) == (2 / 252, "differs")
    same = permutation_test([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0])
    assert same is not None
    assert (same.p, same.verdict) == (1.0, "no difference seen")


def test_what_cannot_be_tested_is_not() -> None:
    assert permutation_test([1.0], [2.0, 3.0]) is None
    assert permutation_test([1.0, NAN], [2.0, 3.0]) is None


def test_of_many_deals_a_fixed_draw_is_taken_and_none_is_impossible() -> None:
    ours, theirs = [float(number) for number in range(12)], [float(number) for number in range(100, 112)]
    found, again = permutation_test(ours, theirs), permutation_test(ours, theirs)
    assert found == again
    assert found is not None
    assert (found.exact, 0 < found.p < 1e-3) == (False, True)


# ----------------------------------------------------------------------------------------- regimes, likeness, causes


def stay(phase_name: str, seconds: float, lr_band: str = "from 0.0006") -> Row:
    return {"phase": phase_name, "seconds": seconds, "lr_band": lr_band, "batch_band": "", "data_mix": ""}


def test_a_run_that_is_unwell_for_longer_under_the_same_conditions_is_named() -> None:
    calm = stays_of([stay("Normal", 90.0), stay("Stressed", 10.0), stay("Stressed", 50.0, "from 1")])
    rough = stays_of([stay("Normal", 70.0), stay("Stressed", 30.0)])
    [said] = contrasts([("A", calm), ("B", rough)])
    assert said == "B spends 3.0x longer Stressed than A (30% against 10%) under learning rate from 0.0006"


def described(run_id: str, config: str, **fields: Any) -> Row:
    heads = ("model", "model_family", "dataset", "dataset_version", "code_version", "cluster", "outcome", "phase")
    row: Row = dict.fromkeys(heads, "") | {"world_size": 4, "run_id": run_id, "config": config, "stability_score": 90.0}
    return row | {"last_step": 1, "incidents": 0, "started_at": 0, "last_at": 0} | fields


def happened(run_id: str, signature: str, *tried: tuple[str, str, str]) -> Row:
    condition = signature.partition("/")[0]
    told = [((0, number), "rule", *one) for number, one in enumerate(tried)]
    row: Row = {
        "run_id": run_id,
        "incident_id": f"{run_id}-{signature}",
        "signature": signature,
        "condition": condition,
    }
    return row | {"onset_step": 1, "opened_at": 1, "outcome": "", "steps_lost": 0, "recovery_s": None, "tried": told}


def test_the_nearest_run_is_that_which_was_told_most_alike_whatever_its_seed() -> None:
    runs = [
        described("mine", '{"lr": 0.001, "optimizer": "adam", "seed": 1}', model="gpt"),
        described("twin", '{"lr": 0.001, "optimizer": "adam", "seed": 9}', model="gpt"),
        described("near", '{"lr": 0.002, "optimizer": "adam"}', model="gpt"),
        described("far", '{"lr": 1.0, "optimizer": "sgd"}', model="resnet"),
        described("broken", "{not json", model="gpt"),
    ]
    found = likeness("mine", runs, [], 9)
    assert [row["run_id"] for row in found["runs"]] == ["twin", "near", "broken", "far"]
    assert found["runs"][0]["likeness"] == 1.0
    assert distance({"lr": 0.001}, {"lr": 0.01}) == 1.0
    assert distance({}, {}) == 1.0


def test_what_helped_in_incidents_of_the_same_signature_is_counted() -> None:
    runs = [described(name, "{}") for name in ("mine", "one", "two", "three")]
    incidents = [
        happened("mine", "Stable/Spike"),
        happened("one", "Stable/Spike", ("rollback", "verified", "recovered")),
        happened("two", "Stable/Spike", ("rollback", "verified", "ineffective"), ("scale_lr", "declined", "")),
        happened("three", "Stable/Climb", ("stop", "applied", "")),
    ]
    [incident] = likeness("mine", runs, incidents, 9)["incidents"]
    assert incident["seen_before"] == 2
    assert incident["worked"] == [{"action": "rollback", "applied": 2, "helped": 1}]
    assert [near["run_id"] for near in incident["nearest"]][-1] == "three"


def told(kind: str, at: int, **body: Any) -> Told:
    return Told(kind, f"{kind}-{at}", "a", 1, 0, 30, at, body)


def test_a_rate_that_rose_a_node_and_what_helped_are_suspected_by_their_weight() -> None:
    lr = [
        {"metric": "lr", "attempt_id": "a", "from_step": step, "to_step": step, "mean": value, "greatest": value}
        for step, value in ((10, 1e-3), (20, 1e-3), (30, 5e-3))
    ]
    incident = {"reason": "NonFinite", "onset_step": 30, "opened_step": 31, "opened_at": 100, "attempt_id": "a"}
    run = {"run_id": "r", "attempt_list": [{"code_version": "x", "code_dirty": None}]}
    changed = told("condition_changed", 90, condition="Efficient", status="False", reason="Straggler", message="rank 3")
    material = Material(run, names={"lr": "lr"}, curves=tuple(lr), told=(changed,))
    answers = [{"verification": "recovered", "action": "rollback"}]
    found = suspected(Around(incident, 50, 200, answers, material))
    assert [(cause.kind, cause.weight) for cause in found] == [
        *(("code", "strong"), ("infrastructure", "some"), ("data", "some"), ("data", "weak")),
    ]
    assert "rose from 0.001 to 0.005" in found[0].evidence


# -------------------------------------------------------------------------------------------------------- the review


def whole_run(run_id: str, outcome: str, **fields: Any) -> Row:
    names = ("mttd_s", "mttr_s", "gpu_hours", "energy_kwh", "gpu_util", "cost", "wasted_cost", "stability_score")
    row: Row = dict.fromkeys(names) | {
        "run_id": run_id,
        "outcome": outcome,
        "phase": "Normal",
        "team": "t",
        "model": "m",
    }
    counts = {"open_incidents": 0, "incidents": 0, "interventions_issued": 0, "checkpoints": 1, "last_step": 1}
    return (
        row
        | counts
        | {"cluster": "", "wasted_share": 0.0, "rank_hours": 10.0, "wasted_rank_hours": 0.0, "last_at": 1}
        | fields
    )


def test_the_review_says_what_failed_what_helped_and_what_to_change() -> None:
    runs = [
        whole_run("good", "completed"),
        whole_run("crashed", "crashed", checkpoints=0),
        whole_run("taken", "preempted"),
        whole_run("open", "", phase="Unstable", open_incidents=1),
        whole_run("waste", "completed", wasted_share=0.4, wasted_rank_hours=4.0),
    ]
    helped = ("scale_lr", "verified", "recovered")
    incidents = [
        *(happened(name, "Stable/Spike", helped) | {"detection_s": 2.0} for name in ("good", "open")),
        happened("crashed", "Finite/NonFinite") | {"detection_s": None},
        happened("of another time", "Stable/Spike") | {"detection_s": 9.0},
    ]
    missed = {"id": "M1", "name": "success", "target": "99%", "status": "missed", "burn_week": 20.0}
    found = fleet_review(runs, runs[:1], incidents, (0, 10), [missed])
    assert [row["run_id"] for row in found["failed"]] == ["crashed"]
    assert [row["run_id"] for row in found["degraded"]] == ["open", "waste"]
    assert found["figures"]["successful of those that ended"] == {"now": 0.75, "before": 1.0}
    assert found["figures"]["cost"] == {"now": None, "before": None}
    spike = found["signatures"][0]
    assert (spike["incidents"], spike["mttd_s"], spike["tried"][0]["helped"]) == (2, 2.0, 2)
    said = "\n".join(found["to_change"])
    assert "Stable/Spike: scale_lr helped 2 of 2 times: let it act by itself." in said
    assert "Finite/NonFinite: 1 of 1 incidents had no rule that answered." in said
    assert "crashed had incidents and no checkpoint" in said
    assert "waste wasted 4 rank-hours" in said
    assert (
        "Service level M1 (success) is missed and spends its budget 20x as fast as it may: the target is 99%." in said
    )
