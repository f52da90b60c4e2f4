"""What an advisor may choose from: actions whose numbers lie within bounds that a policy drew.

It stands in a policy (`advise.choose_from`) and, word for word, in `AdviceRequested`, so that whoever is asked knows
what would be taken. An answer is held against it twice: by the worker of the advisor, and by the fold that takes it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from .actions import ACTIONS, Action

KINDS: Mapping[str, type[BaseModel]] = {kind.model_fields["action"].default: kind for kind in ACTIONS}
NOT_CHOSEN = ("notify", "resume", "revert")
"""An advisor's words are shown anyway; who paused a run says when it goes on; what is reverted is the governor's."""
CLOSE = 1e-9


def _as_tuple(value: object) -> object:
    """Behind a validator of ours even pydantic's JSON mode wants a tuple, where it is strict."""
    return tuple(value) if isinstance(value, list) else value


class NumberChoice(BaseModel):
    """What one number of an action may be: from `min` to `max`, in multiples of `step` above `min` where there is one,
    or `one_of` some values. In a policy a bare number is the one value there is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min: float | None = None
    max: float | None = None
    step: Annotated[float, Field(gt=0.0)] | None = None
    one_of: Annotated[tuple[float, ...], Field(max_length=64), BeforeValidator(_as_tuple)] = ()

    @model_validator(mode="after")
    def _is_one_or_the_other(self) -> "NumberChoice":
        if self.one_of:
            if (self.min, self.max, self.step) != (None, None, None):
                raise _wrong("one_of stands alone: without min, max and step")
        elif self.min is None or self.max is None:
            raise _wrong("write {min: …, max: …}, {one_of: [...]}, or one number")
        elif self.max < self.min:
            raise _wrong(f"min is {self.min:g} and max {self.max:g}")
        return self

    def ends(self) -> tuple[float, ...]:
        """Values that, if an action takes them, it takes all."""
        return self.one_of or (_given(self.min), _given(self.max))

    def admits(self, value: float) -> bool:
        if self.one_of:
            return any(math.isclose(value, known, rel_tol=CLOSE) for known in self.one_of)
        least, most = _given(self.min), _given(self.max)
        if not least <= value <= most:
            return False
        steps = 0.0 if self.step is None else (value - least) / self.step
        return abs(steps - round(steps)) <= CLOSE * max(1.0, abs(steps))

    def __str__(self) -> str:
        if self.one_of:
            return " or ".join(f"{value:g}" for value in self.one_of)
        steps = "" if self.step is None else f" in steps of {self.step:g}"
        return f"{_given(self.min):g} to {_given(self.max):g}{steps}"


def _number_choice(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"one_of": (value,)} if is_number else value


Drawn = Annotated[NumberChoice, BeforeValidator(_number_choice, json_schema_input_type=float | NumberChoice)]


class ActionChoice(BaseModel):
    """One kind of action and, by the names of its numbers, their bounds: `{action: scale_lr, factor: {min: 0.25, max:
    0.9}}`. A number that has a value by default and is not named has that one.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    __pydantic_extra__: dict[str, Drawn] = Field(init=False)
    action: Annotated[str, Field(json_schema_extra={"enum": [kind for kind in KINDS if kind not in NOT_CHOSEN]})]

    @model_validator(mode="after")
    def _is_of_the_action(self) -> "ActionChoice":
        kind = KINDS.get(self.action)
        if kind is None or self.action in NOT_CHOSEN:
            there_are = ", ".join(name for name in KINDS if name not in NOT_CHOSEN)
            raise _wrong(f"{self.action!r} is nothing to choose; there are: {there_are}")
        for fault in _faults(kind, self.numbers):
            raise _wrong(f"{self.action}: {fault}")
        return self

    @property
    def numbers(self) -> Mapping[str, NumberChoice]:
        """What each may be, by its name."""
        return self.__pydantic_extra__

    def refusal(self, action: Action) -> str | None:
        """Why an action of this kind is outside; None where it is within."""
        for name, field in type(action).model_fields.items():
            value = getattr(action, name)
            if name in self.numbers:
                if not self.numbers[name].admits(value):
                    return f"{name} {value:g} is not {self.numbers[name]}"
            elif name != "action" and value != field.default:
                return f"{name} is not to be chosen: it is {field.default}"
        return None

    def __str__(self) -> str:
        return " ".join([self.action, *(f"{name} {choice}" for name, choice in self.numbers.items())])


Choices = Annotated[tuple[ActionChoice, ...], Field(max_length=16)]


def refusal(choices: Sequence[ActionChoice], action: Action) -> str | None:
    """Why none of these choices has room for an action; None where one has."""
    reasons = [choice.refusal(action) for choice in choices if choice.action == action.action]
    if None in reasons:
        return None
    if reasons:
        return f"{action.action}: {'; '.join(filter(None, reasons))}"
    return f"{action.action} is not among what may be chosen: {', '.join(choice.action for choice in choices) or '–'}"


def _faults(kind: type[BaseModel], bounds: Mapping[str, NumberChoice]) -> Iterator[str]:
    numbers = {name: field for name, field in kind.model_fields.items() if field.annotation in (int, float)}
    yield from (
        f"there is no {name!r} to bound; there is: {', '.join(numbers) or 'none'}"
        for name in bounds
        if name not in numbers
    )
    for name, field in kind.model_fields.items():
        if field.is_required() and name not in bounds:
            yield (
                f"{name!r} needs bounds" if name in numbers else f"{name!r} is no number, so that nobody can choose it"
            )
    if not bounds.keys() - numbers.keys():
        yield from _beyond(kind, bounds)


def _beyond(kind: type[BaseModel], bounds: Mapping[str, NumberChoice]) -> Iterator[str]:
    """Where the bounds go further than the action itself does."""
    first = {name: drawn.ends()[0] for name, drawn in bounds.items()}
    for name, drawn in bounds.items():
        for value in drawn.ends():
            try:
                kind.model_validate(first | {name: value})
            except ValidationError as error:
                yield from (f"{name} {value:g}: {each['msg']}" for each in error.errors() if each["loc"] == (name,))


def _given(value: float | None) -> float:
    assert value is not None, "the validator has seen to it"
    return value


def _wrong(words: str) -> PydanticCustomError:
    return PydanticCustomError("action_choice", "{words}", {"words": words})


def as_fields(action: Action) -> dict[str, Any]:
    """What of an action is chosen: its kind and its numbers."""
    return {name: value for name, value in action.model_dump().items() if value is not None and name != "checkpoint"}
