"""From a policy's text to the log: what governs a run, and the record that changes it.

Used by the commands of `policy` and by the control room's page. The governor takes the text as it stands in the log, so
it is checked and tested before anything is sent.
"""

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from ..events.codec import from_json
from ..events.commands import PolicyActivated
from ..events.errors import PolicyInvalid, UserMistake
from ..events.telemetry import RunStarted
from ..governance.applies_to import Subject, subject_of
from ..governance.policy import Policy, load_policy, policy_hash
from ..governance.policy_diff import Difference, differences
from ..settings import Settings
from ..storage.named import ask
from ..storage.queries import events_of, known_run
from .orders import refuse_ended

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

NOTHING = Policy(name="none", mode="observe", rules=())


class InForce(NamedTuple):
    """The policy that governs a run, with its text; `NOTHING` where none was activated yet."""

    run_id: str
    policy: Policy
    policy_hash: str
    who: str
    at: int | None
    text: str = ""


class Activation(NamedTuple):
    """What was done about one run: `left_out` says why nothing was."""

    run_id: str
    before: InForce
    policy: Policy
    policy_hash: str
    who: str
    changes: tuple[Difference, ...]
    left_out: str = ""


@lru_cache(256)
def usable(text: str) -> Policy | None:
    """The policy of a text; none where it cannot be used."""
    try:
        return load_policy(text)
    except PolicyInvalid:
        return None


def in_force(client: "Client", run_id: str) -> InForce:
    """The last policy activated for the run that can be used; the governor passes others over."""
    known_run(client, run_id)
    for row in ask(client, "policies_of_run", run=run_id):
        if (policy := usable(row["text"])) is not None:
            return InForce(run_id, policy, policy_hash(row["text"]), row["who"], row["at"], row["text"])
    return InForce(run_id, NOTHING, "", "", None)


def subject(client: "Client", run_id: str) -> Subject:
    """What the run said of itself when it last started."""
    told = [from_json(row["body"]) for row in events_of(client, run_id, kinds=["run_started"], limit=100)]
    started = [event for event in told if isinstance(event, RunStarted)]
    return subject_of(started[-1]) if started else Subject()


def failed_trials(policy: Policy, text: str) -> list[str]:
    """The names of the policy's own tests that fail."""
    from ..stream_processors.trial import run_trials

    return [outcome.trial.name for outcome in run_trials(policy, text) if not outcome.passed]


def activate_on(  # noqa: PLR0913  # a record's fields
    client: "Client", settings: Settings, run_id: str, text: str, *, who: str, asked_for: bool
) -> Activation:
    """Put the policy into the log for one run, unless it does not apply to it or governs it already.

    Raises:
        PolicyInvalid: the text is no policy.
        UserMistake: the run was asked for by name, and the policy does not apply to it, or it is over.
        BrokerUnavailable: it could not be delivered.
    """
    policy, before = load_policy(text), in_force(client, run_id)
    misfit = policy.applies_to.misfit(subject(client, run_id))
    if misfit and asked_for:
        raise UserMistake(f"policy {policy.name} does not apply to run {run_id}: {misfit}")
    if asked_for:
        refuse_ended(client, run_id)
    left_out = misfit or ("it governs the run already" if before.policy_hash == policy_hash(text) else "")
    if not left_out:
        _send(settings, run_id, policy, text, who)
    changes = tuple(differences(before.policy, policy))
    return Activation(run_id, before, policy, policy_hash(text), who, changes, left_out)


def _send(settings: Settings, run_id: str, policy: Policy, text: str, who: str) -> None:
    from ..producers.delivery.kafka import send_fact

    send_fact(
        settings,
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
