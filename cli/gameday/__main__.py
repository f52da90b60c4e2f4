"""`python -m pilothouse.cli.gameday`: one exercise, and its account on the screen and in `build/gameday.json`."""

import json
import random
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ...events.errors import UserMistake
from ...events.plain_text import printable
from ..extras import LOCAL, require
from ..rendering import out
from .cards import CARDS
from .exercise import Account, Wishes, play


def main(
    seed: Annotated[int | None, typer.Option(help="Plays the same exercise again [default: drawn]")] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long after the break it ends by itself")] = 10.0,
    card: Annotated[str | None, typer.Option(help="For whoever holds the exercise: what is to break")] = None,
    kafka_home: Annotated[Path | None, typer.Option(help="Run the Apache Kafka unpacked here")] = None,
    report: Annotated[Path, typer.Option(help="Where the account is written as JSON")] = Path("build/gameday.json"),
) -> None:
    """Break something on a live stack, say nothing, and score what people saw and did."""
    require((*LOCAL, "torch"), "`make gameday`")
    harm = next((one.harm for one in CARDS if one.harm == card), None)
    if card is not None and harm is None:
        raise UserMistake(f"no card is called {card!r}; there are: {', '.join(one.harm for one in CARDS)}")
    seed = random.randrange(10_000) if seed is None else seed
    with tempfile.TemporaryDirectory(prefix="pilothouse-gameday-", ignore_cleanup_errors=True) as folder:
        account = play(Wishes(Path(folder), seed, minutes, harm, kafka_home), out())
    _show(account, seed)
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps({"seed": seed, **asdict(account)}, indent=1) + "\n")


def _show(account: Account, seed: int) -> None:
    console, score = out(), account.score
    console.print(f"\n[bold]What broke: {account.card.harm}[/], at step {account.step} (seed {seed})", highlight=False)
    console.print(f"  where it shows: {account.card.look}", highlight=False, soft_wrap=True)
    happened = [
        *((after, f"the governor: {sign}") for after, sign in account.signs),
        *((said.after, f"you said: {said.text}") for said in account.answers),
        *((done.after, f"you did: {done.verb}  {done.why}") for done in account.orders),
    ]
    for after, what in sorted(happened):
        console.print(f"  {after:+7.1f} s  {printable(what)}", markup=False, highlight=False, soft_wrap=True)
    seen = "never" if score.seen_after is None else f"after {score.seen_after:.0f} s"
    done = "never" if score.done_after is None else f"after {score.done_after:.0f} s"
    if not account.card.deeds:
        done = "not needed"
    console.print(
        f"[bold]{score.points} of {score.most} points[/]: seen {seen}, done {done}, "
        f"{score.wrong_answers} wrong answers, {score.needless_orders} needless orders",
        highlight=False,
    )


if __name__ == "__main__":
    try:
        typer.run(main)
    except UserMistake as mistake:
        sys.exit(f"gameday: {mistake}")
