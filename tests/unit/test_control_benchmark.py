"""The pure parts of the control benchmark: the peers' rules as published, what is kept, counted and concluded."""

import json
import math
import random
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pilothouse.benchmarks.control import experiments, table
from pilothouse.benchmarks.control.faults import BAD_RANK, DATA_BATCHES, Damage
from pilothouse.benchmarks.control.guards import Plain, SkipStep, ZClip
from pilothouse.benchmarks.control.keeping import Kept
from pilothouse.benchmarks.control.late import Late
from pilothouse.benchmarks.control.recipe import Arm, Recipe, Row, Task
from pilothouse.benchmarks.detection import peers
from pilothouse.benchmarks.detection.series import Series
from pilothouse.events.actions import Notify
from pilothouse.events.decisions import InterventionIssued
from pilothouse.governance.policy import load_policy
from pilothouse.producers.checkpoints.retention import Judgement
from pilothouse.tests.pilot_world import issued

RECIPE = Recipe(steps=100, width=8, layers=1, heads=1, training_chars=500, learning_rate=1e-3)
TASK = Task("overfitting", "", 0, RECIPE, Arm("constant"))


def row(arm: str, seed: int, ends: float | None, **told: object) -> Row:
    made = Row("faults", "", arm, seed, ends, ends, steps=200, fault_at=100)
    for name, value in told.items():
        setattr(made, name, value)
    return made


# ------------------------------------------------------------------------------------------------------------- guards


def noisy(seed: int) -> tuple[list[float], list[float]]:
    """Losses and gradient norms with outliers, and one NaN late on."""
    chance = random.Random(seed)
    losses = [3.0 + chance.gauss(0.0, 0.1) + 4.0 * (chance.random() < 0.03) for _ in range(300)]
    norms = [abs(chance.gauss(1.0, 0.2)) + 9.0 * (chance.random() < 0.03) for _ in range(300)]
    losses[60] = losses[64] = 30.0  # before and behind the first that skip-step judges
    losses[250] = norms[270] = math.nan
    return losses, norms


def series(losses: list[float], norms: list[float]) -> Series:
    rows = list(range(len(losses)))
    return Series("one", "", "", rows, [0.0] * len(rows), [{"loss": losses, "grad_norm": norms}])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name, rule", [("zclip", peers.zclip), ("skip", peers.olmo_skip_step)])
def test_a_guard_alarms_where_the_published_rule_does(name: str, rule: peers.Rule, seed: int) -> None:
    losses, norms = noisy(seed)
    guard = ZClip() if name == "zclip" else SkipStep()
    seen = []
    for number, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        guard.admit(loss, norm, [torch.ones(1)])
        seen += [number] if guard.alarmed else []
    assert seen == list(rule(series(losses, norms)))
    assert seen


def test_clipping_leaves_small_gradients_and_shortens_long_ones() -> None:
    for norm, left in ((0.5, 0.5), (5.0, 1.0)):
        gradient = torch.tensor([norm])
        assert Plain(1.0).admit(3.0, norm, [gradient])
        assert float(gradient) == pytest.approx(left, abs=1e-5)


# ------------------------------------------------------------------------------------------------------------- faults


def test_bad_data_harms_only_where_it_lies() -> None:
    damage, clean = Damage("corrupted data", 10, Path("nowhere")), torch.full((2, 5), 7)
    spoilt = [position for position in range(40) if not torch.equal(damage.batch(position, clean), clean)]
    assert spoilt == list(range(10, 10 + DATA_BATCHES))


def test_a_nan_batch_is_one_batch_and_a_bad_rank_one_rank() -> None:
    nan = Damage("NaN batch", 10, Path("nowhere"))
    assert [math.isnan(float(nan.loss(position, torch.ones(())))) for position in (9, 10, 11)] == [False, True, False]
    bad, gradient = Damage("bad rank", 10, Path("nowhere")), torch.ones(1)
    bad.gradients(BAD_RANK + 1, 10, [gradient])
    bad.gradients(BAD_RANK, 9, [gradient])
    assert float(gradient) == 1.0
    bad.gradients(BAD_RANK, 10, [gradient])
    assert float(gradient) < 0.0


# ------------------------------------------------------------------------------------------------ answers late or lost


class Given:
    """Commands that have come already."""

    def __init__(self, count: int) -> None:
        self._waiting = deque(issued(Notify(message=f"{number}"), number=number) for number in range(count))

    def take(self) -> InterventionIssued | None:
        return self._waiting.popleft() if self._waiting else None

    def judged(self) -> Judgement:
        return Judgement()

    def close(self, within: float = 0.0) -> None: ...


def heard(late: Late) -> list[str]:
    taken = []
    while (command := late.take()) is not None:
        taken.append(command.intervention_id)
    return taken


def test_an_answer_comes_so_many_updates_after_it_was_heard() -> None:
    late = Late(Given(1), late=5, share=0.0, seed=0)
    seen = []
    for update in range(8):
        late.at(update, update)
        seen += [update] if heard(late) else []
    assert seen == [5]


def test_a_share_is_lost_and_the_same_ones_for_the_same_seed() -> None:
    def came(seed: int) -> list[str]:
        late = Late(Given(400), late=0, share=0.1, seed=seed)
        late.at(0, 0)
        return [*heard(late), str(late.lost)]

    assert came(1) == came(1) != came(2)
    assert 20 <= int(came(1)[-1]) <= 60


# --------------------------------------------------------------------------------------------------------- what is kept


def test_what_was_trained_is_not_trained_again_and_another_recipe_is_another_training(tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    Kept(file).add(replace(row("constant", 0, 2.0), key=TASK.key))
    other = replace(TASK, recipe=replace(RECIPE, learning_rate=2e-3))
    assert Kept(file).missing([TASK, other]) == [other]
    assert [kept.final_val_loss for kept in Kept(file).of([TASK, other])] == [2.0]


def test_a_line_that_was_half_written_costs_that_line_alone(tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    Kept(file).add(replace(row("constant", 0, 2.0), key=TASK.key))
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    kept = Kept(file)
    assert kept.missing([TASK]) == [TASK]
    kept.add(replace(row("constant", 0, 3.0), key=TASK.key))
    assert [one.final_val_loss for one in Kept(file).of([TASK])] == [3.0]


def test_rows_are_json_and_come_back_from_it(tmp_path: Path) -> None:
    whole = replace(row("ours", 3, None), curve=[(1, 4.8), (9, None)], actions=["1: stop"], key="k")
    Kept(tmp_path / "kept.jsonl").add(whole)
    [back] = Kept(tmp_path / "kept.jsonl").rows.values()
    assert json.dumps(back.as_json()) == json.dumps(whole.as_json())


# ---------------------------------------------------------------------------------------------------------- the plan


def test_all_arms_of_a_seed_train_on_the_same_recipe_but_for_what_they_are_called_after() -> None:
    ours = [task for task in experiments.overfitting([0]) if task.arm.governed]
    assert {task.recipe for task in ours} == {experiments.OVERFITTING}
    assert {task.arm.late_steps for task in ours if task.arm.governed == "kafka"} == {0, 1, 5, 20}
    assert {task.arm.lost_share for task in ours if task.arm.governed == "kafka"} == {0.1}


def test_without_rollback_is_the_same_policy_without_what_goes_back() -> None:
    whole, less = load_policy(experiments.policy_text()), load_policy(experiments.without_rollback())
    left = {rule.name: [action for action in rule.actions if action.action != "rollback"] for rule in whole.rules}
    assert {rule.name: list(rule.actions) for rule in less.rules} == {name: rest for name, rest in left.items() if rest}
    assert (less.mode, less.budget) == (whole.mode, whole.budget)


# --------------------------------------------------------------------------------------------------- what the rows say


def test_an_interval_is_that_of_student() -> None:
    found = table.interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3.0
    assert found.half == pytest.approx(2.776 * math.sqrt(2.5) / math.sqrt(5), rel=1e-3)
    assert table.interval([1.0]).half == math.inf


def test_a_ratio_pairs_the_seeds_and_leaves_out_what_has_no_pair() -> None:
    ours = [row("ours", 0, 1.0), row("ours", 1, 20.0), row("ours", 2, None)]
    theirs = [row("theirs", 1, 40.0), row("theirs", 0, 2.0), row("theirs", 2, 1.0)]
    found = table.ratio(ours, theirs, table.final)
    assert found is not None
    assert found.mean == pytest.approx(0.5)
    assert found.half == pytest.approx(0.0)


def faulty(arm: str, ends: float | None, **told: object) -> Row:
    curve = [(91, 2.5), (100, 2.45), (111, 3.0), (131, 2.4), (200, ends)]
    return row(arm, 0, ends, setting="NaN batch", curve=curve, wasted_steps=7, **told)


def test_recovered_is_what_ends_as_it_would_have_ended_without_the_fault() -> None:
    clean = row("nothing", 0, 2.0, setting=experiments.CLEAN)
    for ends, recovered, wasted, back in ((2.09, True, 7, 31), (2.11, False, 100, None), (None, False, 100, None)):
        judged = table.judged_faults([clean, faulty("ours, blocking", ends)])[-1]
        assert (judged.recovered, judged.wasted_steps, judged.recover_steps) == (recovered, wasted, back)


def test_stopping_is_doing_nothing_until_the_rule_stops_and_a_person_must_come() -> None:
    clean = row("nothing", 0, 2.0, setting=experiments.CLEAN)
    for stop, recovered, detected in ((None, True, None), (120, False, 20)):
        rows = table.judged_faults([clean, faulty("nothing", 2.0, stopped_at=stop)])
        [stopped] = [one for one in rows if one.arm == table.STOP_ONLY]
        assert (stopped.recovered, stopped.detect_steps) == (recovered, detected)


def test_early_stopping_keeps_the_best_of_the_constant_recipe() -> None:
    rows = table.with_early_stop([replace(row("constant", 0, 8.0), best_val_loss=3.0), row("cosine", 0, 7.0)])
    assert [(one.arm, one.final_val_loss, one.alive) for one in rows if one.arm == table.EARLY] == [
        (table.EARLY, 3.0, False)
    ]


@pytest.mark.parametrize("ends, held", [(3.0, True), (3.4, False)])
def test_a_condition_that_does_not_hold_is_said_not_to(ends: float, held: bool) -> None:
    rows = [replace(row("constant", seed, 8.0), best_val_loss=3.0) for seed in range(5)]
    rows += [row(experiments.BLOCKING, seed, ends, replayed=True) for seed in range(5)]
    found = {one.asked: one.held for one in table.overfitting_findings(table.with_early_stop(rows))}
    assert found["ours, blocking: at most 0.4 of constant's final loss"] is held
    assert found["ours, blocking: replay reproduces every decision"]


def test_at_the_reference_an_intervention_is_a_cost() -> None:
    rate = f"{experiments.REFERENCE:g}"
    for acted, held in ((0, True), (1, False)):
        rows = [row(experiments.FIXED, 0, 2.0, setting=rate)]
        rows += [row(experiments.BLOCKING, 0, 2.0, setting=rate, interventions=acted)]
        found = {one.asked: one.held for one in table.learning_rates_findings(rows)}
        assert found[f"at the reference, {rate}: at most 1% worse, no intervention"] is held
