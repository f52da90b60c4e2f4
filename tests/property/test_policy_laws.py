"""Any text is a policy or a list of mistakes, soon; a policy that is written out and read again is the same."""

import time
from contextlib import suppress
from random import Random

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from pilothouse.events.actions import Notify, Rollback, ScaleLr, SetClip, SkipBatches, Stop
from pilothouse.events.errors import PolicyInvalid
from pilothouse.governance.applies_to import AppliesTo, Subject, chosen, ties
from pilothouse.governance.expression_check import slips
from pilothouse.governance.policy import (
    MAX_POLICY_BYTES,
    Approval,
    Limit,
    Policy,
    Rule,
    Verify,
    decoded,
    default_policy_text,
    dump_policy,
    load_policy,
    read_policy,
)
from pilothouse.governance.trials import Expectation, Trial
from pilothouse.tests.fuzzing import examples

pytestmark = pytest.mark.fuzz

SECONDS = 5.0
"""What a policy takes takes tens of milliseconds; a blow-up takes minutes, and this machine may be busy."""
WORDS = st.sampled_from(
    [
        *("name", "mode", "rules", "when", "for", "actions", "action", "stop", "verify", "tests", "series", "expect"),
        *("applies_to", "team", "tags", "budget", "true", "nan", "010", "1e3", "<<", "*a", "&a", "!!int", "!x", "|"),
        *(">", "'", '"', "[", "]", "{", "}", "-", ":", ",", "#", "%", "@", "---", "...", "\t", "\x00", "\ufeff"),
        *("features.loss", "has(features.loss)", "&&", "||", "(", ")", "1", "2.0"),
    ]
)
SNIPPETS = st.lists(WORDS | st.sampled_from(["\n", "\n  ", "\n- ", ": ", " "]), max_size=60).map("".join)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def mutated(text: str) -> st.SearchStrategy[str]:
    """The policy with a piece of it cut out, and another put in its place."""
    places = st.tuples(st.integers(0, len(text)), st.integers(0, 40), SNIPPETS | st.text(max_size=8))
    return places.map(lambda cut: text[: cut[0]] + cut[2] + text[cut[0] + cut[1] :])


def answers(text: str) -> None:
    began = time.process_time()
    policy, faults = read_policy(text)
    assert (policy is None) == bool(faults)
    lines = text.count("\n") + text.count("\r") + text.count("\x85") + text.count("\u2028") + text.count("\u2029") + 2
    assert all(1 <= fault.mark.line <= lines and fault.mark.column >= 1 and fault.message for fault in faults)
    assert time.process_time() - began < SECONDS


@examples(40)
@given(st.text(max_size=80) | SNIPPETS | mutated(default_policy_text()))
@example("[" * MAX_POLICY_BYTES)
@example("{? " * 10_000)
@example("- " * (MAX_POLICY_BYTES // 2))
@example("a: &a [" + "1, " * 9_000 + "1]\nb: [" + "*a, " * 1_000 + "*a]\n")
@example("1:" * (MAX_POLICY_BYTES // 2))
@example("budget: " + "9" * 30_000)
@example("rules: [{when: '" + "(" * 30_000 + "'}]")
@example("rules: [{when: '" + "!" * 1_900 + "true'}]")
@example("rules: [{when: '" + "true && " * 240 + "true'}]")
@example("'" * MAX_POLICY_BYTES)
@example("#" * MAX_POLICY_BYTES)
def test_any_text_is_a_policy_or_a_list_of_mistakes(text: str) -> None:
    answers(text)


@examples(40)
@given(PLAIN | st.fixed_dictionaries({"name": PLAIN, "rules": st.lists(st.dictionaries(WORDS, PLAIN)), "tests": PLAIN}))
def test_any_yaml_is_a_policy_or_a_list_of_mistakes(value: object) -> None:
    answers(yaml.safe_dump(value))


@given(st.binary(max_size=200) | SNIPPETS.map(str.encode))
def test_any_bytes_are_a_text_or_not_a_policy(body: bytes) -> None:
    with suppress(PolicyInvalid):
        assert isinstance(load_policy(decoded(body)), Policy)


@examples(60)
@given(st.text(max_size=60) | SNIPPETS)
def test_any_expression_is_right_or_its_slips_have_places(expression: str) -> None:
    assert all(0 <= slip.offset <= len(expression) and slip.message for slip in slips(expression))


NAME = st.from_regex(r"[a-z][a-z0-9_-]{0,10}", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
EXPRESSIONS = st.sampled_from(
    [
        "conditions.Stable == 'False'",
        "has(features.loss) && features.loss > 2.5",
        "margin < 0.5 || phase in ['Stalled']",
    ]
)
ACTIONS = st.one_of(
    st.builds(ScaleLr, factor=st.floats(0.01, 2.0)),
    st.builds(SetClip, value=st.floats(0.001, 1_000.0)),
    st.builds(SkipBatches, count=st.integers(1, 10_000)),
    st.builds(Rollback, checkpoint=st.none(), skip_batches=st.integers(0, 100), lr_factor=st.floats(0.01, 1.0)),
    st.builds(Stop, checkpoint=st.booleans()),
    st.builds(Notify, message=TEXT),
)
PATTERNS = st.none() | st.lists(st.text("ab*?", min_size=1, max_size=4), min_size=1, max_size=3).map(tuple)
APPLIES = st.builds(
    AppliesTo,
    model_family=PATTERNS,
    architecture=PATTERNS,
    cluster=PATTERNS,
    team=PATTERNS,
    tags=st.dictionaries(st.sampled_from(["x", "y"]), PATTERNS.filter(bool), max_size=2),
    precedence=st.integers(-1, 1),
)
TRIALS = st.builds(
    Trial,
    name=TEXT,
    series=st.just({"loss": "2.0x3~0.1 nan"}),
    mode=st.sampled_from([None, "observe"]),
    ranks=st.integers(1, 8),
    steers=st.none() | st.just(("stop",)),
    obeys=st.booleans(),
    expect=st.builds(Expectation, at=st.just("0..3"), phase=st.just("Warmup"), alarms=st.none() | st.just(())).map(
        lambda one: (one,)
    ),
)
RULES = st.builds(
    Rule,
    name=NAME.filter(lambda name: name != "operator"),
    when=EXPRESSIONS,
    for_steps=st.integers(1, 10),
    no_data=st.sampled_from([None, "ignore", "hold", "alarm"]),
    severity=st.sampled_from(["page", "ticket", "info"]),
    runbook=TEXT,
    actions=st.lists(ACTIONS, min_size=1, max_size=4).map(tuple),
    approval=st.builds(Approval, by=st.sampled_from(["auto", "human"]), timeout_seconds=st.integers(1, 9)),
    limit=st.builds(Limit, count=st.integers(1, 64)),
    verify=st.builds(Verify, window_steps=st.integers(1, 9), success=EXPRESSIONS, failure=EXPRESSIONS),
)
POLICIES = st.builds(
    Policy,
    name=NAME,
    mode=st.sampled_from(["observe", "propose", "enforce"]),
    description=TEXT,
    applies_to=APPLIES,
    budget=st.integers(0, 100),
    rules=st.lists(RULES, max_size=4, unique_by=lambda rule: rule.name).map(tuple),
    tests=st.lists(TRIALS, max_size=2, unique_by=lambda trial: trial.name).map(tuple),
)


@examples(20)
@given(POLICIES)
@example(Policy(name="p", description="a\x85b\u2028c\ud7ff: #", rules=()))
def test_a_policy_that_is_written_out_and_read_again_is_the_same(policy: Policy) -> None:
    assert load_policy(dump_policy(policy)) == policy


SUBJECTS = st.builds(
    Subject,
    *[st.text("abA", max_size=3)] * 4,
    tags=st.dictionaries(st.sampled_from(["x", "y"]), st.text("ab", max_size=2), max_size=2),
)


@examples(40)
@given(st.lists(APPLIES, min_size=2, max_size=5), SUBJECTS, st.randoms(use_true_random=False))
def test_of_policies_without_a_tie_one_governs_a_run_in_whatever_order_they_are_read(
    policies: list[AppliesTo], subject: Subject, random: Random
) -> None:
    numbered = [(applies, number) for number, applies in enumerate(policies)]
    fitting = [applies.order for applies in policies if applies.fits(subject)]
    if fitting.count(max(fitting, default=(0, 0))) > 1:
        assert list(ties([(str(number), applies) for applies, number in numbered]))
        return
    random.shuffle(numbered)
    assert chosen(numbered, subject) == chosen(sorted(numbered, key=lambda each: each[1]), subject)
    assert (chosen(numbered, subject) is None) == (not fitting)
