"""Policies: what is done when, within which bounds, who must agree. YAML for people, pydantic for its shape, CEL for
`when`.

A policy travels in the log as text (`PolicyActivated`), so that replay needs no file; `load_policy` turns that text
into a `Policy`, once per text. Called by `stream_processors.fold` when a policy is activated, by the CLI when a
person names a file; `decide` reads the result.
"""

from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..events.actions import Action
from ..events.decisions import Mode, Severity
from ..events.errors import PolicyInvalid
from . import expressions

RuleName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Steps = Annotated[int, Field(ge=0, le=1_000_000)]
MAX_POLICY_BYTES = 32_768
"""A run's state carries its policy, and the state is bounded."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def _checked(expression: str) -> str:
    if fault := expressions.check(expression):
        raise ValueError(f"{expression!r}: {fault}")
    return expression


class Limit(_Part):
    """At most `count` interventions of a rule within `window_steps` steps."""

    count: Annotated[int, Field(ge=1, le=64)] = 3
    window_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 1_000


class Approval(_Part):
    """Who must agree. A human who says nothing within `timeout_seconds` has said `default`."""

    by: Literal["auto", "human"] = "auto"
    timeout_seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    default: Literal["approve", "decline"] = "decline"


class Verify(_Part):
    """Whether an intervention helped: judged over `window_steps` steps after it was applied.

    `failure` true at any step ends the window at once as ineffective; `success` is asked at its end.
    """

    window_steps: Annotated[int, Field(ge=1, le=100_000)] = 20
    success: str = "conditions.Finite == 'True' && conditions.Stable == 'True'"
    failure: str = "conditions.Finite == 'False'"

    _expressions_are_right = field_validator("success", "failure")(_checked)


class Rule(_Part):
    """When something holds for so many steps, take the next action of the ladder, within these limits."""

    name: RuleName
    when: str
    for_steps: Annotated[int, Field(ge=1, le=10_000, alias="for")] = 1
    severity: Severity = "ticket"
    runbook: Annotated[str, Field(max_length=2_000)] = ""
    actions: Annotated[tuple[Action, ...], Field(min_length=1, max_length=8)]
    approval: Approval = Approval()
    cooldown_steps: Steps = 20
    limit: Limit = Limit()
    ttl_steps: Annotated[int, Field(ge=1, le=100_000)] = 50
    verify: Verify = Verify()

    _when_is_right = field_validator("when")(_checked)


class Policy(_Part):
    """One policy. `budget` bounds all its interventions over the whole life of a run."""

    name: RuleName
    mode: Mode = "observe"
    description: Annotated[str, Field(max_length=2_000)] = ""
    budget: Annotated[int, Field(ge=0, le=10_000)] = 20
    rules: Annotated[tuple[Rule, ...], Field(max_length=64)]

    @model_validator(mode="after")
    def _names_are_unique(self) -> "Policy":
        names = [rule.name for rule in self.rules]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"rule names must be unique, these stand twice: {', '.join(twice)}")
        return self


def policy_hash(text: str) -> str:
    """The content hash that is stamped on every decision."""
    return sha256(text.encode()).hexdigest()


def default_policy_text() -> str:
    """The policy a run gets when nobody says otherwise: it observes."""
    return files(__package__).joinpath("default_policy.yaml").read_text(encoding="utf-8")


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


@lru_cache(maxsize=256)
def load_policy(text: str) -> Policy:
    """The policy of a text.

    Raises:
        PolicyInvalid: lists every fault at once, each with its place.
    """
    if len(text.encode()) > MAX_POLICY_BYTES:
        raise PolicyInvalid(f"a policy has at most {MAX_POLICY_BYTES} bytes, this one {len(text.encode())}")
    try:
        return Policy.model_validate(_parsed(text))
    except ValidationError as error:
        faults = [f"  {_place(item['loc'])}: {item['msg'].removeprefix('Value error, ')}" for item in error.errors()]
        raise PolicyInvalid("the policy cannot be used:\n" + "\n".join(faults)) from error


def _parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise PolicyInvalid(f"the policy is not YAML: {error}") from error


def _place(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in loc) or "policy"
