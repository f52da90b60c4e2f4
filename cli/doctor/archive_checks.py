"""What the doctor asks the archive: its schema, how far behind it is, the clocks, policies and refusals it knows of."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...events.topics import TELEMETRY
from ...settings import Settings
from .finding import Finding
from .machine_checks import LEAST_FREE, LITTLE_FREE

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

LATE_SECONDS = 30.0
SKEW_SECONDS = 2.0
BEHIND_SECONDS = 300.0
"""A record of a clock that is behind looks late; so does one that waited on a disk."""


def schema(settings: Settings) -> Iterator[Finding]:
    """Whether its tables are of this version."""
    from ...storage.migrate import load_migrations, pending
    from ...storage.named import ask

    with _client(settings) as client:
        applied = {row["number"]: (row["name"], row["checksum"]) for row in ask(client, "applied_migrations")}
    due = pending(load_migrations(), applied)
    if due:
        names = ", ".join(f"{migration.number:04}_{migration.name}" for migration in due)
        back = "pilothouse storage backup, then pilothouse migrate (pilothouse up does it when it starts)"
        yield Finding("schema", "fault", f"it is {len(due)} migrations behind: {names}", back)
    else:
        yield Finding("schema", "well", f"of this version ({len(applied)} migrations)")


def lag(settings: Settings) -> Iterator[Finding]:
    """How far behind the log it is. A tick a second comes from the governor: none is a governor that is away."""
    from ...storage.imports.telling import PARTITION
    from ...storage.queries import ingest_lag

    with _client(settings) as client:
        rows = [row for row in ingest_lag(client) if row["topic"] == TELEMETRY.name]
    rows = [row for row in rows if row["log_partition"] != PARTITION]  # imported runs have no clock
    late = [row for row in rows if row["behind_s"] > LATE_SECONDS]
    for row in late:
        found = f"{row['topic']}/{row['log_partition']}: nothing newer than {row['behind_s']:.0f} s"
        yield Finding(
            "archive", "fault", found, "the governor ticks and the archiver archives: pilothouse status says which"
        )
    if not late:
        yield Finding("archive", "well", f"{len(rows)} partitions, none over {LATE_SECONDS:.0f} s behind")


def clocks(settings: Settings) -> Iterator[Finding]:
    """This machine's clock and the trainers' against the archive's."""
    from ...storage.named import ask

    with _client(settings) as client:
        asked = time.time()
        [told] = ask(client, "archive_clock")
        answered = time.time()
        trainers = ask(client, "trainer_clocks", ahead=SKEW_SECONDS, behind=BEHIND_SECONDS)
    skew = max(asked - told["now"], told["now"] - answered, 0.0)
    synchronise = "let NTP or chrony set both clocks (timedatectl)"
    if skew > SKEW_SECONDS:
        yield Finding("clocks", "fault", f"this machine and the archive's differ by {skew:.1f} s", synchronise)
    for row in trainers:
        who, late = f"rank {row['rank']} of {row['run_id']}", row["quickest"]
        if late < 0:
            yield Finding("clocks", "fault", f"{who}: its clock is {-late:.1f} s ahead of the archive's", synchronise)
        else:
            found = f"{who}: {late:.0f} s behind the archive's clock, or its records waited on a disk"
            yield Finding("clocks", "warning", found, f"{synchronise}; pilothouse spool list where it runs")
    if skew <= SKEW_SECONDS and not trainers:
        yield Finding("clocks", "well", f"within {SKEW_SECONDS:.0f} s of the archive's")


def policies_in_force(settings: Settings) -> Iterator[Finding]:
    """Whether runs go on under another text than the policies have now."""
    from ...governance.policy import policy_hash
    from ...storage.named import ask
    from ...stream_processors.policy_text import read_policies

    texts = {policy.name: policy_hash(policy.text) for policy in read_policies(settings.policy_file).policies}
    with _client(settings) as client:
        rows = ask(client, "policies_in_force")
    for row in rows:
        if texts.get(row["name"], row["policy_hash"]) != row["policy_hash"]:
            found = f"{row['run_id']} is governed by another text of {row['name']} than {settings.policy_file} has now"
            yield Finding("policies", "warning", found, "if the new one is meant for it: pilothouse policy activate")


def refusals(settings: Settings) -> Iterator[Finding]:
    """What trainers refused or failed to do in the last day."""
    from ...storage.named import ask

    with _client(settings) as client:
        rows = ask(client, "refusals")
    for row in rows:
        found = f"{row['run_id']}: {row['outcome']} {row['times']} times: {row['reason']}"
        yield Finding(
            "trainers", "warning", found, "pilothouse interventions RUN; a key, an attempt or a bound is not theirs"
        )


def archive_disks(settings: Settings) -> Iterator[Finding]:
    """The room where ClickHouse keeps the archive."""
    from ...storage.named import ask

    with _client(settings) as client:
        rows = ask(client, "archive_disks")
    for row in rows:
        if row["free"] < LITTLE_FREE:
            found = f"ClickHouse's disk {row['name']!r} has {row['free'] / 1024**3:.1f} GiB left"
            do = "make room there, or keep less: PILOTHOUSE_KEEP_STEPS_DAYS"
            yield Finding("disk", "fault" if row["free"] < LEAST_FREE else "warning", found, do)


@contextmanager
def _client(settings: Settings) -> "Iterator[Client]":
    from ...storage.connect import connect

    client = connect(settings)
    try:
        yield client
    finally:
        client.close()
