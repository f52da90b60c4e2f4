"""A policy in plain words: what each rule does, when, how long, what first, what next, and who must agree.

Called by `pilothouse policy explain`; `policy_diff` compares two policies by the same words, so that what a person
reads is what differs.
"""

from collections.abc import Iterator, Mapping
from typing import assert_never

from ..events.actions import (
    Action,
    CheckpointNow,
    EvictRank,
    Notify,
    Pause,
    Resume,
    Revert,
    Rollback,
    ScaleLr,
    SetKnob,
    SetLr,
    SkipBatches,
    Stop,
)
from ..events.bounds import Bound, Bounds
from ..events.decisions import Mode
from .policy import Policy, Rule, Verify

MODES: Mapping[Mode, str] = {
    "observe": "watches and records what it would do; never touches a run",
    "propose": "asks a person before every intervention",
    "enforce": "acts by itself, but where a rule asks a person first",
}
SEVERITIES = {"page": "somebody is paged", "ticket": "a ticket", "info": "for information"}
NO_DATA = {
    None: "",
    "ignore": "a step at which that cannot be answered counts as one at which it does not hold",
    "hold": "a step at which that cannot be answered changes nothing: the steps before it still count",
    "alarm": "a step at which that cannot be answered counts as one at which it holds",
}
_WHERE = {
    "last_good": "the last good checkpoint from before the incident",
    "best_validation": "the last good checkpoint up to the lowest validation loss",
}
_PLAIN_VERIFY = Verify()


def of_policy(policy: Policy) -> dict[str, str]:
    """The policy as a whole, by part."""
    return {
        "mode": f"{policy.mode}: {MODES[policy.mode]}",
        "applies to": _applies_to(policy),
        "budget": f"at most {_times(policy.budget, 'intervention')} that touch a run, over the run's whole life"
        + (f", and {policy.limit.count} in {_steps(policy.limit.window_steps)}" if policy.limit else ""),
        "bounds": of_bounds(policy.bounds) or "none of its own",
    }


def of_bounds(bounds: Bounds) -> str:
    """Between which values what is changed may be left."""
    return "; ".join(f"{name} {_bound(bound)}" for name, bound in bounds.items())


def _bound(bound: Bound) -> str:
    """`0.1 to 2, at most 4 times as much or as little at once`."""
    least, most = bound.min, bound.max
    ends = [f"from {least:g}" if least is not None else "", f"up to {most:g}" if most is not None else ""]
    parts = [
        " ".join(filter(None, ends)),
        f"one of {', '.join(f'{value:g}' for value in bound.allowed)}" if bound.allowed else "",
        f"at most {bound.step:g} more or less at once" if bound.step else "",
        f"at most {bound.ratio:g} times as much or as little at once" if bound.ratio else "",
    ]
    return ", ".join(filter(None, parts))


def of_rule(rule: Rule, mode: Mode) -> dict[str, str]:
    """One rule, by part, in the order in which a person asks."""
    parts = {
        "when": rule.when,
        "for": f"{_steps(rule.for_steps)} in a row" if rule.for_steps > 1 else "at once",
        "without data": NO_DATA[rule.no_data],
        "asks first": _asked(rule, mode),
        "does": _ladder(rule),
        "who agrees": _who(rule, mode),
        "severity": f"{rule.severity} ({SEVERITIES[rule.severity]})",
        "limits": _limits(rule),
        "verified": _verified(rule),
        "runbook": " ".join(rule.runbook.split()),
    }
    return {name: words for name, words in parts.items() if words}


def of_action(action: Action) -> str:
    """What an action does to a run."""
    match action:
        case ScaleLr() | SetLr() | SetKnob() | Revert():
            return _of_values(action)
        case CheckpointNow():
            return "save a checkpoint"
        case SkipBatches(count=count):
            return f"drop the next {_times(count, 'batch', 'batches')} unread"
        case Rollback():
            return _of_rollback(action)
        case Pause() | Resume() | Stop() | EvictRank():
            return _of_course(action)
        case Notify(message=message):
            return f"tell people: {message!r}"
        case _ as unreachable:
            assert_never(unreachable)


def _of_values(action: ScaleLr | SetLr | SetKnob | Revert) -> str:
    match action:
        case ScaleLr(factor=factor):
            return f"multiply the learning rate by {factor:g}"
        case SetLr(value=value):
            return f"set the learning rate to {value:g}"
        case SetKnob(knob=knob, value=value):
            return f"set the {knob.replace('_', ' ')} to {value:g}"
        case Revert(values=values):
            return "put back " + ", ".join(f"{name} {value:g}" for name, value in values.items())
        case _ as unreachable:
            assert_never(unreachable)


def _of_course(action: Pause | Resume | Stop | EvictRank) -> str:
    match action:
        case EvictRank(rank=rank, named_by=named_by):
            who = f"rank {rank}" if rank is not None else f"the rank that features.{named_by} names"
            return f"ask for another machine in place of {who}"
        case Pause(max_seconds=seconds):
            return f"pause, at most {_seconds(seconds)}"
        case Resume():
            return "end a pause"
        case Stop(checkpoint=checkpoint):
            return "stop the run" + (" with a last checkpoint" if checkpoint else " without a checkpoint")
        case _ as unreachable:
            assert_never(unreachable)


def sentences(policy: Policy) -> Iterator[tuple[str, dict[str, str]]]:
    """The whole policy: a heading and its parts, the policy first, then each rule."""
    yield policy.name, {"about": " ".join(policy.description.split()), **of_policy(policy)}
    for number, rule in enumerate(policy.rules, start=1):
        yield f"{number}. {rule.name}", of_rule(rule, policy.mode)


def _applies_to(policy: Policy) -> str:
    named = [f"{name} {' or '.join(patterns)}" for name, patterns in policy.applies_to.named.items()]
    precedence = policy.applies_to.precedence
    return (" and ".join(named) or "every run") + (f" (precedence {precedence})" if precedence else "")


def _ladder(rule: Rule) -> str:
    first, *more = [of_action(action) for action in rule.actions]
    if not more:
        return f"{first}, each time"
    until = f" and did not come back for {_steps(rule.relapse_steps)}" if rule.relapse_steps else ""
    return "; then ".join([f"first {first}", *more]) + f"; that again, until the incident is over{until}"


def _of_rollback(action: Rollback) -> str:
    words = f"go back to {_WHERE[action.to]}, on all ranks"
    if action.back_steps:
        words += f", at least {_steps(action.back_steps)} before it"
    if action.skip_batches:
        words += f", drop {_times(action.skip_batches, 'batch', 'batches')}"
    if action.lr_factor == 1.0:
        return words
    ramp = f" and let it come back over {_steps(action.lr_ramp_steps)}" if action.lr_ramp_steps else ""
    return f"{words}, multiply the learning rate by {action.lr_factor:g}{ramp}"


def _asked(rule: Rule, mode: Mode) -> str:
    if rule.advise is None:
        return ""
    if mode == "observe":
        return "nobody: in mode observe no advisor is asked"
    asked = ", then ".join(rule.advise.advisors)
    budget, within = rule.advise.budget, _seconds(rule.advise.within_seconds)
    cost = f", for at most {budget.cost_usd:g} USD" if budget.cost_usd is not None else ""
    choices = "; ".join(map(str, rule.advise.choose_from))
    return (
        f"{asked}, for at most {within} each: one of {choices}. What is proposed takes the place of the next action; "
        f"each is asked at most {_times(budget.calls, 'time')} in a run{cost}"
    )


def _who(rule: Rule, mode: Mode) -> str:
    if mode == "observe":
        return "nobody: nothing is done in mode observe"
    if rule.approval.by == "auto" and mode == "enforce":
        return "nobody: it is done at once"
    says = {"approve": "it is done", "decline": "it is not done"}[rule.approval.default]
    return f"a person; if nobody answers within {_seconds(rule.approval.timeout_seconds)}, {says}"


def _limits(rule: Rule) -> str:
    often = f"at most {_times(rule.limit.count, 'time')} in {_steps(rule.limit.window_steps)}"
    rest = f", {_steps(rule.cooldown_steps)} of rest in between" if rule.cooldown_steps else ""
    return f"{often}{rest}; a command not applied within {_steps(rule.ttl_steps)} is void"


def _verified(rule: Rule) -> str:
    if all(isinstance(action, Notify | CheckpointNow | Pause | Resume | Stop) for action in rule.actions):
        return ""
    verify = rule.verify
    window = f"after {_steps(verify.initial_delay_steps + verify.window_steps)}"
    if verify.interval_steps is not None:
        begins = (
            f", beginning {_steps(verify.initial_delay_steps)} after it was applied"
            if verify.initial_delay_steps
            else ""
        )
        window = f"every {_steps(verify.interval_steps)} for {_steps(verify.window_steps)}{begins}"
    may_fail = f" ({_times(verify.failure_limit, 'measurement')} may fail)" if verify.failure_limit else ""
    back = "; what did not help is put back as it was" if verify.on_failure == "revert" else ""
    return f"helped if {window}: {verify.success}; failed at once if: {verify.failure}{may_fail}{back}"


def _steps(count: int) -> str:
    return _times(count, "step")


def _times(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _seconds(seconds: float) -> str:
    if seconds >= 3_600 and seconds % 3_600 == 0:
        return _times(int(seconds // 3_600), "hour")
    if seconds >= 120 and seconds % 60 == 0:
        return _times(int(seconds // 60), "minute")
    return f"{seconds:g} s"
