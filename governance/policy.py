"""Policies: what is done when, within which bounds, who must agree. YAML for people, pydantic for its shape, CEL for
`when`.

A policy travels in the log as text (`PolicyActivated`), so that replay needs no file; `load_policy` turns that text
into a `Policy`, once per text. Called by `stream_processors.fold` when a policy is activated, by the CLI when a
person names a file; `decide` reads the result.
"""

from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..events.actions import Action
from ..events.decisions import OPERATOR, Mode, Severity
from ..events.errors import PolicyInvalid
from . import expressions

RuleName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Place = tuple[int | str, ...]
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
        if OPERATOR in names:
            raise ValueError(f"no rule may be called {OPERATOR!r}: that is how the orders of people are marked")
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
    size = len(text.encode(errors="replace"))
    if size > MAX_POLICY_BYTES:
        raise PolicyInvalid(f"a policy has at most {MAX_POLICY_BYTES} bytes, this one {size}")
    parsed = _parsed(text)
    if not isinstance(parsed, dict):
        raise PolicyInvalid(f"a policy is a mapping with the keys {', '.join(Policy.model_fields)}")
    try:
        return Policy.model_validate(parsed)
    except ValidationError as error:
        raise PolicyInvalid("the policy cannot be used:\n" + "\n".join(_faults(error))) from error


class _OnceLoader(yaml.SafeLoader):
    """YAML takes the last of two equal keys in silence; in a policy that may be the wrong `mode`."""


def _mapping(loader: _OnceLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} stands twice", node.start_mark)
    return loader.construct_mapping(node, deep=True)


_OnceLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_YAML_STUMBLES = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What the YAML library raises, besides its own errors, at values that do not fit their tag (`!!int ''`)."""


def _parsed(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_OnceLoader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise PolicyInvalid(f"the policy is not YAML: {error}") from error
    except _YAML_STUMBLES as error:
        raise PolicyInvalid(f"the policy is not YAML: a value is not what its form or tag says ({error})") from error


def _faults(error: ValidationError) -> Iterator[str]:
    """One line per fault, with its place and what may stand there."""
    items = error.errors(include_url=False, include_input=False)
    for item in items:
        place, message = item["loc"], item["msg"].removeprefix("Value error, ")
        if item["type"] == "too_short" and any(
            len(other["loc"]) > len(place) == len(_shared(other["loc"], place)) for other in items
        ):
            continue  # what stands there is wrong, not missing
        if item["type"] == "extra_forbidden":
            message = f"there is no such key here; there are: {', '.join(_keys(place[:-1]))}"
        yield f"  {'.'.join(map(str, place))}: {message}"


def _shared(place: Place, other: Place) -> Place:
    return tuple(part for part, its in zip(place, other, strict=False) if part == its)


def _keys(place: Place) -> list[str]:
    """The keys that a part of a policy may have."""
    model: type[BaseModel] = Policy
    for part in place:
        if part in _ACTIONS:
            return list(_ACTIONS[str(part)].model_fields)
        model = _PARTS.get(str(part), model)
    return [field.alias or name for name, field in model.model_fields.items()]


_PARTS: dict[str, type[BaseModel]] = {"rules": Rule, "limit": Limit, "approval": Approval, "verify": Verify}
_ACTIONS: dict[str, type[BaseModel]] = {
    kind.model_fields["action"].default: kind for kind in get_args(get_args(Action)[0])
}
