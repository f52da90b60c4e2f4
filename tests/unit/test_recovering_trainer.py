"""What a trainer does so that it can be recovered, what that costs, and what is left when it dies meanwhile."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from pilothouse.events.actions import Action, Rollback, ScaleLr, SetClip
from pilothouse.events.errors import RestartRequired
from pilothouse.producers.checkpoints.retention import Judgement
from pilothouse.producers.checkpoints.store import Checkpoints
from pilothouse.producers.checkpoints.work_clock import WorkClock
from pilothouse.producers.steering.learning_rate import MULTIPLIER_MAX, MULTIPLIER_MIN, LrMultiplier, Ramp
from pilothouse.tests.pilot_world import Order, Tape
from pilothouse.tests.small_training import World


def back_to(number: int, **fields: Any) -> Any:
    """A rollback to the checkpoint that was saved as the `number`-th."""
    return lambda tape: Rollback(checkpoint=tape.saved()[number], **fields)


# ------------------------------------------------------------------------------------------------------------- the ramp


def test_a_cut_comes_back_in_equal_parts_and_ends_exactly_where_it_began() -> None:
    rate = LrMultiplier([], 0.3)
    rate.cut(0.5, 4, step=10)
    seen = []
    for step in range(10, 16):
        ended = rate.reached(step)
        seen.append((round(rate.value, 12), ended))
    assert seen == [(0.15, False), (0.1875, False), (0.225, False), (0.2625, False), (0.3, True), (0.3, False)]
    assert rate.value == 0.3


def test_a_cut_without_a_ramp_stays() -> None:
    rate = LrMultiplier([])
    rate.cut(0.5, 0, step=10)
    assert (rate.reached(1_000), rate.value, rate.steered) == (False, 0.5, 0.5)


def test_a_second_cut_within_a_ramp_is_one_of_what_is_in_force_and_comes_back_as_far() -> None:
    rate = LrMultiplier([])
    rate.cut(0.5, 10, step=0)
    rate.reached(5)
    rate.cut(0.5, 10, step=2)
    assert rate.value == 0.375
    assert rate.reached(12)
    assert rate.value == 1.0


def test_what_is_ordered_within_a_ramp_holds_then_and_when_it_is_over() -> None:
    rate = LrMultiplier([])
    rate.cut(0.5, 10, step=0)
    rate.value *= 0.5
    assert rate.value == 0.25
    rate.reached(10)
    assert rate.value == 0.5


def test_neither_now_nor_at_the_end_of_a_ramp_are_the_bounds_left() -> None:
    rate = LrMultiplier([], 6.0)
    rate.cut(0.1, 10, step=0)
    assert rate.beyond(2.0)  # 1.2 now, and 12 in the end
    assert rate.beyond(1e-4)
    assert not rate.beyond(MULTIPLIER_MAX / 6.0)
    assert not rate.beyond(MULTIPLIER_MIN / rate.value * 1.01)


def test_after_a_rollback_the_rate_comes_back_step_by_step_and_that_is_told_once(tmp_path: Path) -> None:
    world = World([Order(12, back_to(-1, lr_factor=0.5, lr_ramp_steps=4))], tmp_path, every=10)
    used: list[tuple[int, float]] = []
    for step, _ in world.pilot.batches(range(100), 18):
        used.append((step, world.pilot.lr_multiplier))
        world.step(step)
    assert used[15:] == [(15, 1.0), (11, 0.5), (12, 0.625), (13, 0.75), (14, 0.875), (15, 1.0), (16, 1.0), (17, 1.0)]
    assert world.tape.receipt("i-1")["after"] == {"step": 10.0, "lr_multiplier": 0.5, "lr_ramp_steps": 4.0}
    (told,) = world.tape.of("recipe_changed")
    assert (told["what"], told["step"], told["numbers"]["lr_multiplier"]) == ("lr_ramp", 14, 1.0)


def test_a_process_that_starts_within_a_ramp_goes_on_with_it(tmp_path: Path) -> None:
    World([Order(12, back_to(-1, lr_factor=0.5, lr_ramp_steps=40))], tmp_path, every=10).train(31)
    second = World([], tmp_path)
    assert second.pilot.restore_latest() == 30
    assert second.pilot.lr_multiplier == 0.75
    assert second.pilot._trainer.lr.ramp == Ramp(0.5, 10, 40)
    assert second.train(52).pilot.lr_multiplier == 1.0


# ------------------------------------------------------------------------------------------------- saved before a risk


@pytest.mark.parametrize(
    "action, saved",
    [(ScaleLr(factor=1.5), [3]), (SetClip(value=0.5), [3]), (ScaleLr(factor=0.5), [])],
)
def test_one_more_checkpoint_is_taken_before_what_may_go_wrong(
    tmp_path: Path, action: Action, saved: list[int]
) -> None:
    world = World([Order(0, action)], tmp_path, knobs={"clip": 1.0}).train(8)
    receipt = world.tape.receipt("i-1")
    assert (receipt["outcome"], receipt["step"]) == ("applied", 3)
    assert [ref.step for ref in world.tape.saved()] == saved
    kinds = [fact.kind for fact in world.tape.told if fact.kind in ("checkpoint_saved", "intervention_receipt")]
    assert kinds[-1] == "intervention_receipt"


def test_where_one_is_due_at_that_step_anyway_one_is_enough(tmp_path: Path) -> None:
    world = World([Order(0, ScaleLr(factor=1.5))], tmp_path, every=3).train(5)
    assert [ref.step for ref in world.tape.saved()] == [3]
    assert world.pilot.lr_multiplier == 1.5


def test_what_may_go_wrong_is_not_done_when_nothing_can_be_saved_before_it(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.write_text("a file where the folder should be")
    world = World([Order(0, ScaleLr(factor=1.5))], full).train(8)
    receipt = world.tape.receipt("i-1")
    assert receipt["outcome"] == "failed"
    assert receipt["reason"].startswith("nothing was saved before it: CheckpointError: ")
    assert world.pilot.lr_multiplier == 1.0
    (told,) = world.tape.of("checkpoint_unavailable")
    assert (told["how"], told["step"], told["checkpoint_id"]) == ("not_saved", 3, "step-00000003-attempt1")


def test_without_a_folder_for_checkpoints_it_is_done_all_the_same() -> None:
    assert World([Order(0, ScaleLr(factor=1.5))]).train(8).pilot.lr_multiplier == 1.5


# --------------------------------------------------------------------------------------------- what is told of the disk


def test_what_rotation_removes_is_told_and_what_the_governor_called_good_is_not_removed(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, every=5, keep=2)
    world = World([], checkpoints)
    checkpoints.judged = lambda: Judgement(good=(10,))
    world.train(31)
    assert [told["step"] for told in world.tape.of("checkpoint_unavailable")] == [5, 15, 20]
    assert {told["how"] for told in world.tape.of("checkpoint_unavailable")} == {"rotated"}
    assert sorted(path.name[:13] for path in tmp_path.iterdir()) == ["step-00000010", "step-00000025", "step-00000030"]


def test_a_disk_that_is_full_costs_one_checkpoint_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    full = tmp_path / "full"
    full.write_text("")
    with caplog.at_level(logging.ERROR):
        world = World([], full, every=5).train(12)
    assert world.steps == list(range(12))
    assert [(told["how"], told["step"]) for told in world.tape.of("checkpoint_unavailable")] == [
        ("not_saved", 5),
        ("not_saved", 10),
    ]


def test_a_restart_tells_what_it_passed_over_and_why(tmp_path: Path) -> None:
    first = World([], tmp_path, every=5).train(22)
    newest, _, manifest = (Path(ref.path) for ref in reversed(first.tape.saved()[1:]))
    (newest / "model.pt").write_bytes(b"rubbish")
    (manifest / "manifest.json").write_text('{"half": ')
    second = World([], tmp_path)
    assert second.pilot.restore_latest() == 15
    told = second.tape.of("checkpoint_unavailable")
    assert [(one["how"], one["step"], one["reason"].partition(":")[0]) for one in told] == [
        ("unusable", 10, "CheckpointCorrupt"),
        ("unusable", 20, "CheckpointCorrupt"),
    ]


# ----------------------------------------------------------------------------------------------- what going back costs


def test_training_is_lost_once_however_often_a_run_goes_back_to_the_same_checkpoint() -> None:
    now = [100.0]
    clock = WorkClock(lambda: now[0])
    now[0] += 50.0
    at_checkpoint = clock.seconds
    now[0] += 30.0
    assert clock.go_back_to(at_checkpoint) == 30.0
    now[0] += 7.0
    assert clock.go_back_to(at_checkpoint) == 7.0
    assert clock.seconds == 50.0


def test_each_rollback_tells_the_steps_and_seconds_that_it_cost(tmp_path: Path) -> None:
    world = World([Order(12, back_to(0)), Order(12, back_to(0))], tmp_path, every=5)
    now = [0.0]
    world.pilot._trainer.clock.__init__(lambda: now[0])  # type: ignore[misc]
    for step, _ in world.pilot.batches(range(100), 20):
        now[0] += 1.0
        world.step(step)
    first, second = world.tape.of("checkpoint_restored")
    at = [world.tape.receipt(f"i-{number}")["step"] for number in (1, 2)]
    assert [first["steps_lost"], second["steps_lost"]] == [at[0] - 5, at[1] - 5]
    assert [first["seconds_lost"], second["seconds_lost"]] == [at[0] - 5.0, at[1] - 5.0]
    assert first["took_s"] > 0


# ------------------------------------------------------------------------------------------------- killed at any moment


def test_a_process_that_dies_while_it_restores_is_restarted_from_that_checkpoint_and_not_from_what_was_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_self: object, _state: object) -> None:
        raise RuntimeError("killed")

    world = World([Order(12, back_to(0))], tmp_path, every=5)
    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.SGD, "load_state_dict", die)
        with pytest.raises(RestartRequired):
            world.train(30)
    assert [ref.step for ref in world.tape.saved()] == [5, 10]
    assert World([], tmp_path).pilot.restore_latest() == 5


def test_a_checkpoint_that_somebody_deleted_changes_nothing_and_is_named(tmp_path: Path) -> None:
    def gone(tape: Tape) -> Rollback:
        ref = tape.saved()[-1]
        Path(ref.path).rename(tmp_path / "elsewhere")
        return Rollback(checkpoint=ref, lr_factor=0.5)

    world = World([Order(12, gone)], tmp_path / "checkpoints", every=10).train(20)
    assert world.tape.receipt("i-1")["reason"].startswith("CheckpointMissing: step-00000010")
    assert (world.steps, world.pilot.lr_multiplier) == (list(range(20)), 1.0)
