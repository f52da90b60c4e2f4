"""A policy as the page shows it. Pure."""

from typing import Any

from ...governance.policy import Policy
from ...governance.policy_words import of_policy, of_rule


def in_words(policy: Policy) -> dict[str, Any]:
    """Its mode, its words, and those of its rules."""
    rules = [{"name": rule.name, **of_rule(rule, policy.mode)} for rule in policy.rules]
    return {"mode": policy.mode, "words": of_policy(policy), "rules": rules}
