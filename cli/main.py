"""The command line: `pilothouse COMMAND`. Assembles the commands, and is the one place where an error becomes a line.

A person's mistake and what is away for now end with status 2 and one message on stderr that says what to do; a
traceback is shown only with PILOTHOUSE_DEBUG. Importing this module must stay cheap: commands import what they need.
"""

import errno
import importlib.util
import os
import sys
from typing import Annotated, Any, NoReturn

import typer

from ..events.plain_text import printable_lines
from . import (
    advice_command,
    attach,
    audit,
    backtest_command,
    compare_command,
    deadletter_command,
    export_command,
    health_command,
    import_command,
    keys,
    logs,
    mcp_command,
    operator,
    plan_command,
    policy,
    query_commands,
    rate,
    replay_command,
    report_command,
    report_fact,
    serve,
    similar_command,
    stack_commands,
    status,
    storage_command,
)
from . import spool as spool_commands
from .doctor import command as doctor_command

MISTAKE, BUG, RESTART = 2, 70, 75
DEBUG = "PILOTHOUSE_DEBUG"
UsageError = typer.BadParameter.__bases__[0]
"""Of click, or of the copy of it that newer typers carry: typer gives only its leaf a public name."""

commands = typer.Typer(
    name="pilothouse",
    help="A control room for AI training runs: telemetry in, bounded interventions out, everything remembered.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"pilothouse {version('pilothouse')}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version")]


@commands.callback()
def _options(version: Version = False) -> None:
    """Every command's options are its own; this holds what has no command."""


def _assemble() -> None:
    stack, look, act = "Run a stack", "Look", "Act"
    commands.command(rich_help_panel=stack)(stack_commands.up)
    commands.command(rich_help_panel=look)(serve.serve)
    if importlib.util.find_spec(f"{__package__}.demo.command") is not None:
        commands.command(rich_help_panel=stack, context_settings=_PASS_ON, add_help_option=False)(demo)
    commands.command(rich_help_panel=stack, context_settings={"allow_interspersed_args": False})(attach.run)
    for command in query_commands.COMMANDS:
        commands.command(rich_help_panel=look)(command)
    commands.command(rich_help_panel=look)(advice_command.advice)
    commands.command(rich_help_panel=look)(logs.logs)
    commands.command(rich_help_panel=look)(mcp_command.mcp)
    commands.command(rich_help_panel=look)(report_command.report)
    commands.command(rich_help_panel=look)(compare_command.compare)
    commands.command(rich_help_panel=look)(similar_command.similar)
    commands.command(rich_help_panel=look)(replay_command.replay)
    commands.command(rich_help_panel=look)(backtest_command.backtest)
    commands.command(name="import", rich_help_panel=act)(import_command.import_)
    commands.command(rich_help_panel=act)(export_command.export)
    commands.command(rich_help_panel=look)(operator.pending)
    for order in operator.COMMANDS:
        commands.command(rich_help_panel=act)(order)
    commands.command(rich_help_panel=act)(plan_command.plan)
    commands.command(rich_help_panel=act)(rate.rate)
    commands.command(rich_help_panel=act)(report_fact.report_fact)
    _assemble_operations("Operate")
    commands.add_typer(policy.policy, name="policy", rich_help_panel=act)


def _assemble_operations(panel: str) -> None:
    for command in (stack_commands.worker, stack_commands.migrate, status.status):
        commands.command(rich_help_panel=panel)(command)
    commands.command(rich_help_panel=panel)(health_command.health)
    commands.command(rich_help_panel=panel)(doctor_command.doctor)
    for name, group in {
        "topics": stack_commands.topics,
        "audit": audit.audit,
        "keys": keys.keys,
        "deadletter": deadletter_command.deadletter,
        "spool": spool_commands.spool,
        "storage": storage_command.storage,
    }.items():
        commands.add_typer(group, name=name, rich_help_panel=panel)


# The demo has options of its own, and is imported only when it is asked for.
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def demo(context: typer.Context) -> None:
    """Train three small GPTs: healthy, broken, broken and governed. See `pilothouse demo --help`."""
    from .demo.command import demo as run_demo  # type: ignore[import-not-found,unused-ignore]

    own = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    own.command(name="demo")(run_demo)
    raise typer.Exit(own(args=context.args, prog_name="pilothouse demo", standalone_mode=False) or 0)


def app() -> None:
    """The entry point."""
    try:
        # Not standalone: typer would draw a box of five lines around a mistyped option.
        status = commands(prog_name="pilothouse", standalone_mode=False)
    except Exception as error:  # noqa: BLE001  # the last place where an error can become a line
        _end_with(error)
    sys.exit(status or 0)


def _end_with(error: Exception) -> NoReturn:
    from ..events.errors import PilothouseError, RestartRequired

    if isinstance(error, UsageError):
        _refuse_usage(error)
    if isinstance(error, ModuleNotFoundError):
        from .extras import EXTRA_OF, missing_extra

        module = (error.name or "").partition(".")[0]
        error = missing_extra(module) if module in EXTRA_OF else error
    if os.environ.get(DEBUG):
        raise error
    if isinstance(error, PilothouseError):
        typer.echo(f"pilothouse: {printable_lines(str(error))}", err=True)
        sys.exit(RESTART if isinstance(error, RestartRequired) else MISTAKE)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        typer.echo(f"pilothouse: the disk is full: {printable_lines(str(error))}", err=True)
        sys.exit(MISTAKE)
    what = f"{type(error).__name__}: {printable_lines(str(error))}"
    typer.echo(f"pilothouse: this is a bug ({what}); run again with {DEBUG}=1 and report what it shows", err=True)
    sys.exit(BUG)


def _refuse_usage(error: Any) -> NoReturn:
    """What was typed is no command of ours. Without a message the help has been shown already."""
    said = " ".join(error.format_message().split()).removesuffix(".")
    if said:
        command = error.ctx.command_path if error.ctx else "pilothouse"
        typer.echo(f"pilothouse: {printable_lines(said)} (`{command} --help` shows what there is)", err=True)
    sys.exit(MISTAKE)


_assemble()

if __name__ == "__main__":
    app()
