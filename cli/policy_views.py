"""How policies look to people, and their JSON for programs. Nothing is asked or decided here.

Used by the commands of `policy`.
"""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from ..control_room.activation import Activation, InForce, as_row
from ..events.event_words import number, numbers, short
from ..events.plain_text import printable
from ..governance.policy import Policy
from ..governance.policy_diff import Difference
from ..governance.policy_standing import Standing
from ..governance.policy_words import of_policy, of_rule, sentences
from ..stream_processors.trial import Outcome, words_of
from .policy_sources import Checked
from .rendering import clock, json_line, out, print_line, show_rows

MARKS = {True: "[green]pass[/]", False: "[red]FAIL[/]"}


def show_check(results: Sequence[Checked], *, as_json: bool) -> None:
    """One line a mistake, as compilers write it; one for each policy without any."""
    for result in results:
        rows = [
            {"file": result.label, "line": fault.mark.line, "column": fault.mark.column, "part": fault.part}
            | {"message": fault.message}
            for fault in result.faults
        ]
        rows += [
            {"file": result.label, "line": None, "column": None, "part": "", "message": each} for each in result.trouble
        ]
        if as_json:
            for row in rows or [{"file": result.label, "right": True, "rules": result.rules, "tests": result.tests}]:
                print_line(json_line(row))
        elif rows:
            for row in rows:
                _say(out(stderr=True), _as_compilers_do(row))
        else:
            _say(out(), f"{result.label}: right ({result.rules} rules, {result.tests} tests)")


def _as_compilers_do(row: dict[str, Any]) -> str:
    place = f":{row['line']}:{row['column']}" if row["line"] else ""
    part = f"{row['part']}: " if row["part"] else ""
    return f"{row['file']}{place}: {part}{row['message']}"


def show_outcome(label: str, outcome: Outcome, *, verbose: bool, as_json: bool) -> None:
    """One test: whether it passed, what was expected and seen where not, and on demand all that happened."""
    trial = outcome.trial
    if as_json:
        missed = [mismatch._asdict() for mismatch in outcome.mismatches]
        proposed = [{"at": one.at, "rule": one.rule, "outcome": one.outcome, **one.action} for one in outcome.proposals]
        row = {"file": label, "test": trial.name, "passed": outcome.passed, "missed": missed, "interventions": proposed}
        print_line(json_line(row))
        return
    console = out()
    console.print(f"{MARKS[outcome.passed]}  {_plain(label)}: {_plain(trial.name)}", soft_wrap=True)
    for mismatch in outcome.mismatches:
        _say(console, f"      at {mismatch.at}, {mismatch.what}")
        console.print(f"        expected  [green]{_plain(mismatch.expected)}[/]", soft_wrap=True, highlight=False)
        console.print(f"        seen      [red]{_plain(mismatch.seen)}[/]", soft_wrap=True, highlight=False)
    if verbose or not outcome.passed:
        for line in story(outcome):
            _say(console, f"      {line}")


def story(outcome: Outcome) -> list[str]:
    """What happened in a test: entry by entry where the phase or the alarms changed, and every intervention."""
    lines: list[tuple[int, int, str]] = []
    last: tuple[str, tuple[str, ...]] | None = None
    for entry, seen in sorted(outcome.seen.items()):
        if (seen.phase, seen.alarms) != last:
            alarms = f", alarms: {', '.join(seen.alarms)}" if seen.alarms else ""
            lines.append((entry, 0, f"{seen.phase}, margin {number(seen.margin, 2)}{alarms} (step {seen.step})"))
            last = (seen.phase, seen.alarms)
    lines += [(proposal.at, 1, f"proposed {words_of(proposal)}") for proposal in outcome.proposals]
    return [f"{entry:>5}  {what}" for entry, _, what in sorted(lines)]


def show_tested(label: str, outcomes: Sequence[Outcome]) -> None:
    """The sum of a policy's tests."""
    passed = sum(outcome.passed for outcome in outcomes)
    _say(out(), f"{label}: {passed} of {len(outcomes)} tests passed" if outcomes else f"{label} has no tests")


def show_explanation(policy: Policy, standings: Sequence[Any] | None, *, as_json: bool) -> None:
    """The policy in words; with `standings` also how each rule stands for one run."""
    if as_json:
        rules = [{"name": rule.name, **of_rule(rule, policy.mode)} for rule in policy.rules]
        print_line(json_line({"name": policy.name, **of_policy(policy), "rules": rules, "now": _rows(standings)}))
        return
    console = out()
    stands = {standing.rule: standing for standing in standings or ()}
    for rule, (heading, parts) in zip([None, *policy.rules], sentences(policy), strict=True):
        console.print(f"[bold]{_plain(heading)}[/]")
        for part, words in parts.items():
            if words:
                _say(console, f"  {part:<13} {words}")
        if rule is not None and rule.name in stands:
            _say(console, f"  {'now':<13} {_now(stands[rule.name])}")


def _rows(standings: Sequence[Standing] | None) -> list[dict[str, Any]] | None:
    return None if standings is None else [standing._asdict() for standing in standings]


def _now(standing: Standing) -> str:
    known = numbers({name: "absent" if value is None else value for name, value in standing.known.items()})
    would = f"would {standing.next_action}" if not standing.obstacle else f"would not act: {standing.obstacle}"
    return f"holds: {standing.holds} ({known}); {would}"


def show_differences(found: Sequence[Difference], *, as_json: bool) -> None:
    """One line for each."""
    for difference in found:
        print_line(json_line(difference._asdict()) if as_json else printable(str(difference)))
    if not found and not as_json:
        print_line("they do the same")


def show_activation(activation: Activation, *, as_json: bool) -> None:
    """What changes for a run: the mode first, then rule by rule."""
    if as_json:
        print_line(json_line(as_row(activation)))
        return
    console, before, now = out(), activation.before.policy, activation.policy
    if activation.left_out:
        _say(console, f"run {activation.run_id}: left as it is: {activation.left_out}")
        return
    change = f"mode {before.mode} → {now.mode}" if before.mode != now.mode else f"mode {now.mode}"
    which = f"{before.name} → {now.name} ({short(activation.policy_hash)})"
    _say(console, f"run {activation.run_id}: {which}, {change}, by {activation.who}")
    for difference in activation.changes:
        if (difference.where, difference.part) not in (("", "name"), ("", "mode"), ("", "tests")):
            _say(console, f"  {difference}")


def show_policies(policies: Sequence[tuple[str, Policy]], *, as_json: bool) -> None:
    """One line for each policy."""
    rows = [
        {
            "policy": policy.name,
            "mode": policy.mode,
            "rules": len(policy.rules),
            "tests": len(policy.tests),
            "applies to": of_policy(policy)["applies to"],
            "from": "shipped" if label == policy.name else label,
            "about": " ".join(policy.description.split()),
        }
        for label, policy in policies
    ]
    show_rows(rows, as_json=as_json)


def show_runs(runs: Sequence[InForce], *, as_json: bool) -> None:
    """Which policy governs each run, since when and by whom."""
    rows = [
        {
            "run": known.run_id,
            "policy": known.policy.name,
            "mode": known.policy.mode,
            "hash": known.policy_hash if as_json else short(known.policy_hash),
            "by": known.who,
            "since": known.at if as_json else clock(known.at),
        }
        for known in runs
    ]
    show_rows(rows, as_json=as_json, empty="no run goes on")


def _plain(text: str) -> str:
    """Text of strangers inside of markup."""
    return printable(text).replace("[", r"\[")


def _say(console: Console, text: str) -> None:
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
