"""A policy file: every mistake is told at once, with its line, its column and what to write instead."""

import re
from pathlib import Path
from typing import Any

import pytest

from pilothouse.events.errors import PolicyInvalid
from pilothouse.governance import policy as module
from pilothouse.governance.policy import (
    MAX_POLICY_BYTES,
    SHIPPED,
    decoded,
    default_policy_text,
    load_policy,
    policy_hash,
    read_policy,
    shipped_policy_text,
    with_mode,
)
from pilothouse.governance.policy_faults import ACTIONS
from pilothouse.governance.policy_schema import FILE, HEADER, MEANINGS, schema, schema_text
from pilothouse.governance.policy_yaml import MAX_VALUES

RULE = "- {{name: r, when: {when}, actions: [{action}]}}\n"


def policy(when: str = "'true'", action: str = "{action: stop}", head: str = "name: p\n") -> str:
    return f"{head}rules:\n{RULE.format(when=when, action=action)}"


def faults(text: str) -> list[str]:
    loaded, found = read_policy(text)
    assert loaded is None
    return [f"{fault.mark.line}:{fault.mark.column} {fault.part}: {fault.message}" for fault in found]


def test_the_default_policy_loads_and_only_observes() -> None:
    assert load_policy(default_policy_text()).mode == "observe"


@pytest.mark.parametrize("mode", ["observe", "propose", "enforce"])
def test_a_policy_in_another_mode_differs_in_nothing_else(mode: Any) -> None:
    changed = load_policy(with_mode(default_policy_text(), mode))
    assert changed == load_policy(default_policy_text()).model_copy(update={"mode": mode})


def test_a_text_without_a_mode_line_cannot_be_given_another() -> None:
    with pytest.raises(PolicyInvalid, match="exactly one top-level line"):
        with_mode("name: p\nrules: []\n", "enforce")


WRONG = """\
name: P!
mode: enforced
budgte: 3
applies_to: {team: [vision, 3], clustr: x}
rules:
- name: first
  when: features.los > 1.0 && conditions.Stabel == 'false'
  for: 0
  actions: [{action: scale_lr, factor: 99.0}, {action: reboot}, {factor: 3}]
  limit: {count: 65, per: 10}
- name: second
  when: margin
  actions: []
  approval: {by: robot}
  verify: {success: "1 +"}
- name: second
  when: >-
    margin < 0.5
    && has(features.loss) && features.loss + 2 > 1.0
  for: on
  actions: [{action: stop, checkpoint: yes}]
- when: features.val_loss > 2.0
  actions: [{action: notify, message: 3}]
tests:
- name: t
  series: {los: 2.0, loss: 1.0x3 q}
  expect: [{at: 9..3, phase: normal, alarms: [frst]}]
"""
TOLD = [
    "1:7 name: got 'P!'; a name is small letters, digits, - and _, begins with a letter, has at most 64",
    "2:7 mode: no value 'enforced'; did you mean 'enforce'? There are: observe, propose, enforce",
    "3:1 budgte: no key 'budgte'; did you mean 'budget'? There are: name, mode, description, ",
    "4:29 applies_to.team.1: must be a text, got 3: write it in quotes, '3'",
    "4:33 applies_to.clustr: no key 'clustr'; did you mean 'cluster'? There are: model_family, ",
    "7:18 rules.0.when: no feature 'los'; did you mean 'loss'?",
    "7:42 rules.0.when: no condition 'Stabel'; did you mean 'Stable'?",
    "7:52 rules.0.when: no status 'false'; did you mean 'False'? There are: True, False, Unknown",
    "8:8 rules.0.for: must be at least 1, got 0",
    "9:40 rules.0.actions.0.factor: must be at most 2, got 99.0",
    "9:47 rules.0.actions.1: no action 'reboot'; there are: scale_lr, ",
    "9:65 rules.0.actions.2: an action says what it does: {action: …}; there are: scale_lr, ",
    "10:18 rules.0.limit.count: must be at most 64, got 65",
    "10:22 rules.0.limit.per: no key 'per'; there are: count, window_steps",
    "12:9 rules.1.when: margin gives a number, must be true or false",
    "13:12 rules.1.actions: needs at least 1, has 0",
    "14:18 rules.1.approval.by: no value 'robot'; there are: auto, human",
    "15:25 rules.1.verify.success: the expression ends where something is missing",
    "16:9 rules.2.name: 'second' stands twice; first in line 11",
    "19:46 rules.2.when: numbers are doubles: write 2.0, not 2",
    "20:8 rules.2.for: must be a whole number, got 'on'",
    "21:40 rules.2.actions.0.checkpoint: must be true or false, got 'yes'",
    "22:3 rules.3.name: is missing",
    "22:18 rules.3.when: a run may not have features.val_loss: write has(features.val_loss) && …, or say what its",
    "23:39 rules.3.actions.0.message: must be a text, got 3: write it in quotes, '3'",
    "26:17 tests.0.series.los: no run is judged by 'los'; did you mean 'loss'?",
    "26:28 tests.0.series.loss: 'q' is no term of a series; write 2.0, 2.0x40, ",
    "27:17 tests.0.expect.0.at: 9..3 runs backwards: write 3..9",
    "27:30 tests.0.expect.0.phase: no value 'normal'; did you mean 'Normal'?",
    "27:47 tests.0.expect.0.alarms.0: no rule 'frst'; did you mean 'first'?",
]  # fmt: skip


def test_all_mistakes_are_told_at_once_each_with_its_place_and_what_to_write() -> None:
    found = faults(WRONG)
    assert [line.split(": ")[0] for line in found] == [line.split(": ")[0] for line in TOLD]
    for line, told in zip(found, TOLD, strict=True):
        assert line.startswith(told)


def test_an_invalid_policy_raises_with_every_line() -> None:
    with pytest.raises(PolicyInvalid) as wrong:
        load_policy(WRONG)
    first, *lines = str(wrong.value).splitlines()
    assert first == "the policy cannot be used:"
    assert len(lines) == len(TOLD)
    assert lines[1].startswith("  line 2, column 7: mode: no value 'enforced'")


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcde", "bcdef", strict=True)
)


@pytest.mark.parametrize(
    "text, said",
    [
        (policy(head="name: p\nmode: on\n"), "2:7 mode: no value 'on'; there are: observe, propose, enforce"),
        (policy(head="name: p\nmode: true\n"), "mode: must be observe or propose or enforce, got true"),
        (policy(action="{action: stop, chek: 1}"), "actions.0.chek: no key 'chek'; there are: action, checkpoint"),
        (policy(action="{action: sotp}"), "rules.0.actions.0: no action 'sotp'; did you mean 'stop'?"),
        (policy(action="{action: scale_lr, factor: .nan}"), "factor: must be a finite number, got nan"),
        (policy(action="{action: scale_lr, factor: '0.5'}"), "must be a number, got '0.5': write 0.5 without quotes"),
        (policy(action="{action: scale_lr, factor: 0.001}"), "factor: must be at least 0.01, got 0.001"),
        (policy(action="{action: set_clip, value: 0.0}"), "value: must be more than 0, got 0.0"),
        (policy(action="{action: skip_batches, count: 10001}"), "count: must be at most 10000, got 10001"),
        (policy(action="{action: skip_batches, count: 4.0}"), "count: must be a whole number, got 4.0: write 4"),
        (policy(action="{action: rollback, lr_factor: 1.5}"), "lr_factor: must be at most 1, got 1.5"),
        (policy(action="{action: pause, max_seconds: 1e9}"), "max_seconds: must be at most 86400, got 1000000000.0"),
        (policy(action="stop"), "rules.0.actions.0: "),
        (policy(when="true"), "rules.0.when: must be a text, got true: write it in quotes, 'true'"),
        (policy(when="loss > 1.0"), "no variable 'loss'; write features.loss"),
        (policy(when="''"), "rules.0.when: must not be empty"),
        (policy().replace("name: r", "name: operator"), "rules.0.name: no rule may be called 'operator'"),
        (policy() + "name: q\n", "4:1 : the key 'name' stands twice; first in line 1"),
        ("name: p\n\trules: []\n", "2:1 : a tab: YAML is indented with spaces"),
        ("rules:\n- {name: r,\twhen: [}", "2:12 : a tab: YAML is indented with spaces"),
        ("name: p\nrules: [{name: r, when: !has(features.loss), actions: []}]", "is a tag in YAML: a text that begins"),
        ("when: !has(features.loss) && true", "1:28 : an expression that begins with ! needs quotes around it"),
        ("name: 'p\nrules: []\n", "1:7 : what is opened here (a quote, a bracket) is never closed"),
        ("name: a: b", "a colon where no key can be"),
        ("", "1:1 : a policy is a mapping with the keys name, mode, description, applies_to, budget, limit"),
        ("[]", "a policy is a mapping with the keys"),
        ("{}", "1:1 name: is missing"),
        ("x" * (MAX_POLICY_BYTES + 1), f"at most {MAX_POLICY_BYTES} bytes, this one {MAX_POLICY_BYTES + 1}"),
        ("name: !!int ''", "tag:yaml.org,2002:int is a tag in YAML"),
        ("name: !!python/object:os.system x", "is a tag in YAML"),
        ("name: \ud800", "1:7 : this character may not stand in YAML"),
        ('name: "\\ud800"', "1:7 : half a surrogate pair is no character"),
        ('name: "\\UFFFFFFFF"', "this is not YAML ("),
        ("name: p\nbudget: 010\nrules: []", "2:9 : YAML programs disagree about 010: write 10"),
        ("name: p\nbudget: 99999999999999999999\nrules: []", "a number of 20 digits is none that a policy may have"),
        ("name: p\nbudget: 12:30\nrules: []", "2:9 budget: must be a whole number, got '12:30'"),
        ("&a [*a]", "1:5 : *a would contain itself"),
        ("name: *a", "nothing is called &a above"),
        (BOMB, f"more than {MAX_VALUES} values, counting what aliases (*) stand for"),
        ("<<: {name: p}", "merging (<<) is not understood here"),
        ("name: p\n---\nname: q\n", "2:1 : a second document begins here: one policy a file"),
        ("? [a]\n: b", "a key must be a word"),
        ("[" * 5_000, "nested deeper than 16 levels"),
        ("- " * 5_000, "nested deeper than 16 levels"),
        (policy("'" + "(" * 900 + "true" + ")" * 900 + "'"), "nested deeper than 24 levels"),
        (policy("'" + "!" * 900 + "true'"), "nested deeper than 24 levels"),
    ],
)  # fmt: skip
def test_every_mistake_says_where_it_is_and_what_to_write_instead(text: str, said: str) -> None:
    assert said in "\n".join(faults(text))


def test_an_alias_is_read_where_it_stands() -> None:
    text = (
        policy() + "  verify: &v {window_steps: 7}\n- {name: s, when: 'true', actions: [{action: stop}], verify: *v}\n"
    )
    text = text.replace(
        "- {name: r, when: 'true', actions: [{action: stop}]}\n",
        "- name: r\n  when: 'true'\n  actions: [{action: stop}]\n",
    )
    assert [rule.verify.window_steps for rule in load_policy(text).rules] == [7, 7]


@pytest.mark.parametrize("no_data", ["ignore", "hold", "alarm"])
def test_a_rule_that_says_what_missing_data_means_need_not_ask_for_it(no_data: str) -> None:
    text = (
        f"name: p\nrules: [{{name: r, when: features.val_loss > 2.0, no_data: {no_data}, actions: [{{action: stop}}]}}]"
    )
    assert load_policy(text).rules[0].no_data == no_data


@pytest.mark.parametrize(
    "when",
    [
        "has(features.val_loss) && features.val_loss > 2.0",
        "!has(features.val_loss) || features.val_loss > 2.0",
        "'val_loss' in features && features.val_loss > 2.0",
        "features.nonfinite > 0.0",
        "features.exists(name, features[name] > 1e6)",
    ],
)
def test_a_rule_that_asks_for_its_data_first_needs_no_word_for_its_absence(when: str) -> None:
    load_policy(policy(f'"{when}"'))


def test_what_verifies_may_lack_its_data_for_then_it_is_inconclusive() -> None:
    verify = "verify: {success: features.val_loss < 2.0}"
    assert (
        load_policy(policy().replace("]}\n", f"], {verify}}}\n")).rules[0].verify.success == "features.val_loss < 2.0"
    )


def test_the_hash_is_of_the_text() -> None:
    assert policy_hash("a") != policy_hash("a ")
    assert re.fullmatch("[0-9a-f]{64}", policy_hash(""))


def test_for_is_the_word_for_how_many_steps() -> None:
    text = "name: p\nrules:\n- {name: r, when: 'true', for: 7, actions: [{action: stop}]}\n"
    assert load_policy(text).rules[0].for_steps == 7


def test_a_file_that_is_not_utf_8_says_in_which_line() -> None:
    with pytest.raises(PolicyInvalid, match="line 2 has the byte 0xff"):
        decoded(b"name: p\ndescription: \xff\n")
    assert decoded(b"\xef\xbb\xbfname: p\n") == "name: p\n"


def test_the_schema_beside_the_shipped_policies_is_that_of_this_code() -> None:
    shipped = Path(module.__file__).parent / "policies" / FILE
    assert shipped.read_text(encoding="utf-8") == schema_text(), (
        "run: pilothouse policy schema > governance/policies/" + FILE
    )


def test_every_part_of_a_policy_is_explained_to_editors() -> None:
    made = schema()
    parts = {"Policy": made, **made["$defs"]}
    assert set(MEANINGS) == set(parts) - {kind.__name__ for kind in ACTIONS.values()} - {"CheckpointRef"}
    for name, meanings in MEANINGS.items():
        assert set(parts[name]["properties"]) == set(meanings), name


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_policy_names_the_schema_for_editors(name: str) -> None:
    assert shipped_policy_text(name).startswith(HEADER)
