"""The policies that runs are given when they start without one: texts of files, put into the log for replay to find.

`app` reads them once; for every run that starts ungoverned `governor` asks which of them is for it (`applies_to`) and
publishes that one on the telemetry topic. The shipped policy that only observes governs what no other is for.
"""

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, Protocol

from ..events.commands import PolicyActivated
from ..events.errors import PolicyInvalid
from ..events.telemetry import RunStarted
from ..governance.applies_to import AppliesTo, chosen, clashes, subject_of
from ..governance.policy import decoded, default_policy_text, load_policy, policy_hash, read_policy, told

SUFFIXES = (".yaml", ".yml")
MOST_BYTES = 1024**2
"""Of a policy file. What travels in the log is smaller still."""


class PolicyText(NamedTuple):
    """A policy as people wrote it."""

    name: str
    text: str

    def for_run(self, _: RunStarted) -> "PolicyText":
        """This one, whatever the run."""
        return self

    def activated(self, run_id: str, at: int) -> PolicyActivated:
        """The command that governs the run from here on. The writer is derived: saying it again is a duplicate."""
        name = f"policy-{run_id}"
        writer_id = name if len(name) <= 200 else f"policy-{sha256(run_id.encode()).hexdigest()}"
        return PolicyActivated(
            at=at,
            run_id=run_id,
            writer_id=writer_id,
            seq=1,
            name=self.name,
            text=self.text,
            policy_hash=policy_hash(self.text),
            who="settings",
        )


class Policies(Protocol):
    """Where a run's policy comes from."""

    def for_run(self, started: RunStarted) -> PolicyText:
        """The one policy that governs this run."""


class PolicySet:
    """Several policies; exactly one governs a run."""

    def __init__(self, policies: Iterable[PolicyText]) -> None:
        self.policies = tuple(policies)
        self._applying: list[tuple[AppliesTo, PolicyText]] = [
            (load_policy(policy.text).applies_to, policy) for policy in self.policies
        ]

    def for_run(self, started: RunStarted) -> PolicyText:
        return chosen(self._applying, subject_of(started)) or default_policy()


def default_policy() -> PolicyText:
    """The shipped policy that only observes."""
    text = default_policy_text()
    return PolicyText(load_policy(text).name, text)


def read_policies(path: Path | None) -> PolicySet:
    """The policy of this file, or all of this folder; without one, the shipped default for every run.

    Raises:
        PolicyInvalid: every file that cannot be read or used, and every two that could govern the same run.
    """
    if path is None:
        return PolicySet([])
    found = files_of(path)
    faults: list[str] = []
    policies = [policy for file in found if (policy := _read(file, faults)) is not None]
    faults += clashes([(policy.name, load_policy(policy.text).applies_to) for policy in policies])
    if faults:
        raise PolicyInvalid(told("the policies cannot be used", faults))
    return PolicySet(policies)


def files_of(path: Path) -> list[Path]:
    """The policy files that a path names: itself, or those in the folder.

    Raises:
        PolicyInvalid: it is a folder without any.
    """
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if not files:
        raise PolicyInvalid(f"the folder {path} has no policies: files that end in {' or '.join(SUFFIXES)}")
    return files


def text_of(file: Path) -> str:
    """The text of a policy file.

    Raises:
        PolicyInvalid: it cannot be read.
    """
    try:
        with file.open("rb") as opened:
            body = opened.read(MOST_BYTES + 1)
        if len(body) > MOST_BYTES:
            raise PolicyInvalid(f"it has more than {MOST_BYTES} bytes")
        return decoded(body)
    except OSError as error:
        raise PolicyInvalid(f"{file} cannot be read: {error.strerror or error}") from error
    except PolicyInvalid as error:
        raise PolicyInvalid(f"{file} cannot be read: {error}") from error


def _read(file: Path, faults: list[str]) -> PolicyText | None:
    try:
        text = text_of(file)
    except PolicyInvalid as error:
        faults.append(str(error))
        return None
    policy, wrong = read_policy(text)
    faults += [f"{file}: {fault}" for fault in wrong]
    return None if policy is None else PolicyText(policy.name, text)
