"""Policy expressions: what is wrong is said with what to write instead, and an evaluation sees all it names."""

import math

import pytest

from pilothouse.events.decisions import ConditionType
from pilothouse.governance.conditions import Condition
from pilothouse.governance.expression_check import slips
from pilothouse.governance.expressions import ALWAYS_KNOWN, FEATURES, facts_of, holds, lacking
from pilothouse.stream_processors import features
from pilothouse.stream_processors.detectors.sample import StepSample

CONDITIONS: dict[ConditionType, Condition] = {
    "Stable": Condition("Stable", status="False", reason="LossClimbing"),
    "Finite": Condition("Finite", status="True", reason="AllFinite"),
}
FACTS = facts_of({"loss": 2.0, "loss_z": 9.0}, CONDITIONS, "Unstable", None)


@pytest.mark.parametrize(
    "expression, true",
    [
        ("conditions.Stable == 'False'", True),
        ("conditions.Stable == 'False' && conditions.Finite == 'False'", False),
        ("has(features.loss_z) && features.loss_z > 6.0", True),
        ("features['loss'] > 1.0", True),
        ("conditions.exists(name, conditions[name] == 'False')", True),
        ("reasons.Stable == 'LossClimbing' && reasons.Finite != 'LossClimbing'", True),
        ("reasons.exists(name, reasons[name] == 'LossClimbing')", True),
        ("features.loss > 1.0 && features.all(name, features[name] > 1.0)", True),
        ("features.loss > 1.0 || 'features.gone' == ''", True),
        ("size(features) == 2", True),
        ("margin == 1.0 && phase == 'Unstable'", True),
        ("phase in ['Unstable', 'Diverged']", True),
        ("features.grad_z > 0.0", False),
        ("!has(features.grad_z)", True),
        ("(features.loss > 1.0 ? 2.0 : 1.0) > margin", True),
        ("features.loss > 1.0 // in nats", True),
    ],
)
def test_an_expression_sees_whatever_it_names(expression: str, true: bool) -> None:
    assert slips(expression) == []
    assert holds(expression, FACTS) is true


def test_a_comparison_with_nan_is_false() -> None:
    facts = facts_of({"loss": math.nan}, {}, "Normal", None)
    assert not holds("features.loss > 1.0", facts)
    assert not holds("features.loss <= 1.0", facts)


@pytest.mark.parametrize(
    "expression, said",
    [
        ("features.los > 1.0", "no feature 'los'; did you mean 'loss'?"),
        ("features['los'] > 1.0", "no feature 'los'"),
        ("has(features.los)", "no feature 'los'"),
        ("featurs.loss > 1.0", "no variable 'featurs'; did you mean 'features'?"),
        ("Stable == 'False'", "no variable 'Stable'; write conditions.Stable"),
        ("conditions.Stable == False", "no variable 'False'; a text needs quotes: 'False'"),
        ("conditions.Stable == false", "a status is a text: write 'False'"),
        ("conditions['Stabel'] == 'False'", "no condition 'Stabel'; did you mean 'Stable'?"),
        ("'false' == conditions.Stable", "no status 'false'; did you mean 'False'?"),
        ("phase in ['Normal', 'normal']", "no phase 'normal'; did you mean 'Normal'?"),
        ("features.loss == 'high'", "features.loss is a number and never equal to a text"),
        ("reasons.Stabel == 'LossClimbing'", "no condition 'Stabel'"),
        ("features.loss", "must be true or false"),
        ("features.loss >", "the expression ends where something is missing"),
        ("features.loss >> 2.0", "extraneous input '>'"),
        ("features.loss + 1 > 2.0", "write 1.0, not 1"),
        ("phase == 'Warmup' && features.loss * 2 > 1.0", "write 2.0, not 2"),
        ("phase == 'Warmup' && big(features.loss)", "Undefined variable or function: 'big'"),
    ],
)
def test_a_mistake_is_named(expression: str, said: str) -> None:
    assert said in slips(expression)[0].message


def test_every_mistake_of_an_expression_has_its_place() -> None:
    expression = "features.los > 1.0 && (phase == 'x' || margin) && features.loss + 1 > 2.0"
    assert [expression[slip.offset :][:6] for slip in slips(expression)] == ["los > ", "'x' ||", "margin", "1 > 2."]


def test_every_feature_can_be_asked_for() -> None:
    assert not any(slips(f"has(features.{name})") for name in FEATURES)


@pytest.mark.parametrize(
    "expression, absent",
    [
        ("features.grad_z > 0.0", ["grad_z"]),
        ("features.loss > 1.0", []),
        ("has(features.grad_z) && features.grad_z > 0.0", []),
        ("features.loss > 1.0 || features.grad_z > 0.0", []),
        ("features.loss > 100.0 && features.grad_z > 0.0", []),
        ("features.loss > 100.0 || features.grad_z > 0.0", ["grad_z"]),
        ("features['grad_z'] > 0.0", ["grad_z"]),
    ],
)
def test_an_expression_lacks_data_only_where_its_answer_depends_on_it(expression: str, absent: list[str]) -> None:
    assert lacking(expression, FACTS) == absent


def test_what_every_step_has_need_not_be_asked_for() -> None:
    silent = StepSample(step=0, at=0, ranks=1, loss=None, grad_norm=None, nonfinite=0)
    assert set(features.observe(features.FeatureState(), silent)) >= ALWAYS_KNOWN
