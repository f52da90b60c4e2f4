"""What no part of a policy can know by itself: names that stand twice, data that may be missing, actions beyond the
policy's bounds, tests of rules that are not there.

Looks at the tree and not at the model, so that these faults are told together with all others. Called by
`policy.read_policy`.
"""

from collections.abc import Iterator, Mapping

from pydantic import TypeAdapter, ValidationError

from ..events.actions import ACTION, LR_MULTIPLIER, Action, Revert
from ..events.bounds import Bound, Quantity, beyond
from ..events.decisions import OPERATOR
from . import expression_check, expressions
from .policy_faults import fault
from .policy_yaml import Fault, Node, Path, place_in, plain

BOUNDS: TypeAdapter[dict[Quantity, Bound]] = TypeAdapter(dict[Quantity, Bound])


def faults(root: Node, text: str) -> Iterator[Fault]:
    """Every fault of this kind; parts of another shape than they should have are passed over."""
    rules, bounds = _items(root, "rules"), _bounds(root)
    yield from _unique(rules, "rules")
    yield from _unique(_items(root, "tests"), "tests")
    for number, rule in enumerate(rules):
        yield from _reserved(rule, number)
        yield from _guarded(rule, number, text)
        yield from _for_people(rule, number)
        yield from _possible(rule, number, bounds)
    names = {name.value for rule in rules if (name := _member(rule, "name")) and isinstance(name.value, str)}
    for number, test in enumerate(_items(root, "tests")):
        yield from _of_rules(test, number, names)


def _unique(items: list[Node], key: str) -> Iterator[Fault]:
    first: dict[str, Node] = {}
    for number, item in enumerate(items):
        name = _member(item, "name")
        if name is None or not isinstance(name.value, str):
            continue
        if name.value in first:
            line = first[name.value].mark.line
            yield fault(name.mark, (key, number, "name"), f"{name.value!r} stands twice; first in line {line}")
        first.setdefault(name.value, name)


def _reserved(rule: Node, number: int) -> Iterator[Fault]:
    name = _member(rule, "name")
    if name is not None and name.value == OPERATOR:
        said = f"no rule may be called {OPERATOR!r}: that is how the orders of people are marked"
        yield fault(name.mark, ("rules", number, "name"), said)


def _guarded(rule: Node, number: int, text: str) -> Iterator[Fault]:
    """A feature that may be absent is asked for first, or the rule says what its absence means."""
    when = _member(rule, "when")
    if when is not None and _member(rule, "no_data") is None:
        advice = "or say what its absence means with no_data: ignore, hold or alarm"
        yield from _unguarded(when, ("rules", number, "when"), advice, text)


def _bounds(root: Node) -> Mapping[Quantity, Bound]:
    """The policy's bounds; none where they are wrong themselves, which is said elsewhere."""
    node = _member(root, "bounds")
    try:
        return BOUNDS.validate_python(plain(node)) if node is not None else {}
    except ValidationError:
        return {}


def _possible(rule: Node, number: int, bounds: Mapping[Quantity, Bound]) -> Iterator[Fault]:
    """Actions that no run would ever see done, and a revert where nothing can be put back."""
    verify, undoable = _member(rule, "verify"), False
    for index, node in enumerate(_items(rule, "actions")):
        try:
            action = ACTION.validate_python(plain(node))
        except ValidationError:
            return
        undoable = undoable or action.undoable
        if said := _impossible(action, bounds):
            yield fault(node.mark, ("rules", number, "actions", index), said)
    asked = None if verify is None else _member(verify, "on_failure")
    if asked is not None and asked.value == "revert" and not undoable:
        said = "none of this rule's actions can be put back: data never goes back, and a rollback is none that could be"
        yield fault(asked.mark, ("rules", number, "verify", "on_failure"), said)


def _impossible(action: Action, bounds: Mapping[Quantity, Bound]) -> str:
    if isinstance(action, Revert):
        return "no rule reverts: what did not help is put back where its rule says verify: {on_failure: revert}"
    if action.undoable and action.leaves({LR_MULTIPLIER: 1.0}) == {LR_MULTIPLIER: 1.0}:
        return "a factor of 1 changes nothing"
    at_once: dict[Quantity, Bound] = {
        name: bound.model_copy(update={"min": None, "max": None, "allowed": (), "step": None})
        for name, bound in bounds.items()
    }
    known = {LR_MULTIPLIER: 1.0}
    # Of the multiplier only how far it goes at once is known here; of what is set, all.
    return beyond(bounds, {}, action.leaves({})) or beyond(at_once, known, action.leaves(known)) or ""


def _for_people(rule: Node, number: int) -> Iterator[Fault]:
    """What is said of the data people must judge: a rule that names it may only tell them."""
    verify = _member(rule, "verify")
    asked = [_member(rule, "when"), *(_member(verify, key) for key in ("success", "failure") if verify is not None)]
    words = (expressions.for_people(str(each.value)) for each in asked if each is not None)
    word = next(filter(None, words), None)
    for index, action in enumerate(_items(rule, "actions")):
        kind = _member(action, "action")
        if word is not None and kind is not None and kind.value != "notify":
            said = f"{word} is about the data, which people must judge: a rule that names it may only notify"
            yield fault(action.mark, ("rules", number, "actions", index), said)
    advise = _member(rule, "advise")
    if word is not None and advise is not None:
        said = f"{word} is about the data, which people must judge: a rule that names it asks no advisor"
        yield fault(advise.mark, ("rules", number, "advise"), said)


def _unguarded(expression: Node, path: tuple[int | str, ...], advice: str, text: str) -> Iterator[Fault]:
    if not isinstance(expression.value, str) or expression_check.slips(expression.value):
        return  # said already
    for offset, name in expression_check.unguarded(expression.value):
        said = f"a run may not have features.{name}: write has(features.{name}) && …, {advice}"
        yield fault(place_in(text, expression, offset), path, said)


def _of_rules(test: Node, number: int, names: set[str]) -> Iterator[Fault]:
    """A test may expect something only of rules that there are."""
    for index, expectation in enumerate(_items(test, "expect")):
        path = ("tests", number, "expect", index)
        alarms = enumerate(_items(expectation, "alarms"))
        asked: list[tuple[Path, Node]] = [((*path, "alarms", at), alarm) for at, alarm in alarms]
        interventions = enumerate(_items(expectation, "interventions"))
        asked += [
            ((*path, "interventions", at, "rule"), rule)
            for at, each in interventions
            if (rule := _member(each, "rule"))
        ]
        for place, name in asked:
            if isinstance(name.value, str) and name.value not in names:
                yield fault(name.mark, place, expression_check.not_there("rule", name.value, sorted(names)))


def _items(node: Node, key: str) -> list[Node]:
    below = _member(node, key)
    return below.value if below is not None and isinstance(below.value, list) else []


def _member(node: Node, key: str) -> Node | None:
    found = node.value.get(key) if isinstance(node.value, dict) else None
    return found if isinstance(found, Node) else None
