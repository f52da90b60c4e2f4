"""`pilothouse replay RUN`: the archived log through the core again, decision by decision beside what was told.

Thin: `storage.history` reads, `stream_processors.replay` proves, this says it. Exit status 0: the same; 1: not the
same, and which decision is the first.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from ..events.union import Record
    from ..stream_processors.replay import Account, Change, Difference, Proof
    from .progress_bar import Seen

DIFFERS = 1
LOOK_EVERY = 200
"""Records between two words about progress."""
UNTIMED_SECONDS = 5.0
"""A governor that starts with the run ticks within this time."""
MOST_CHANGES = 20


def replay(
    run: Annotated[str, typer.Argument(help="The run's id, or its beginning", show_default=False)],
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Of the stack to ask [default: ~/.pilothouse]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of words")] = False,
) -> None:
    """Prove that a run's log and its policy give the decisions that were taken, or name the first that differs."""
    from .progress_bar import progress_bar
    from .reading import full_name, open_archive
    from .rendering import json_line, print_line

    client = open_archive(data_dir).client
    run_id = full_name(client, run)
    with progress_bar() as seen:
        proof = proved(client, run_id, seen)
    if as_json:
        print_line(json_line(told_of(proof)))
    else:
        print_line("\n".join(account_of(proof)))
    if proof.difference is not None:
        raise typer.Exit(DIFFERS)


def proved(client: "Client", run_id: str, seen: "Seen") -> "Proof":
    """What the archive holds of the run, compared.

    Raises:
        UserMistake: the archive holds nothing that could be decided on, or what this version cannot read.
    """
    from pydantic import ValidationError

    from ..events.codec import first_fault
    from ..events.errors import UserMistake
    from ..storage.history import decisions_in_order, stream_log
    from ..stream_processors.replay import prove

    try:
        told = decisions_in_order(client, run_id)
        proof = prove(run_id, watched(client, run_id, stream_log(client, run_id), seen), told)
    except ValidationError as error:
        raise UserMistake(
            f"the archive holds an event of run {run_id} that this version cannot read ({first_fault(error)}): "
            "replay it with the version that wrote it"
        ) from error
    if not proof.account.records:
        raise UserMistake(f"the archive holds no record of run {run_id} to decide on")
    return proof


def watched(client: "Client", run_id: str, records: "Iterable[Record]", seen: "Seen") -> "Iterator[Record]":
    """The records, with a word about how far they are: by the run's own time."""
    from ..storage.queries import show_run

    run = show_run(client, run_id)
    began, life = run["started_at"] or 0, max(1, (run["last_at"] or 0) - (run["started_at"] or 0))
    for number, record in enumerate(records):
        if number % LOOK_EVERY == 0:
            seen(f"replaying {run_id}", min(life, max(0, record.event.at - began)), life)
        yield record


# ------------------------------------------------------------------------------------------------------ what is said


def told_of(proof: "Proof") -> dict[str, Any]:
    """The proof for a program."""
    account = proof.account
    return {
        "run_id": proof.run_id,
        "same": proof.difference is None,
        "decisions": proof.told,
        "same_decisions": proof.same,
        "ended": proof.ended,
        "records": account.records,
        "ticks": account.ticks,
        "policies": account.policies,
        "ahead": proof.ahead,
        "untold": proof.untold,
        "not_proven": shortfalls(proof),
        "difference": _difference(proof.difference),
    }


def _difference(found: "Difference | None") -> dict[str, Any] | None:
    if found is None:
        return None
    decision = found.decision
    return {
        "number": found.number,
        "kind": decision.kind,
        "step": decision.step,
        "place": list(decision.basis),
        "archived": found.was.model_dump(mode="python") if found.was else None,
        "now": found.now.model_dump(mode="python") if found.now else None,
        "fields": [change._asdict() for change in found.changes],
    }


def account_of(proof: "Proof") -> list[str]:
    """The proof for a person, line by line."""
    from ..events.event_words import short

    account = proof.account
    policies = ", ".join(short(known) for known in account.policies) or "none"
    log = f"{account.records} records to step {account.last_step}, {account.ticks} of them ticks; policy {policies}"
    lines = [_verdict(proof), f"  the log: {log}"]
    if proof.difference is not None:
        lines += _told_difference(proof.difference)
    return lines + [f"  {shortfall}" for shortfall in shortfalls(proof)]


def _verdict(proof: "Proof") -> str:
    if proof.difference is not None:
        found = proof.difference
        alike = f"{proof.same} before it are the same"
        return f"run {proof.run_id}: decision {found.number} is the first that differs ({alike})"
    whole = "" if proof.ended else ", as far as the archive has them"
    return f"run {proof.run_id}: log and policy give the same {proof.same} decisions, bit for bit{whole}"


def _told_difference(found: "Difference") -> list[str]:
    decision = found.decision
    place = f"epoch {decision.basis.epoch}, partition {decision.basis.partition}, offset {decision.basis.offset}"
    head = f"  {decision.kind} at step {decision.step}, decided on the record at {place}"
    if found.now is None:
        return [f"{head}: it stands in the archive, and the log does not lead to it"]
    if found.was is None:
        return [f"{head}: the log leads to it, and the archive does not have it"]
    changes = found.changes
    more = [f"    … and {len(changes) - MOST_CHANGES} more fields"] if len(changes) > MOST_CHANGES else []
    return [f"{head}:", *map(_told_change, changes[:MOST_CHANGES]), *more]


def _told_change(change: "Change") -> str:
    from ..events.plain_text import printable

    return f"    {change.field}: archived {printable(repr(change.was))}, now {printable(repr(change.now))}"


def shortfalls(proof: "Proof") -> list[str]:
    """What stands between this and a full proof; of a difference, what may have caused it."""
    lines = [*_of_the_log(proof.account), *_of_the_version(proof)]
    if proof.ahead:
        lines.append(f"{proof.ahead} decisions rest on records that are not archived yet: they were not compared")
    if proof.untold:
        lines.append(f"{proof.untold} decisions follow from the log and are not archived (yet): they were not compared")
    if proof.difference is not None and not lines:
        lines.append("nothing is missing in this log: the core decides otherwise today, or the archive was changed")
    return lines


def _of_the_log(account: "Account") -> list[str]:
    seconds = account.untimed / 1e6
    lines: list[str] = []
    if account.ticks == 0:
        lines.append(
            "the archive has no ticks of this run (it keeps them for 180 days): what time decided is not proven"
        )
    elif seconds > UNTIMED_SECONDS:
        lines.append(
            f"the first {seconds:.0f} s of the run have no ticks: they are older than the archive keeps (180 days), or "
            "no governor ran yet"
        )
    if account.missing_ticks:
        lines.append(f"{account.missing_ticks} ticks are missing in the log")
    if account.missing_facts:
        hole = account.first_hole
        where = f", the first before offset {hole.offset} of epoch {hole.epoch}" if hole else ""
        lines.append(f"{account.missing_facts} records are missing in the log{where}")
    lines += [f"the core stumbled and judged anew from there: {fault}" for fault in account.faults[:3]]
    return lines


def _of_the_version(proof: "Proof") -> list[str]:
    from ..events.event_words import short

    lines = [
        f"the policy {short(known)} of this log cannot be used by this version: {' '.join(why.split())[:300]}"
        for known, why in proof.account.unusable.items()
    ]
    if proof.difference is not None and (unknown := proof.difference.unknown_then):
        lines.append(f"another version of the core took the decision: it did not know {', '.join(unknown)}")
    return lines
