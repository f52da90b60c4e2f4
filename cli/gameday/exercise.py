"""The exercise itself: a stack, a training, a break of which nothing is said, and the account at the end.

`python -m pilothouse.cli.gameday` calls `play`. The stack is one of its own, as the demo's is: nothing of anybody's is
broken. What people see they type here; what they do they do at another terminal, with the ordinary commands.
"""

import contextlib
import os
import random
import select
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...events.errors import PilothouseError
from ...events.topics import TELEMETRY
from ...producers.delivery.connection import abandon, connected_producer
from ...producers.faults import Fault, write_faults
from ..demo.launch import RankFailed, Ranks
from ..demo.recipe import Recipe
from ..demo.stack import DemoStack
from ..stack_file import told_by_stack
from .cards import CARDS, Card, Done, Harm, Said, Score, score

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

RANKS = 2
STEPS = 100_000
STEP_SECONDS = 0.1
QUIET_STEPS = 60
"""So many steps are trained in peace: a baseline, for the governor and for people."""
BREAKS_WITHIN = 200
"""Steps after the first quiet ones, at one of which it breaks."""
LOOK_EVERY = 0.5
JUNK_RECORDS = 40
OVER = "over"


@dataclass(frozen=True, slots=True)
class Wishes:
    """`card` None: drawn by `seed`. `minutes`: how long after the break the exercise ends by itself."""

    data_dir: Path
    seed: int
    minutes: float = 10.0
    card: Harm | None = None
    kafka_home: Path | None = None


@dataclass
class Account:
    """What happened, as it is told at the end. Times are seconds after the break."""

    card: Card
    step: int
    score: Score
    answers: list[Said] = field(default_factory=list)
    orders: list[Done] = field(default_factory=list)
    signs: list[tuple[float, str]] = field(default_factory=list)
    """What the governor concluded since, and when: what there was to be seen."""


def play(wishes: Wishes, console: Console) -> Account:
    """One exercise, from the stack's start to its end."""
    chance = random.Random(wishes.seed)
    drawn = chance.choice(CARDS)
    card = next((one for one in CARDS if one.harm == wishes.card), drawn)
    step = QUIET_STEPS + chance.randrange(BREAKS_WITHIN)
    run_id = f"gameday-{wishes.seed}"
    with DemoStack(wishes.data_dir, wishes.kafka_home) as stack:
        recipe = _recipe(run_id, stack.data_dir, card, step, wishes.seed)
        with Ranks(recipe, RANKS, stack.data_dir / "logs" / run_id, stack.environ) as ranks:
            _brief(console, stack, run_id, wishes)
            account = _Exercise(stack, ranks, card, run_id, console).played(step, wishes.minutes)
            console.print("It is over; the account comes when the stack has stopped.")
            return account


def _recipe(run_id: str, folder: Path, card: Card, step: int, seed: int) -> Recipe:
    faults = {
        "spoilt data": (
            Fault("corrupt_data", "batch", step, times=0, numbers={"first": float(step), "last": float(step + 400)}),
        ),
        "learning rate": (Fault("scale_lr", "optimizer", step, numbers={"factor": 1e4}),),
    }.get(card.harm, ())
    return Recipe(
        run_id=run_id,
        checkpoints=str(folder / "checkpoints"),
        steps=STEPS,
        seed=seed,
        faults=write_faults(faults),
        step_seconds=STEP_SECONDS,
        width=48,
        layers=1,
    )


def _brief(console: Console, stack: DemoStack, run_id: str, wishes: Wishes) -> None:
    for line in (
        f"[bold]A training, {run_id}, runs on a live stack.[/] Something will break in it or under it, or nothing.",
        "Look and act at another terminal, with the ordinary commands:",
        f"  export PILOTHOUSE_DATA_DIR={stack.data_dir}",
        f"  pilothouse runs; pilothouse show {run_id}; pilothouse status; pilothouse doctor",
        f"  pilothouse pause {run_id} --why …; pilothouse stop {run_id} --why …; the logs are in {stack.data_dir}/logs",
        "Type here what you see, one finding a line, as soon as you see it; it is the word that counts, and a wrong",
        "one costs points. Each line is noted, and not judged before the end.",
        f"`{OVER}` ends the exercise; {wishes.minutes:g} minutes after the break it ends by itself.",
    ):
        console.print(line, highlight=False, soft_wrap=True)


class _Exercise:
    def __init__(self, stack: DemoStack, ranks: Ranks, card: Card, run_id: str, console: Console) -> None:
        self._console = console
        self._stack = stack
        self._ranks = ranks
        self._card = card
        self._run_id = run_id
        self._answers: list[tuple[float, str]] = []
        self._continued: float | None = None
        self._frozen = 0

    def played(self, step: int, minutes: float) -> Account:
        lines = _typed()
        while self._step() < step and self._listens(lines):
            pass
        broke_at = self._break(step)
        try:
            while time.time() < broke_at + 60 * minutes and self._listens(lines) and self._trains():
                self._look()
        finally:
            self._mend()
        return self._account(step, broke_at)

    def _listens(self, lines: "Iterator[str | None]") -> bool:
        """Wait a moment for what is typed; whether the exercise goes on."""
        for line in lines:
            if line is None:
                return True
            if line == OVER:
                return False
            self._answers.append((time.time(), line))
            self._console.print("noted")
        return True

    def _trains(self) -> bool:
        try:
            return not self._ranks.ended()
        except RankFailed:
            return False  # somebody ended it from outside

    def _step(self) -> int:
        with contextlib.suppress(PilothouseError):
            rows = self._ask("SELECT max(step) AS step FROM steps WHERE run_id = {run:String}")
            return int(rows[0]["step"] or 0)
        return 0

    def _break(self, step: int) -> float:
        """Break what the card says; when it broke, in seconds since the epoch."""
        broke_at = time.time()
        pids = told_by_stack(self._stack.data_dir).get("pids", {})
        match self._card.harm:
            case "rank stands still":
                self._freeze(self._ranks.pids[RANKS - 1])
            case "governor stands still":
                self._freeze(pids["governor"])
            case "archive killed":
                os.kill(pids["archive"], signal.SIGKILL)
            case "junk":
                self._send_junk()
            case _:
                broke_at = self._trained_at(step)  # the training breaks by itself, or nothing does
        return broke_at

    def _trained_at(self, step: int) -> float:
        rows = self._ask(
            "SELECT toUnixTimestamp64Micro(min(at)) AS at FROM steps"
            " WHERE run_id = {run:String} AND step >= {step:UInt64}",
            step=step,
        )
        return float(rows[0]["at"]) / 1e6

    def _freeze(self, pid: int) -> None:
        self._frozen = pid
        os.kill(pid, signal.SIGSTOP)

    def _look(self) -> None:
        """Whether somebody has put right by hand what stands still."""
        if self._frozen and self._continued is None and not _stands_still(self._frozen):
            self._continued = time.time()

    def _mend(self) -> None:
        if self._frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._frozen, signal.SIGCONT)

    def _send_junk(self) -> None:
        producer, partitions = connected_producer(self._stack.settings.log_access, seconds=10.0)
        try:
            for number in range(JUNK_RECORDS):
                producer.send(TELEMETRY.name, b"\xc1 tea, anyone?", partition=number % partitions).get(10)
        finally:
            abandon(producer)

    def _account(self, step: int, broke_at: float) -> Account:
        answers = [Said(at - broke_at, text) for at, text in self._answers]
        orders = [
            Done(row["at"] / 1e6 - broke_at, row["verb"], row["why"])
            for row in self._ask(
                "SELECT toUnixTimestamp64Micro(at) AS at, JSONExtractString(body, 'verb') AS verb,"
                " JSONExtractString(body, 'why') AS why FROM events"
                " WHERE run_id = {run:String} AND kind = 'operator_command' ORDER BY at"
            )
        ]
        if self._continued is not None:
            orders.append(Done(self._continued - broke_at, "continued"))
        orders.sort(key=lambda done: done.after)
        signs = [
            (row["at"] / 1e6 - broke_at, f"{row['name']} is {row['status']}: {row['reason']}")
            for row in self._ask(
                "SELECT toUnixTimestamp64Micro(at) AS at, JSONExtractString(body, 'condition') AS name,"
                " JSONExtractString(body, 'status') AS status, JSONExtractString(body, 'reason') AS reason FROM events"
                " WHERE run_id = {run:String} AND kind = 'condition_changed' ORDER BY at"
            )
            if row["at"] / 1e6 >= broke_at
        ]
        return Account(self._card, step, score(self._card, answers, orders), answers, orders, signs)

    def _ask(self, question: str, **parameters: Any) -> list[dict[str, Any]]:
        from ...storage.connect import refusals

        with refusals():
            client: Client = self._stack.connect()
            return list(client.query(question, parameters={"run": self._run_id, **parameters}).named_results())


def _typed() -> "Iterator[str | None]":
    """Lines as they are typed; None where there is none for a moment. Never ends."""
    open_input = True
    while True:
        if not select.select([sys.stdin] if open_input else [], [], [], LOOK_EVERY)[0]:
            yield None
            continue
        line = sys.stdin.readline()
        open_input = bool(line)
        yield line.strip() or None


def _stands_still(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False
