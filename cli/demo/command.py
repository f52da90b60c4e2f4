"""`pilothouse demo`: the closed loop, shown end to end on this machine, and proved from the archive.

Registered by `cli.main`. It starts a stack of its own (`stack`), trains (`story`), reports (`report`, `verdict`) and
asks the archive by `pilothouse sql`. Its exit status is 0 only if every leg of the loop closed.
"""

import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from types import FrameType
from typing import Annotated, Any, NoReturn
from uuid import uuid4

import typer
from rich.console import Console

from ...events.errors import UserMistake
from ..extras import LOCAL, require
from ..rendering import json_line, out, print_line
from .account import Account
from .plan import FEWEST_STEPS, HEADS, LAYERS, RANKS, STEPS, WIDTH, Name, Scope, Setting
from .questions import questions_about
from .report import losses, show_answer, show_report, show_verdict
from .screen import Screen
from .stack import DemoStack
from .story import tell_story
from .timeline import timeline
from .verdict import Finding, findings

OPEN, INTERRUPTED = 1, 130


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of the demo besides its size."""

    scope: Scope
    keep_stack: bool
    as_json: bool
    kafka_home: Path | None


Steps = Annotated[int, typer.Option(min=FEWEST_STEPS, help="Optimizer steps of each run")]
Ranks = Annotated[int, typer.Option(min=1, max=16, help="Processes that train together")]
Seed = Annotated[int, typer.Option(help="Of the weights and of the order of the data")]
NoFaults = Annotated[bool, typer.Option("--no-faults", help="Break nothing: a governed run must be left alone")]
GovernedOnly = Annotated[bool, typer.Option("--governed-only", help="Only the governed run, compared with none")]
Width = Annotated[int, typer.Option(min=8, help="Of the model")]
Layers = Annotated[int, typer.Option(min=1, help="Of the model")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Keep everything here [default: a temporary one]")]
KeepStack = Annotated[bool, typer.Option("--keep-stack", help="Leave the stack up to look around, until Ctrl-C")]
KafkaHome = Annotated[Path | None, typer.Option(help="Run the Apache Kafka unpacked here as the stack's broker")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, progress on the other")]


def demo(  # noqa: PLR0913, PLR0917  # one argument for each option
    steps: Steps = STEPS,
    ranks: Ranks = RANKS,
    seed: Seed = 0,
    no_faults: NoFaults = False,
    governed_only: GovernedOnly = False,
    width: Width = WIDTH,
    layers: Layers = LAYERS,
    data_dir: DataDir = None,
    keep_stack: KeepStack = False,
    kafka_home: KafkaHome = None,
    as_json: AsJson = False,
) -> None:
    """Train three small GPTs: healthy, broken, broken and governed; and prove from the archive what was done."""
    require((*LOCAL, "torch"), "`pilothouse demo`")
    if no_faults and governed_only:
        raise UserMistake("give one of --no-faults (a governed run, nothing broken) and --governed-only (broken)")
    if width % HEADS:
        raise UserMistake(f"--width {width} is not a multiple of {HEADS}, the number of attention heads")
    scope: Scope = "quiet" if no_faults else "governed" if governed_only else "all"
    console = out(stderr=as_json)
    setting = Setting(tag=uuid4().hex[:6], steps=steps, ranks=ranks, seed=seed, width=width, layers=layers)
    try:
        with _signals_interrupt(), _directory(data_dir) as directory:
            closed = _run(setting, directory, console, Wishes(scope, keep_stack, as_json, kafka_home))
    except KeyboardInterrupt:
        console.print("stopped")
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(0 if closed else OPEN)


def _run(setting: Setting, directory: Path, console: Console, wishes: Wishes) -> bool:
    """Whether the loop closed."""
    with Screen(console) as screen:
        screen.busy("starting the stack…")
        with DemoStack(directory, wishes.kafka_home) as stack:
            screen.say(f"the stack is up: log {stack.settings.kafka}, everything in {directory}")
            screen.say(f"watch it in a browser: {stack.page}")
            accounts = tell_story(stack, setting, screen, wishes.scope)
            screen.stop()
            found = findings(setting, accounts)
            show_report(console, accounts)
            found.append(_ask(stack, setting, accounts, console))
            show_verdict(console, found)
            if wishes.as_json:
                print_line(json_line(_as_json(setting, accounts, found)))
            if wishes.keep_stack:
                _stay(stack, console)
    return all(finding.held for finding in found)


def _ask(stack: DemoStack, setting: Setting, accounts: Mapping[Name, Account], console: Console) -> Finding:
    """The same facts by `pilothouse sql`, run as printed."""
    console.print(
        "\n[bold]The same by SQL[/] (again later: with --keep-stack, or `pilothouse up` on the same --data-dir)"
    )
    governed = accounts.get("governed") or accounts["quiet"]
    questions = questions_about(f"demo-{setting.tag}-", governed.run_id)
    answered = 0
    for question in questions.values():
        told = stack.command("sql", "--data-dir", str(stack.data_dir), question)
        # In double quotes: the statements hold single ones, and nothing that a shell would replace.
        typed = f'pilothouse sql --data-dir {quote(str(stack.data_dir))} "{question}"'
        show_answer(console, typed, told.stdout or told.stderr)
        answered += told.returncode == 0
    seen = f"{answered} of {len(questions)} answered"
    return Finding("the archive answers `pilothouse sql`", answered == len(questions), seen)


def _as_json(setting: Setting, accounts: Mapping[Name, Account], found: list[Finding]) -> dict[str, Any]:
    governed = accounts.get("governed") or accounts["quiet"]
    return {
        "closed": all(finding.held for finding in found),
        "setting": asdict(setting),
        "runs": list(losses(accounts)),
        "interventions": governed.interventions,
        "timeline": timeline(governed),
        "findings": [asdict(finding) for finding in found],
    }


def _stay(stack: DemoStack, console: Console) -> None:
    """Until Ctrl-C, which is the way to end this and no failure."""
    console.print(
        f"\nThe stack stays up. Look around with `pilothouse runs --data-dir {stack.data_dir}`; Ctrl-C ends it."
    )
    try:
        signal.pause()
    except KeyboardInterrupt:
        console.print("stopping…")


@contextmanager
def _directory(given: Path | None) -> Iterator[Path]:
    """The given directory, or one that is gone afterwards."""
    if given is not None:
        given = given.expanduser().absolute()
        try:
            given.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserMistake(f"--data-dir {given} cannot be used: {error}") from error
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="pilothouse-demo-", ignore_cleanup_errors=True) as temporary:
        yield Path(temporary)


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does; a background job, which ignores SIGINT, is ended by it too."""

    def interrupt(number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt(number)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
