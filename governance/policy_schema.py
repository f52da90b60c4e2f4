"""The JSON Schema of a policy file, for editors: what may stand where, and what it means, as one types.

Called by `pilothouse policy schema`; a copy lies beside the shipped policies, which name it in their first line for the
YAML language server. It knows the shape and the bounds; what `pilothouse policy check` knows besides is in the
expressions.
"""

import json
from typing import Any

from .policy import Policy

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FILE = "policy.schema.json"
HEADER = f"# yaml-language-server: $schema={FILE}\n"
"""The first line of a policy whose editor is to check it, with the schema beside it."""

MEANINGS: dict[str, dict[str, str]] = {
    "Policy": {
        "name": "What the policy is called, in logs and lists.",
        "mode": "observe: record what it would do. propose: ask a person each time. enforce: act.",
        "description": "For people: what this policy is for.",
        "applies_to": "Which runs it governs; without it, every run that no policy names more closely.",
        "budget": "At most so many interventions touch a run, over its whole life.",
        "limit": "At most so many interventions touch a run in a window of steps, whichever rule proposes them.",
        "bounds": "Between which values interventions may leave what they change, and how far they may go at once.",
        "rules": "Asked in this order, once per step; the first that may act does.",
        "tests": "Made trainings and what must be seen; run by `pilothouse policy test`.",
    },
    "Rule": {
        "name": "What the rule is called; its interventions carry the name.",
        "when": "A CEL expression over features, conditions, phase and margin; numbers are doubles (6.0).",
        "for": "It must hold for so many judged steps in a row.",
        "no_data": "What a step counts for at which `when` has no answer because the run lacks a feature.",
        "severity": "page wakes somebody, ticket can wait, info is only recorded.",
        "runbook": "For the person who comes: what it means, where to look.",
        "actions": "The ladder: the first action first, the next where it did not help.",
        "advise": "Who is asked before the rule acts, and what they may choose; they only propose.",
        "approval": "Who must agree.",
        "cooldown_steps": "So many judged steps lie between two interventions of this rule.",
        "relapse_steps": "What comes back within so many judged steps of an incident's end meets the next action.",
        "limit": "At most so many interventions of this rule in a window of steps.",
        "ttl_steps": "A command that is not applied within so many steps is void.",
        "verify": "How it is told whether an intervention helped.",
    },
    "Advise": {
        "advisors": "memory: the archive's own record. llm: a language model. Asked in this order, until one proposes.",
        "choose_from": "Actions with bounds on their numbers: {action: scale_lr, factor: {min: 0.25, max: 0.9}}.",
        "within_seconds": "How long an advisor has; what comes later is stale, and the ladder goes on.",
        "budget": "What each advisor may be asked in a run.",
    },
    "AdviceBudget": {
        "calls": "At most so many questions to an advisor, over the run's whole life.",
        "cost_usd": "None more once its answers have cost so much; without it only calls are counted.",
    },
    "ActionChoice": {"action": "The kind of action; its numbers stand beside it, each with its bounds."},
    "NumberChoice": {
        "min": "The least value that may be chosen.",
        "max": "The largest.",
        "step": "Only min and what lies whole steps above it.",
        "one_of": "Only these values.",
    },
    "Limit": {"count": "How many.", "window_steps": "In how many judged steps."},
    "Approval": {
        "by": "auto: nobody. human: a person.",
        "timeout_seconds": "How long a person has.",
        "default": "What is done when nobody answers.",
    },
    "Verify": {
        "window_steps": "Over how many judged steps its effect is measured.",
        "initial_delay_steps": "How many judged steps after it was applied the window begins.",
        "interval_steps": "How often success is asked; without it once, at the end of the window.",
        "success": "CEL, asked at every interval and at the end of the window.",
        "failure": "CEL, asked at every step of the window.",
        "failure_limit": "So many measurements may fail; one more ends the window: it was ineffective.",
        "inconclusive_limit": "So many measurements may lack data; one more ends the window: inconclusive.",
        "on_failure": "keep: what did not help stays. revert: it is put back exactly as it was, by a command.",
    },
    "Bound": {
        "min": "The least value it may be left at.",
        "max": "The largest.",
        "step": "The largest change at once.",
        "ratio": "At most so many times as much, or as little, at once.",
        "allowed": "The only values it may be left at.",
    },
    "AppliesTo": {
        "model_family": "One name or several; * and ? are wildcards.",
        "architecture": "What the run's config or tags call architecture, else its model.",
        "cluster": "One name or several; * and ? are wildcards.",
        "team": "One name or several; * and ? are wildcards.",
        "tags": "By tag, one value or several; * and ? are wildcards.",
        "precedence": "Among policies that fit a run the highest governs it, then the one that names most.",
    },
    "Trial": {
        "name": "What must be so.",
        "series": "By metric, promtool's notation: 2.0x40 nan 2.0-0.01x60~0.02 _x5.",
        "mode": "Test it in this mode instead of its own.",
        "ranks": "How many ranks tell the series.",
        "interval": "Seconds from one entry to the next.",
        "checkpoints": "A checkpoint every so many steps; 0 for none.",
        "steers": "What the trainer can do; without it, everything.",
        "obeys": "Whether the trainer applies what is issued.",
        "people": "What people answer to proposals.",
        "advice": "What advisors answer to questions; a question that nothing answers runs out of time.",
        "expect": "What must be seen.",
    },
    "Expectation": {
        "at": "An entry of the series, counted from 0, or a span: 0..39.",
        "phase": "The phase of the run.",
        "conditions": "Conditions and their status.",
        "alarms": "All the rules that hold, long enough to act.",
        "interventions": "All that is proposed there, in order.",
    },
    "Expected": {
        "rule": "Which rule proposes it.",
        "action": "What is proposed.",
        "having": "Values that the action must have.",
        "outcome": "What becomes of it by the end of the test.",
    },
    "Advised": {"at": "Behind this entry.", "proposes": "To the oldest open question; without it, nothing."},
    "Person": {"at": "Behind this entry.", "says": "To the oldest proposal that waits."},
}


def schema() -> dict[str, Any]:
    """The schema, as editors read it."""
    made = Policy.model_json_schema(by_alias=True)
    definitions = made.pop("$defs")
    for name, part in {"Policy": made, **definitions}.items():
        _explain(part, MEANINGS.get(name, {}))
    return {"$schema": DIALECT, "title": "Pilothouse policy", **made, "$defs": definitions}


def schema_text() -> str:
    """The schema as the file beside the shipped policies."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _explain(part: dict[str, Any], meanings: dict[str, str]) -> None:
    part.pop("title", None)
    part["description"] = " ".join(str(part.get("description", "")).split())
    for name, each in part.get("properties", {}).items():
        each.pop("title", None)
        if name in meanings:
            each["description"] = meanings[name]
