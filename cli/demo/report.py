"""The demo's last page: what happened and why, the proof from the receipts, the losses, the SQL, the verdict.

`command` calls it with the archive's accounts. Rendering only: what counts as success is `verdict`'s.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from ...events.event_words import action, short, text_of
from ..rendering import Column, Row, table
from .account import Account
from .plan import Name
from .timeline import timeline
from .verdict import Finding, ratio

LOSS_COLUMNS: list[Column] = [
    ("run", lambda row: row["run"]),
    ("outcome", lambda row: row["outcome"]),
    ("attempts", lambda row: text_of(row["attempts"])),
    ("validation loss", lambda row: text_of(row["validation_loss"])),
    ("of fault-free", lambda row: "–" if row["ratio"] is None else f"{row['ratio']:.3f}x"),
    ("steps lost", lambda row: text_of(row["steps_lost"])),
    ("interventions", lambda row: text_of(row["interventions"])),
]

TIMELINE_COLUMNS: list[Column] = [
    ("step", lambda row: text_of(row["step"])),
    ("attempt", lambda row: text_of(row["attempt"])),
    ("what", lambda row: row["what"]),
    ("why, and the evidence", lambda row: row["why"]),
]

PROOF_COLUMNS: list[Column] = [
    ("intervention", lambda row: short(row["intervention_id"])),
    ("action", lambda row: action(json.loads(row["action_body"]))),
    ("applied at", lambda row: _places(row["ranks_by_step"])),
    ("receipts", lambda row: f"{len(row['receipts'])} of {row['world_size']}"),
    ("verified", lambda row: row["verification"] or "–"),
]


def show_report(console: Console, accounts: Mapping[Name, Account]) -> None:
    """Timeline, proof and losses."""
    governed = accounts.get("governed") or next(iter(accounts.values()))
    _section(console, f"Timeline of {governed.run_id}", table(timeline(governed), TIMELINE_COLUMNS))
    applied = [row for row in governed.interventions if row["receipts"]]
    if applied:
        title = "Proof: who applied each intervention, and at which step (the ranks' receipts, from the archive)"
        _section(console, title, table(applied, PROOF_COLUMNS))
    _section(console, "What it cost", table(list(losses(accounts)), LOSS_COLUMNS))


def show_answer(console: Console, command: str, printed: str) -> None:
    """One of the questions to the archive, as a person would ask it, and its answer."""
    console.print(f"\n$ {command}", style="bold", markup=False, highlight=False, soft_wrap=True)
    console.print(printed.rstrip(), markup=False, highlight=False, soft_wrap=True)


def show_verdict(console: Console, found: Sequence[Finding]) -> None:
    """Every promise, kept or broken, and the sum."""
    console.print("\n[bold]Verdict[/]")
    for finding in found:
        mark = "[green]✓[/]" if finding.held else "[bold red]✗[/]"
        console.print(f"  {mark} {finding.promise}  [dim]({finding.seen})[/]", highlight=False, soft_wrap=True)
    broken = [finding for finding in found if not finding.held]
    if broken:
        console.print(f"[bold red]The loop did not close: {len(broken)} of {len(found)} promises were not kept.[/]")
    else:
        console.print(f"[bold green]The loop closed: all {len(found)} promises were kept.[/]")


def losses(accounts: Mapping[Name, Account]) -> Iterator[Row]:
    """One row per run: how it ended and what that cost."""
    healthy = accounts.get("fault-free")
    for name, account in accounts.items():
        times = ratio(account, healthy) if healthy is not None else None
        yield {
            "run": name,
            "run_id": account.run_id,
            "outcome": account.run["outcome"],
            "attempts": account.run["attempts"],
            "validation_loss": account.validation_loss,
            "ratio": times if times is not None and math.isfinite(times) else None,
            "steps_lost": account.steps_lost,
            "interventions": len([row for row in account.interventions if row["applied_steps"]]),
        }


def _places(ranks_by_step: Mapping[int, Sequence[int]]) -> str:
    return "; ".join(f"step {step} by ranks {text_of(ranks)}" for step, ranks in ranks_by_step.items())


def _section(console: Console, title: str, content: Table) -> None:
    console.print(f"\n[bold]{title}[/]", highlight=False, soft_wrap=True)
    console.print(content)
