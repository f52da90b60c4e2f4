import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.events.errors import PolicyInvalid
from pilothouse.governance.policy import (
    MAX_POLICY_BYTES,
    Policy,
    default_policy_text,
    load_policy,
    policy_hash,
    with_mode,
)

RULE = "- {{name: r, when: {when}, actions: [{action}]}}\n"


def policy(when: str = "'true'", action: str = "{action: stop}", head: str = "name: p\n") -> str:
    return f"{head}rules:\n{RULE.format(when=when, action=action)}"


def faults(text: str) -> list[str]:
    with pytest.raises(PolicyInvalid) as wrong:
        load_policy(text)
    return str(wrong.value).splitlines()


def test_the_default_policy_loads_and_only_observes() -> None:
    assert load_policy(default_policy_text()).mode == "observe"


@pytest.mark.parametrize("mode", ["observe", "propose", "enforce"])
def test_a_policy_in_another_mode_differs_in_nothing_else(mode: Any) -> None:
    changed = load_policy(with_mode(default_policy_text(), mode))
    assert changed == load_policy(default_policy_text()).model_copy(update={"mode": mode})


def test_a_text_without_a_mode_line_cannot_be_given_another() -> None:
    with pytest.raises(PolicyInvalid, match="exactly one top-level line"):
        with_mode("name: p\nrules: []\n", "enforce")


def test_all_faults_are_said_at_once_each_with_its_place() -> None:
    text = """
name: P!
mode: enforced
budgte: 3
rules:
- name: first
  when: features.los > 1.0
  for: 0
  actions: [{action: scale_lr, factor: 99.0}, {action: reboot}]
  limit: {count: 65, per: 10}
- name: second
  when: margin
  actions: []
  approval: {by: robot}
  verify: {success: "1 +"}
"""
    said = faults(text)
    assert said[0] == "the policy cannot be used:"
    places = [line.split(":")[0].strip() for line in said[1:]]
    assert places == [
        "name",
        "mode",
        "rules.0.when",
        "rules.0.for",
        "rules.0.actions.0.scale_lr.factor",
        "rules.0.actions.1",
        "rules.0.limit.count",
        "rules.0.limit.per",
        "rules.1.when",
        "rules.1.actions",
        "rules.1.approval.by",
        "rules.1.verify.success",
        "budgte",
    ]


@pytest.mark.parametrize(
    "text, said",
    [
        (policy(head="name: p\nmode: on\n"), "mode: Input should be 'observe', 'propose' or 'enforce'"),
        (policy(head="name: p\nmodus: x\n"), "modus: there is no such key here; there are: name, mode, description"),
        (policy(action="{action: stop, chek: 1}"), "stop.chek: there is no such key here; there are: action, "),
        (policy(action="{action: sotp}"), "rules.0.actions.0: Input tag 'sotp' found using 'action' does not match"),
        (policy(action="{factor: 0.5}"), "rules.0.actions.0: Unable to extract tag using discriminator 'action'"),
        (policy(action="{action: scale_lr, factor: .nan}"), "factor: Input should be a finite number"),
        (policy(action="{action: scale_lr, factor: 0.001}"), "factor: Input should be greater than or equal to 0.01"),
        (policy(action="{action: set_clip, value: 0.0}"), "value: Input should be greater than 0"),
        (policy(action="{action: skip_batches, count: 10001}"), "count: Input should be less than or equal to 10000"),
        (policy(action="{action: rollback, lr_factor: 1.5}"), "lr_factor: Input should be less than or equal to 1"),
        (policy(action="{action: pause, max_seconds: 1.0e9}"), "max_seconds: Input should be less than or equal to"),
        (policy(when="true"), "rules.0.when: Input should be a valid string"),
        (policy(when="features.los > 1.0"), "'features.los > 1.0': no feature 'los'; there are: loss, grad_norm"),
        (policy(when="loss > 1.0"), "no variable 'loss'; there are: features, conditions, reasons, phase, margin"),
        (policy(when="conditions.Stabel == 'False'"), "no condition 'Stabel'; there are: Finite, Stable"),
        (policy(when="conditions.Stable == 'false'"), "no status 'false'; there are: True, False, Unknown"),
        (policy(when="\"phase != 'Norml'\""), "no phase 'Norml'; there are: Unknown, Warmup, Normal"),
        (policy(when="margin"), "gives float, must be true or false"),
        (policy(when="1 +"), "Syntax error"),
        (policy() + RULE.format(when="'true'", action="{action: stop}"), "must be unique, these stand twice: r"),
        (policy().replace("name: r", "name: operator"), "no rule may be called 'operator'"),
        (policy(head="name: p\nmode: enforce\nmode: observe\n"), "the key 'mode' stands twice"),
        (policy(head="name: p\n\tx: y\n"), "the policy is not YAML"),
        ("", "a policy is a mapping with the keys name, mode, description, budget, rules"),
        ("[]", "a policy is a mapping with the keys"),
        ("{}", "name: Field required"),
        ("x" * (MAX_POLICY_BYTES + 1), f"at most {MAX_POLICY_BYTES} bytes, this one {MAX_POLICY_BYTES + 1}"),
        ("name: !!timestamp x", "a value is not what its form or tag says"),
        ("name: !!int ''", "a value is not what its form or tag says"),
        ("name: !!bool x", "a value is not what its form or tag says"),
        ("name: \ud800", "the policy is not YAML"),
        ("&a [*a]", "a policy is a mapping"),
        ("&a {name: *a}", "the policy is not YAML"),
        ("name: !!python/object:os.system x", "could not determine a constructor"),
        ("[" * 5_000, "the policy is not YAML"),
    ],
)  # fmt: skip
def test_every_mistake_says_where_it_is_and_what_to_write_instead(text: str, said: str) -> None:
    assert said in "\n".join(faults(text))


@given(st.text(max_size=60) | st.from_regex(r"(name|mode|rules): [!&*\[{\-'\"a-z0-9 ]{0,20}", fullmatch=True))
def test_any_text_is_a_policy_or_invalid(text: str) -> None:
    with suppress(PolicyInvalid):
        assert isinstance(load_policy(text), Policy)


def test_the_hash_is_of_the_text() -> None:
    assert policy_hash("a") != policy_hash("a ")
    assert re.fullmatch("[0-9a-f]{64}", policy_hash(""))


def test_for_is_the_word_for_how_many_steps() -> None:
    text = "name: p\nrules:\n- {name: r, when: 'true', for: 7, actions: [{action: stop}]}\n"
    assert load_policy(text).rules[0].for_steps == 7
