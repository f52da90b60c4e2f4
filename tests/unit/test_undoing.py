"""A revert in the trainer: exactly what was, on all ranks or on none, and nothing where anything changed since."""

from typing import Any

import pytest
import torch

from pilothouse.events.actions import Action, Revert, ScaleLr, SetClip, SetWeightDecay
from pilothouse.events.bounds import Bound
from pilothouse.producers.steering.actuators import Actuators
from pilothouse.producers.steering.found_knobs import found_knobs
from pilothouse.producers.steering.knobs import Knob
from pilothouse.producers.steering.undoing import KEPT
from pilothouse.tests.pilot_world import issued
from pilothouse.tests.unit.test_actuators import hands


def do(actuators: Actuators, action: Action, number: int = 1) -> Any:
    assert actuators.refusal(action) is None
    return actuators.carry_out(issued(action, number=number), 7)


def back(number: int, effect: Any) -> Revert:
    """As the governor orders it, from the receipt."""
    left = {name: value for name, value in effect.after.items() if name in effect.before and name != "lr"}
    return Revert(intervention_id=f"i-{number}", values={name: effect.before[name] for name in left}, left=left)


def test_the_rate_is_what_it_was_to_the_last_bit() -> None:
    actuators, trainer = hands()
    do(actuators, ScaleLr(factor=0.3))
    was = trainer.lr.value
    effect = do(actuators, ScaleLr(factor=0.7), 2)
    restored = do(actuators, back(2, effect), 3)
    assert trainer.lr.value == was
    assert (restored.outcome, restored.before["lr_multiplier"], restored.after) == (
        "applied",
        effect.after["lr_multiplier"],
        {"lr_multiplier": was},
    )


def test_what_one_number_cannot_say_comes_back_group_by_group() -> None:
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(3)]
    groups = [
        {"params": [weight], "weight_decay": decay} for weight, decay in zip(weights, (0.1, 0.3, 0.0), strict=True)
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    actuators, trainer = hands(found_knobs(None, [optimizer]))
    effect = do(actuators, SetWeightDecay(value=0.5))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.5, 0.0]
    do(actuators, back(1, effect), 2)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.3, 0.0]
    assert trainer.knobs.turned == {}


def test_a_process_that_does_not_remember_it_goes_by_the_numbers() -> None:
    actuators, trainer = hands({"clip": 1.0})
    for name, value in {"clip": 4.0, "lr_multiplier": 0.5}.items():
        do(actuators, Revert(intervention_id="of another process", values={name: value}))
        assert {"clip": trainer.knobs.value("clip"), "lr_multiplier": trainer.lr.value}[name] == value


@pytest.mark.parametrize(
    "values, said", [({"lr_multiplier": 99.0}, "multiplier"), ({"clip": 9.0}, "outside"), ({"clip": 4.0}, "at most 3")]
)
def test_what_only_the_command_knows_must_lie_within_all_bounds(values: dict[str, float], said: str) -> None:
    actuators, _ = hands({"clip": Knob(lambda _: None, lambda: 1.0, high=5.0)})
    unheard_of = Revert(intervention_id="unheard of", values=values)
    assert said in str(actuators.refusal(unheard_of, {"clip": Bound(max=3.0)}))


def test_where_anything_changed_since_nothing_is_put_back() -> None:
    actuators, trainer = hands({"clip": 1.0})
    effect = do(actuators, SetClip(value=0.5))
    trainer.knobs.turn("clip", 0.7)
    assert actuators.refusal(back(1, effect)) == "Changed: clip is 0.7, and was left at 0.5: nothing is put back"
    assert actuators.refusal(Revert(intervention_id="i", values={"dropout": 0.1})) == (
        "NotSteerable: this trainer has no dropout to put back"
    )


def test_a_setter_that_raises_leaves_all_as_it_is() -> None:
    clip = [5.0]

    def turn(value: float) -> None:
        if value > 1.0:
            raise RuntimeError("no")
        clip[0] = value

    actuators, trainer = hands({"clip": Knob(turn, lambda: clip[0])})
    effect = do(actuators, SetClip(value=0.5))
    trainer.knobs.turned["clip"] = 0.5
    answer = Actuators(trainer).carry_out(issued(back(1, effect), number=2), 8)
    assert (answer.outcome, clip) == ("failed", [0.5])


def test_only_so_much_is_remembered() -> None:
    actuators, trainer = hands({"clip": 1.0})
    for number in range(KEPT + 5):
        do(actuators, SetClip(value=2.0 + number), number)
    assert len(actuators._undoing._known) == KEPT
    assert trainer.knobs.value("clip") == 2.0 + KEPT + 4


@pytest.mark.parametrize(
    "action, said",
    [
        (SetClip(value=3.0), "OutOfBounds: clip would be 3, from 1: at most 2"),
        (ScaleLr(factor=0.25), "OutOfBounds: lr_multiplier would be 0.25, from 1: at least 0.5"),
        (SetClip(value=2.0), None),
    ],
)
def test_the_policys_bounds_are_looked_at_again_at_the_values_of_the_moment(action: Action, said: str | None) -> None:
    actuators, _ = hands({"clip": 1.0})
    assert actuators.refusal(action, {"clip": Bound(max=2.0), "lr_multiplier": Bound(min=0.5)}) == said


def test_a_knob_that_was_never_known_has_nothing_to_go_back_to() -> None:
    actuators, _ = hands({"clip": lambda _: None})
    effect = do(actuators, SetClip(value=0.5))
    assert (effect.before, effect.after) == ({}, {"clip": 0.5})
