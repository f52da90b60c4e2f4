"""The runs that a policy may be activated for, as the commands of `policy` ask for them.

What governs a run, and how that is changed, is in `control_room.activation`, which the page uses as well.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..control_room import activation
from ..control_room.activation import Activation, InForce
from ..events.errors import UserMistake
from ..governance.applies_to import Subject
from ..governance.policy import Policy
from ..producers.person import person
from ..settings import Settings
from .policy_sources import PolicySource

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

MOST_RUNS = 10_000


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
        """What governs it."""
        return activation.in_force(self.client, run_id)

    def subject(self, run_id: str) -> Subject:
        """What the run said of itself when it last started."""
        return activation.subject(self.client, run_id)


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
    if failed := activation.failed_trials(policy, source.text):
        raise UserMistake(
            f"{len(failed)} of the {len(policy.tests)} tests of {source.label} fail ({failed[0]!r}): "
            f"`pilothouse policy test {source.label}` shows how; --skip-tests activates it all the same"
        )


def activate_on(archive: RunsArchive, run_id: str, text: str, *, asked_for: bool) -> Activation:
    """In the name of whoever typed it; what it raises is said there."""
    return activation.activate_on(archive.client, archive.settings, run_id, text, who=person(), asked_for=asked_for)
