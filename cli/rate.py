"""`pilothouse rate RUN SAMPLE RATING`: a person's word on what the model said. Without a sample: what there is to rate.

A rating is a record of the log like any other (`RunAnnotated`), with who and when. Each person's last word counts.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from ..producers.person import person
from .completion import run_ids
from .report_writing import DataDir

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from ..events.commands import RunAnnotated

Row = dict[str, Any]
WORDS = {"good": 1.0, "bad": 0.0, "+": 1.0, "-": 0.0, "up": 1.0, "down": 0.0}
MOST_SAMPLES = 5_000
WAIT_SECONDS = 15.0
LOOK_EVERY = 0.2
SHOWN = 60


def rate(  # noqa: PLR0913, PLR0917  # a command's options
    run: Annotated[
        str, typer.Argument(help="The run's id, or its beginning", show_default=False, autocompletion=run_ids)
    ],
    sample: Annotated[str, typer.Argument(help="Its id, or the end of it; `last` is the newest")] = "",
    rating: Annotated[str, typer.Argument(help="good, bad, 0.8, 80%, or 4/5")] = "",
    note: Annotated[str, typer.Option("--note", help="Why, for whoever reads it later")] = "",
    who: Annotated[str, typer.Option("--who", help="Who rates [default: user@host]", show_default=False)] = "",
    wait: Annotated[float, typer.Option(min=0.0, help="Seconds to wait until it is archived")] = WAIT_SECONDS,
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of words")] = False,
) -> None:
    """Rate a sample of what the model said, or list the samples with their ratings."""
    from ..events.errors import UserMistake
    from ..producers.delivery.kafka import send_fact
    from .reading import full_name, open_archive
    from .rendering import json_line, print_line

    if bool(sample) != bool(rating):
        raise UserMistake("rate with both: `pilothouse rate RUN SAMPLE RATING`; without either, the samples are listed")
    value = read_rating(rating) if rating else 0.0
    archive = open_archive(data_dir)
    run_id = full_name(archive.client, run)
    samples = samples_in(archive.client, run_id)
    if not sample:
        _show(samples, as_json=as_json)
        return
    chosen = chosen_sample(samples, sample, run_id)
    event = rating_of(
        run_id, chosen["sample_id"], value, {"who": who or person(), "text": note}, time.time_ns() // 1_000
    )
    send_fact(archive.settings, event)
    kept = _until(lambda: _is_archived(archive.client, event), wait)
    if as_json:
        print_line(json_line(json.loads(event.model_dump_json()) | {"archived": kept}))
        return
    later = "" if kept else "; it is in the log, and not in the archive yet"
    print_line(f"{chosen['name']} of step {chosen['step']} is rated {value:.2g} by {event.who}{later}")


def read_rating(text: str) -> float:
    """From 0 (bad) to 1 (good).

    Raises:
        UserMistake: it is no rating.
    """
    from ..events.errors import UserMistake

    said = text.strip().lower()
    top, _, bottom = said.partition("/")
    try:
        if said in WORDS:
            return WORDS[said]
        value = float(said[:-1]) / 100 if said.endswith("%") else float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError):
        value = -1.0
    if not 0 <= value <= 1:
        raise UserMistake(f"{text!r} is no rating: write good, bad, a number from 0 to 1, 80%, or 4/5")
    return value


def chosen_sample(samples: Sequence[Row], wanted: str, run_id: str) -> Row:
    """
    Raises:
        UserMistake: there is none such, or more than one; which there are.
    """
    from ..events.errors import UserMistake

    if not samples:
        raise UserMistake(f"run {run_id} has recorded no samples")
    if wanted == "last":
        return samples[-1]
    found = [row for row in samples if row["sample_id"] == wanted] or [
        row for row in samples if row["sample_id"].endswith(wanted)
    ]
    if len(found) == 1:
        return found[0]
    told = ", ".join(row["sample_id"] for row in (found or samples)[-3:])
    what = "more than one sample ends so" if found else f"run {run_id} has no sample {wanted!r}"
    raise UserMistake(f"{what}; such as {told} (all of them: `pilothouse rate {run_id}`)")


def rating_of(run_id: str, sample_id: str, rating: float, said: dict[str, str], at: int) -> "RunAnnotated":
    """The event. Its writer is this one word.

    Raises:
        UserMistake: who or why is too long, or empty.
    """
    from pydantic import ValidationError

    from ..events.commands import RunAnnotated
    from ..events.errors import UserMistake
    from ..events.redaction import redacted_text

    clean = {name: redacted_text(text) for name, text in said.items()}
    identity = {"run_id": run_id, "writer_id": f"rating-{uuid4().hex}", "seq": 1, "at": at}
    try:
        return RunAnnotated.model_validate({**identity, **clean, "about": sample_id, "rating": rating})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise UserMistake(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def samples_in(client: "Client", run_id: str) -> list[Row]:
    """The run's samples with their ratings, oldest first."""
    from ..control_room.report.material import told_of
    from ..control_room.report.samples import samples_among
    from ..storage.queries import events_of

    rows = events_of(client, run_id, kinds=("sample_recorded", "annotated"), limit=MOST_SAMPLES)
    return samples_among([told_of(row) for row in rows])


def _show(samples: Sequence[Row], *, as_json: bool) -> None:
    from ..events.event_words import number, text_of
    from .rendering import Column, show_rows

    def said(row: Any) -> str:
        line = " ".join(row["output"].split())
        return "".join(letter for letter in line if letter.isprintable())[:SHOWN]

    columns: list[Column] = [
        ("sample", lambda row: row["sample_id"]),
        ("step", lambda row: text_of(row["step"])),
        ("name", lambda row: row["name"]),
        ("rating", lambda row: number(row["mean_rating"], 2)),
        ("by", lambda row: str(len(row["ratings"]))),
        ("output", said),
    ]
    show_rows(samples, as_json=as_json, columns=columns, empty="no samples were recorded")


def _is_archived(client: "Client", event: "RunAnnotated") -> bool:
    from ..storage.queries import events_of

    rows = events_of(client, event.run_id, kinds=("annotated",), limit=MOST_SAMPLES)
    return any(row["event_id"] == event.event_id for row in rows)


def _until(holds: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(LOOK_EVERY)
    return True
