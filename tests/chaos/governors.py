"""Governors that can be told to die, and what one that never died would have decided.

Every reader knows a decision by its id: `as_readers_see` reads the control topic as they all do. That the trainer and
the archive do so is tested where they read: `test_command_twice`, `test_archiver_kills`.
"""

from pathlib import Path

from pilothouse.cli.brokers import LocalBroker
from pilothouse.events.codec import Malformed, to_json
from pilothouse.events.commands import Tick
from pilothouse.events.envelope import Decision
from pilothouse.events.union import AnyInput, Record
from pilothouse.governance.policy import default_policy_text, with_mode
from pilothouse.stream_processors.replay import replay
from pilothouse.tests.dying_worker import DyingWorker
from pilothouse.tests.log_reader import Read

from .three_brokers import ThreeBrokers

DEFAULT_POLICY = with_mode(default_policy_text(), "enforce")


def governor_on(
    broker: LocalBroker | ThreeBrokers, data_dir: Path, *, slot: str = "0", policy: str = DEFAULT_POLICY
) -> DyingWorker:
    policy_file = data_dir / "policy.yaml"
    data_dir.mkdir(parents=True, exist_ok=True)
    policy_file.write_text(policy)
    environ = {
        "PILOTHOUSE_KAFKA": broker.address,
        "PILOTHOUSE_EMBEDDED_BROKER": str(not broker.keeps_log).lower(),
        "PILOTHOUSE_STATE_FLUSH_SECONDS": "0.3",
        "PILOTHOUSE_TICK_SECONDS": "0.51",  # the core does not let time move faster
        "PILOTHOUSE_POLICY_FILE": str(policy_file),
    }
    return DyingWorker("governor", data_dir, environ, slot)


def undisturbed(log: list[Read]) -> dict[str, list[str]]:
    """By run, what a governor that never died decides of this log."""
    records = [Record(read.place, read.event) for read in log if isinstance(read.event, AnyInput)]
    runs = dict.fromkeys(record.event.run_id for record in records if not isinstance(record.event, Tick))
    decisions = {run_id: list(map(to_json, replay(run_id, records_of(run_id, records)))) for run_id in runs}
    return {run_id: lines for run_id, lines in decisions.items() if lines}


def records_of(run_id: str, records: list[Record]) -> list[Record]:
    """The facts of a run, and the ticks of its partition behind the first of them."""
    facts = [record for record in records if not isinstance(record.event, Tick) and record.event.run_id == run_id]
    first = facts[0].place
    ticks = [
        record
        for record in records
        if isinstance(record.event, Tick) and record.place.partition == first.partition and first.precedes(record.place)
    ]
    return sorted([*facts, *ticks], key=lambda record: record.place)


def as_readers_see(control: list[Read], copies: int = 2) -> dict[str, list[str]]:
    """By run, the decisions in the order of the topic, each once: a second copy is identical to the first. On average
    there are fewer `copies` of each.
    """
    first: dict[str, Read] = {}
    decisions: dict[str, list[str]] = {}
    for read in control:
        if isinstance(read.event, Malformed):
            continue  # of a stranger
        assert isinstance(read.event, Decision), read
        seen = first.setdefault(read.event.decision_id, read)
        assert (seen.key, seen.headers, seen.body) == (read.key, read.headers, read.body)
        if seen is read:
            decisions.setdefault(read.event.run_id, []).append(to_json(read.event))
    assert len(control) < copies * len(first), "second copies are few"
    return decisions
