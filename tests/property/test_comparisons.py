"""Expressions that only compare are answered by functions of ours: always as the engine would have answered."""

import math
from collections.abc import Mapping
from typing import Any

import cel
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pilothouse.events.decisions import ConditionType, Status
from pilothouse.governance import comparisons
from pilothouse.governance.conditions import Condition
from pilothouse.governance.expressions import facts_of, holds
from pilothouse.governance.policy import Verify, default_policy_text, load_policy

FEATURES = ("loss", "loss_z", "grad_z")
CONDITIONS: tuple[ConditionType, ...] = ("Finite", "Stable")
STATUSES: tuple[Status, ...] = ("True", "False", "Unknown")
PHASES = ("Normal", "Stressed")
ORDERS = ("<", "<=", ">", ">=", "==", "!=")

NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 2.5, -3.0, math.nan, math.inf, -math.inf, 1e-300, 1e300]),
    st.floats(-10.0, 10.0),
)
REASONS = ("LossClimbing", "NoStepEnded")


def conditions(known: dict[ConditionType, tuple[Status, str]]) -> dict[ConditionType, Condition]:
    return {name: Condition(name, status=status, reason=reason) for name, (status, reason) in known.items()}


FACTS = st.builds(
    facts_of,
    st.dictionaries(st.sampled_from(FEATURES), NUMBERS),
    st.dictionaries(st.sampled_from(CONDITIONS), st.tuples(st.sampled_from(STATUSES), st.sampled_from(REASONS))).map(
        conditions
    ),
    st.sampled_from(PHASES),
    st.sampled_from([None, 0.0, 0.25, 1.0]),
)

numbers = st.one_of(
    st.sampled_from([f"features.{name}" for name in FEATURES]),
    st.just("margin"),
    st.sampled_from(["0.0", "-1.0", "1", "2.5", "0.25", "1.0e2", "-2.5E-1", "7"]),
)
words = st.one_of(
    st.sampled_from([f"{variable}.{name}" for name in CONDITIONS for variable in ("conditions", "reasons")]),
    st.just("phase"),
    st.sampled_from([f"{quote}{word}{quote}" for word in (*STATUSES, *REASONS, *PHASES, "") for quote in "'\""]),
)
spaces = st.sampled_from(["", " ", "  ", "\n"])


@st.composite
def comparison(draw: st.DrawFn) -> str:
    space = draw(spaces)
    if draw(st.booleans()):
        return f"{draw(numbers)}{space}{draw(st.sampled_from(ORDERS))}{space}{draw(numbers)}"
    return f"{draw(words)}{space}{draw(st.sampled_from(['==', '!=']))}{space}{draw(words)}"


@st.composite
def presence(draw: st.DrawFn) -> str:
    member = draw(
        st.sampled_from(
            [f"features.{n}" for n in FEATURES] + [f"{v}.{n}" for n in CONDITIONS for v in ("conditions", "reasons")]
        )
    )
    return f"has({member})"


def joined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, spaces, st.sampled_from(["&&", "||"]), spaces, inner).map("".join),
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"!({text})"),
        inner.map(lambda text: f"!!({text})"),
    )


PLAIN = st.recursive(st.one_of(comparison(), presence()), joined, max_leaves=6)
BEYOND = st.sampled_from(
    [
        "features['loss'] > 1.0",
        "features.loss + 1.0 > 2.0",
        "features.loss -1.0 > 2.0",
        "margin > 1e1",
        "margin > .5",
        "phase > 'N'",
        "phase in ['Normal']",
        "phase == 'Nor\\u006dal'",
        "phase == r'Normal'",
        "phase == '''Normal'''",
        "(margin) == (1.0)",
        "!margin == 1.0",
        "!conditions.Stable == 'True'",
        "!(margin == 1.0) == false",
        "margin == 1.0 == true",
        "margin == 1.0 // all is well",
        "features.loss == 'True'",
        "conditions.exists(name, conditions[name] == 'False')",
        "size(features) > 1",
        "true",
        "features . loss > 1.0",
        "margin < 0x10",
        "phase.startsWith('N')",
        "margin > 0.5 ? true : false",
        "features.loss > 99999999999999999999.0",
    ]
)


def asked_of_the_engine(expression: str, facts: Mapping[str, Any]) -> bool | None:
    """None where it finds an error."""
    known = dict(facts)
    known["conditions"] = {name: condition.status for name, condition in facts["conditions"].items()}
    known["reasons"] = {name: condition.reason for name, condition in facts["conditions"].items()}
    try:
        answer = cel.compile(expression).execute(known)
    except Exception:  # noqa: BLE001  # it documents no tree of errors
        return None
    assert isinstance(answer, bool)
    return answer


@settings(max_examples=300)
@given(PLAIN, FACTS)
@example("features.loss > 1.0 || margin == 1.0", facts_of({}, {}, "Normal", 1.0))
@example("features.loss > 1.0 && margin == 0.0", facts_of({}, {}, "Normal", 1.0))
@example("!(features.loss > 1.0)", facts_of({"loss": math.nan}, {}, "Normal", 1.0))
@example("!(features.loss == 1.0)", facts_of({"loss": math.nan}, {}, "Normal", 1.0))
def test_what_only_compares_is_answered_as_the_engine_answers(expression: str, facts: Mapping[str, Any]) -> None:
    question = comparisons.compiled(expression)
    assert question is not None
    assert question(facts) is asked_of_the_engine(expression, facts)


@settings(max_examples=100)
@given(st.one_of(PLAIN, BEYOND, st.tuples(PLAIN, st.sampled_from([" && ", " || "]), BEYOND).map("".join)), FACTS)
def test_whatever_an_expression_says_it_holds_where_the_engine_says_true(
    expression: str, facts: Mapping[str, Any]
) -> None:
    assert holds(expression, facts) is (asked_of_the_engine(expression, facts) is True)


@settings(max_examples=100)
@given(st.text("features.loss margin phase has()!&|<>='\"0123456789.eE-\n\\", max_size=40), FACTS)
def test_what_is_no_expression_holds_of_nothing(text: str, facts: Mapping[str, Any]) -> None:
    try:
        cel.compile(text)
    except ValueError:
        assert not holds(text, facts)


@pytest.mark.parametrize("depth", [10, 1_000])
def test_depth_is_no_danger(depth: int) -> None:
    text = "(" * depth + "margin == 1.0" + ")" * depth
    assert (comparisons.compiled(text) is None) == (depth > comparisons.MAX_DEPTH)


def test_no_rule_of_the_shipped_policy_needs_the_engine() -> None:
    rules = load_policy(default_policy_text()).rules
    asked = [text for rule in rules for text in (rule.when, rule.verify.success, rule.verify.failure)]
    assert all(comparisons.compiled(text) is not None for text in (*asked, Verify().success, Verify().failure))
