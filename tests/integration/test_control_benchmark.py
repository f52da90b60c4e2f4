"""One small training of the control benchmark, really trained: governed as it is reported, and comparable at all."""

from dataclasses import replace

import pytest

from pilothouse.benchmarks.control.beside import Blocking
from pilothouse.benchmarks.control.experiments import policy_text
from pilothouse.benchmarks.control.recipe import Arm, Recipe, Row, Task
from pilothouse.benchmarks.control.training import Training

TINY = Recipe(
    steps=40, width=16, layers=1, heads=2, training_chars=4_000, learning_rate=3e-3, length=16, batch_size=2, ranks=2,
    clip=0.0, validation_windows=4, fault_at=25,
)  # fmt: skip
OURS = Arm("ours, blocking", governed="process", policy=policy_text())


def trained(arm: Arm, fault: str = "") -> Row:
    return Training(Task("faults", fault or "none", 0, replace(TINY, fault=fault), arm), None).run()


def test_a_training_that_goes_well_is_the_same_to_the_last_bit_with_and_without_a_governor() -> None:
    alone, ours = trained(Arm("nothing")), trained(OURS)
    assert ours.curve == alone.curve
    assert (ours.interventions, ours.wasted_steps, ours.replayed) == (0, 0, True)


@pytest.mark.parametrize("fault", ["NaN batch", "checkpoint"])
def test_a_training_that_a_fault_would_end_goes_on_and_its_log_replays(fault: str) -> None:
    ours = trained(OURS, fault)
    assert trained(Arm("nothing"), fault).final_val_loss is None
    assert ours.final_val_loss is not None
    assert ours.actions[0].startswith("25: rollback to 20" if fault == "NaN batch" else "2")
    assert ours.detect_steps == 0
    assert ours.wasted_steps > 0
    assert ours.replayed


def test_a_decision_that_the_log_does_not_lead_to_is_found() -> None:
    run = Blocking("run", policy_text(), 1)
    for step in range(20):
        run.log(step, [{"loss": 3.0 - step * 0.01}])
    run.ended(19)
    assert run.replays()
    run.decisions[-1] = run.decisions[-1].model_copy(update={"at": 1})
    assert not run.replays()
