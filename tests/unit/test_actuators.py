"""The trainer's hands: the multiplier over a user's schedule, the knobs, and what is refused."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pilothouse.events.actions import (
    Action,
    CheckpointNow,
    CheckpointRef,
    EvictRank,
    Notify,
    Pause,
    Resume,
    Rollback,
    ScaleLr,
    SetClip,
    SetDropout,
    SetLr,
    SetWeightDecay,
    SkipBatches,
    Stop,
)
from pilothouse.events.bounds import Bound, Bounds
from pilothouse.producers.ranks.ballots import LocalBallots
from pilothouse.producers.steering.actuators import Actuators
from pilothouse.producers.steering.course import Course
from pilothouse.producers.steering.found_knobs import found_knobs
from pilothouse.producers.steering.knobs import Knob, Knobs
from pilothouse.producers.steering.learning_rate import LrMultiplier
from pilothouse.producers.steering.rollback import Trainer
from pilothouse.tests.pilot_world import Tape, issued

REF = CheckpointRef(checkpoint_id="c", step=1, path="/c", manifest_sha256="0" * 64)


def weight_and(optimizer_of: Any = torch.optim.SGD, **options: Any) -> tuple[torch.nn.Parameter, Any]:
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    return weight, optimizer_of([weight], **options)


def step(weight: torch.nn.Parameter, optimizer: Any) -> float:
    """One step with a gradient of 1: for SGD, how far the weight moved is the rate it stepped with."""
    before = float(weight.detach())
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    return before - float(weight.detach())


def test_the_optimizer_steps_with_the_multiplied_rate_and_nobody_else_sees_it() -> None:
    weight, optimizer = weight_and(lr=0.1)
    multiplier = LrMultiplier([optimizer])
    multiplier.value = 0.25
    assert step(weight, optimizer) == pytest.approx(0.025)
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert multiplier.learning_rate == 0.025


def test_a_recursive_scheduler_is_not_led_astray() -> None:
    (weight, steered), (other, alone) = weight_and(lr=0.1), weight_and(lr=0.1)
    LrMultiplier([steered]).value = 0.5
    schedules = [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9) for optimizer in (steered, alone)]
    for _ in range(20):
        assert step(weight, steered) == pytest.approx(step(other, alone) * 0.5)
        for schedule in schedules:
            schedule.step()
    assert steered.param_groups[0]["lr"] == alone.param_groups[0]["lr"]


def test_a_tensor_rate_stays_the_same_tensor_and_comes_back_exactly() -> None:
    rate = torch.tensor(0.1, dtype=torch.float64)
    weight, optimizer = weight_and(lr=rate)
    LrMultiplier([optimizer]).value = 1 / 3
    held = optimizer.param_groups[0]["lr"]
    assert step(weight, optimizer) == pytest.approx(0.1 / 3)
    assert optimizer.param_groups[0]["lr"] is held
    assert float(held) == float(torch.tensor(0.1, dtype=torch.float64))


def test_groups_that_share_one_tensor_rate_are_multiplied_once() -> None:
    rate = torch.tensor(0.1, dtype=torch.float64)
    one, two = (torch.nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [one], "lr": rate}, {"params": [two], "lr": rate}])
    LrMultiplier([optimizer]).value = 0.5
    two.grad = torch.ones_like(two)
    assert step(one, optimizer) == pytest.approx(0.05)
    assert float(rate) == pytest.approx(0.1)


def test_a_step_that_raised_leaves_no_trace_in_the_rate() -> None:
    weight, optimizer = weight_and(lr=0.1)
    multiplier = LrMultiplier([optimizer])
    multiplier.value = 0.5

    def closure() -> float:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        optimizer.step(closure)
    multiplier.settle()
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert step(weight, optimizer) == pytest.approx(0.05)


def test_several_optimizers_are_steered_together_and_let_go_together() -> None:
    (one, first), (two, second) = weight_and(lr=0.1), weight_and(lr=0.2)
    multiplier = LrMultiplier([first, second])
    multiplier.value = 0.5
    assert [step(one, first), step(two, second)] == pytest.approx([0.05, 0.1])
    multiplier.detach()
    assert [step(one, first), step(two, second)] == pytest.approx([0.1, 0.2])


# ---------------------------------------------------------------------------------------------------------- the actions


def hands(
    knobs: dict[str, Any] | None = None, lr: float | None = 0.1, evict: Callable[[int], object] | None = None
) -> tuple[Actuators, Trainer]:
    tape = Tape(world_size=4)
    optimizers = [weight_and(lr=lr)[1]] if lr is not None else []
    trainer = Trainer(
        tape, LocalBallots(), LrMultiplier(optimizers), Knobs(knobs or {}), Course(tape), None, evict=evict
    )
    return Actuators(trainer), trainer


def test_a_trainer_says_what_it_can_carry_out() -> None:
    always = ("skip_batches", "pause", "resume", "stop", "notify", "revert")
    assert hands()[0].steers == ("scale_lr", "set_lr", *always)
    assert hands(lr=None, evict=print)[0].steers == ("evict_rank", *always[:-1])
    assert hands({"clip": 1.0}, lr=None)[0].steers == ("set_clip", *always)


@pytest.mark.parametrize(
    "action, says",
    [
        (SetClip(value=1.0), "NotSteerable"),
        (CheckpointNow(), "NotSteerable"),
        (Rollback(checkpoint=REF), "NotSteerable"),
        (EvictRank(rank=1), "NotSteerable"),
    ],
)
def test_what_it_cannot_do_it_refuses(action: Action, says: str) -> None:
    assert str(hands()[0].refusal(action)).startswith(says)


def test_the_multiplier_stays_within_its_bounds_whatever_is_asked() -> None:
    actuators, trainer = hands()
    for _ in range(100):
        for factor in (0.01, 0.02):
            if actuators.refusal(ScaleLr(factor=factor)) is None:
                actuators.carry_out(issued(ScaleLr(factor=factor)), 1)
    assert trainer.lr.value >= 1e-4
    assert "OutOfBounds" in str(actuators.refusal(ScaleLr(factor=0.01)))


def test_a_receipt_of_scale_lr_says_before_and_after() -> None:
    effect = hands()[0].carry_out(issued(ScaleLr(factor=0.5)), 1)
    assert (effect.outcome, effect.before, effect.after) == (
        "applied",
        {"lr_multiplier": 1.0, "lr": 0.1},
        {"lr_multiplier": 0.5, "lr": 0.05},
    )


def test_set_lr_is_absolute_and_the_users_schedule_goes_on_from_there() -> None:
    actuators, trainer = hands()
    actuators.carry_out(issued(ScaleLr(factor=0.5)), 1)
    assert actuators.refusal(SetLr(value=0.02)) is None
    effect = actuators.carry_out(issued(SetLr(value=0.02), number=2), 2)
    assert effect.before["lr"] == 0.05
    assert effect.after["lr"] == pytest.approx(0.02)
    optimizer = trainer.lr._optimizers[0]
    optimizer.param_groups[0]["lr"] *= 0.5
    assert trainer.lr.learning_rate == pytest.approx(0.01)


@pytest.mark.parametrize("rate, lr", [(1.5, 0.1), (1e-6, 0.1), (0.1, 0.0)])
def test_a_rate_that_the_multiplier_does_not_reach_is_refused(rate: float, lr: float) -> None:
    assert str(hands(lr=lr)[0].refusal(SetLr(value=rate))).startswith("OutOfBounds")


def test_bounds_of_the_rate_itself_hold_for_all_that_changes_it() -> None:
    actuators, _ = hands()
    bounds: Bounds = {"lr": Bound(min=0.06, max=0.15), "lr_multiplier": Bound(max=1.2)}
    for action in (ScaleLr(factor=0.5), SetLr(value=0.05), SetLr(value=0.2), SetLr(value=0.13)):
        assert "lr" in str(actuators.refusal(action, bounds))
    assert actuators.refusal(SetLr(value=0.11), bounds) is None


def test_whoever_places_ranks_is_told_which_one_must_go() -> None:
    told: list[int] = []
    actuators, _ = hands(evict=told.append)
    effect = actuators.carry_out(issued(EvictRank(rank=2)), 7)
    assert (effect.outcome, effect.after, told) == ("applied", {"rank": 2}, [2])
    assert str(actuators.refusal(EvictRank(rank=4))).startswith("NoSuchRank: rank 4 of 4")
    assert str(actuators.refusal(EvictRank())).startswith("NoRank")


def test_a_scheduler_that_cannot_be_asked_fails_the_eviction_and_not_the_training() -> None:
    def unreachable(_: int) -> None:
        raise OSError("no route to the scheduler")

    effect = hands(evict=unreachable)[0].carry_out(issued(EvictRank(rank=1)), 7)
    assert effect.outcome == "failed"
    assert "no route to the scheduler" in effect.reason


@pytest.mark.parametrize(
    "knob, before",
    [(3.0, {"clip": 3.0}), (Knob(lambda _: None, lambda: 4.0), {"clip": 4.0}), (lambda _: None, {})],
)
def test_a_receipt_of_set_clip_says_before_where_it_is_known(knob: Any, before: dict[str, float]) -> None:
    effect = hands({"clip": knob})[0].carry_out(issued(SetClip(value=0.5)), 1)
    assert (effect.outcome, effect.before, effect.after) == ("applied", before, {"clip": 0.5})


def test_a_number_given_as_a_knob_is_read_back_by_the_loop() -> None:
    actuators, trainer = hands({"clip": 1.0})
    actuators.carry_out(issued(SetClip(value=0.5)), 1)
    assert trainer.knobs.value("clip") == 0.5
    assert trainer.knobs.turned == {"clip": 0.5}


def test_a_setter_that_raises_fails_and_is_set_back() -> None:
    values = [1.0]

    def set_clip(value: float) -> None:
        values.append(value)
        if value == 0.5:
            raise KeyError("max_norm")

    actuators, trainer = hands({"clip": Knob(set_clip, lambda: 1.0)})
    effect = actuators.carry_out(issued(SetClip(value=0.5)), 1)
    assert (effect.outcome, effect.reason) == ("failed", "KeyError: 'max_norm' (rank 0)")
    assert values[-1] == 1.0
    assert trainer.knobs.turned == {}


def model_with_dropout() -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Linear(2, 2), torch.nn.Dropout(0.1), torch.nn.Dropout1d(0.3), torch.nn.Dropout(0.0)
    )


def decaying(*decays: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        [{"params": [torch.nn.Parameter(torch.ones(1))], "weight_decay": decay} for decay in decays]
    )


def decays(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["weight_decay"] for group in optimizer.param_groups]


def test_weight_decay_is_set_where_there_is_some_and_biases_keep_none() -> None:
    optimizer = decaying(0.1, 0.0, 0.05)
    actuators, _ = hands(dict(found_knobs(None, [optimizer])))
    effect = actuators.carry_out(issued(SetWeightDecay(value=0.2)), 1)
    assert (effect.before, effect.after) == ({"weight_decay": 0.1}, {"weight_decay": 0.2})
    assert decays(optimizer) == [0.2, 0.0, 0.2]


def test_weight_decay_is_set_everywhere_where_there_was_none_at_all() -> None:
    optimizer = decaying(0.0, 0.0)
    hands(dict(found_knobs(None, [optimizer])))[0].carry_out(issued(SetWeightDecay(value=0.2)), 1)
    assert decays(optimizer) == [0.2, 0.2]


def test_dropout_is_set_in_every_layer_that_drops() -> None:
    model = model_with_dropout()
    actuators, _ = hands(dict(found_knobs(model, [])))
    effect = actuators.carry_out(issued(SetDropout(value=0.5)), 1)
    assert (effect.before, effect.after) == ({"dropout": 0.1}, {"dropout": 0.5})
    assert [layer.p for layer in list(model)[1:]] == [0.5, 0.5, 0.0]


def test_a_model_without_dropout_and_optimizers_without_decay_have_no_such_knobs() -> None:
    assert found_knobs(torch.nn.Linear(1, 1), []) == {}
    assert str(hands()[0].refusal(SetDropout(value=0.5))).startswith("NotSteerable")
    assert str(hands()[0].refusal(SetWeightDecay(value=0.5))).startswith("NotSteerable")


def test_an_undone_turn_leaves_every_group_and_layer_with_the_value_of_its_own() -> None:
    optimizer, model = decaying(0.1, 0.0, 0.05), model_with_dropout()
    knobs = Knobs(found_knobs(model, [optimizer]))
    for name in ("weight_decay", "dropout"):
        undo = knobs.undoing(name)
        knobs.turn(name, 0.4)
        undo()
    assert decays(optimizer) == [0.1, 0.0, 0.05]
    assert [layer.p for layer in list(model)[1:]] == [0.1, 0.3, 0.0]
    assert knobs.turned == {}


def test_an_undone_turn_leaves_the_one_before_it_in_force() -> None:
    knobs = Knobs({"clip": 1.0})
    knobs.turn("clip", 0.5)
    undo = knobs.undoing("clip")
    knobs.turn("clip", 0.25)
    undo()
    assert (knobs.value("clip"), knobs.turned) == (0.5, {"clip": 0.5})


def test_a_trainer_that_may_do_some_things_only_refuses_the_rest() -> None:
    tape = Tape()
    trainer = Trainer(
        tape, LocalBallots(), LrMultiplier([weight_and(lr=0.1)[1]]), Knobs({"clip": 1.0}), Course(tape), None
    )
    actuators = Actuators(trainer, only=("set_clip", "notify"))
    assert actuators.steers == ("set_clip", "notify", "revert")
    assert str(actuators.refusal(ScaleLr(factor=0.5))).startswith("NotSteerable")


def test_a_knob_refuses_what_lies_outside_its_own_limits() -> None:
    actuators, _ = hands({"clip": Knob(lambda _: None, low=0.1, high=2.0)})
    assert actuators.refusal(SetClip(value=2.0)) is None
    assert "outside this trainer's 0.1 to 2" in str(actuators.refusal(SetClip(value=2.5)))


@pytest.mark.parametrize("action", [SkipBatches(count=1), Pause(), Resume(), Stop(), Notify(message="x")])
def test_what_needs_no_part_of_the_trainer_is_never_refused(action: Action) -> None:
    assert hands(lr=None)[0].refusal(action) is None


def test_a_stop_without_checkpoints_stops_and_says_that_nothing_was_saved() -> None:
    actuators, trainer = hands()
    assert actuators.carry_out(issued(Stop()), 1).outcome == "applied"
    assert trainer.course.stopping
    assert isinstance(trainer.run, Tape)
    assert trainer.run.outcome == "stopped"
    assert math.isclose(trainer.lr.value, 1.0)
