"""Silences: rules that people have asked to keep still for a while.

A silenced rule is judged as ever, and what it would have done stands in the record, declined in the name of whoever
silenced it. Made by `orders`, asked by `decide`. Bounded: those that are over make room for new ones.
"""

from collections.abc import Callable

import msgspec

from .policy import Rule

MOST = 16
"""Silences that may be in force in a run at the same time."""
WORDS = 200


class Silence(msgspec.Struct, frozen=True):
    """Of one rule, of the rules whose `when` names a condition, or (both empty) of all, until so many steps were judged
    in the run's life, or until a tick; -1 for the other.
    """

    who: str
    why: str
    rule: str = ""
    condition: str = ""
    until_judged: int = -1
    until_tick: int = -1

    @property
    def about(self) -> str:
        """What it silences, in words."""
        if self.rule:
            return f"rule {self.rule}"
        return f"the rules about {self.condition}" if self.condition else "every rule"

    @property
    def words(self) -> str:
        """Why a silenced rule does nothing."""
        return f"silenced by {self.who}: {self.why}" if self.why else f"silenced by {self.who}"

    def covers(self, rule: Rule) -> bool:
        """Whether it is about this rule."""
        if self.rule:
            return rule.name == self.rule
        return not self.condition or names_condition(rule, self.condition)

    def in_force(self, judged: int, tick: int) -> bool:
        """Whether it holds at the step that is the run's so-manieth, and at this tick."""
        return judged <= self.until_judged or tick < self.until_tick


def names_condition(rule: Rule, condition: str) -> bool:
    """Whether a rule looks at this condition, by its status or its reason."""
    return any(f"{variable}.{condition}" in rule.when for variable in ("conditions", "reasons"))


def of_rule(silences: list[Silence], rule: Rule, judged: int, tick: int) -> Silence | None:
    """The silence that keeps this rule still now."""
    for known in silences:
        if known.covers(rule) and known.in_force(judged, tick):
            return known
    return None


def without(silences: list[Silence], gone: Callable[[Silence], bool]) -> list[Silence]:
    """What is left of them."""
    return [known for known in silences if not gone(known)]
