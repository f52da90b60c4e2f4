"""Policy expressions: what is wrong is said with what to write instead, and an evaluation sees all it names."""

import math

import pytest

from pilothouse.governance.expressions import FEATURES, check, facts_of, holds

FACTS = facts_of(
    {"loss": 2.0, "loss_z": 9.0},
    {"Stable": "False", "Finite": "True"},
    "Unstable",
    None,
    {"Stable": "LossClimbing", "Finite": "AllFinite"},
)


@pytest.mark.parametrize(
    "expression, true",
    [
        ("conditions.Stable == 'False'", True),
        ("conditions.Stable == 'False' && conditions.Finite == 'False'", False),
        ("has(features.loss_z) && features.loss_z > 6.0", True),
        ("features['loss'] > 1.0", True),
        ("conditions.exists(name, conditions[name] == 'False')", True),
        ("features.loss > 1.0 && features.all(name, features[name] > 1.0)", True),
        ("features.loss > 1.0 || 'features.gone' == ''", True),
        ("size(features) == 2", True),
        ("margin == 1.0 && phase == 'Unstable'", True),
        ("reasons.Stable == 'LossClimbing' && reasons.Finite != 'LossClimbing'", True),
        ("reasons.exists(name, reasons[name] == 'Plateau')", False),
        ("features.grad_z > 0.0", False),
        ("!has(features.grad_z)", True),
    ],
)
def test_an_expression_sees_whatever_it_names(expression: str, true: bool) -> None:
    assert check(expression) is None
    assert holds(expression, FACTS) is true


def test_a_comparison_with_nan_is_false() -> None:
    facts = facts_of({"loss": math.nan}, {}, "Normal", None)
    assert not holds("features.loss > 1.0", facts)
    assert not holds("features.loss <= 1.0", facts)


@pytest.mark.parametrize(
    "expression, said",
    [
        ("features.los > 1.0", "no feature 'los'"),
        ("featurs.loss > 1.0", "no variable 'featurs'"),
        ("reasons.Stabel == 'LossClimbing'", "no condition 'Stabel'"),
        ("features.loss", "must be true or false"),
        ("features.loss >", "Syntax error"),
        ("features.loss + 1 > 2.0", "write 6.0, not 6"),
    ],
)
def test_a_mistake_is_named(expression: str, said: str) -> None:
    assert said in (check(expression) or "")


def test_every_feature_can_be_asked_for() -> None:
    assert all(check(f"has(features.{name})") is None for name in FEATURES)
