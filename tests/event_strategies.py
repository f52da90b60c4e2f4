"""Hypothesis strategies for every event, built from the models themselves: a new event is covered when it is declared.

Only what a validator of several fields demands (columns of equal length, the parts of an order) is written by hand.
"""

import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, MultipleOf
from hypothesis import strategies as st
from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo

from pilothouse.events.action_surface import ActionChoice
from pilothouse.events.bounds import Bound
from pilothouse.events.commands import PIPELINE_FACTS, OperatorCommand, PipelineFact, PipelineReported
from pilothouse.events.decisions import AdviceRequested
from pilothouse.events.envelope import Event, LogPlace
from pilothouse.events.telemetry import StepBatch
from pilothouse.events.union import KINDS, AnyEvent

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=5), st.just("\ud800")
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


CHOICES = st.sampled_from(
    [
        ActionChoice.model_validate(fields)
        for fields in (
            {"action": "stop"},
            {"action": "scale_lr", "factor": {"min": 0.25, "max": 0.9, "step": 0.05}},
            {"action": "rollback", "skip_batches": 40, "lr_factor": {"one_of": [0.5, 0.7]}},
        )
    ]
)


def events(*kinds: type[Event]) -> st.SearchStrategy[AnyEvent]:
    """Any event of these classes, of all classes when none is named."""
    return st.one_of([event(kind) for kind in kinds or KINDS.values()])


def event(kind: type[Event]) -> st.SearchStrategy[Any]:
    """Any event of one class."""
    if kind is StepBatch:
        return st.integers(1, 5).flatmap(_batch)
    if kind is OperatorCommand:
        return model(kind, verb=st.sampled_from(("stop", "pause", "resume", "silence"))) | model(
            kind,
            verb=st.sampled_from(("approve", "decline", "intervene")),
            intervention_id=st.text("abc", min_size=1),
            action=_of(OperatorCommand.model_fields["action"].annotation, [], finite=True).filter(
                lambda action: action is not None
            ),
        )
    if kind is AdviceRequested:
        return model(kind, choices=st.lists(CHOICES, max_size=3).map(tuple))
    if kind is PipelineReported:
        return st.sampled_from(sorted(PIPELINE_FACTS)).flatmap(_pipeline_fact)
    return model(kind)


def _pipeline_fact(fact: PipelineFact) -> st.SearchStrategy[PipelineReported]:
    shape, number = PIPELINE_FACTS[fact], st.floats(0, 1e12)
    numbers = st.fixed_dictionaries(dict.fromkeys(shape.needs, number), optional=dict.fromkeys(shape.may, number))
    return model(PipelineReported, fact=st.just(fact), numbers=numbers)


def _batch(rows: int) -> st.SearchStrategy[StepBatch]:
    column = st.lists(st.none() | st.floats(), min_size=rows, max_size=rows).map(tuple)
    return model(
        StepBatch,
        steps=st.lists(st.integers(0, 2**62 - 1), min_size=rows, max_size=rows).map(tuple),
        times=st.lists(st.integers(0, 2**62 - 1), min_size=rows, max_size=rows).map(tuple),
        metrics=st.dictionaries(st.text(min_size=1, max_size=10), column, min_size=1, max_size=3),
    )


def model(kind: type[BaseModel], **given: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Any instance of a model; `given` replaces the strategies of single fields."""
    finite = kind.model_config.get("allow_inf_nan") is False
    required: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for name, field in kind.model_fields.items():
        strategy = given[name] if name in given else _of(field.annotation, field.metadata, finite=finite)
        target = required if field.is_required() or name in given else optional
        target[name] = strategy
    return st.fixed_dictionaries(required, optional=optional).map(lambda fields: kind(**fields))


def _of(  # noqa: PLR0911  # one return per form of annotation
    annotation: Any, metadata: list[Any], *, finite: bool
) -> st.SearchStrategy[Any]:
    """The values of one annotation within its constraints."""
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _of(inner, metadata + _flat(more), finite=finite)
    if annotation is JsonValue:
        return JSON
    arguments = get_args(annotation)
    match get_origin(annotation):
        case None:
            return _plain(annotation, metadata, finite=finite)
        case t if t is Literal:
            return st.sampled_from(arguments)
        case t if t in (Union, types.UnionType):
            return st.one_of([_of(argument, metadata, finite=finite) for argument in arguments])
        case t if t is dict:
            key, value = (_of(argument, [], finite=finite) for argument in arguments)
            return st.dictionaries(key, value, max_size=4, min_size=_bounds(metadata, MinLen, "min_length", 0))
        case t if t is tuple and arguments[-1] is not Ellipsis:
            return st.tuples(*[_of(argument, [], finite=finite) for argument in arguments])
        case t if t is tuple:
            least = _bounds(metadata, MinLen, "min_length", 0)
            return st.lists(_of(arguments[0], [], finite=finite), min_size=least, max_size=4).map(tuple)
        case unknown:
            raise NotImplementedError(f"a strategy for {unknown} of {annotation}")


def _plain(annotation: Any, metadata: list[Any], *, finite: bool) -> st.SearchStrategy[Any]:
    if annotation is LogPlace:
        return st.builds(LogPlace, st.integers(0, 9), st.integers(0, 9), st.integers(0, 2**62))
    if annotation is Bound:
        return st.sampled_from((Bound(), Bound(min=0.1, max=2.0, ratio=4.0), Bound(allowed=(1.0, 2.0), step=0.5)))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return model(annotation)
    makers: dict[Any, Callable[[], st.SearchStrategy[Any]]] = {
        type(None): st.none,
        bool: st.booleans,
        int: lambda: _integers(metadata),
        float: lambda: _floats(metadata, finite=finite),
        str: lambda: _texts(metadata),
    }
    return makers[annotation]()


def _integers(metadata: list[Any]) -> st.SearchStrategy[int]:
    below = _bounds(metadata, Lt, "lt", 2**62)
    return st.integers(_bounds(metadata, Ge, "ge", -(2**62)), _bounds(metadata, Le, "le", below - 1))


def _floats(metadata: list[Any], *, finite: bool) -> st.SearchStrategy[float]:
    least, most = _bounds(metadata, Ge, "ge", None), _bounds(metadata, Le, "le", None)
    if _bounds(metadata, MultipleOf, "multiple_of", None) is not None:  # of 1, so far
        return st.integers(int(least), int(most)).map(float)
    above = _bounds(metadata, Gt, "gt", None)
    return st.floats(
        min_value=least if above is None else above,
        max_value=most,
        exclude_min=above is not None,
        allow_nan=not finite and least is None and most is None and above is None,
        allow_infinity=None if not finite else False,
    )


def _texts(metadata: list[Any]) -> st.SearchStrategy[str]:
    least = _bounds(metadata, MinLen, "min_length", 0)
    most = _bounds(metadata, MaxLen, "max_length", 20)
    return st.text(min_size=least, max_size=max(least, min(most, 20)))


def _bounds(metadata: list[Any], kind: type, name: str, otherwise: Any) -> Any:
    return next((getattr(item, name) for item in metadata if isinstance(item, kind)), otherwise)


def _flat(metadata: list[Any]) -> list[Any]:
    flat: list[Any] = []
    for item in metadata:
        flat += item.metadata if isinstance(item, FieldInfo) else [item]
    return flat
