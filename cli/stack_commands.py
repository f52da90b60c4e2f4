"""The commands that run things: `up`, `worker`, `topics`, `migrate`. Thin: options in, one call, a line out.

Registered by `main`. Everything heavy is imported inside a command, so that `pilothouse --help` stays quick.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Where everything is kept [default: ~/.pilothouse]")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines instead of a table")]

topics = typer.Typer(no_args_is_help=True, help="The topics on the broker: list and make them.")


def up(  # noqa: PLR0913, PLR0917  # one argument for each option
    data_dir: DataDir = None,
    kafka_port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of the broker; 0 is any free one")] = 19092,
    http_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of the archive's HTTP interface; 0 is any free one")
    ] = 18123,
    page_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of the control room's page; 0 is any free one")
    ] = 18080,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Serve the control room to browsers")] = True,
    kafka_home: Annotated[Path | None, typer.Option(help="Run the Apache Kafka unpacked here; its log is kept")] = None,
    kafka: Annotated[str | None, typer.Option(help="Use the Kafka that runs at HOST:PORT")] = None,
    policy: Annotated[
        Path | None,
        typer.Option(help="Of new runs: a file, a folder, or a shipped policy [default: observe-only]"),
    ] = None,
    advisor: Annotated[
        bool | None,
        typer.Option(help="Run the advisor [default: where a rule of --policy asks one]", show_default=False),
    ] = None,
) -> None:
    """Run a whole stack on this machine: log, archive, governor, archiver, control room. Ctrl-C ends it."""
    from .rendering import out
    from .up import Wanted
    from .up import up as run_up

    served = page_port if page else None
    run_up(Wanted(data_dir, kafka_port, http_port, served, kafka_home, kafka, policy, advisor), out())


def worker(
    role: Annotated[str, typer.Argument(help="governor, archiver, advisor or endpoint")],
    slot: Annotated[str | None, typer.Option(help="Names this worker among its equals [default: 0]")] = None,
) -> None:
    """Run one worker in the foreground. Its settings are PILOTHOUSE_* variables (`up` sets them for its own)."""
    from ..settings import load_settings
    from .workers import run

    sys.exit(run(role, load_settings(os.environ, slot=slot), os.environ))


def migrate(
    data_dir: DataDir = None,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Also run a migration that says it loses something")
    ] = False,
) -> None:
    """Bring the archive's tables, retention and service levels up to this version and the settings."""
    from ..settings import load_settings
    from ..storage.connect import connect
    from ..storage.upgrade import bring_up_to_date
    from .rendering import out

    settings = load_settings(os.environ, data_dir=data_dir)
    done = bring_up_to_date(connect(settings), settings, accept_loss=accept_loss)
    for line in done:
        out().print(line)
    if not done:
        out().print("nothing to do: the archive is of this version")


@topics.command("list")
def list_topics(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """How our topics stand on the broker, how many records they hold, and where they are not as they should be."""
    from ..settings import load_settings
    from .rendering import show_rows
    from .topic_admin import describe_topics
    from .topic_reading import count_records

    settings = load_settings(os.environ, data_dir=data_dir)
    states = describe_topics(settings.log_access, settings.partitions, settings.replication)
    counts = count_records(settings.log_access, {state.name: state.partitions for state in states})
    show_rows([state.as_row() | {"records": counts[state.name]} for state in states], as_json=as_json)


@topics.command("create")
def create_topics(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Make the topics that are missing; doing it again changes nothing."""
    from ..settings import load_settings
    from .rendering import show_rows
    from .topic_admin import create_topics as create

    settings = load_settings(os.environ, data_dir=data_dir)
    states = create(settings.log_access, settings.partitions, settings.replication)
    show_rows([state.as_row() for state in states], as_json=as_json)


@topics.command("acl")
def access_lists(
    user: Annotated[
        list[str] | None, typer.Option("--user", metavar="ROLE=NAME", help="What rank, governor, … is called at yours")
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Make them on the broker, as its administrator")] = False,
    commands: Annotated[bool, typer.Option("--commands", help="As lines for kafka-acls.sh")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """The least that a rank, each worker and a person must be allowed on a Kafka with users."""
    from ..settings import load_settings
    from .access_lists import commands as lines
    from .access_lists import grant, names_of, rows
    from .rendering import print_line, show_rows

    settings = load_settings(os.environ, data_dir=data_dir)
    names = names_of({role: name for role, _, name in (pair.partition("=") for pair in user or ())})
    if apply:
        print_line(f"{grant(settings.log_access, names)} access lists are in force at {settings.kafka}")
    elif commands:
        for line in lines(names, settings.kafka):
            print_line(line)
    else:
        show_rows(rows(names), as_json=as_json)
