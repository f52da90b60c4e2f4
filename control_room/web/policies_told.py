"""Policies, and what one proposes, as the page shows them. Pure."""

from collections.abc import Mapping
from typing import Any

from ...events.actions import ACTION
from ...governance.policy import Policy
from ...governance.policy_words import of_action, of_bounds, of_policy, of_rule

ASKED = ("limits", "verified", "runbook")
"""Of a rule, what somebody wants to know who is asked to agree."""


def in_words(policy: Policy) -> dict[str, Any]:
    """Its mode, its words, and those of its rules."""
    rules = [{"name": rule.name, **of_rule(rule, policy.mode)} for rule in policy.rules]
    return {"mode": policy.mode, "words": of_policy(policy), "rules": rules}


def proposal_in_words(proposal: Mapping[str, Any], policy: Policy) -> dict[str, Any]:
    """What a proposal would do (`does`), within which `bounds`, and of its rule what is asked before one agrees
    (`asked`). `policy` is the one in force; a person's own order is of no rule of it.
    """
    action = ACTION.validate_python(proposal["action"])
    words = {rule.name: of_rule(rule, policy.mode) for rule in policy.rules}.get(proposal["rule"], {})
    return {
        "does": of_action(action),
        "bounds": of_bounds({name: bound for name, bound in policy.bounds.items() if name in action.changes}),
        "asked": {name: words[name] for name in ASKED if name in words},
    }
