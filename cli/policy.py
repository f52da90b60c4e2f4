"""`pilothouse policy`: check, test, explain, compare and activate policies. Options in, words or JSON out.

Registered by `main`. What a policy is stands in `governance`, how its tests run in `stream_processors.trial`; the words
for people are in `policy_views`. A mistake in a policy ends with status 2, a failing test with 1.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..governance.policy import Policy

MISTAKE, FAILED = 2, 1

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Of the stack [default: ~/.pilothouse]")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines instead of words")]
Source = Annotated[str, typer.Argument(help="A file, or the name of a shipped policy", show_default=False)]
Sources = Annotated[
    list[str], typer.Argument(help="Files, folders of policies, or names of shipped policies", show_default=False)
]
InForce = Annotated[str, typer.Option("--run", help="A run's id, or its beginning", show_default=False)]

policy = typer.Typer(no_args_is_help=True, help="Policies: check, test, explain, compare and activate them.")


@policy.command()
def check(sources: Sources, as_json: AsJson = False) -> None:
    """Say everything that is wrong with policies, each with its line and column. Status 2 if anything is."""
    from .policy_sources import checked
    from .policy_views import show_check

    results = checked(sources)
    show_check(results, as_json=as_json)
    if any(result.mistakes for result in results):
        raise typer.Exit(MISTAKE)


@policy.command("test")
def run_tests(
    sources: Sources,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="What happened in each test, step by step")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the inline tests of policies through the real fold. Status 1 if one fails."""
    from ..stream_processors.trial import run_trials
    from .policy_sources import named, texts
    from .policy_views import show_outcome, show_tested

    failed = 0
    for source in texts(sources):
        loaded = named(source)
        outcomes = list(run_trials(loaded, source.text))
        for outcome in outcomes:
            show_outcome(source.label, outcome, verbose=verbose, as_json=as_json)
        failed += sum(not outcome.passed for outcome in outcomes)
        if not as_json:
            show_tested(source.label, outcomes)
    if failed:
        raise typer.Exit(FAILED)


@policy.command()
def explain(source: Source, run: InForce = "", data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Say in plain words what a policy does: when, how long, what first, what next, who must agree.

    With --run also which of its rules could act on that run now, and why the others could not.
    """
    from .policy_sources import named, one_text
    from .policy_views import show_explanation

    loaded = named(one_text(source))
    show_explanation(loaded, _standings(loaded, run, data_dir) if run else None, as_json=as_json)


@policy.command()
def diff(
    before: Annotated[str, typer.Argument(help="A file or shipped policy; with --run the new one", show_default=False)],
    after: Annotated[str, typer.Argument(help="The one it is compared with", show_default=False)] = "",
    run: InForce = "",
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Say rule by rule what differs between two policies, or from the one in force for a run to this one."""
    from ..events.errors import UserMistake
    from ..governance.policy_diff import differences
    from .policy_activation import open_runs_archive
    from .policy_sources import named, one_text
    from .policy_views import show_differences

    if bool(after) == bool(run):
        raise UserMistake("name two policies, or one and --run: then it is compared with the one in force for that run")
    if run:
        archive = open_runs_archive(data_dir)
        old, new = archive.in_force(archive.full_name(run)).policy, named(one_text(before))
    else:
        old, new = named(one_text(before)), named(one_text(after))
    show_differences(list(differences(old, new)), as_json=as_json)


@policy.command()
def activate(  # noqa: PLR0913, PLR0917  # a command's options
    source: Source,
    run: InForce = "",
    all_runs: Annotated[bool, typer.Option("--all", help="Every run that goes on and that it applies to")] = False,
    skip_tests: Annotated[
        bool, typer.Option("--skip-tests", help="Although its own tests fail, or are not run")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Let a policy govern a run from now on, or all that go on. It must be right and pass its own tests.

    Runs that start later get what `pilothouse up --policy` names.
    """
    from ..events.errors import UserMistake
    from .policy_activation import activate_on, open_runs_archive, refuse_failing
    from .policy_sources import named, one_text
    from .policy_views import show_activation

    if bool(run) == all_runs:
        raise UserMistake("say for which runs: --run RUN, or --all for every run that goes on")
    text = one_text(source)
    loaded = named(text)
    if not skip_tests:
        refuse_failing(loaded, text)
    archive = open_runs_archive(data_dir)
    names = archive.going_on() if all_runs else [archive.full_name(run)]
    done = [activate_on(archive, name, text.text, asked_for=not all_runs) for name in names]
    for activation in done:
        show_activation(activation, as_json=as_json)
    _say_who_is_missing(loaded, archive.settings.data_dir)
    if not done and not as_json:
        typer.echo("no run goes on; runs that start later get what `pilothouse up --policy` names")


def _say_who_is_missing(activated: "Policy", data_dir: Path) -> None:
    """Where this machine's own stack runs no advisor for a policy that asks one; of others nothing is known."""
    from .asking import asked_by, unheard
    from .stack_file import told_by_stack

    pids = told_by_stack(data_dir).get("pids", {})
    for line in unheard(asked_by([activated]), advisor_runs="advisor" in pids) if pids else ():
        typer.echo(line, err=True)


@policy.command("list")
def list_policies(
    sources: Annotated[
        list[str] | None, typer.Argument(help="Files or folders [default: the shipped ones]", show_default=False)
    ] = None,
    runs: Annotated[bool, typer.Option("--runs", help="Which policy governs each run that goes on")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """The policies there are, or with --runs which of them governs each run."""
    from ..governance.policy import SHIPPED
    from .policy_activation import open_runs_archive
    from .policy_sources import named, texts
    from .policy_views import show_policies, show_runs

    if runs:
        archive = open_runs_archive(data_dir)
        show_runs([archive.in_force(name) for name in archive.going_on()], as_json=as_json)
        return
    show_policies([(source.label, named(source)) for source in texts(sources or list(SHIPPED))], as_json=as_json)


@policy.command()
def schema() -> None:
    """The JSON Schema of a policy file, for editors: write it to a file and name it in the policy's first line."""
    from ..governance.policy_schema import schema_text
    from .rendering import print_line

    print_line(schema_text().rstrip("\n"))


def _standings(loaded: "Policy", run: str, data_dir: Path | None) -> list[object]:
    from ..governance.policy_standing import standings
    from ..storage.history import stream_log
    from ..stream_processors.moment import moment_of, state_after
    from .policy_activation import open_runs_archive

    archive = open_runs_archive(data_dir)
    run_id = archive.full_name(run)
    state = state_after(run_id, stream_log(archive.client, run_id))
    return list(standings(loaded, moment_of(state)))
