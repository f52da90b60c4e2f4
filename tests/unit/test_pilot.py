"""The pilot of a run of one process: what a loop sees, and what is told."""

import logging
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.events.actions import (
    CheckpointNow,
    Notify,
    Pause,
    Resume,
    Rollback,
    ScaleLr,
    SetClip,
    SetWeightDecay,
    SkipBatches,
    Stop,
)
from pilothouse.events.errors import CheckpointError, RestartRequired, UserMistake
from pilothouse.producers.checkpoints.store import Checkpoints
from pilothouse.producers.checkpoints.trainer_state import TrainerState
from pilothouse.producers.ranks.ballots import StoreBallots
from pilothouse.producers.steering.data import BatchStream
from pilothouse.producers.steering.pilot import REMIND_STEPS
from pilothouse.producers.steering.safe_point import Links
from pilothouse.tests.pilot_world import Order, Script, Tape
from pilothouse.tests.small_training import World, good_rollback


def test_without_commands_a_loop_sees_its_data_and_nothing_is_told() -> None:
    world = World([]).train(5)
    assert world.seen == [(n, n) for n in range(5)]
    assert world.tape.told == []


def test_an_intervention_is_applied_some_steps_ahead_at_the_step_that_was_agreed() -> None:
    world = World([Order(4, ScaleLr(factor=0.5))]).train(12)
    receipt = world.tape.receipt("i-1")
    assert (receipt["outcome"], receipt["step"]) == ("applied", 7)
    assert receipt["after"]["lr_multiplier"] == world.pilot.lr_multiplier == 0.5


def test_one_intervention_after_the_other_each_once() -> None:
    world = World([Order(0, ScaleLr(factor=0.5)), Order(0, ScaleLr(factor=0.5)), Order(0, Stop())]).train(50)
    assert world.pilot.lr_multiplier == 0.25
    assert [world.tape.receipt(f"i-{n}")["step"] for n in (1, 2, 3)] == [3, 7, 11]
    assert world.steps[-1] == 11


def test_a_rollback_takes_the_steps_back_but_not_the_data(tmp_path: Path) -> None:
    world = World([Order(12, good_rollback)], tmp_path, every=5).train(20)
    assert world.steps[:17] == [*range(16), 11]
    assert [batch for _, batch in world.seen[:17]] == [*range(16), 18]
    (skipped,) = world.tape.of("data_window_skipped")
    assert skipped == {"step": 11, "first_batch": 16, "last_batch": 17, "intervention_id": "i-1"}


def test_a_rollback_brings_back_weights_momentum_schedule_and_chance(tmp_path: Path) -> None:
    random.seed(3)
    world = World([Order(13, good_rollback)], tmp_path)
    at_save: tuple[Any, ...] = ()
    for step in range(17):
        world.step(step)
        if step == 10:
            world.pilot.checkpoint(step)
            at_save = (world.weights(), world.optimizer.state_dict(), torch.rand(3).tolist(), random.random())
            at_save = (*at_save[:1], repr(at_save[1]), *at_save[2:], repr(world.scheduler.state_dict()))
    assert world.tape.receipt("i-1")["step"] == 16
    now = (world.weights(), repr(world.optimizer.state_dict()), torch.rand(3).tolist(), random.random())
    assert (*now, repr(world.scheduler.state_dict())) == at_save


def test_weight_decay_that_was_set_outlives_a_rollback_to_a_checkpoint_before_it(tmp_path: Path) -> None:
    back = Order(16, lambda tape: Rollback(checkpoint=tape.saved()[0], lr_factor=0.5))
    orders = [Order(8, SetWeightDecay(value=0.25)), back]
    world = World(orders, tmp_path, every=5).train(24)
    assert [world.tape.receipt(f"i-{number}")["outcome"] for number in (1, 2)] == ["applied", "applied"]
    assert world.optimizer.param_groups[0]["weight_decay"] == 0.25


def test_a_rollback_is_answered_in_the_attempt_that_it_ends_and_told_in_the_one_it_begins(tmp_path: Path) -> None:
    world = World([Order(12, good_rollback)], tmp_path, every=5).train(20)
    kinds = [(fact.kind, fact.attempt_id == "attempt-1") for fact in world.tape.told]
    begun = kinds.index(("attempt", False))
    assert [kind for kind, _ in kinds[begun - 1 : begun + 3]] == [
        "intervention_receipt",
        "attempt",
        "checkpoint_restored",
        "data_window_skipped",
    ]
    assert kinds[begun - 1] == ("intervention_receipt", True), "its step is one of the attempt that ends here"
    assert all(not old for _, old in kinds[begun:])
    assert world.tape.receipt("i-1")["after"] == {"step": 10.0, "lr_multiplier": 0.5}


def test_rolling_back_twice_to_one_checkpoint_cuts_the_rate_twice(tmp_path: Path) -> None:
    world = World([Order(12, good_rollback), Order(12, good_rollback)], tmp_path, every=11).train(18)
    assert [world.tape.receipt(f"i-{n}")["outcome"] for n in (1, 2)] == ["applied"] * 2
    assert world.pilot.lr_multiplier == 0.25
    assert world.tape.identity.attempt == 3


def test_a_corrupt_checkpoint_changes_nothing_and_says_so(tmp_path: Path) -> None:
    def corrupt(tape: Tape) -> Rollback:
        ref = tape.saved()[-1]
        (Path(ref.path) / "optimizer.pt").write_bytes(b"rubbish")
        return Rollback(checkpoint=ref, skip_batches=2, lr_factor=0.5)

    world = World([Order(12, corrupt)], tmp_path, every=10).train(20)
    receipt = world.tape.receipt("i-1")
    assert receipt["outcome"] == "failed"
    assert receipt["reason"].startswith("CheckpointCorrupt: ")
    assert world.steps == list(range(20))
    assert (world.pilot.lr_multiplier, world.tape.identity.attempt_id) == (1.0, "attempt-1")


def test_a_loop_of_its_own_hears_what_to_do_from_the_signal(tmp_path: Path) -> None:
    world = World([Order(0, SkipBatches(count=4)), Order(1, Stop())], tmp_path)
    signals = [world.step(step) for step in range(12)]
    assert [(n, signal.skip_batches) for n, signal in enumerate(signals) if signal.skip_batches] == [(3, 4)]
    assert [signal.stop for signal in signals] == [False] * 7 + [True] * 5


def test_a_stop_saves_ends_the_loop_and_the_run_knows_why(tmp_path: Path) -> None:
    world = World([Order(2, Stop())], tmp_path).train(50)
    assert world.steps[-1] == world.tape.saved()[-1].step == 5
    assert world.tape.outcome == "stopped"
    assert world.tape.stages[-1] == "stop"


def test_a_pause_ends_with_resume_and_what_came_meanwhile_follows() -> None:
    orders = [Order(0, Pause(max_seconds=30)), Order(1, ScaleLr(factor=0.5)), Order(1, Resume())]
    world = World(orders).train(12)
    assert [world.tape.receipt(f"i-{n}")["step"] for n in (1, 3)] == [3, 3]
    assert (world.tape.receipt("i-2")["outcome"], world.tape.receipt("i-2")["step"]) == ("applied", 7)
    assert world.tape.stages == ["paused", "train"]


def test_a_pause_ends_by_itself_when_its_time_is_up() -> None:
    world = World([Order(0, Pause(max_seconds=0.2))]).train(8)
    assert world.steps == list(range(8))
    assert world.tape.stages == ["paused", "train"]


@pytest.mark.parametrize(
    "order,outcome,says",
    [
        (Order(0, Resume()), "rejected", "NotPaused"),
        (Order(0, SetClip(value=1.0)), "rejected", "NotSteerable"),
        (Order(0, ScaleLr(factor=0.5), {"expires_step": 0}), "expired", "Expired"),
        (Order(5, ScaleLr(factor=0.5), {"expires_step": 4}), "expired", "Expired"),
        (Order(0, Notify(message="look")), "applied", "people were told"),
    ],
)
def test_what_is_not_proposed_is_answered_at_once(order: Order, outcome: str, says: str) -> None:
    receipt = World([order]).train(10).tape.receipt("i-1")
    assert (receipt["outcome"], receipt["reason"][: len(says)]) == (outcome, says)


def test_a_command_that_expires_soon_is_applied_at_its_last_step() -> None:
    world = World([Order(0, ScaleLr(factor=0.5), {"expires_step": 2})]).train(10)
    assert world.tape.receipt("i-1")["step"] == 2


def test_a_second_copy_of_a_command_is_refused_and_changes_nothing() -> None:
    orders = [Order(0, ScaleLr(factor=0.5)), Order(5, ScaleLr(factor=0.5), {"number": 1})]
    world = World(orders).train(12)
    assert [receipt["outcome"] for receipt in world.tape.receipts("i-1")] == ["applied", "rejected"]
    assert world.pilot.lr_multiplier == 0.5


def test_a_fault_of_ours_ends_steering_and_not_the_training(caplog: pytest.LogCaptureFixture) -> None:
    def fault(_tape: Tape) -> ScaleLr:
        raise ZeroDivisionError("a bug of ours")

    with caplog.at_level(logging.ERROR):
        world = World([Order(3, fault), Order(5, Stop())]).train(12)
    assert world.steps == list(range(12))
    assert world.pilot.steering_over == "ZeroDivisionError: a bug of ours"
    assert "steering is over for this attempt" in caplog.text


def test_a_restore_that_fails_half_way_is_not_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_self: object, _state: object) -> None:
        raise RuntimeError("out of memory")

    world = World([Order(12, good_rollback)], tmp_path, every=10)
    monkeypatch.setattr(torch.optim.SGD, "load_state_dict", fail)
    with pytest.raises(RestartRequired, match=r"restored only in part.*out of memory"):
        world.train(30)


def test_a_fresh_process_goes_on_where_the_newest_checkpoint_stands(tmp_path: Path) -> None:
    first = World([Order(2, ScaleLr(factor=0.5))], tmp_path, every=10, knobs={"clip": 1.0}).train(25)
    second = World([], tmp_path, knobs={"clip": 1.0})
    assert second.pilot.restore_latest() == 20
    assert second.train(23).seen == [(21, 21), (22, 22)]
    assert second.pilot.lr_multiplier == 0.5
    assert second.tape.in_force() == {"lr_multiplier": 0.5, "clip": 1.0, "weight_decay": 0.0, "dropout": 0.5}
    (begun,) = second.tape.of("attempt")
    assert begun == {"reason": "restart", "first_step": 21, "parent": first.tape.identity.attempt_id}


def test_a_restart_passes_over_a_corrupt_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = World([], tmp_path, every=10).train(25)
    (Path(first.tape.saved()[-1].path) / "model.pt").write_bytes(b"rubbish")
    with caplog.at_level(logging.WARNING):
        assert World([], tmp_path).pilot.restore_latest() == 10
    assert "step-00000020-attempt1 is passed over for an older one: CheckpointCorrupt" in caplog.text


def test_with_nothing_saved_a_restart_begins_at_the_beginning(tmp_path: Path) -> None:
    world = World([], tmp_path / "empty")
    assert world.pilot.restore_latest() is None
    assert world.train(2).steps == [0, 1]


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    World([], tmp_path, every=10).train(12)
    other = World([], tmp_path)
    state = TrainerState(torch.nn.Linear(3, 3), [other.optimizer], [])
    checkpoints = Checkpoints(tmp_path)
    _, files = checkpoints.load(next(checkpoints.newest_first()))
    with pytest.raises(CheckpointError, match=r"of another model: 0.bias, 0.weight, bias differ"):
        state.prepare(files, 0)


def test_a_state_that_could_run_code_is_refused_when_it_is_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Objects:
        def state_dict(self) -> dict[str, Any]:
            return {"path": Path("/")}

    world = World([], tmp_path)
    state = TrainerState(world.model, [world.optimizer], [Objects()])
    with pytest.raises(CheckpointError, match="not plain numbers"):
        state.parts({}, {})


def test_checkpoint_now_saves_at_the_agreed_step(tmp_path: Path) -> None:
    world = World([Order(0, CheckpointNow())], tmp_path).train(6)
    assert [ref.step for ref in world.tape.saved()] == [3]
    assert world.tape.receipt("i-1")["reason"] == "saved step-00000003-attempt1"


def test_closing_takes_the_hands_off_the_optimizer() -> None:
    world = World([Order(0, ScaleLr(factor=0.5))]).train(6)
    world.pilot.close()
    world.pilot.close()
    assert not world.optimizer._optimizer_step_pre_hooks
    assert world.pilot.safe_point(7).stop is False


class SlowToLeave(Script):
    def close(self, within: float = 30.0) -> None:
        time.sleep(within)


def test_a_pilot_leaves_in_time_though_its_ranks_and_the_broker_hang() -> None:
    never = threading.Event()
    world = World([])
    ballots = StoreBallots(never.wait, "run", rank=0, voters=2)
    world.pilot._links = Links(ballots, SlowToLeave(world.tape, []))
    try:
        before = time.monotonic()
        world.pilot.close(within=0.2)
        assert time.monotonic() - before < 0.35
    finally:
        never.set()


# ------------------------------------------------------------------------------------------------------------- the data


class Loader:
    """A loader that shuffles by epoch, as a distributed sampler does."""

    def __init__(self, length: int, *, sized: bool = True) -> None:
        self.length, self.epoch = length, 0
        if sized:
            self.__class__ = SizedLoader

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Any:
        return iter([(self.epoch, item) for item in range(self.length)])


class SizedLoader(Loader):
    def __len__(self) -> int:
        return self.length


def expected(position: int, length: int) -> tuple[int, int]:
    return divmod(position, length)


@given(st.integers(1, 7), st.booleans(), st.lists(st.integers(0, 9), max_size=20), st.integers(0, 20))
def test_no_batch_comes_twice_and_none_is_missed_but_the_skipped(
    length: int, sized: bool, skips: list[int], start: int
) -> None:
    stream = BatchStream(Loader(length, sized=sized), start)
    position = start
    for skip in skips:
        if skip:
            assert stream.skip(skip) == (position, position + skip - 1)
            position += skip
        drawn = stream.draw()
        if drawn is None:
            stream.next_epoch()
            drawn = stream.draw()
        assert drawn is not None
        assert (drawn.position, drawn.batch) == (position, expected(position, length))
        position += 1
    assert stream.position == position


def test_without_steps_a_skip_ends_with_the_epoch_and_the_rest_of_it_is_dropped_from_the_next() -> None:
    world = World([Order(3, SkipBatches(count=6))])
    epochs = [[batch for step, batch in world.pilot.batches(range(10)) if not world.step(step).stop] for _ in range(2)]
    assert epochs == [list(range(7)), list(range(3, 10))]
    assert [
        tuple(told[name] for name in ("first_batch", "last_batch")) for told in world.tape.of("data_window_skipped")
    ] == [
        (7, 9),
        (10, 12),
    ]


def test_who_gave_a_folder_and_saves_nothing_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        World([], tmp_path / "never").train(2 * REMIND_STEPS)
        World([], tmp_path / "by itself", every=100).train(2 * REMIND_STEPS)
    assert [record.message.count("nothing can be rolled back") for record in caplog.records] == [1]


def test_a_loader_without_a_batch_is_a_clear_mistake() -> None:
    with pytest.raises(UserMistake, match="no batch at all"):
        World([]).train(5, loader=[])


def test_without_steps_a_loop_ends_with_the_epoch_and_the_next_goes_on() -> None:
    world = World([])
    first = [step for step, _ in world.pilot.batches(range(3))]
    second = [(step, batch) for step, batch in world.pilot.batches(range(3))]
    assert (first, second) == ([0, 1, 2], [(3, 0), (4, 1), (5, 2)])
