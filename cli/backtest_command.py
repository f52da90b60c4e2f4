"""`pilothouse backtest POLICY`: what another policy would have said and done on old runs, beside the one in force.

Thin: the policy is checked first, the runs are chosen, `backtesting` tests them, this says what came of it. What it can
know and what not is said in `stream_processors.backtest`.
"""

import os
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from ..stream_processors.backtest import Backtest, Side
    from .backtesting import Tested, Total
    from .rendering import Column

BROKEN = 1
UNITS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
ALL_RUNS = 1_000_000
CATCHES = {
    "earlier": "caught earlier",
    "later": "caught later",
    "same": "caught at the same step",
    "newly_caught": "caught only by the new policy",
    "missed": "missed by the new policy only",
    "caught_by_neither": "caught by neither",
    "open_loop": "behind the parting, not compared",
}


def backtest(  # noqa: PLR0913, PLR0917  # a command's options
    policy: Annotated[Path, typer.Argument(help="The policy's file, or a folder of them", show_default=False)],
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Of these runs", show_default=False)
    ] = None,
    runs: Annotated[
        list[str] | None, typer.Option("--runs", metavar="RUN...", help="The runs, or the beginnings of their ids")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All runs of the archive")] = False,
    since: Annotated[str, typer.Option("--since", help="Runs heard of within 12h, 7d, 4w, …")] = "",
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=0, help="Processes beside each other [default: CPUs]")] = 0,
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="Of the stack to ask [default: ~/.pilothouse]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of tables")] = False,
) -> None:
    """Run another policy over archived runs: alarms, interventions, incidents caught earlier or later, false ones."""
    from ..stream_processors.backtest_told import plain
    from ..stream_processors.policy_text import read_policies
    from .backtesting import Task, test_all, total_of
    from .progress_bar import progress_bar
    from .reading import open_archive
    from .rendering import json_line, print_line

    policies = read_policies(policy).policies
    chosen = chosen_runs(open_archive(data_dir).client, [*(runs or ()), *(more or ())], all_=all_, since=since)
    with progress_bar() as seen:
        tasks = [Task(run_id, policies, data_dir) for run_id in chosen]
        tested = test_all(tasks, jobs or os.cpu_count() or 1, lambda done: seen("backtesting", done, len(tasks)))
    total = total_of(tested)
    if as_json:
        names = [known.name for known in policies]
        said = {"policies": names, "runs": [told_of(one) for one in tested], "total": plain(total)}
        print_line(json_line(said))
    else:
        _show(tested, total, ", ".join(known.name for known in policies))
    if total.broken:
        raise typer.Exit(BROKEN)


def chosen_runs(client: "Client", named: Sequence[str], *, all_: bool, since: str) -> list[str]:
    """The runs to test, each once: in the order in which they were named, or the first started first.

    Raises:
        UserMistake: none were chosen, in no way or in several, or there are none such.
    """
    from ..events.errors import UserMistake
    from ..storage.queries import list_runs
    from .reading import full_name

    if (bool(named) + all_ + bool(since)) != 1:
        raise UserMistake("say which runs, in one of three ways: --runs RUN..., --all, or --since 7d")
    if named:
        return list(dict.fromkeys(full_name(client, run) for run in named))
    after = time.time() * 1e6 - 1e6 * seconds_of(since) if since else 0.0
    rows = [row for row in list_runs(client, ALL_RUNS) if (row["last_at"] or 0) >= after]
    if not rows:
        raise UserMistake(f"the archive holds no runs{f' heard of within {since}' if since else ' yet'}")
    return [row["run_id"] for row in sorted(rows, key=lambda row: (row["started_at"] or 0, row["run_id"]))]


def seconds_of(duration: str) -> int:
    """`90m`, `12h`, `7d`, `4w` in seconds.

    Raises:
        UserMistake: it is none.
    """
    from ..events.errors import UserMistake

    said = re.fullmatch(r"(\d{1,6})([mhdw])", duration.strip())
    if said is None:
        raise UserMistake(f"--since {duration!r} is no duration; write 90m, 12h, 7d or 4w")
    return int(said[1]) * UNITS[said[2]]


# ------------------------------------------------------------------------------------------------------ what is said


def told_of(tested: "Tested") -> dict[str, Any]:
    """One run for a program."""
    from ..stream_processors.backtest_told import as_told

    if tested.result is None:
        return {"run_id": tested.run_id, "error": tested.error}
    return as_told(tested.result) | {"error": ""}


def _show(tested: "Sequence[Tested]", total: "Total", name: str) -> None:
    from ..events.plain_text import printable
    from ..stream_processors.backtest_told import cannot_know, plain
    from .rendering import out, table

    console = out()
    rows = [plain(one.result) | {"found": one.result} for one in tested if one.result is not None]
    if rows:
        console.print(table(rows, _columns()))
        console.print()
    for one in tested:
        for line in cannot_know(one.result) if one.result is not None else ():
            console.print(f"{printable(one.run_id)}: {line}", markup=False)
    console.print("\n".join(_summary(total, name)), markup=False)
    for one in tested:
        if one.result is None:
            typer.echo(f"pilothouse: {printable(one.run_id)}: {printable(one.error)}", err=True)


def _columns() -> "list[Column]":
    from ..events.plain_text import printable

    return [
        ("run", lambda row: printable(row["run_id"])),
        ("policy", lambda row: row["policy"]),
        ("instead of", lambda row: printable(", ".join(row["policies"])) or "none"),
        ("ended", lambda row: row["outcome"]),
        ("steps", lambda row: str(row["steps"])),
        ("compared to", lambda row: "the end" if row["open_loop_from"] is None else f"step {row['open_loop_from']}"),
        ("incidents", lambda row: _catches(Counter(caught["catch"] for caught in row["incidents"]))),
        ("alarms", lambda row: _beside(row["found"], lambda side: sum(side.sound.alarms.values()))),
        ("interventions", lambda row: _beside(row["found"], lambda side: _actions(side.sound.issued))),
        ("behind it", lambda row: _actions(row["found"].candidate.open_loop.issued)),
        ("healthy", lambda row: "yes" if row["healthy"] else "no"),
    ]


def _beside(found: "Backtest", asked: Any) -> str:
    """What the policy in force did, and what the new one would."""
    was, now = asked(found.in_force), asked(found.candidate)
    return f"{was} → {now}" if was != now else str(was)


def _actions(counted: Mapping[str, int]) -> str:
    return " ".join(f"{name}×{count}" for name, count in sorted(counted.items())) or "–"


def _catches(counted: Mapping[Any, int]) -> str:
    return ", ".join(f"{counted[name]} {said}" for name, said in CATCHES.items() if counted.get(name)) or "none"


def _summary(total: "Total", name: str) -> list[str]:
    runs = f"{total.runs} run{'s' if total.runs != 1 else ''}, {total.steps} steps"
    broken = f"; {total.broken} could not be tested" if total.broken else ""
    steps = f" ({total.steps_earlier} steps earlier, {total.steps_later} later, in sum)" if total.catches else ""
    lines = [
        f"{name} on {runs}{broken}; on {total.parted} of them the policies part, and only what lies before is compared",
        f"  incidents: {_catches(total.catches)}{steps}",
        f"  {total.healthy} healthy runs: {_on_healthy(total)}",
    ]
    return [
        *lines,
        *(f"  {line}" for line in _rules("in force", total.in_force)),
        *(f"  {line}" for line in _rules("new", total.candidate)),
    ]


def _on_healthy(total: "Total") -> str:
    was, now = total.false_in_force, total.false_candidate
    pairs = (
        ("false interventions", was.interventions, now.interventions),
        ("proposed", was.proposed_interventions, now.proposed_interventions),
        ("false alarms", was.alarms, now.alarms),
        ("runs with any", was.runs, now.runs),
    )
    return ", ".join(f"{what} {before} → {after}" for what, before, after in pairs)


def _rules(which: str, side: "Side") -> list[str]:
    """What each rule did where it can be compared, and behind."""
    lines = []
    for rule in sorted({*side.sound.rules, *side.open_loop.rules}):
        done = _actions(side.sound.rules.get(rule, {}))
        behind = side.open_loop.rules.get(rule)
        lines.append(f"{which}, rule {rule}: {done}" + (f"; behind the parting {_actions(behind)}" if behind else ""))
    return lines
