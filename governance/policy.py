"""Policies: what is done when, within which bounds, who must agree. YAML for people, pydantic for its shape, CEL for
`when`.

A policy travels in the log as text (`PolicyActivated`), so that replay needs no file; `load_policy` turns that text
into a `Policy`, once per text. Called by `stream_processors.fold` when a policy is activated, by the CLI when a
person names a file; `decide` reads the result.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ..events.actions import Action
from ..events.bounds import Bound, Quantity
from ..events.decisions import Mode, Severity
from ..events.errors import PolicyInvalid
from . import expression_check, policy_checks, policy_faults
from .applies_to import AppliesTo
from .policy_advice import Advise
from .policy_yaml import Fault, Mark, plain, read_tree
from .trials import Trial

RuleName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Expression = Annotated[str, Field(min_length=1, max_length=2_000)]
Steps = Annotated[int, Field(ge=0, le=1_000_000)]
NoData = Literal["ignore", "hold", "alarm"]
MOST_COUNTED = 64
"""Interventions that a limit counts at most."""
MAX_POLICY_BYTES = 32_768
"""A run's state carries its policy, and the state is bounded."""
SHIPPED = ("observe-only", "conservative", "autonomous")
"""The policies that come with the package, the most careful first."""
DEFAULT = SHIPPED[0]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def _checked(expression: str) -> str:
    if slips := expression_check.slips(expression):
        raise PydanticCustomError("expression", "{words}", {"words": slips[0].message, "slips": slips})
    return expression


class Limit(_Part):
    """At most `count` interventions within `window_steps` steps."""

    count: Annotated[int, Field(ge=1, le=MOST_COUNTED)] = 3
    window_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000


class Approval(_Part):
    """Who must agree. A human who says nothing within `timeout_seconds` has said `default`."""

    by: Literal["auto", "human"] = "auto"
    timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    default: Literal["approve", "decline"] = "decline"


class Verify(_Part):
    """Whether an intervention helped: judged over `window_steps` steps, `initial_delay_steps` after it was applied.

    `success` is asked every `interval_steps`, the last time at the window's end, and only then where no interval is
    named; `failure` at every step. A step at which `failure` holds, or at which `success` was asked and does not hold,
    is a failed measurement: more than `failure_limit` of them end the window at once as ineffective. One that lacks
    data is neither: more than `inconclusive_limit` of those end it as inconclusive. So does whatever else changes the
    recipe within the window: its effect would be taken for this one's. What was ineffective is put back exactly where
    `on_failure` says so.
    """

    window_steps: Annotated[int, Field(ge=1, le=100_000)] = 20
    initial_delay_steps: Annotated[int, Field(ge=0, le=100_000)] = 0
    interval_steps: Annotated[int, Field(ge=1, le=100_000)] | None = None
    success: Expression = "conditions.Finite == 'True' && conditions.Stable == 'True'"
    failure: Expression = "conditions.Finite == 'False'"
    failure_limit: Annotated[int, Field(ge=0, le=1_000)] = 0
    inconclusive_limit: Annotated[int, Field(ge=0, le=1_000)] = 0
    on_failure: Literal["keep", "revert"] = "keep"

    _expressions_are_right = field_validator("success", "failure")(_checked)

    @property
    def interval(self) -> int:
        return self.interval_steps or self.window_steps

    @property
    def measurements(self) -> int:
        """How often `success` is asked."""
        return -(-self.window_steps // self.interval)

    @model_validator(mode="after")
    def _can_be_measured(self) -> Self:
        said = ""
        if self.interval > self.window_steps:
            said = f"interval_steps ({self.interval}) is longer than window_steps ({self.window_steps})"
        elif max(self.failure_limit, self.inconclusive_limit) >= self.measurements:
            said = (
                f"the limits must be less than the number of measurements, {self.measurements}: success is asked every "
                "interval_steps, and once where that is not given"
            )
        if said:
            raise PydanticCustomError("verify", "{words}", {"words": said})
        return self


class Rule(_Part):
    """When something holds for so many steps, take the next action of the ladder, within these limits.

    `no_data` says what a step counts for at which `when` cannot be answered, because the run does not have a feature
    that it needs: `ignore` (it does not hold, and the row of steps is broken), `hold` (the row neither grows nor
    breaks, and nothing is done), `alarm` (it holds). An incident that comes back within `relapse_steps` of its end is
    met with the next action of the ladder, and not with the first again.
    """

    name: RuleName
    when: Expression
    for_steps: Annotated[int, Field(ge=1, le=10_000, alias="for")] = 1
    no_data: NoData | None = None
    severity: Severity = "ticket"
    runbook: Annotated[str, Field(max_length=2_000)] = ""
    actions: Annotated[tuple[Action, ...], Field(min_length=1, max_length=8)]
    advise: Advise | None = None
    approval: Approval = Approval()
    cooldown_steps: Steps = 20
    relapse_steps: Steps = 0
    limit: Limit = Limit()
    ttl_steps: Annotated[int, Field(ge=1, le=100_000)] = 50
    verify: Verify = Verify()

    _when_is_right = field_validator("when")(_checked)


class Policy(_Part):
    """One policy. `budget` bounds all its interventions over the whole life of a run, `limit` those of all its rules in
    a window; `bounds` between which values they may leave what they change.
    """

    name: RuleName
    mode: Mode = "observe"
    description: Annotated[str, Field(max_length=2_000)] = ""
    applies_to: AppliesTo = AppliesTo()
    budget: Annotated[int, Field(ge=0, le=10_000)] = 20
    limit: Limit | None = None
    bounds: dict[Quantity, Bound] = {}
    rules: Annotated[tuple[Rule, ...], Field(max_length=64)]
    tests: Annotated[tuple[Trial, ...], Field(max_length=64)] = ()


def policy_hash(text: str) -> str:
    """The content hash that is stamped on every decision."""
    return sha256(text.encode()).hexdigest()


def shipped_policy_text(name: str) -> str:
    """The text of one of the policies in `SHIPPED`."""
    return files(__package__).joinpath("policies", f"{name}.yaml").read_text(encoding="utf-8")


def default_policy_text() -> str:
    """The policy a run gets when nobody says otherwise: it observes."""
    return shipped_policy_text(DEFAULT)


def with_mode(text: str, mode: Mode) -> str:
    """The same policy in another mode, its comments and order kept.

    Raises:
        PolicyInvalid: the text has no single top-level `mode:` line to replace.
    """
    lines = text.splitlines(keepends=True)
    places = [index for index, line in enumerate(lines) if line.startswith("mode:")]
    if len(places) != 1:
        raise PolicyInvalid("the policy must have exactly one top-level line `mode: observe|propose|enforce`")
    lines[places[0]] = f"mode: {mode}\n"
    return "".join(lines)


def dump_policy(policy: Policy) -> str:
    """A text of this policy, without what is as it would be anyway; `load_policy` gives back an equal one."""
    said = policy.model_dump(mode="json", by_alias=True, exclude_defaults=True) | {"rules": []}
    for rule in policy.rules:
        actions = [action.model_dump(mode="json", exclude_none=True) for action in rule.actions]
        said["rules"].append(rule.model_dump(mode="json", by_alias=True, exclude_defaults=True) | {"actions": actions})
    # In ASCII: of the line ends of Unicode the YAML library would make spaces.
    return yaml.safe_dump(said, sort_keys=False, width=120)


@lru_cache(maxsize=256)
def load_policy(text: str) -> Policy:
    """The policy of a text.

    Raises:
        PolicyInvalid: lists every fault at once, each with its line and column.
    """
    policy, faults = read_policy(text)
    if policy is None:
        raise PolicyInvalid(told("the policy cannot be used", faults))
    return policy


def read_policy(text: str) -> tuple[Policy | None, list[Fault]]:
    """The policy of a text, or every fault in it, in the order in which they stand."""
    size = len(text.encode(errors="replace"))
    if size > MAX_POLICY_BYTES:
        return None, [Fault(Mark(1, 1), "", f"a policy has at most {MAX_POLICY_BYTES} bytes, this one {size}")]
    tree = read_tree(text)
    if tree.root is None or not isinstance(tree.root.value, dict):
        keys = f"a policy is a mapping with the keys {', '.join(Policy.model_fields)}"
        return None, tree.faults or [Fault(tree.root.mark if tree.root else Mark(1, 1), "", keys)]
    try:
        policy: Policy | None = policy_faults.validated(Policy, plain(tree.root))
        faults = tree.faults
    except ValidationError as error:
        policy, faults = None, [*tree.faults, *policy_faults.of(error, Policy, tree.root, text)]
    faults += policy_checks.faults(tree.root, text)
    return (None if faults else policy), sorted(faults)


def told(heading: str, faults: Sequence[object]) -> str:
    """One mistake in one line; several below a heading, a line each."""
    if len(faults) == 1:
        return f"{heading}: {faults[0]}"
    return "\n  ".join([f"{heading}:", *map(str, faults)])


def decoded(body: bytes) -> str:
    """The text of a policy file.

    Raises:
        PolicyInvalid: it is not UTF-8; the line in which it ceases to be.
    """
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = body[: error.start].count(b"\n") + 1
        raise PolicyInvalid(
            f"a policy is written in UTF-8; line {line} has the byte 0x{body[error.start]:02x}"
        ) from error
