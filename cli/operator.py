"""A person's orders to a run: `stop`, `pause`, `resume`, `intervene`, `approve`, `decline`, `silence`; and `pending`,
which lists what waits for one. An order is a record of the log like any other, with who and why.

It is told to the governor, which answers it and commands the trainers; `ordering` waits a little for what follows.
"""

import socket
from pathlib import Path
from typing import Annotated, Any

import typer

WAIT_SECONDS = 15.0

Run = Annotated[str, typer.Argument(help="The run's id, or its beginning", show_default=False)]
Why = Annotated[str, typer.Option("--why", help="Kept with the order, for whoever reads it later", show_default=False)]
MaybeWhy = Annotated[str, typer.Option("--why", help="Kept with the order, for whoever reads it later")]
Who = Annotated[str, typer.Option("--who", help="In whose name; this account is kept beside it [default: user@host]")]
Wait = Annotated[float, typer.Option(min=0.0, help="Seconds to wait for what happens")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Of the stack [default: ~/.pilothouse]")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of words")]
Intervention = Annotated[
    str, typer.Argument(help="Its id, or the beginning of it; not needed where only one waits", show_default=False)
]


def stop(  # noqa: PLR0913, PLR0917  # a command's options
    run: Run,
    why: Why,
    checkpoint: Annotated[bool, typer.Option(help="Save a last checkpoint")] = True,
    who: Who = "",
    wait: Wait = WAIT_SECONDS,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Stop a run in order: a last checkpoint, all telemetry sent, outcome `stopped`."""
    action = {"action": "stop", "checkpoint": checkpoint}
    _order(run, "stop", data_dir, {"why": why, "who": who, "action": action}, (wait, as_json))


def pause(  # noqa: PLR0913, PLR0917  # a command's options
    run: Run,
    why: Why,
    longest: Annotated[str, typer.Option("--for", help="At most so long, as 90s, 10m or 2h")] = "1h",
    who: Who = "",
    wait: Wait = WAIT_SECONDS,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Hold all ranks of a run at a safe point, until it is resumed or the time is over."""
    from .spans import seconds_of

    action = {"action": "pause", "max_seconds": float(seconds_of(longest, "--for"))}
    _order(run, "pause", data_dir, {"why": why, "who": who, "action": action}, (wait, as_json))


def resume(  # noqa: PLR0913, PLR0917  # a command's options
    run: Run,
    why: MaybeWhy = "",
    who: Who = "",
    wait: Wait = WAIT_SECONDS,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """End a pause."""
    _order(run, "resume", data_dir, {"why": why, "who": who, "needs_why": False}, (wait, as_json))


def intervene(  # noqa: PLR0913, PLR0917  # a command's options
    run: Run,
    action: Annotated[str, typer.Argument(help="scale_lr, set_clip, rollback, …; a wrong one shows all")],
    why: Why,
    values: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE ...", help="factor=0.5, value=1.0, count=20, …")
    ] = None,
    who: Who = "",
    wait: Wait = WAIT_SECONDS,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Order an action: within the policy's bounds, and by what the trainer can do. A rollback goes to the last good
    checkpoint, or to checkpoint=STEP.
    """
    from .acting import action_of
    from .reading import full_name, open_archive

    archive = open_archive(data_dir)
    run_id = full_name(archive.client, run)
    given = action_of(archive.client, run_id, action, values or ())
    _order(run_id, "intervene", data_dir, {"why": why, "who": who, "action": given}, (wait, as_json))


def approve(  # noqa: PLR0913, PLR0917  # a command's options
    run: Run,
    intervention: Intervention = "",
    why: MaybeWhy = "",
    who: Who = "",
    wait: Wait = WAIT_SECONDS,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Agree to an intervention that waits for a person."""
    about = {"why": why, "who": who, "needs_why": False, "intervention_id": intervention}
    _order(run, "approve", data_dir, about, (wait, as_json))


def decline(  # noqa: PLR0913, PLR0917  # a command's options
    run: Run,
    why: Why,
    intervention: Intervention = "",
    who: Who = "",
    wait: Wait = WAIT_SECONDS,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Say no to an intervention that waits for a person."""
    _order(run, "decline", data_dir, {"why": why, "who": who, "intervention_id": intervention}, (wait, as_json))


def silence(  # noqa: PLR0913, PLR0917  # a command's options
    run: Run,
    why: MaybeWhy = "",
    span: Annotated[str, typer.Option("--for", help="How long: 200steps, 90s, 10m or 2h", show_default=False)] = "",
    rule: Annotated[str, typer.Option("--rule", help="This rule only")] = "",
    condition: Annotated[str, typer.Option("--condition", help="The rules that look at this condition")] = "",
    end: Annotated[bool, typer.Option("--end", help="End what was silenced, before its time")] = False,
    who: Who = "",
    wait: Wait = WAIT_SECONDS,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Let rules keep still for a while: what they would have done is recorded, and nothing comes of it."""
    from .spans import span_of

    about: dict[str, Any] = {"why": why, "who": who, "needs_why": not end, "rule": rule, **span_of(span, end=end)}
    _order(run, "silence", data_dir, about | ({"condition": condition} if condition else {}), (wait, as_json))


def pending(
    run: Annotated[str, typer.Argument(help="Only of this run", show_default=False)] = "",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """What waits for a person's answer, what happens without one and when, and what is silenced."""
    from .reading import full_name, open_archive
    from .waiting import show_silences, show_waiting

    client = open_archive(data_dir).client
    run_id = full_name(client, run) if run else ""
    show_waiting(client, run_id, as_json=as_json)
    show_silences(client, run_id, as_json=as_json)


COMMANDS = (approve, decline, intervene, pause, resume, stop, silence)


def _order(run: str, verb: str, data_dir: Path | None, about: dict[str, Any], shown: tuple[float, bool]) -> None:
    """Write it, wait, say what came of it. Status 1 where it was refused."""
    from ..control_room.orders import REFUSALS, as_fields, order_of, send
    from ..producers.person import person
    from .ordering import account
    from .reading import full_name, open_archive
    from .rendering import json_line, print_line

    wait, as_json = shown
    given = (
        dict(about)
        | {"origin": f"command line on {socket.gethostname()}"[:200]}
        | {"who": f"{about['who']} via {person()}" if about["who"] else person()}
    )
    order_of("a-run", verb, **given | ({"intervention_id": "one"} if "intervention_id" in given else {}))
    archive = open_archive(data_dir)
    run_id = full_name(archive.client, run)
    if "intervention_id" in given:
        from .waiting import meant

        given["intervention_id"] = meant(archive.client, run_id, given["intervention_id"])
    sent = send(archive.client, archive.settings, order_of(run_id, verb, **given), wait)
    print_line(json_line(as_fields(sent)) if as_json else account(sent))
    if sent.outcome in REFUSALS:
        raise typer.Exit(1)
