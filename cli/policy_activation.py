"""From a policy's text to the log: which runs it may govern, what was in force there, and the record that changes it.

Used by the commands of `policy`. The governor takes the text as it stands in the log, so it is checked and tested here,
before anything is sent.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from ..events.codec import from_json
from ..events.commands import PolicyActivated
from ..events.errors import PolicyInvalid, UserMistake
from ..events.telemetry import RunStarted
from ..governance.applies_to import Subject, subject_of
from ..governance.policy import Policy, load_policy, policy_hash
from ..governance.policy_diff import Difference, differences
from ..producers.person import person
from ..settings import Settings
from .policy_sources import PolicySource

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

NOTHING = Policy(name="none", mode="observe", rules=())
MOST_RUNS = 10_000


class InForce(NamedTuple):
    """The policy that governs a run; `NOTHING` where none was activated yet."""

    run_id: str
    policy: Policy
    policy_hash: str
    who: str
    at: int | None


class Activation(NamedTuple):
    """What was done about one run: `left_out` says why nothing was."""

    run_id: str
    before: InForce
    policy: Policy
    policy_hash: str
    who: str
    changes: tuple[Difference, ...]
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class RunsArchive:
    """The archive, as far as policies are asked for in it."""

    client: "Client"
    settings: Settings

    def full_name(self, run: str) -> str:
        from .reading import full_name

        return full_name(self.client, run)

    def going_on(self) -> list[str]:
        """The runs that have not ended, last heard of first."""
        from ..storage.queries import list_runs

        return [row["run_id"] for row in list_runs(self.client, MOST_RUNS) if not row["outcome"]]

    def in_force(self, run_id: str) -> InForce:
        """The last policy activated for the run that can be used; the governor passes others over."""
        for event in reversed(self._events(run_id, "policy_activated")):
            if not isinstance(event, PolicyActivated):
                continue
            try:
                return InForce(run_id, load_policy(event.text), policy_hash(event.text), event.who, event.at)
            except PolicyInvalid:
                continue
        return InForce(run_id, NOTHING, "", "", None)

    def subject(self, run_id: str) -> Subject:
        """What the run said of itself when it last started."""
        started = [event for event in self._events(run_id, "run_started") if isinstance(event, RunStarted)]
        return subject_of(started[-1]) if started else Subject()

    def _events(self, run_id: str, kind: str) -> list[Any]:
        from ..storage.queries import events_of

        return [from_json(row["body"]) for row in events_of(self.client, run_id, kinds=[kind], limit=100)]


def open_runs_archive(data_dir: Path | None) -> RunsArchive:
    """
    Raises:
        StackNotRunning: nothing answers.
    """
    from .reading import open_archive

    archive = open_archive(data_dir)
    return RunsArchive(archive.client, archive.settings)


def refuse_failing(policy: Policy, source: PolicySource) -> None:
    """
    Raises:
        UserMistake: some of the policy's own tests fail.
    """
    from ..stream_processors.trial import run_trials

    failed = [outcome.trial.name for outcome in run_trials(policy, source.text) if not outcome.passed]
    if failed:
        raise UserMistake(
            f"{len(failed)} of the {len(policy.tests)} tests of {source.label} fail ({failed[0]!r}): "
            f"`pilothouse policy test {source.label}` shows how; --skip-tests activates it all the same"
        )


def activate_on(archive: RunsArchive, run_id: str, policy: Policy, text: str, *, asked_for: bool) -> Activation:
    """Put the policy into the log for one run, unless it does not apply to it or governs it already.

    Raises:
        UserMistake: the run was asked for by name, and the policy does not apply to it, or it is over.
    """
    before, who = archive.in_force(run_id), person()
    misfit = policy.applies_to.misfit(archive.subject(run_id))
    if misfit and asked_for:
        raise UserMistake(f"policy {policy.name} does not apply to run {run_id}: {misfit}")
    if asked_for:
        _refuse_ended(archive, run_id)
    changes = tuple(differences(before.policy, policy))
    left_out = misfit or ("it governs the run already" if before.policy_hash == policy_hash(text) else "")
    if not left_out:
        _send(archive, run_id, policy, text, who)
    return Activation(run_id, before, policy, policy_hash(text), who, changes, left_out)


def _refuse_ended(archive: RunsArchive, run_id: str) -> None:
    from ..storage.queries import show_run

    outcome = show_run(archive.client, run_id)["outcome"]
    if outcome:
        raise UserMistake(f"run {run_id} has ended already ({outcome})")


def _send(archive: RunsArchive, run_id: str, policy: Policy, text: str, who: str) -> None:
    from ..producers.delivery.kafka import send_fact

    send_fact(
        archive.settings,
        PolicyActivated(
            at=time.time_ns() // 1_000,
            run_id=run_id,
            writer_id=f"policy-{uuid4().hex}",
            seq=1,
            name=policy.name,
            text=text,
            policy_hash=policy_hash(text),
            who=who[:200],
        ),
    )


def as_row(activation: Activation) -> dict[str, Any]:
    """An activation for programs."""
    before, policy = activation.before, activation.policy
    return {
        "run_id": activation.run_id,
        "sent": not activation.left_out,
        "left_out": activation.left_out,
        "who": activation.who,
        "before": {"name": before.policy.name, "mode": before.policy.mode, "hash": before.policy_hash},
        "now": {"name": policy.name, "mode": policy.mode, "hash": activation.policy_hash},
        "changes": [change._asdict() for change in activation.changes],
    }
