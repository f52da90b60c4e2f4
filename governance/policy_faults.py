"""From what pydantic says of a policy to lines that a person can act on: the place in the file, and what to write.

Called by `policy.read_policy`. The places come from the tree of `policy_yaml`; an expression's own slips are placed at
their characters.
"""

import json
from collections.abc import Callable, Iterator
from inspect import get_annotations
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ..events.actions import Action
from .expression_check import not_there
from .policy_yaml import Fault, Mark, Node, Path, located, place_in

M = TypeVar("M", bound=BaseModel)
ACTIONS: dict[str, type[BaseModel]] = {
    kind.model_fields["action"].default: kind for kind in get_args(get_args(Action)[0])
}
_SHOWN = 60
Context = dict[str, Any]
Say = Callable[[Any, Context], str]
"""What is said of a fault, from what stands there and what pydantic knows of it."""


def validated(model: type[M], values: Any) -> M:
    """The model of these values, strictly: a text is no number, and a truth value is none either.

    Raises:
        ValidationError: every fault at once.
    """
    # By way of JSON: pydantic's strict mode takes a list for a tuple only from there.
    return model.model_validate_json(json.dumps(values), strict=True)


def of(error: ValidationError, model: type[BaseModel], root: Node, text: str) -> Iterator[Fault]:
    """Every fault, with its place."""
    items = error.errors(include_url=False)
    for item in items:
        path = item["loc"]
        node = located(root, path)
        if item["type"] == "too_short" and any(_is_within(other["loc"], path) for other in items):
            continue  # what stands there is wrong, not missing
        if item["type"] == "expression":
            yield from _slips(item, path, node, text)
        elif item["type"] == "extra_forbidden":
            around = located(root, path[:-1])
            yield fault(around.keys.get(str(path[-1]), around.mark), path, _no_such_key(model, path))
        else:
            yield fault(node.mark, path, _said(item, path))


def _is_within(path: Path, around: Path) -> bool:
    return len(path) > len(around) and tuple(path[: len(around)]) == tuple(around)


def dotted(path: Path) -> str:
    """`rules.0.actions.1.factor`: without the names of choices, which stand in no file."""
    return ".".join(str(step) for step in path if step not in ACTIONS and step != "[key]")


def _slips(item: ErrorDetails, path: Path, node: Node, text: str) -> Iterator[Fault]:
    for slip in item["ctx"]["slips"]:
        yield fault(place_in(text, node, slip.offset), path, slip.message)


def _said(item: ErrorDetails, path: Path) -> str:
    given, context = item["input"], item.get("ctx", {})
    if item["type"] == "string_pattern_mismatch" and path[-1:] == ("name",):
        return f"got {_shown(given)}; a name is small letters, digits, - and _, begins with a letter, has at most 64"
    say = _SAYING.get(item["type"])
    return say(given, context) if say is not None else item["msg"].removeprefix("Value error, ")


def _not_among(given: Any, context: Context) -> str:
    choices = [word.strip().strip("'") for word in str(context["expected"]).replace(" or ", ", ").split(",")]
    if isinstance(given, str):
        return not_there("value", given, choices)
    return f"must be {' or '.join(choices)}, got {_shown(given)}"


def _number(what: str) -> Say:
    return lambda given, _: f"must be {what}, got {_shown(given)}{_digits(given)}"


def _bounded(how: str, key: str) -> Say:
    return lambda given, context: f"must be {how} {context[key]:g}, got {_shown(given)}"


def _shaped(what: str) -> Say:
    return lambda given, _: f"must be {what}, got {_shown(given)}"


_LIST = _shaped("a list (lines that begin with -, or [one, two])")
_MAPPING = _shaped("a mapping (key: value)")
_TRUTH = _shaped("true or false")
_SAYING: dict[str, Say] = {
    "missing": lambda _, __: "is missing",
    "union_tag_not_found": lambda _, __: f"an action says what it does: {{action: …}}; there are: {', '.join(ACTIONS)}",
    "union_tag_invalid": lambda _, context: not_there("action", str(context["tag"]), list(ACTIONS)),
    "literal_error": _not_among,
    "string_type": lambda given, _: f"must be a text, got {_shown(given)}{_quotes(given)}",
    "int_type": _number("a whole number"),
    "int_from_float": _number("a whole number"),
    "float_type": _number("a number"),
    "bool_type": _TRUTH,
    "greater_than_equal": _bounded("at least", "ge"),
    "less_than_equal": _bounded("at most", "le"),
    "greater_than": _bounded("more than", "gt"),
    "less_than": _bounded("less than", "lt"),
    "finite_number": lambda given, _: f"must be a finite number, got {_shown(given)}",
    "too_short": lambda _, context: f"needs at least {context['min_length']}, has {context['actual_length']}",
    "too_long": lambda _, context: f"may have at most {context['max_length']}",
    "string_too_short": lambda _, __: "must not be empty",
    "string_too_long": lambda _, context: f"may have at most {context['max_length']} characters",
    "tuple_type": _LIST,
    "list_type": _LIST,
    "model_type": _MAPPING,
    "dict_type": _MAPPING,
    "model_attributes_type": _MAPPING,
}
"""By the type of pydantic's error; of others its own words are good enough."""


def _quotes(given: Any) -> str:
    return f": write it in quotes, '{str(given).lower()}'" if isinstance(given, bool | int | float) else ""


def _digits(given: Any) -> str:
    if isinstance(given, str) and given.strip().replace(".", "", 1).isdigit():
        return f": write {given.strip()} without quotes"
    return f": write {int(given)}" if isinstance(given, float) and given.is_integer() else ""


def _no_such_key(model: type[BaseModel], path: Path) -> str:
    return not_there("key", str(path[-1]), _keys(_model_at(model, path[:-1])))


def _keys(model: type[BaseModel] | None) -> list[str]:
    return [field.alias or name for name, field in (model.model_fields if model else {}).items()]


def _model_at(model: type[BaseModel] | None, path: Path) -> type[BaseModel] | None:
    """The part of a policy that a path leads to."""
    for step in path:
        if step in ACTIONS:
            model = ACTIONS[str(step)]
        elif model is not None and isinstance(step, str):
            annotations = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
            others = get_annotations(model).get("__pydantic_extra__")  # where any key may stand
            model = next(_models(annotations.get(step, others)), model)
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that an annotation is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not None:
        for part in get_args(annotation):
            yield from _models(part)


def _shown(given: Any) -> str:
    match given:
        case bool():
            return str(given).lower()
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case str():
            return repr(given if len(given) <= _SHOWN else given[:_SHOWN] + "…")
        case _:
            return str(given)


def fault(mark: Mark, path: Path, message: str) -> Fault:
    """A fault at this place of the policy."""
    return Fault(mark, dotted(path), message)
