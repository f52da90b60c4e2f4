"""What differs between two policies, in words and not in lines: rule by rule, what was and what is.

Called by `pilothouse policy diff`, and by `activate` to say what changes.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from .policy import Policy
from .policy_words import of_policy, of_rule

Kind = Literal["changed", "added", "removed", "moved"]


class Difference(NamedTuple):
    """One difference. `where` is a rule's name, or empty for the policy as a whole; `part` what differs there."""

    kind: Kind
    where: str
    part: str
    was: str
    now: str

    def __str__(self) -> str:
        about = f"rule {self.where}" if self.where else "policy"
        match self.kind:
            case "added":
                return f"{about}: new. {self.now}"
            case "removed":
                return f"{about}: gone. It was: {self.was}"
            case "moved":
                return f"{about}: asked {self.now}, was {self.was}"
            case "changed":
                return f"{about}: {self.part}: {self.now or 'nothing'}; was: {self.was or 'nothing'}"


def differences(before: Policy, after: Policy) -> Iterator[Difference]:
    """Everything that a person would notice: texts for people count, comments and the order of keys do not."""
    yield from _changed("", _whole(before), _whole(after))
    old, new = ({rule.name: rule for rule in policy.rules} for policy in (before, after))
    for name, rule in new.items():
        now = of_rule(rule, after.mode)
        if name in old:
            # in the mode of the new one: that the mode changed is said once
            yield from _changed(name, of_rule(old[name], after.mode), now)
        else:
            yield Difference("added", name, "", "", _gist(now))
    for name, rule in old.items():
        if name not in new:
            yield Difference("removed", name, "", _gist(of_rule(rule, before.mode)), "")
    yield from _moved([name for name in old if name in new], [name for name in new if name in old])


def _whole(policy: Policy) -> dict[str, str]:
    tests = f"{len(policy.tests)}"
    return {"name": policy.name, **of_policy(policy), "about": " ".join(policy.description.split()), "tests": tests}


def _changed(where: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[Difference]:
    for part in dict.fromkeys([*before, *after]):
        was, now = before.get(part, ""), after.get(part, "")
        if was != now:
            yield Difference("changed", where, part, was, now)


def _gist(parts: Mapping[str, str]) -> str:
    return f"When {parts['when']} ({parts['for']}): {parts['does']}"


def _moved(before: list[str], after: list[str]) -> Iterator[Difference]:
    """Rules are asked in order, and the first that may act does: a rule that comes earlier goes before the others."""
    for name in after:
        was, now = before.index(name), after.index(name)
        if now < was:
            yield Difference("moved", name, "order", _behind(before, was), _behind(after, now))


def _behind(names: list[str], index: int) -> str:
    return f"behind {names[index - 1]}" if index else "first"
