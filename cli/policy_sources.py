"""What a person means by a policy on the command line: a file, a folder of them, or the name of a shipped one.

Used by the commands of `policy`. Shipped policies need no file; a file of the same name in the folder where the command
is typed goes before it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..events.errors import PolicyInvalid, UserMistake
from ..governance import policy as shipped
from ..governance.applies_to import clashes
from ..governance.policy import SHIPPED, Policy, read_policy, shipped_policy_text, told
from ..governance.policy_yaml import Fault
from ..stream_processors.policy_text import files_of, text_of

SHIPPED_IN = Path(shipped.__file__).parent / "policies"


class PolicySource(NamedTuple):
    """A policy's text, and how a person calls it."""

    label: str
    text: str


class Checked(NamedTuple):
    """What is wrong with one source; `faults` have a place in it, `trouble` has none."""

    label: str
    faults: tuple[Fault, ...] = ()
    trouble: tuple[str, ...] = ()
    rules: int = 0
    tests: int = 0

    @property
    def mistakes(self) -> int:
        return len(self.faults) + len(self.trouble)


def one_text(source: str) -> PolicySource:
    """
    Raises:
        UserMistake: it is neither a file nor a shipped policy, or a folder of several.
        PolicyInvalid: the file cannot be read.
    """
    found = texts([source])
    if len(found) != 1:
        raise UserMistake(f"{source} is a folder of {len(found)} policies: name one file in it")
    return found[0]


def texts(sources: Sequence[str]) -> list[PolicySource]:
    """The texts of all these sources, in their order.

    Raises:
        UserMistake: one is neither a file nor a shipped policy.
        PolicyInvalid: a file cannot be read.
    """
    return [PolicySource(str(file), text_of(file)) if isinstance(file, Path) else file for file in _found(sources)]


def policy_path(given: Path) -> Path:
    """Where the policies are that a stack is given: a file, a folder, or that of the shipped policy of this name."""
    return SHIPPED_IN / f"{given}.yaml" if str(given) in SHIPPED and not given.exists() else given


def named(source: PolicySource) -> Policy:
    """
    Raises:
        PolicyInvalid: everything that is wrong with it.
    """
    policy, faults = read_policy(source.text)
    if policy is None:
        raise PolicyInvalid(told(f"{source.label} cannot be used", faults))
    return policy


def checked(sources: Sequence[str]) -> list[Checked]:
    """What is wrong with each source, and with those that would govern together because they lie in one folder."""
    results: list[Checked] = []
    for source in sources:
        loaded = [(result, policy) for result, policy in map(_check, _found([source]))]
        results += [result for result, _ in loaded]
        together = [(policy.name, policy.applies_to) for _, policy in loaded if policy is not None]
        if trouble := tuple(clashes(together)):
            results.append(Checked(source, trouble=trouble))
    return results


def _check(source: Path | PolicySource) -> tuple[Checked, Policy | None]:
    label = str(source) if isinstance(source, Path) else source.label
    try:
        text = text_of(source) if isinstance(source, Path) else source.text
    except PolicyInvalid as error:
        return Checked(label, trouble=(str(error).removeprefix(f"{label} "),)), None
    policy, faults = read_policy(text)
    if policy is None:
        return Checked(label, faults=tuple(faults)), None
    return Checked(label, rules=len(policy.rules), tests=len(policy.tests)), policy


def _found(sources: Sequence[str]) -> list[Path | PolicySource]:
    found: list[Path | PolicySource] = []
    for source in sources:
        if Path(source).exists():
            found += files_of(Path(source))
        elif source in SHIPPED:
            found.append(PolicySource(source, shipped_policy_text(source)))
        else:
            raise UserMistake(f"there is no file {source!r}; policies that are shipped: {', '.join(SHIPPED)}")
    return found
