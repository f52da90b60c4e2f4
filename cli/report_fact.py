"""`pilothouse report-fact RUN NAME key=value ...`: a fact from the pipeline around a run, from outside of its script.

What service levels are computed on and only the pipeline's owner knows: promotions, retrain triggers, data freshness,
bias tests, latency after deployment. A record of the log like any other, with who and when.
"""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import NAMESPACE_URL, uuid4, uuid5

import typer

from ..producers.person import person

if TYPE_CHECKING:
    from ..events.commands import PipelineReported


def report_fact(  # noqa: PLR0913, PLR0917  # a command's options
    run: Annotated[str, typer.Argument(help="The run's id, or its beginning", show_default=False)],
    name: Annotated[str, typer.Argument(help="promotion, data_freshness, latency, …; a wrong one shows all")],
    numbers: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE ...", help="Its numbers")] = None,
    subject: Annotated[
        str, typer.Option("--subject", help="What it is about: a model version, a data set, a metric")
    ] = "",
    note: Annotated[str, typer.Option("--note", help="For people")] = "",
    who: Annotated[str, typer.Option("--who", help="Who says it [default: user@host]", show_default=False)] = "",
    at: Annotated[str, typer.Option("--at", help="When it happened, ISO 8601 [default: now]", show_default=False)] = "",
    once: Annotated[
        str,
        typer.Option(
            "--once", help="A word of yours: the same fact with the same word counts once", show_default=False
        ),
    ] = "",
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Of the stack [default: ~/.pilothouse]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The event as one JSON object")] = False,
) -> None:
    """Report a fact of the pipeline around a run: promotion, retrain trigger, data freshness, bias test, latency."""
    from ..producers.delivery.kafka import send_fact
    from .reading import full_name, open_archive
    from .rendering import json_line, print_line

    said = {
        "fact": name,
        "subject": subject,
        "note": note,
        "who": who or person(),
        "numbers": read_numbers(numbers or ()),
    }
    moment = read_moment(at)
    fact_of("a-run", said, moment, once)  # a mistake is said before anybody is asked anything
    archive = open_archive(data_dir)
    event = fact_of(full_name(archive.client, run), said, moment, once)
    send_fact(archive.settings, event)
    print_line(
        json_line(json.loads(event.model_dump_json())) if as_json else f"{name} is in the log of run {event.run_id}"
    )


def fact_of(run_id: str, said: Mapping[str, object], at: int, once: str) -> "PipelineReported":
    """The event. Its writer is this one report, or all with the same word `once`: a repetition is a duplicate.

    Raises:
        UserMistake: there is no such kind of fact, or its numbers are others.
    """
    from pydantic import ValidationError

    from ..events.commands import PIPELINE_FACTS, PipelineReported
    from ..events.errors import UserMistake
    from ..events.redaction import redacted_text

    if said["fact"] not in PIPELINE_FACTS:
        raise UserMistake(f"no fact is called {said['fact']!r}; there are {', '.join(sorted(PIPELINE_FACTS))}")
    word = uuid5(NAMESPACE_URL, f"{run_id}\x1f{said['fact']}\x1f{said['subject']}\x1f{once}") if once else uuid4()
    clean = {name: redacted_text(text) for name, text in said.items() if isinstance(text, str)}
    try:
        return PipelineReported.model_validate(
            {"run_id": run_id, "writer_id": f"pipeline-{word.hex}", "seq": 1, "at": at, **said, **clean}
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = "".join(f"{part}: " for part in first["loc"])
        raise UserMistake(f"{place}{first['msg'].removeprefix('Value error, ')}") from error


def read_numbers(pairs: Sequence[str]) -> dict[str, float]:
    """`age_hours=3.5` and the like.

    Raises:
        UserMistake: one is no such pair.
    """
    from ..events.errors import UserMistake

    numbers: dict[str, float] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            numbers[name] = float(value)
        except ValueError as error:
            raise UserMistake(f"{pair!r} is no number with its name; write it as age_hours=3.5") from error
    return numbers


def read_moment(text: str) -> int:
    """Microseconds UTC; a time without a zone is this machine's.

    Raises:
        UserMistake: it is no time, or one that is not yet.
    """
    from ..events.errors import UserMistake

    now = time.time_ns() // 1_000
    if not text:
        return now
    try:
        moment = int(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1e6)
    except (ValueError, OverflowError, OSError) as error:
        raise UserMistake(
            f"--at {text!r} is no time; write it as 2026-11-21T18:30 or 2026-11-21T18:30:00+00:00"
        ) from error
    if not 0 <= moment <= now + 60_000_000:
        raise UserMistake(f"--at {text!r} is not in the past")
    return moment
